//! Bodies whose chunks Python code makes. The guest pulls them, one at a time: back-pressure reaches the source.
//!
//! An async iterable is driven by one task on its loop (a cancel scope or a timeout inside it needs that); an iterator or
//! a file is asked for its next chunk on a thread of ours, each time the guest wants one.

use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBool;

use crate::error::Error;
use crate::exchange::handle::ExchangeAbortHandle;
use crate::http::error_code::ErrorCode;
use crate::py::counters::Counted;
use crate::py::errors::{CallersException, code_of_exception};
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::job::{Abandon, Job, LOOP_CLOSED};
use crate::py::executor::lane::Lane;
use crate::py::executor::operation::Operation;
use crate::py::executor::running_loop::spawn;
use crate::py::held::Held;
use crate::py::lock;
use crate::py::message::source::{Source, chunk_bytes};
use crate::py::once::text;

/// What happens when the source fails.
pub enum OnError {
    /// A caller's request body: the exchange ends with the caller's own exception.
    StopExchange(OnceLock<ExchangeAbortHandle>),
    /// An upstream's response body: the guest gets an error-code.
    TellGuest,
}

/// The two sides of such a body: a guest that wants chunks, Python code that makes them.
pub struct Feed {
    source: Source,
    pub(super) lane: Lane,
    /// A copy of the caller's context, this body's own.
    context: Held<Py<PyAny>>,
    on_error: OnError,
    pub(super) state: Mutex<State>,
    generation: u64,
    _counted: Counted,
}

#[derive(Default)]
pub(super) struct State {
    /// For the guest to take; before `end`, if there are both.
    pub chunk: Option<Bytes>,
    pub end: Option<Result<(), ErrorCode>>,
    pub demand: Demand,
    pub drive: Drive,
}

/// The guest's side.
pub(super) enum Demand {
    /// The guest has every chunk that it has asked for. `producer`: the task that waits until it asks for the next.
    Satisfied { producer: Option<Waker> },
    /// The guest waits for a chunk. No `consumer`: it has been woken, and will find the end.
    Wanted { consumer: Option<Waker> },
    /// The guest has dropped the body.
    Gone,
}

impl Default for Demand {
    fn default() -> Self {
        Self::Satisfied { producer: None }
    }
}

impl State {
    fn is_gone(&self) -> bool {
        matches!(self.demand, Demand::Gone)
    }

    /// A guest that waits, to be woken.
    fn take_consumer(&mut self) -> Option<Waker> {
        match &mut self.demand {
            Demand::Wanted { consumer } => consumer.take(),
            Demand::Satisfied { .. } | Demand::Gone => None,
        }
    }
}

/// The source's side. The source is closed when this becomes `Ended`, so once.
#[derive(Default)]
pub(super) enum Drive {
    #[default]
    Idle,
    /// A thread asks the source for its next chunk. It cannot be closed meanwhile: that thread closes it then.
    Pulling,
    /// A task drives the source, and closes it. `entered`: the task has had its first step. One that is cancelled before that
    /// would never run.
    Task {
        task: Held<Py<PyAny>>,
        entered: bool,
    },
    Ended,
}

impl Feed {
    pub fn new(source: Source, lane: Lane, context: Py<PyAny>, on_error: OnError) -> Arc<Self> {
        let (generation, _counted) = (crate::process::fork::generation(), Counted::feed());
        let feed = Arc::new(Self {
            source,
            lane,
            context: context.into(),
            on_error,
            state: Mutex::default(),
            generation,
            _counted,
        });
        if let Lane::Loop(core) = &feed.lane {
            core.depends(&feed);
        }
        feed
    }

    /// Names the exchange that a failure of the source ends.
    pub fn belongs_to(&self, stopper: ExchangeAbortHandle) {
        if let OnError::StopExchange(slot) = &self.on_error {
            let _ = slot.set(stopper);
        }
    }

    /// Whether its guest is in the process that forked this one, where a thread may have held the lock.
    fn is_foreign(&self) -> bool {
        self.generation != crate::process::fork::generation()
    }

