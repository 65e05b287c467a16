//! A Python callable as the upstream of a guest's outgoing requests.

use std::sync::{Arc, Mutex};

use http_body_util::BodyExt;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;

use crate::error::reason::CodeError;
use crate::exchange::guest_body::GuestBody;
use crate::exchange::stdio::Stdio;
use crate::exchange::unread::Past;
use crate::http::error_code::ErrorCode;
use crate::outgoing::read_ahead::ReadAhead;
use crate::outgoing::timeouts::within;
use crate::outgoing::upstream::{Answer, Timeouts, Upstream};
use crate::py::counters::Counted;
use crate::py::errors::code_of_exception;
use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::job::{Abandon, Job, LOOP_CLOSED};
use crate::py::executor::lane::Lane;
use crate::py::executor::running_loop::spawn;
use crate::py::held::Held;
use crate::py::lock;
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::once::text;
use crate::simulation::virtual_time::WorkClock;

/// The callable, as one exchange calls it.
pub(crate) struct PyUpstream {
    target: Arc<Target>,
}

struct Target {
    callable: Held<Py<PyAny>>,
    is_async: bool,
    /// The caller's loop, or our own.
    event_loop: Arc<LoopCore>,
    /// The caller's context; each call runs in a copy.
    context: Held<Py<PyAny>>,
}

impl PyUpstream {
    pub(crate) fn new(callable: Py<PyAny>, is_async: bool, event_loop: Arc<LoopCore>, context: Py<PyAny>) -> Self {
        Self { target: Arc::new(Target { callable: callable.into(), is_async, event_loop, context: context.into() }) }
    }
}

impl Upstream for PyUpstream {
    fn send(&self, request: http::Request<GuestBody>, timeouts: Timeouts, _: &Arc<Stdio>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let clock = request.extensions().get::<WorkClock>().cloned();
        let call = Arc::new(Call {
            target: self.target.clone(),
            request: Mutex::new(Some((request, timeouts))),
            reply: Mutex::new(Some(reply)),
            task: Mutex::new(None),
            generation: crate::process::fork::generation(),
            _counted: Counted::call(),
        });
        let waiting = Waiting(call.clone());
        let answered = Box::pin(async move {
            let _waiting = waiting;
            let answered = answer.await;
            answered
                .unwrap_or_else(|_| Err(ErrorCode::internal("the upstream gave no response")))
                .map_err(CodeError::from)
        });
        // before anybody works on it: its time runs
        let answered = within(timeouts, clock.as_ref(), answered);
        let lane = self.target.lane();
        if let Lane::Loop(core) = &lane {
            core.depends(&call);
        }
        lane.submit(call);
        answered
    }
}

impl Target {
    fn lane(&self) -> Lane {
        if self.is_async { Lane::Loop(self.event_loop.clone()) } else { Lane::Threads }
    }
}

/// Dropped when the guest has its answer, or does not want it any more.
struct Waiting(Arc<Call>);

impl Drop for Waiting {
    fn drop(&mut self) {
        let unanswered = lock(&self.0.reply).take().is_some();
        if unanswered {
            self.0.target.event_loop.submit(Arc::new(Cancelled(self.0.clone())));
        }
    }
}

type Reply = oneshot::Sender<Result<http::Response<WasiBody>, ErrorCode>>;

/// One outgoing request on its way through Python.
pub(crate) struct Call {
    target: Arc<Target>,
    request: Mutex<Option<(http::Request<GuestBody>, Timeouts)>>,
    reply: Mutex<Option<Reply>>,
    task: Mutex<Option<Held<Py<PyAny>>>>,
    generation: u64,
    _counted: Counted,
}

impl Abandon for Call {
    fn abandon(&self) {
        self.reply(Err(ErrorCode::internal(LOOP_CLOSED)));
    }
}

impl Call {
    /// On the loop for a coroutine function, on a thread for any other callable.
    fn begin(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some((request, timeouts)) = lock(&self.request).take() else { return Ok(()) };
        if lock(&self.reply).is_none() {
            return Ok(()); // nobody waits any more
        }
        let request = Bound::new(py, PyRequest::from_guest(request, timeouts))?;
        let handle = Bound::new(py, OutgoingCall { call: self.clone(), request: request.unbind() })?;
        let callbacks = py.import(text!(py, "wasgi._native.callbacks"))?;
        let context = self.target.context.bind(py).call_method0(text!(py, "copy"))?;
        if self.target.is_async {
            let coroutine = callbacks.call_method1(text!(py, "answer"), (handle,))?;
            *lock(&self.task) = Some(spawn(&coroutine, &context)?.into());
        } else {
            let answer = callbacks.getattr(text!(py, "answer_blocking"))?;
            context.call_method1(text!(py, "run"), (answer, handle))?;
        }
        Ok(())
    }

    fn cancel(&self, py: Python<'_>) -> PyResult<()> {
        let task = lock(&self.task).take();
        match task {
            Some(task) => task.bind(py).call_method0(text!(py, "cancel")).map(drop),
            None => Ok(()),
        }
    }

    /// Whether its guest still waits, and in this process: an upstream may have forked.
    fn is_wanted(&self) -> bool {
        self.generation == crate::process::fork::generation() && lock(&self.reply).is_some()
    }

    fn reply(&self, answer: Result<http::Response<WasiBody>, ErrorCode>) {
        if self.generation != crate::process::fork::generation() {
            // to tell a guest of the parent's is to wake tasks of a runtime that does not exist here
            std::mem::forget(answer);
            return;
        }
        let reply = lock(&self.reply).take();
        lock(&self.task).take();
        if let Some(reply) = reply {
            let _ = reply.send(answer);
        }
    }
}

