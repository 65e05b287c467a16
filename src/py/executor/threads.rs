//! Python threads for code that blocks.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyTuple};

use crate::error::Error;
use crate::process::fork::{PerProcess, no_thread};
use crate::py::errors::to_py;
use crate::py::executor::job::{self, Job};
use crate::py::held::detach;
use crate::py::lock;

/// Python threads for code that blocks: synchronous upstreams, iterators and files as bodies, sinks of output.
pub(crate) struct Threads {
    state: Mutex<Queue>,
    filled: Condvar,
    /// What exit waits for has been done.
    done: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Arc<dyn Job>>,
    idle: usize,
    threads: usize,
    /// Jobs that exit waits for, under way.
    waited_for: usize,
    /// Those that wait for somebody else: for a guest, or for a chunk of a body.
    lent: usize,
    closed: bool,
}

impl Queue {
    fn may_grow(&self) -> bool {
        self.idle == 0 && !self.closed && self.threads < most_threads() + self.lent.min(MOST_LENT)
    }
}

/// What a thread that is started finds: that it counts, or that whoever has started it has given up.
const COUNTED: u8 = 0;
const BEGUN: u8 = 1;
const UNCOUNTED: u8 = 2;

/// How many threads may wait for others before none is started for them any more.
const MOST_LENT: usize = 256;

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// Held by a thread of ours that waits for somebody else.
pub(crate) struct Lent(());

/// A synchronous upstream that calls a component keeps its thread for as long as that one runs, whose upstream may need a thread
/// as well: a chain of them must not end where the threads do. A body that is read from a slow client keeps one, too, and must
/// not keep others from theirs. To be called before a thread waits.
pub(crate) fn lend(py: Python<'_>) -> PyResult<Option<Lent>> {
    if !IS_OURS.get() {
        return Ok(None);
    }
    let threads = threads();
    let spare = {
        let mut state = lock(&threads.state);
        if state.lent >= MOST_LENT {
            // better than to wait for what no thread is left to do
            let text = format!("{MOST_LENT} threads for blocking code are waiting already");
            return Err(to_py(py, &Error::Overloaded(text)));
        }
        state.lent += 1;
        let spare = state.may_grow();
        if spare {
            state.threads += 1;
        }
        spare
    };
    let lent = Lent(());
    if spare {
        threads.spawn(py)?;
    }
    Ok(Some(lent))
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut state = lock(&threads().state);
        state.lent = state.lent.saturating_sub(1); // a forked child's threads have lent nothing of its parent's
    }
}

static THREADS: PerProcess<Threads> = PerProcess::new();
static LIVE_THREADS: AtomicUsize = AtomicUsize::new(0);

/// In a forked child.
pub(crate) fn forget() {
    THREADS.forget();
}

/// No more jobs after those that are there; waits until those that tell of something are done, but not longer than `bound`.
pub(crate) fn close(bound: Duration) {
    if let Some(threads) = THREADS.existing() {
        threads.close(bound);
    }
}

/// How many there are.
pub(crate) fn count() -> usize {
    THREADS.existing().map_or(0, |threads| lock(&threads.state).threads)
}

/// As many as `concurrent.futures` would use. Asked once: it reads the files of cgroups, which took a sixth of the time of an outgoing
/// request that Python answers.
fn most_threads() -> usize {
    static MOST: PerProcess<usize> = PerProcess::new();
    *MOST.get(|| std::thread::available_parallelism().map_or(8, |cores| (cores.get() + 4).min(32)))
}

pub(crate) fn threads() -> &'static Threads {
    THREADS.get(|| Threads { state: Mutex::new(Queue::default()), filled: Condvar::new(), done: Condvar::new() })
}

impl Threads {
    pub(crate) fn submit(&self, job: Arc<dyn Job>) {
        lock(&self.state).jobs.push_back(job);
        self.filled.notify_one();
    }

    /// Sees to it that there is a thread. Only Python's threads can start one, so this is done before a guest that may
    /// need it runs; further ones are started by those that take jobs, so that one always waits for the next.
    pub(crate) fn ensure(&self, py: Python<'_>) -> PyResult<()> {
        let first = {
            let mut state = lock(&self.state);
            let first = state.threads == 0 && !state.closed;
            if first {
                state.threads += 1;
            }
            first
        };
        if first { self.spawn(py) } else { Ok(()) }
    }

