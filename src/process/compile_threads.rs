//! Compiling on all cores where threads can be had for it, else on the calling thread.
//!
//! wasmtime compiles on rayon's global pool, which panics, now and ever after, if its threads cannot be started. So it is made here
//! before the first compilation.

use std::sync::OnceLock;

static POOL: OnceLock<bool> = OnceLock::new();

/// Whether there are threads to compile on: none in a forked child. They are as many as the process may use CPUs at once: by its
/// affinity and the quota of its control group.
pub(crate) fn have_threads() -> bool {
    if crate::process::fork::generation() != 0 {
        return false; // they are the first process's; whichever of its threads was making them does not exist here
    }
    if let Some(made) = POOL.get() {
        return *made;
    }
    if crate::process::fork::can_start_thread().is_err() {
        return false; // next time, perhaps
    }
    *POOL.get_or_init(|| {
        rayon_core::ThreadPoolBuilder::new()
            .num_threads(std::thread::available_parallelism().map_or(1, usize::from))
            .thread_name(|number| format!("wasgi-compile-{number}"))
            .start_handler(|_| crate::process::signals::open_here())
            .build_global()
            .is_ok()
    })
}