/// The name of an object's class, with its module: others have a `Response`, too.
fn kind_of(object: &Bound<'_, PyAny>) -> PyResult<String> {
    let kind = object.get_type();
    let (module, name) = (kind.module()?.to_string(), kind.qualname()?.to_string());
    Ok(if module == "builtins" { name } else { format!("{module}.{name}") })
}

/// An outgoing request that Python code handles.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct OutgoingCall {
    call: Arc<Call>,
    #[pyo3(get)]
    request: Py<PyRequest>,
}

#[pymethods]
impl OutgoingCall {
    /// When nobody waits for the answer any more, its task alone holds the call.
    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.request)?;
        if Arc::strong_count(&self.call) > 1 {
            return Ok(());
        }
        if let Ok(task) = self.call.task.try_lock() {
            visit.call(task.as_deref())?;
        }
        if Arc::strong_count(&self.call.target) > 1 {
            return Ok(());
        }
        visit.call(&*self.call.target.callable)?;
        visit.call(&*self.call.target.context)
    }

    /// The user's callable.
    #[getter]
    fn upstream(&self, py: Python<'_>) -> Py<PyAny> {
        self.call.target.callable.clone_ref(py)
    }

    /// Whether the guest still waits.
    #[getter]
    fn wanted(&self) -> bool {
        self.call.is_wanted()
    }

    /// The upstream's return value.
    fn answer(&self, py: Python<'_>, response: &Bound<'_, PyAny>) {
        let is_streamed = response.cast::<PyResponse>().is_ok_and(|response| response.get().body().is_streamed());
        let made = match response.cast::<PyResponse>() {
            Ok(response) => {
                response.get().to_guest(py, &self.call.target.event_loop, self.call.target.context.bind(py))
            }
            Err(_) => Err(PyTypeError::new_err(format!(
                "an upstream must return a wasgi.Response, not {}",
                kind_of(response).unwrap_or_else(|_| "that".to_owned())
            ))),
        };
        let body = self.request.get().body();
        match made {
            // The response's end is when a server would stop to read the request. Until then whoever writes the response may
            // still read it.
            Ok(response)
                if is_streamed
                    && crate::http::upstream_response::has_body(self.request.get().http_method(), &response) =>
            {
                let is_read = body.read_on(Past::Waits);
                let runtime = (!is_read).then(crate::engine::existing).flatten();
                let runtime = runtime.and_then(|process| process.runtime.handle().ok());
                let request = Arc::downgrade(body);
                let at_end = move || {
                    if let Some(request) = request.upgrade() {
                        request.read_on(Past::IsDiscarded);
                    }
                };
                self.call.reply(Ok(response.map(|inner| ReadAhead::new(inner, runtime, at_end).boxed_unsync())));
            }
            Ok(response) => {
                body.read_on(Past::IsDiscarded);
                self.call.reply(Ok(response));
            }
            Err(error) => {
                body.discard_rest();
                self.call.reply(Err(code_of_exception(py, &error)));
            }
        }
    }

    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.request.get().body().discard_rest(); // frames of the traceback may keep it
        if self.wanted() {
            let code = code_of_exception(py, &PyErr::from_value(error));
            self.call.reply(Err(code));
        }
    }

    /// A blocking callable gave an awaitable after all: the loop goes on with it.
    fn hand_to_loop(&self, py: Python<'_>, awaitable: Py<PyAny>) -> PyResult<()> {
        let handle = Py::new(py, Self { call: self.call.clone(), request: self.request.clone_ref(py) })?;
        self.call.target.event_loop.depends(&self.call);
        self.call.target.event_loop.submit(Arc::new(Continued {
            call: self.call.clone(),
            handle: handle.into(),
            awaitable: awaitable.into(),
        }));
        Ok(())
    }
}

impl Job for Call {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.begin(py)
    }

    fn abandon(self: Arc<Self>) {
        Abandon::abandon(&*self);
    }

    fn begins_task(&self) -> bool {
        true
    }
}

/// Nobody waits for that answer any more.
struct Cancelled(Arc<Call>);

impl Job for Cancelled {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.0.cancel(py)
    }
}

/// A blocking upstream gave an awaitable: the loop goes on with it.
struct Continued {
    call: Arc<Call>,
    handle: Held<Py<OutgoingCall>>,
    awaitable: Held<Py<PyAny>>,
}

impl Job for Continued {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        self.call.go_on(py, &self.handle, &self.awaitable)
    }

    fn abandon(self: Arc<Self>) {
        Abandon::abandon(&*self.call);
    }
}

impl Call {
    /// What follows [`OutgoingCall::hand_to_loop`].
    fn go_on(&self, py: Python<'_>, handle: &Py<OutgoingCall>, awaitable: &Py<PyAny>) -> PyResult<()> {
        if !self.is_wanted() {
            // nobody waits any more: a coroutine that is not begun is closed, a task of the upstream's own is its own
            return match awaitable.bind(py).getattr_opt(text!(py, "close"))? {
                Some(close) => close.call0().map(drop),
                None => Ok(()),
            };
        }
        let callbacks = py.import(text!(py, "wasgi._native.callbacks"))?;
        let coroutine = callbacks.call_method1(text!(py, "answer"), (handle, awaitable))?;
        let context = self.target.context.bind(py).call_method0(text!(py, "copy"))?;
        *lock(&self.task) = Some(spawn(&coroutine, &context)?.into());
        Ok(())
    }
}