    /// Starts a thread that is counted already.
    fn spawn(&self, py: Python<'_>) -> PyResult<()> {
        let number = LIVE_THREADS.fetch_add(1, Ordering::Relaxed);
        let begun = Arc::new(AtomicU8::new(COUNTED));
        let work = {
            let begun = begun.clone();
            PyCFunction::new_closure(
                py,
                None,
                None,
                move |arguments: &Bound<'_, PyTuple>, _: Option<&Bound<'_, PyDict>>| {
                    if begun.compare_exchange(COUNTED, BEGUN, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                        work(arguments.py());
                    }
                },
            )?
        };
        let options = PyDict::new(py);
        options.set_item("target", work)?;
        options.set_item("name", format!("wasgi-thread-{number}"))?;
        options.set_item("daemon", true)?;
        let started = py
            .import("threading")?
            .getattr("Thread")?
            .call((), Some(&options))
            .and_then(|thread| thread.call_method0("start"));
        if let Err(error) = started {
            // Ctrl-C interrupts `start`, which waits for the thread: then there is one all the same
            if begun.compare_exchange(COUNTED, UNCOUNTED, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
                lock(&self.state).threads -= 1;
            }
            return Err(match error.is_instance_of::<PyRuntimeError>(py) {
                true => {
                    let refused = to_py(py, &no_thread("Python code that blocks", error.value(py).to_string()));
                    refused.set_cause(py, Some(error));
                    refused
                }
                false => error,
            });
        }
        Ok(())
    }

    fn take(&self) -> Option<(Arc<dyn Job>, bool, bool)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // The job may block, and whoever submits the next one cannot start a thread: one is left waiting.
                let spare = state.may_grow();
                if spare {
                    state.threads += 1;
                }
                if job.is_waited_for_at_exit() {
                    state.waited_for += 1;
                    return Some((job, spare, true));
                }
                return Some((job, spare, false));
            }
            if state.closed || state.threads > most_threads() + state.lent.min(MOST_LENT) {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            state = self.filled.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            state.idle -= 1;
        }
    }

    /// No more jobs after those that are there; waits until those that tell of something are done, but not longer than `bound`.
    fn close(&self, bound: Duration) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.filled.notify_all();
        let deadline = Instant::now() + bound;
        while state.waited_for > 0 || state.jobs.iter().any(|job| job.is_waited_for_at_exit()) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return; // one is in code of the user's that does not end
            }
            state = match self.done.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// What each of our threads runs.
fn work(py: Python<'_>) {
    IS_OURS.set(true);
    let (threads, generation) = (threads(), crate::process::fork::generation());
    crate::py::executor::finalization::protect();
    while let Some((job, spare, is_waited_for)) = detach(py, || threads.take()) {
        if spare && let Err(error) = threads.spawn(py) {
            error.write_unraisable(py, None);
        }
        job::run(job, py);
        if generation != crate::process::fork::generation() {
            return; // the job has forked: the next ones are for the parent's thread
        }
        if is_waited_for {
            lock(&threads.state).waited_for -= 1;
            threads.done.notify_all();
        }
    }
}

/// For so long a thread of ours runs Python code of sinks before it lets others have the interpreter, and for so long.
const SHIFT: Duration = Duration::from_micros(250);
const PAUSE: Duration = Duration::from_micros(100);

/// Python gives the interpreter to another thread only when that has asked for 5 ms (`sys.getswitchinterval`), and an event loop asks
/// in each of its rounds: where guests print without end it would have one round in 5 ms.
pub(crate) fn let_others_run(py: Python<'_>) {
    thread_local! {
        static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    match SINCE.get() {
        Some(since) if since.elapsed() < SHIFT => {}
        Some(_) => {
            detach(py, || std::thread::sleep(PAUSE));
            SINCE.set(Some(Instant::now()));
        }
        None => SINCE.set(Some(Instant::now())),
    }
}
