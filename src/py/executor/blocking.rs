//! Waiting on a thread of Python's: without the GIL, and with an eye on signals.

use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyTimeoutError, PyValueError};
use pyo3::prelude::*;

use crate::py::executor::exit::is_exiting_elsewhere;
use crate::py::held::detach;

/// How often a blocked call looks for signals (Ctrl-C).
const SIGNALS: Duration = Duration::from_millis(50);

/// Threads of Python's that are in here.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// A thread of Python's that is in here, where it may give a guest a turn, or set a timer: exit waits for it before it stops the runtime,
/// which a guest must not meet on its way out. It does not wait for those that wait [`outside`]: they sleep on.
pub(crate) struct Inside(PhantomData<*const ()>);

impl Inside {
    pub(crate) fn enter() -> Self {
        crate::py::executor::finalization::protect();
        let depth = DEPTH.get();
        DEPTH.set(depth + 1);
        if depth == 0 {
            INSIDE.fetch_add(1, Ordering::SeqCst);
        }
        Self(PhantomData)
    }

    /// Before it goes on, or back to Python.
    pub(crate) fn check(&self, py: Python<'_>) {
        if is_exiting_elsewhere() {
            detach(py, sleep_on_if_exiting);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        if depth == 0 {
            INSIDE.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Waits without the GIL. If the interpreter begins to exit meanwhile, this thread stays asleep.
fn outside(wait: impl FnOnce()) {
    INSIDE.fetch_sub(1, Ordering::SeqCst);
    wait();
    INSIDE.fetch_add(1, Ordering::SeqCst);
    sleep_on_if_exiting();
}

/// A daemon thread that is in here when the interpreter exits stays asleep. With an error, since its guest was stopped, it would
/// run into the finalization, and print into a stream that is being taken away.
fn sleep_on_if_exiting() {
    if is_exiting_elsewhere() {
        INSIDE.fetch_sub(1, Ordering::SeqCst);
        loop {
            std::thread::park();
        }
    }
}

/// For exit: waits until no other thread is in here, but not longer than this.
pub(crate) fn wait_for_others(most: Duration) {
    let own = usize::from(DEPTH.get() > 0);
    let deadline = Instant::now() + most;
    while INSIDE.load(Ordering::SeqCst) > own && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// In a forked child: the parent's other threads do not exist.
pub(crate) fn forget_others() {
    INSIDE.store(usize::from(DEPTH.get() > 0), Ordering::SeqCst);
}

/// Polls until ready, without the GIL while it waits. Signals interrupt it: then the error is theirs.
pub(crate) fn block_on<T: Send>(py: Python<'_>, poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Send) -> PyResult<T> {
    block_on_until(py, None, poll)
}

/// When so many seconds will have passed; None: never.
pub(crate) fn deadline(seconds: Option<f64>) -> PyResult<Option<Instant>> {
    match seconds {
        Some(seconds) if seconds.is_nan() || seconds < 0.0 => {
            Err(PyValueError::new_err(format!("a timeout must be a number of seconds, zero or more: {seconds}")))
        }
        Some(seconds) => {
            Ok(Duration::try_from_secs_f64(seconds).ok().and_then(|wait| Instant::now().checked_add(wait)))
        }
        None => Ok(None),
    }
}

/// The same until a time has come; then `TimeoutError`.
pub(crate) fn block_on_until<T: Send>(
    py: Python<'_>,
    deadline: Option<Instant>,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T> + Send,
) -> PyResult<T> {
    let inside = Inside::enter();
    if let Poll::Ready(ready) = poll(&mut Context::from_waker(Waker::noop())) {
        inside.check(py);
        return Ok(ready);
    }
    let _lent = crate::py::executor::threads::lend(py)?;
    let parked = Parked::here();
    let waker = Waker::from(parked.clone());
    loop {
        let ready = detach(py, || {
            let ready = poll(&mut Context::from_waker(&waker));
            if ready.is_pending() {
                let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
                outside(|| parked.park(left.map_or(SIGNALS, |left| left.min(SIGNALS))));
            }
            sleep_on_if_exiting();
            ready
        });
        match ready {
            Poll::Ready(ready) => return Ok(ready),
            Poll::Pending => py.check_signals()?,
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(PyTimeoutError::new_err("timed out waiting for the guest"));
        }
    }
}

/// The same for what needs the GIL to be polled.
pub(crate) fn block_on_python<T>(
    py: Python<'_>,
    mut poll: impl FnMut(Python<'_>, &mut Context<'_>) -> Poll<T>,
) -> PyResult<T> {
    let _inside = Inside::enter();
    let parked = Parked::here();
    let waker = Waker::from(parked.clone());
    loop {
        if let Poll::Ready(ready) = poll(py, &mut Context::from_waker(&waker)) {
            return Ok(ready);
        }
        detach(py, || outside(|| parked.park(SIGNALS)));
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
