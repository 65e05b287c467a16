//! Waiting on a thread of Python's: without the GIL, and with an eye on signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyTimeoutError;
use pyo3::prelude::*;

use super::bridge::is_exiting;

/// How often a blocked call looks for signals (Ctrl-C).
const SIGNALS: Duration = Duration::from_millis(50);

/// Polls until ready, without the GIL while it waits. Signals interrupt it: then the error is theirs.
pub fn block_on<T: Send>(py: Python<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Send) -> PyResult<T> {
    block_on_until(py, None, poll)
}

/// When so many seconds will have passed.
pub fn deadline(seconds: Option<f64>) -> Option<Instant> {
    Instant::now().checked_add(Duration::try_from_secs_f64(seconds?).ok()?)
}

/// The same until a time has come; then `TimeoutError`.
pub fn block_on_until<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Send,
) -> PyResult<T> {
    if let Poll::Ready(ready) = poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(ready);
    }
    let exiting = is_exiting();
    let _lent = super::threads::lend(py)?;
    let parked = Parked::here();
    let waker = Waker::from(parked.clone());
    loop {
        let ready = py.detach(|| {
            let ready = poll(&mut Context::from_waker(&waker));
            if ready.is_pending() {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                parked.park(left.map_or(SIGNALS, |left| left.min(SIGNALS)));
            }
            ready
        });
        match ready {
            // The guest was stopped because the interpreter exits: a daemon thread that waited for it stays asleep.
            // Woken with an error it would run into the finalization, and print into a stream that is being taken away.
            Poll::Ready(_) if is_exiting() && !exiting => py.detach(|| {
                loop {
                    std::thread::park();
                }
            }),
            Poll::Ready(ready) => return Ok(ready),
            Poll::Pending => py.check_signals()?,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(PyTimeoutError::new_err("the time to wait is over"));
        }
    }
}

/// The same for what needs the GIL to be polled.
pub fn block_on_python<T>(
    py: Python<'_>,
    mut poll: impl FnMut(Python<'_>, &mut Context<'_>) -> Poll<T>,
) -> PyResult<T> {
    let parked = Parked::here();
    let waker = Waker::from(parked.clone());
    loop {
        if let Poll::Ready(ready) = poll(py, &mut Context::from_waker(&waker)) {
            return Ok(ready);
        }
        py.detach(|| parked.park(SIGNALS));
        py.check_signals()?;
    }
}

struct Parked {
    thread: std::thread::Thread,
    woken: AtomicBool,
}

impl Parked {
    fn here() -> Arc<Self> {
        Arc::new(Self { thread: std::thread::current(), woken: AtomicBool::new(false) })
    }

    /// Until it is woken, but no longer than this.
    fn park(&self, most: Duration) {
        if !self.woken.swap(false, Ordering::AcqRel) {
            std::thread::park_timeout(most);
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
