//! Whether the interpreter is about to exit, and who ends it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

/// Set when the interpreter is about to exit.
static EXITING: AtomicBool = AtomicBool::new(false);

/// By which thread: its own handlers of exit may ask guests still, and are told that it is too late.
static EXITING_THREAD: OnceLock<ThreadId> = OnceLock::new();

/// When no more Python code should be begun, for it would run into the interpreter's finalization.
static LAST_CALL: OnceLock<Instant> = OnceLock::new();

/// Exit begins, on this thread. Python code may be begun for so long.
pub(crate) fn begin(last_call: Duration) {
    let _ = EXITING_THREAD.set(std::thread::current().id());
    EXITING.store(true, Ordering::SeqCst);
    let _ = LAST_CALL.set(Instant::now() + last_call);
}

pub(crate) fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst)
}

/// Whether another thread than this one is about to end the interpreter.
pub(crate) fn is_exiting_elsewhere() -> bool {
    EXITING.load(Ordering::SeqCst) && EXITING_THREAD.get() != Some(&std::thread::current().id())
}

pub(crate) fn is_too_late() -> bool {
    LAST_CALL.get().is_some_and(|last| Instant::now() > *last)
}
