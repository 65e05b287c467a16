//! How Rust's threads get Python code run: on an event loop's thread, or on a thread of ours for what blocks.
//!
//! Both take jobs without the GIL. A loop is woken by a byte in a pipe that it watches: the wake-up costs its sender no
//! GIL, and one byte serves a burst of jobs. Neither queue needs a bound of its own: a job belongs to a waiting task, an
//! outgoing request or a body, and each of those has at most two jobs under way.

use std::collections::VecDeque;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

use super::awaitable::LoopWaker;
use super::feed::Feed;
use super::lock;
use super::stdio::GuestOutput;
use super::upstream::{Call, OutgoingCall};
use crate::process::PerProcess;

/// Something to do under the GIL.
pub enum Job {
    /// A task's wait is over.
    Wake(Arc<LoopWaker>),
    /// An outgoing request is to be answered.
    Call(Arc<Call>),
    /// A blocking upstream gave an awaitable: the loop goes on with it.
    Finish(Arc<Call>, Py<OutgoingCall>, Py<PyAny>),
    /// Nobody waits for that answer any more.
    CancelCall(Arc<Call>),
    /// A body's next chunk is wanted, or nobody wants it any more.
    Feed(Arc<Feed>),
    /// A guest has printed.
    Lines(Arc<GuestOutput>),
}

impl Job {
    /// On a loop's thread, or on one of [`Threads`].
    fn run(self, py: Python<'_>) {
        let result = match self {
            Self::Wake(waker) => waker.resolve(py),
            Self::Call(call) => call.begin(py),
            Self::Finish(call, handle, awaitable) => call.go_on(py, handle, awaitable),
            Self::CancelCall(call) => call.cancel(py),
            Self::Feed(feed) => feed.turn(py),
            Self::Lines(output) => {
                output.deliver(py);
                Ok(())
            }
        };
        if let Err(error) = result {
            error.write_unraisable(py, None);
        }
    }
}

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
            Self::Threads => threads().submit(job),
        }
    }
}

/// The jobs for one event loop.
pub struct LoopCore {
    jobs: Mutex<Vec<Job>>,
    /// Whether a byte is in the pipe: at most one at a time, so that a write never blocks.
    signalled: AtomicBool,
    pipe: PipeWriter,
}

impl LoopCore {
    pub fn submit(&self, job: Job) {
        lock(&self.jobs).push(job);
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // Fails only when the loop is gone and its end of the pipe with it; then nobody is left to be told.
            let _ = (&self.pipe).write_all(&[0]);
        }
    }

    /// The loop that runs on this thread.
    pub fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        GET.get_or_try_init(py, || py.import("asyncio")?.getattr("get_running_loop").map(Bound::unbind))?
            .bind(py)
            .call0()
    }

    /// The jobs' queue of a loop, which must be the one of this thread.
    pub fn of(running: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        static KNOWN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let py = running.py();
        // weak keys: a loop that is forgotten takes its pipe with it
        let known = KNOWN
            .get_or_try_init(py, || py.import("weakref")?.getattr("WeakKeyDictionary")?.call0().map(Bound::unbind))?
            .bind(py);
        let found = known.call_method1(intern!(py, "get"), (running,))?;
        if !found.is_none() {
            let found: Bound<'_, LoopBridge> = found.extract()?;
            if found.get().process == std::process::id() {
                return Ok(found.get().core.clone());
            }
        }
        let bridge = LoopBridge::attach(running)?;
        let core = bridge.get().core.clone();
        known.call_method1(intern!(py, "__setitem__"), (running, bridge))?;
        Ok(core)
    }

    /// The loop of our own, for calls from where no loop runs.
    pub fn own(py: Python<'_>) -> PyResult<Arc<Self>> {
        if let Some(core) = OWN.existing() {
            return Ok(core.clone());
        }
        let bridge = py.import("wasgi._bridge")?.call_method0("start_own_loop")?;
        let core = bridge.extract::<Bound<'_, LoopBridge>>()?.get().core.clone();
        Ok(OWN.get(|| core).clone())
    }
}

static OWN: PerProcess<Arc<LoopCore>> = PerProcess::new();

/// The reader's end, which the loop calls when there is a byte.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct LoopBridge {
    core: Arc<LoopCore>,
    pipe: PipeReader,
    process: u32,
}

impl LoopBridge {
    fn attach(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let (reader, writer) = std::io::pipe()?;
        let descriptor = reader.as_raw_fd();
        let core = Arc::new(LoopCore { jobs: Mutex::new(Vec::new()), signalled: AtomicBool::new(false), pipe: writer });
        let bridge = Py::new(py, Self { core, pipe: reader, process: std::process::id() })?;
        // In a context of its own: the reader would keep alive the one of whoever came first.
        let context = py.import("contextvars")?.getattr("Context")?.call0()?;
        context.call_method1("run", (event_loop.getattr("add_reader")?, descriptor, &bridge)).map_err(|error| {
            if error.is_instance_of::<PyNotImplementedError>(py) {
                PyRuntimeError::new_err(
                    "this event loop cannot watch a pipe (`add_reader`); hint: use asyncio.SelectorEventLoop or uvloop",
                )
            } else {
                error
            }
        })?;
        Ok(bridge)
    }
}