    /// Whether nobody wants more of it.
    pub fn is_gone(&self) -> bool {
        self.is_foreign() || lock(&self.state).is_gone()
    }

    /// A chunk is wanted, or nothing is any more.
    fn turn(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        match &self.source {
            Source::Async(source) => self.turn_async(py, source),
            _ => self.turn_blocking(py),
        }
    }

    fn turn_async(self: &Arc<Self>, py: Python<'_>, source: &Py<PyAny>) -> PyResult<()> {
        let (drive, gone) = {
            let mut state = lock(&self.state);
            let gone = state.is_gone();
            match &state.drive {
                // its first step finds that nobody wants anything
                Drive::Task { entered: false, .. } => return Ok(()),
                Drive::Task { .. } if !gone => return Ok(()),
                _ => (std::mem::replace(&mut state.drive, Drive::Ended), gone),
            }
        };
        match drive {
            Drive::Idle if gone => {
                let coroutine = bodies(py)?.call_method1(text!(py, "close"), (source,))?;
                spawn(&coroutine, self.context.bind(py)).map(drop)
            }
            Drive::Idle => {
                let handle = FeedHandle { feed: self.clone() };
                let coroutine = bodies(py)?.call_method1(text!(py, "feed"), (handle, source))?;
                let task = spawn(&coroutine, self.context.bind(py))?;
                lock(&self.state).drive = Drive::Task { task: task.into(), entered: false };
                Ok(())
            }
            Drive::Task { task, .. } => task.bind(py).call_method0(text!(py, "cancel")).map(drop),
            Drive::Pulling | Drive::Ended => Ok(()),
        }
    }

    fn turn_blocking(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let gone = {
            let mut state = lock(&self.state);
            if !matches!(state.drive, Drive::Idle) {
                return Ok(());
            }
            let gone = state.is_gone();
            state.drive = if gone { Drive::Ended } else { Drive::Pulling };
            gone
        };
        if gone {
            return self.close(py);
        }
        let _lent = crate::py::executor::threads::lend(py)?;
        let handle = Bound::new(py, FeedHandle { feed: self.clone() })?;
        let next = handle.getattr(text!(py, "next"))?;
        let result = self.context.bind(py).call_method1(text!(py, "run"), (next,));
        if let Err(error) = result {
            self.fail(py, &error);
        }
        if self.is_foreign() {
            return Ok(()); // the source has forked
        }
        let is_over = {
            let mut state = lock(&self.state);
            let is_over = state.is_gone() || state.end.is_some();
            state.drive = if is_over { Drive::Ended } else { Drive::Idle };
            is_over
        };
        if is_over { self.close(py) } else { Ok(()) }
    }

    /// A source that blocks has ended, or nobody wants more of it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        if let Some(close) = self.source.closing(py)? {
            close.call0()?;
        }
        Ok(())
    }

    fn put(&self, chunk: Option<Bytes>) {
        if self.is_foreign() {
            return;
        }
        let consumer = {
            let mut state = lock(&self.state);
            match chunk {
                Some(chunk) => state.chunk = Some(chunk),
                None => state.end = Some(Ok(())),
            }
            let consumer = state.take_consumer();
            if let Demand::Wanted { .. } = state.demand {
                state.demand = Demand::default();
            }
            consumer
        };
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }

    fn fail(&self, py: Python<'_>, error: &PyErr) {
        let code = match &self.on_error {
            OnError::StopExchange(stopper) => {
                if let Some(stopper) = stopper.get() {
                    stopper.stop_because(CallersException::error(error.clone_ref(py), py));
                }
                ErrorCode::internal("the request body failed")
            }
            OnError::TellGuest => code_of_exception(py, error),
        };
        self.break_off(code);
    }

    fn break_off(&self, code: ErrorCode) {
        if self.is_foreign() {
            return;
        }
        let consumer = {
            let mut state = lock(&self.state);
            if state.end.is_none() {
                state.end = Some(Err(code));
            }
            state.take_consumer()
        };
        if let Some(consumer) = consumer {
            consumer.wake();
        }
    }
}

