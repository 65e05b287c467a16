//! Memory goes back to the system after exchanges that had the host take much of it. The allocator keeps what is freed in small pieces,
//! and a process that once had many heavy exchanges would stay as large as they were.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::process::runtime::Runtime;

/// An exchange that had the host hold as much as this is worth the time it takes.
pub(crate) const HEAVY: u64 = 8 << 20;

/// How long is waited for others that end, so that it happens once for all of them: it takes milliseconds.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether it is about to be done.
#[derive(Default)]
pub(crate) struct Trimming(AtomicBool);

impl Trimming {
    /// Has it done soon, on a thread of its own: seldom, and no task or thread of the runtime's is to wait for it at the end. It takes the
    /// allocator's locks, so it is not to have the low priority of a guest's thread: then a worker starts it.
    pub(crate) fn ask(&'static self, runtime: &Runtime) {
        if self.0.swap(true, Ordering::Relaxed) {
            return;
        }
        match runtime.handle() {
            Ok(worker) if crate::scheduler::is_guests_thread() => drop(worker.spawn(async { self.start() })),
            _ => self.start(),
        }
    }

    fn start(&'static self) {
        let work = || {
            std::thread::sleep(PAUSE);
            self.0.store(false, Ordering::Relaxed);
            trim();
        };
        if std::thread::Builder::new().name("wasgi-trim".into()).stack_size(64 << 10).spawn(work).is_err() {
            self.0.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: it takes no pointer, and may be called by any thread at any time.
    unsafe { libc::malloc_trim(0) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}
