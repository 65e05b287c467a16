//! What an event loop has to do: jobs and tasks that wait; and what becomes of those that wait for a loop that has closed.
//!
//! A loop is woken by a byte in a pipe that it watches ([`super::loop_bridge`]): the wake-up costs its sender no GIL, and one byte
//! serves a burst of jobs.

use std::collections::{HashMap, VecDeque};
use std::io::{PipeWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::py::executor::job::{self, Abandon, Job};
use crate::py::executor::operation::Waiting;
use crate::py::held::Held;
use crate::py::lock;
use crate::py::once::text;

/// The jobs for one event loop.
pub struct LoopCore {
    state: Mutex<State>,
    /// Whether a byte is in the pipe: at most one at a time, so that a write never blocks.
    signalled: AtomicBool,
    pipe: PipeWriter,
    /// A weak reference to the loop.
    event_loop: Held<Py<PyAny>>,
    watched: AtomicBool,
    /// Whether somebody is asked to look already.
    looked_at: AtomicBool,
    /// What tasks of this loop wait for. The loop's own [`LoopBridge`](super::loop_bridge::LoopBridge) shows them to the collector, and nobody else does; they are
    /// touched only with the GIL.
    futures: Mutex<Futures>,
}

#[derive(Default)]
struct Futures {
    next: u64,
    waiting: HashMap<u64, Waits>,
}

struct Waits {
    future: Held<Py<PyAny>>,
    operation: Option<Arc<Waiting>>,
}

/// What a loop has to do.
enum Due {
    /// A task's wait is over: by the number of its future.
    Wake(u64),
    Job(Arc<dyn Job>),
}

#[derive(Default)]
struct State {
    jobs: Vec<Due>,
    /// Those that begin a task: the loop takes them by [`MOST_BEGUN`].
    tasks: VecDeque<Arc<dyn Job>>,
    /// What waits for code that runs on this loop.
    waiting: Vec<Weak<dyn Abandon>>,
    /// How long that list may become before it is swept.
    sweep_at: usize,
    closed: bool,
}

/// How many tasks begin in one round of a loop, each to answer a guest's request. Guests that send thousands at once would hold it for as
/// long as beginning all of them takes, some tens of microseconds each.
const MOST_BEGUN: usize = 16;

/// How often somebody looks whether a loop that others wait for has closed. A closed loop tells nobody.
const LOOK: Duration = Duration::from_millis(250);

impl LoopCore {
    /// Of a loop that is to watch the pipe's other end.
    pub(super) fn new(event_loop: Py<PyAny>, pipe: PipeWriter) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            signalled: AtomicBool::new(false),
            pipe,
            event_loop: event_loop.into(),
            watched: AtomicBool::new(false),
            looked_at: AtomicBool::new(false),
            futures: Mutex::default(),
        })
    }

    pub fn submit(self: &Arc<Self>, job: Arc<dyn Job>) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                drop(state);
                return job.abandon();
            }
            match job.begins_task() {
                true => state.tasks.push_back(job),
                false => state.jobs.push(Due::Job(job)),
            }
        }
        self.signal();
    }

    /// The wait for the future of this number is over.
    pub fn wake(self: &Arc<Self>, number: u64) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                return;
            }
            state.jobs.push(Due::Wake(number));
        }
        self.signal();
    }

    fn signal(self: &Arc<Self>) {
        if !self.signalled.swap(true, Ordering::SeqCst) {
            // Fails only when the loop is gone and its end of the pipe with it; then nobody is left to be told.
            let _ = (&self.pipe).write_all(&[0]);
            self.watch();
        }
    }

    /// Keeps a future of this loop until its number is woken or forgotten, or the loop closes.
    pub fn keep(&self, future: Py<PyAny>) -> u64 {
        let mut futures = lock(&self.futures);
        futures.next += 1;
        let number = futures.next;
        futures.waiting.insert(number, Waits { future: future.into(), operation: None });
        number
    }

    /// What its task waits for: dropped when the loop closes.
    pub fn waits(&self, number: u64, operation: &Arc<Waiting>) {
        if let Some(waits) = lock(&self.futures).waiting.get_mut(&number) {
            waits.operation = Some(operation.clone());
        }
    }

    pub fn forget(&self, number: u64) {
        let waits = lock(&self.futures).waiting.remove(&number);
        drop(waits);
    }

    /// On the loop's thread, when a byte was in the pipe: runs what is due.
    pub(super) fn run_due(&self, py: Python<'_>) {
        // Cleared before the jobs are taken: whoever submits after that writes a byte of its own.
        self.signalled.store(false, Ordering::SeqCst);
        let (jobs, tasks, is_more) = {
            let mut state = lock(&self.state);
            let jobs = std::mem::take(&mut state.jobs);
            let most = state.tasks.len().min(MOST_BEGUN);
            let tasks: Vec<_> = state.tasks.drain(..most).collect();
            (jobs, tasks, !state.tasks.is_empty())
        };
        // the rest in the loop's next round
        if is_more && !self.signalled.swap(true, Ordering::SeqCst) {
            let _ = (&self.pipe).write_all(&[0]);
        }
        for due in jobs.into_iter().chain(tasks.into_iter().map(Due::Job)) {
            match due {
                Due::Wake(number) => {
                    if let Err(error) = self.resolve(py, number) {
                        error.write_unraisable(py, None);
                    }
                }
                Due::Job(job) => job::run(job, py),
            }
        }
    }

    /// Shows the collector what tasks of this loop wait for.
    pub(super) fn visit(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.futures.try_lock() {
            Ok(futures) => futures.waiting.values().try_for_each(|waits| visit.call(&*waits.future)),
            Err(_) => Ok(()),
        }
    }

    /// The loop has closed, or is gone: nobody goes on with what waits there.
    pub(super) fn let_go(&self) {
        let waiting: Vec<_> = lock(&self.futures).waiting.drain().map(|(_, waits)| waits).collect();
        for Waits { operation, .. } in &waiting {
            let operation = operation.as_ref().and_then(|operation| lock(operation).take());
            drop(operation);
        }
        self.close();
    }

    /// That task's wait is over.
    fn resolve(&self, py: Python<'_>, number: u64) -> PyResult<()> {
        let waits = lock(&self.futures).waiting.remove(&number);
        let Some(Waits { future, .. }) = waits else { return Ok(()) };
        let future = future.bind(py);
        if !future.call_method0(text!(py, "done"))?.is_truthy()? {
            future.call_method1(text!(py, "set_result"), (py.None(),))?;
        }
        Ok(())
    }

    /// To be told when this loop closes, if it still lives then.
    pub fn depends(self: &Arc<Self>, waiting: &Arc<impl Abandon + 'static>) {
        {
            let mut state = lock(&self.state);
            if state.closed {
                drop(state);
                return waiting.abandon();
            }
            if state.waiting.len() >= state.sweep_at {
                state.waiting.retain(|waiting| waiting.strong_count() > 0);
                state.sweep_at = (state.waiting.len() * 2).max(64);
            }
            let weak: Weak<dyn Abandon> = Arc::downgrade(waiting) as _;
            state.waiting.push(weak);
        }
        self.watch();
    }

    /// Has a task of the runtime look after this loop while there are jobs that it does not take, or others that wait for it.
    fn watch(self: &Arc<Self>) {
        if self.watched.swap(true, Ordering::SeqCst) {
            return;
        }
        let Some(Ok(handle)) = crate::engine::existing().map(|process| process.runtime.handle()) else {
            self.watched.store(false, Ordering::SeqCst);
            return;
        };
        let core = Arc::downgrade(self);
        handle.spawn(async move {
            loop {
                tokio::time::sleep(LOOK).await;
                let Some(core) = core.upgrade() else { return };
                if core.is_waited_for() {
                    if !core.looked_at.swap(true, Ordering::SeqCst) {
                        crate::py::executor::threads::threads().submit(Arc::new(Look(core)));
                    }
                    continue;
                }
                core.watched.store(false, Ordering::SeqCst);
                if !core.is_waited_for() || core.watched.swap(true, Ordering::SeqCst) {
                    return;
                }
            }
        });
    }

    fn is_waited_for(&self) -> bool {
        let mut state = lock(&self.state);
        state.waiting.retain(|waiting| waiting.strong_count() > 0);
        !state.closed && (!state.waiting.is_empty() || self.signalled.load(Ordering::SeqCst))
    }

    /// Has it closed?
    fn look(&self, py: Python<'_>) -> PyResult<()> {
        self.looked_at.store(false, Ordering::SeqCst);
        let event_loop = self.event_loop.bind(py).call0()?;
        if event_loop.is_none() || event_loop.call_method0(text!(py, "is_closed"))?.is_truthy()? {
            self.close();
        }
        Ok(())
    }

    fn close(&self) {
        let (jobs, waiting) = {
            let mut state = lock(&self.state);
            state.closed = true;
            let jobs = std::mem::take(&mut state.jobs).into_iter().filter_map(|due| match due {
                Due::Wake(_) => None,
                Due::Job(job) => Some(job),
            });
            (jobs.chain(std::mem::take(&mut state.tasks)), std::mem::take(&mut state.waiting))
        };
        for job in jobs {
            job.abandon();
        }
        for waiting in waiting.iter().filter_map(Weak::upgrade) {
            waiting.abandon();
        }
    }
}

/// Whether that loop still runs, for what waits for it.
struct Look(Arc<LoopCore>);

impl Job for Look {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.0.look(py)
    }
}
