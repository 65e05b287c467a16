//! The interpreter's exit and forks: what is stopped, and what a child leaves to its parent.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::py::executor::finalization::is_finalizing;
use crate::py::executor::{blocking, exit, loop_bridge, threads};
use crate::py::held::detach;

/// Whether this module's hooks for exit and fork are to be registered: once, however often the package is imported.
#[pyfunction]
pub(crate) fn _is_first_import() -> bool {
    static IMPORTED: AtomicBool = AtomicBool::new(false);
    !IMPORTED.swap(true, Ordering::SeqCst)
}

/// For `os.register_at_fork`.
#[pyfunction]
pub(crate) fn _before_fork(py: Python<'_>) {
    detach(py, crate::engine::before_fork);
}

/// Likewise, in the parent.
#[pyfunction]
pub(crate) fn _after_fork_in_parent() {
    crate::engine::after_fork_in_parent();
}

/// For `os.register_at_fork`: the child starts without the parent's threads.
#[pyfunction]
pub(crate) fn _after_fork() {
    crate::engine::after_fork();
    threads::forget();
    loop_bridge::forget();
    crate::py::component::threads::forget();
    crate::py::counters::forget();
    blocking::forget_others();
}

/// For `atexit`: servers end, guests stop, then the threads that ran their Python side.
#[pyfunction]
pub(crate) fn _shut_down(py: Python<'_>) {
    const BOUND: Duration = Duration::from_secs(1);
    let servers = crate::py::server::end_all(py);
    exit::begin(BOUND.mul_f64(0.8));
    if is_finalizing() {
        // another interpreter than the main one that nobody has destroyed: a thread that lets go of the GIL now does not come back
        if let Some(process) = crate::engine::existing() {
            process.runtime.shut_down(Duration::ZERO);
        }
        return;
    }
    detach(py, || {
        // without the engine they would answer that it is gone
        let until = Instant::now() + BOUND.mul_f64(0.2);
        while servers.iter().any(|server| !server.has_ended()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        drop(servers);
        // a guest that has its turn on another thread would find timers of a runtime that is gone
        blocking::wait_for_others(BOUND);
        if let Some(process) = crate::engine::existing() {
            process.shut_down(BOUND);
        }
        threads::close(BOUND);
    });
}
