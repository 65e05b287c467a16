//! What has Python code run. Rust's threads have no GIL: they leave a job to an event loop's thread ([`super::event_loop`]), or to a
//! thread of ours for what blocks ([`super::threads`]).
//!
//! Neither queue needs a bound of its own: a job belongs to a waiting task, an outgoing request or a body, and each of those has at
//! most two jobs under way.

use std::sync::Arc;

use pyo3::prelude::*;

/// Something to do under the GIL.
pub trait Job: Send + Sync {
    /// On a loop's thread, or on one of [`super::threads::Threads`].
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()>;

    /// The loop that it was for has closed. Needs no GIL.
    fn abandon(self: Arc<Self>) {}

    /// Whether it begins a task: a loop begins some in each round, or it would do nothing else.
    fn begins_task(&self) -> bool {
        false
    }

    /// Whether exit gives it some time: lines and ends of exchanges are told, and bodies that nobody wants more of are closed. Whoever
    /// answers a guest works for one that is gone.
    fn is_waited_for_at_exit(&self) -> bool {
        false
    }
}

/// Runs it; what it raises has nobody else to go to.
pub(crate) fn run(job: Arc<dyn Job>, py: Python<'_>) {
    if let Err(error) = job.run(py) {
        error.write_unraisable(py, None);
    }
}

/// Something that waits for code on an event loop. Told, from any thread, that the loop has closed.
pub trait Abandon: Send + Sync {
    fn abandon(&self);
}

/// What a guest, or its caller, is told then.
pub(crate) const LOOP_CLOSED: &str = "the event loop that should answer has closed";
