//! How Rust's threads get Python code run: as jobs on an event loop's thread ([`crate::py::executor::event_loop`]), or on a thread of ours for
//! what blocks ([`crate::py::executor::threads`]).
//!
//! Both take jobs without the GIL. Neither queue needs a bound of its own: a job belongs to a waiting task, an outgoing
//! request or a body, and each of those has at most two jobs under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::py::message::feed::Feed;
use crate::py::executor::finalization::is_finalizing;
use crate::py::executor::event_loop::{self, LoopCore};
use crate::py::executor::serial::Work;
use crate::py::executor::threads;
use crate::py::outgoing::callable::{Call, OutgoingCall};

/// Something to do under the GIL.
pub enum Job {
    /// A task's wait is over: the loop's own job, by the number of the future.
    Wake(u64),
    /// An outgoing request is to be answered.
    Call(Arc<Call>),
    /// A blocking upstream gave an awaitable: the loop goes on with it.
    Finish(Arc<Call>, Py<OutgoingCall>, Py<PyAny>),
    /// Nobody waits for that answer any more.
    CancelCall(Arc<Call>),
    /// A body's next chunk is wanted, or nobody wants it any more.
    Feed(Arc<Feed>),
    /// Callables of the user's are to be called in order: a guest has printed, an exchange is over.
    Serial(Arc<dyn Work>),
    /// Whether that loop still runs, for what waits for it.
    Look(Arc<LoopCore>),
}

impl Job {
    /// On a loop's thread, or on one of [`Threads`].
    pub fn run(self, py: Python<'_>) {
        let result = match self {
            Self::Wake(_) => Ok(()),
            Self::Call(call) => call.begin(py),
            Self::Finish(call, handle, awaitable) => call.go_on(py, handle, awaitable),
            Self::CancelCall(call) => call.cancel(py),
            Self::Feed(feed) => feed.turn(py),
            Self::Serial(calls) => {
                calls.work(py);
                Ok(())
            }
            Self::Look(core) => core.look(py),
        };
        if let Err(error) = result {
            error.write_unraisable(py, None);
        }
    }

    /// Whether exit gives it some time: lines and ends of exchanges are told, and bodies that nobody wants more of are closed. Whoever
    /// answers a guest works for one that is gone.
    pub fn is_waited_for_at_exit(&self) -> bool {
        match self {
            Self::Serial(_) => true,
            Self::Feed(feed) => feed.is_gone(),
            _ => false,
        }
    }

    /// The loop that it was for has closed. Needs no GIL.
    pub fn abandon(self) {
        match self {
            Self::Call(call) | Self::Finish(call, ..) => call.abandon(),
            Self::Feed(feed) => feed.abandon(),
            Self::Wake(_) | Self::CancelCall(_) | Self::Serial(_) | Self::Look(_) => {}
        }
    }
}

/// Something that waits for code on an event loop. Told, from any thread, that the loop has closed.
pub trait Abandon: Send + Sync {
    fn abandon(&self);
}

/// What a guest, or its caller, is told then.
pub const LOOP_CLOSED: &str = "the event loop that was to answer has closed";

/// Where a job goes.
#[derive(Clone)]
pub enum Lane {
    Loop(Arc<LoopCore>),
    Threads,
}

impl Lane {
    pub fn submit(&self, job: Job) {
        match self {
            Self::Loop(core) => core.submit(job),
            Self::Threads => threads::threads().submit(job),
        }
    }
}

/// Set when the interpreter is about to exit.
static EXITING: AtomicBool = AtomicBool::new(false);
/// By which thread: its own handlers of exit may ask guests still, and are told that it is too late.
static EXITING_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// Whether another thread than this one is about to end the interpreter.
pub fn is_exiting_elsewhere() -> bool {
    EXITING.load(Ordering::SeqCst) && EXITING_THREAD.get() != Some(&std::thread::current().id())
}

pub fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst)
}

/// Whether this module's hooks for exit and fork are to be registered: once, however often the package is imported.
#[pyfunction]
pub fn _is_first_import() -> bool {
    static IMPORTED: AtomicBool = AtomicBool::new(false);
    !IMPORTED.swap(true, Ordering::SeqCst)
}

/// When no more Python code should be begun, for it would run into the interpreter's finalization.
static LAST_CALL: OnceLock<Instant> = OnceLock::new();

pub fn is_too_late() -> bool {
    LAST_CALL.get().is_some_and(|last| Instant::now() > *last)
}

/// For `os.register_at_fork`.
#[pyfunction]
pub fn _before_fork(py: Python<'_>) {
    py.detach(crate::engine::before_fork);
}

/// Likewise, in the parent.
#[pyfunction]
pub fn _after_fork_in_parent() {
    crate::engine::after_fork_in_parent();
}

/// For `os.register_at_fork`: the child starts without the parent's threads.
#[pyfunction]
pub fn _after_fork() {
    crate::engine::after_fork();
    threads::forget();
    event_loop::forget();
    crate::py::component::threads::forget();
    crate::py::stats::forget();
    crate::py::executor::blocking::forget_others();
}

/// For `atexit`: guests stop, then the threads that ran their Python side.
#[pyfunction]
pub fn _shut_down(py: Python<'_>) {
    const BOUND: Duration = Duration::from_secs(1);
    let _ = EXITING_THREAD.set(std::thread::current().id());
    EXITING.store(true, Ordering::SeqCst);
    let _ = LAST_CALL.set(Instant::now() + BOUND.mul_f64(0.8));
    if is_finalizing() {
        // another interpreter than the main one that nobody has destroyed: a thread that lets go of the GIL now does not come back
        if let Some(world) = crate::engine::existing() {
            world.runtime.shut_down(Duration::ZERO);
        }
        return;
    }
    py.detach(|| {
        // a guest that has its turn on another thread would find timers of a runtime that is gone
        crate::py::executor::blocking::wait_for_others(BOUND);
        if let Some(world) = crate::engine::existing() {
            world.shut_down(BOUND);
        }
        threads::close(BOUND);
    });
}