impl std::ops::Deref for LoopBridge {
    type Target = Arc<LoopCore>;

    fn deref(&self) -> &Arc<LoopCore> {
        &self.core
    }
}

#[pymethods]
impl LoopBridge {
    #[staticmethod]
    #[pyo3(name = "attach")]
    fn py_attach(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        Self::attach(event_loop)
    }

    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        let mut byte = [0];
        (&self.pipe).read_exact(&mut byte)?;
        // Cleared before the jobs are taken: whoever submits after that writes a byte of its own.
        self.core.signalled.store(false, Ordering::SeqCst);
        for job in std::mem::take(&mut *lock(&self.core.jobs)) {
            job.run(py);
        }
        Ok(())
    }
}

/// Python threads for code that blocks: synchronous upstreams, iterators and files as bodies, sinks of output.
pub struct Threads {
    state: Mutex<Queue>,
    filled: Condvar,
    /// A thread has left.
    left: Condvar,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
    closed: bool,
}

static THREADS: PerProcess<Threads> = PerProcess::new();
static LIVE_THREADS: AtomicUsize = AtomicUsize::new(0);

/// As many as `concurrent.futures` would use.
fn most_threads() -> usize {
    std::thread::available_parallelism().map_or(8, |cores| (cores.get() + 4).min(32))
}

pub fn threads() -> &'static Threads {
    THREADS.get(|| Threads { state: Mutex::new(Queue::default()), filled: Condvar::new(), left: Condvar::new() })
}

impl Threads {
    fn submit(&self, job: Job) {
        lock(&self.state).jobs.push_back(job);
        self.filled.notify_one();
    }

    /// Sees to it that there is a thread. Only Python's threads can start one, so this is done before a guest that may
    /// need it runs; further ones are started by those that take jobs, so that one always waits for the next.
    pub fn ensure(&self, py: Python<'_>) -> PyResult<()> {
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
        let options = PyDict::new(py);
        options.set_item("target", py.import("wasgi._wasgi")?.getattr("_work")?)?;
        options.set_item("name", format!("wasgi-thread-{number}"))?;
        options.set_item("daemon", true)?;
        let started = py
            .import("threading")?
            .getattr("Thread")?
            .call((), Some(&options))
            .and_then(|thread| thread.call_method0("start"));
        if let Err(error) = started {
            lock(&self.state).threads -= 1;
            return Err(error);
        }
        Ok(())
    }

    fn take(&self) -> Option<(Job, bool)> {
        let mut state = lock(&self.state);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                // The job may block, and whoever submits the next one cannot start a thread: one is left waiting.
                let spare = state.idle == 0 && state.threads < most_threads() && !state.closed;
                if spare {
                    state.threads += 1;
                }
                return Some((job, spare));
            }
            if state.closed {
                state.threads -= 1;
                self.left.notify_all();
                return None;
            }
            state.idle += 1;
            state = self.filled.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
            state.idle -= 1;
        }
    }

    /// No more jobs after those that are there; waits for the threads to finish them, but not longer than `bound`.
    fn close(&self, bound: Duration) {
        let mut state = lock(&self.state);
        state.closed = true;
        self.filled.notify_all();
        let deadline = Instant::now() + bound;
        while state.threads > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return; // one is in code of the user's that does not end
            }
            state = match self.left.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

/// Set when the interpreter is about to exit.
static EXITING: AtomicBool = AtomicBool::new(false);

pub fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst)
}

/// What each of our threads runs.
#[pyfunction]
pub fn _work(py: Python<'_>) {
    let threads = threads();
    while let Some((job, spare)) = py.detach(|| threads.take()) {
        if spare && let Err(error) = threads.spawn(py) {
            error.write_unraisable(py, None);
        }
        job.run(py);
    }
}

/// For `os.register_at_fork`: the child starts without the parent's threads.
#[pyfunction]
pub fn _after_fork() {
    crate::engine::after_fork();
    THREADS.forget();
    OWN.forget();
}

/// For `atexit`: guests stop, then the threads that ran their Python side.
#[pyfunction]
pub fn _shut_down(py: Python<'_>) {
    const BOUND: Duration = Duration::from_secs(1);
    EXITING.store(true, Ordering::SeqCst);
    py.detach(|| {
        if let Some(world) = crate::engine::existing() {
            world.runtime.shut_down(BOUND);
        }
        if let Some(threads) = THREADS.existing() {
            threads.close(BOUND);
        }
    });
}