impl Job for Feed {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.turn(py)
    }

    fn abandon(self: Arc<Self>) {
        Abandon::abandon(&*self);
    }

    fn is_waited_for_at_exit(&self) -> bool {
        self.is_gone()
    }
}

impl Abandon for Feed {
    fn abandon(&self) {
        // the task refers to this, and nobody would find that cycle
        let (drive, has_ended) = {
            let mut state = lock(&self.state);
            let drive = match &state.drive {
                Drive::Task { .. } => std::mem::replace(&mut state.drive, Drive::Ended),
                _ => Drive::Ended,
            };
            (drive, state.end.is_some())
        };
        drop(drive);
        if has_ended {
            return;
        }
        if let OnError::StopExchange(stopper) = &self.on_error
            && let Some(stopper) = stopper.get()
        {
            stopper.stop_because(Error::Host(LOOP_CLOSED.into()));
        }
        self.break_off(ErrorCode::internal(LOOP_CLOSED));
    }
}

fn bodies(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    Ok(py.import(text!(py, "wasgi._native.bodies"))?.into_any())
}

/// The producer's side of a body whose chunks Python produces.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct FeedHandle {
    feed: Arc<Feed>,
}

#[pymethods]
impl FeedHandle {
    /// The task has had its first step.
    fn enter(&self) {
        if self.feed.is_foreign() {
            return;
        }
        if let Drive::Task { entered, .. } = &mut lock(&self.feed.state).drive {
            *entered = true;
        }
    }

    /// The task closes its source, and is not to be cancelled in that because nobody wants more.
    fn leave(&self) {
        if self.feed.is_foreign() {
            return;
        }
        let task = {
            let mut state = lock(&self.feed.state);
            match &state.drive {
                Drive::Task { .. } => std::mem::replace(&mut state.drive, Drive::Ended),
                _ => return,
            }
        };
        drop(task); // without the lock: it may be the last that refers to what is fed
    }

    /// Waits until a chunk is wanted: `True`; `False` when none will be wanted any more.
    fn wanted(&self) -> Awaitable {
        Awaitable::new(Wanted(self.feed.clone()))
    }

    fn push(&self, chunk: &Bound<'_, PyAny>) -> PyResult<()> {
        let chunk = chunk_bytes(chunk)?;
        if !chunk.is_empty() {
            self.feed.put(Some(chunk));
        }
        Ok(())
    }

    fn end(&self) {
        self.feed.put(None);
    }

    /// Whether nobody wants more of it.
    #[getter]
    fn gone(&self) -> bool {
        self.feed.is_gone()
    }

    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.feed.fail(py, &PyErr::from_value(error));
    }

    /// When the guest has let go of it, its task alone holds it, and that may wait for what refers to the source.
    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        if Arc::strong_count(&self.feed) > 1 {
            return Ok(());
        }
        visit.call(self.feed.source.object())?;
        visit.call(&*self.feed.context)?;
        match self.feed.state.try_lock().as_deref() {
            Ok(State { drive: Drive::Task { task, .. }, .. }) => visit.call(&**task),
            _ => Ok(()),
        }
    }

    /// One chunk of a source that blocks.
    fn next(&self, py: Python<'_>) {
        match self.feed.source.next(py) {
            Ok(chunk) => self.feed.put(chunk),
            Err(error) => self.feed.fail(py, &error),
        }
    }
}

struct Wanted(Arc<Feed>);

impl Operation for Wanted {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let is_wanted = match self.0.is_foreign() {
            true => false,
            false => match &mut lock(&self.0.state).demand {
                Demand::Wanted { .. } => true,
                Demand::Gone => false,
                Demand::Satisfied { producer } => {
                    *producer = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            },
        };
        Poll::Ready(Ok(PyBool::new(py, is_wanted).to_owned().into_any().unbind()))
    }
}
