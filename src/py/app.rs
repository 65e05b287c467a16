//! `wasgi.App`: a component, what its guests may do, and its end.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyMapping;
use tracing::Level;

use crate::app::{App, Closing};
use crate::component::inspect::{ComponentInfo, Wasi};
use crate::component::variant::Variant;
use crate::guest::interfaces::HANDLER;
use crate::network::places::Membership;
use crate::py::call::Callee;
use crate::py::component::PyComponent;
use crate::py::errors::to_py;
use crate::py::executor::awaitable::{Awaitable, Itself};
use crate::py::executor::blocking::block_on;
use crate::py::executor::operation::Operation;
use crate::py::grants::grants;
use crate::py::handle_async::Handle;
use crate::py::held::{Held, detach};
use crate::py::limits::PyLimits;
use crate::py::log;
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::on_finish::OnFinish;
use crate::py::options::LONGEST;
use crate::py::outgoing::Outgoing;
use crate::py::output::Sinks;
use crate::py::reuse::PyReuse;
use crate::py::simulation::PySimulation;
use crate::py::together::PyTogether;
use crate::py::values::{Number, Seconds};
use crate::telemetry::TARGET;

/// The base class of `wasgi.App`, which adds ASGI and WSGI and describes the arguments.
#[pyclass(name = "App", module = "wasgi", frozen, subclass)]
pub struct PyApp {
    callee: Py<Callee>,
    #[pyo3(get)]
    component: Py<PyComponent>,
    #[pyo3(get)]
    limits: Py<PyLimits>,
    #[pyo3(get)]
    reuse: Option<Py<PyReuse>>,
    simulation: Option<Py<PySimulation>>,
    /// It is one of those that share its networks.
    _shares: Vec<Membership>,
}

/// What an app shares with others that have been given the same.
fn shares(outgoing: Option<&Outgoing>, app: u64) -> Vec<Membership> {
    let mut found = Vec::new();
    if let Some(outgoing) = outgoing {
        outgoing.shared(&mut found);
    }
    found.iter().map(|apps| apps.join(app)).collect()
}

/// Whether guests of a component may have several exchanges at once.
fn check_concurrent(info: &ComponentInfo, concurrent: usize) -> PyResult<()> {
    if info.wasi() == Wasi::P2 {
        return Err(PyValueError::new_err(format!(
            "`Reuse.concurrent` must be 1 for a component of WASI 0.2, whose guests handle one request at a time, not {concurrent}"
        )));
    }
    if info.has_async_joints {
        return Err(PyValueError::new_err(format!(
            "`Reuse.concurrent` must be 1, not {concurrent}, for a component that is composed of several which call each other's \
             asynchronous functions: one may go on when its caller has returned, and the host cannot tell for which request; hint: \
             `App(middleware, handler=App(inner))` composes them with an instance of each its own, and any `Reuse`"
        )));
    }
    Ok(())
}

#[pymethods]
impl PyApp {
    #[new]
    #[pyo3(signature = (component, *, handler=None, outgoing=None, env=None, args=None, dirs=None, stdout=None, stderr=None, limits=None, reuse=None, simulation=None, on_finish=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        component: &Bound<'_, PyAny>,
        handler: Option<Bound<'_, PyAny>>,
        outgoing: Option<Bound<'_, PyAny>>,
        env: Option<&Bound<'_, PyMapping>>,
        args: Option<&Bound<'_, PyAny>>,
        dirs: Option<&Bound<'_, PyMapping>>,
        stdout: Option<Bound<'_, PyAny>>,
        stderr: Option<Bound<'_, PyAny>>,
        limits: Option<Py<PyLimits>>,
        reuse: Option<Py<PyReuse>>,
        simulation: Option<Py<PySimulation>>,
        on_finish: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let limits = match limits {
            Some(limits) => limits,
            None => py.get_type::<PyLimits>().call0()?.extract()?,
        };
        let component: Py<PyComponent> = match component.cast::<PyComponent>() {
            Ok(component) => component.clone().unbind(),
            Err(_) => {
                let isolated = reuse.as_ref().is_some_and(|reuse| reuse.get().core().isolated);
                let variant = Variant { fuel: limits.get().core().fuel.is_some(), restorable: isolated };
                Py::new(py, PyComponent::load(component, variant, None)?)?
            }
        };
        let handler = handler.map(|handler| Outgoing::given_handler(&handler)).transpose()?;
        component.get().check(py, handler.is_some())?;
        if handler.is_some() && !component.get().component.info.imports_handler() {
            return Err(PyValueError::new_err(format!(
                "`handler` would never be asked: the component does not import `{HANDLER}@0.3`"
            )));
        }
        let outgoing = outgoing.map(|outgoing| Outgoing::given(&outgoing)).transpose()?;
        let sinks = Sinks::given(py, stdout, stderr, component.get().label())?;
        let on_finish = on_finish.map(|on_finish| OnFinish::given(&on_finish)).transpose()?;
        let mut grants = grants(py, env, args, dirs)?;
        grants.simulation = simulation.as_ref().map(|simulation| simulation.get().core());
        let terms = reuse.as_ref().map(|reuse| reuse.get().core());
        let info = &component.get().component.info;
        if let Some(concurrent) = terms.map(|reuse| reuse.concurrent).filter(|concurrent| *concurrent > 1) {
            check_concurrent(info, concurrent)?;
        }
        let mut core = App::new(component.get().component.clone(), grants, limits.get().core(), terms);
        component.get().prepare(py, core.variant())?;
        core.warm_ups = reuse.as_ref().map(|reuse| reuse.get().warm_ups(py)).transpose()?.flatten();
        if let Some(reason) = core.isolate() {
            let label = component.get().label();
            let message =
                format!("each request of `{label}` gets a fresh instance, in spite of `Reuse.isolated`: {reason}");
            log::write(py, TARGET, Level::WARN, &message)?;
        }
        let shares = shares(outgoing.as_ref(), core.number);
        let callee = Py::new(py, Callee { app: Arc::new(core), outgoing, handler, sinks, on_finish })?;
        Ok(Self { callee, component, limits, reuse, simulation, _shares: shares })
    }

    /// An app of the same component on the same terms, save for these.
    #[pyo3(signature = (*, outgoing, stdout, stderr, reuse, simulation))]
    fn _sibling(
        &self,
        py: Python<'_>,
        outgoing: Option<Bound<'_, PyAny>>,
        stdout: Option<Bound<'_, PyAny>>,
        stderr: Option<Bound<'_, PyAny>>,
        reuse: Option<Py<PyReuse>>,
        simulation: Option<Py<PySimulation>>,
    ) -> PyResult<Self> {
        let callee = self.callee.get();
        let sinks = Sinks::given(py, stdout, stderr, callee.sinks.get().component.clone())?;
        let mut grants = callee.app.grants.clone();
        grants.simulation = simulation.as_ref().map(|simulation| simulation.get().core());
        let terms = reuse.as_ref().map(|reuse| reuse.get().core());
        let mut core = App::new(callee.app.component.clone(), grants, callee.app.limits, terms);
        core.number = callee.app.number;
        self.component.get().prepare(py, core.variant())?;
        core.warm_ups = reuse.as_ref().map(|reuse| reuse.get().warm_ups(py)).transpose()?.flatten();
        core.isolate();
        let outgoing = outgoing.map(|outgoing| Outgoing::given(&outgoing)).transpose()?;
        let shares = shares(outgoing.as_ref(), core.number);
        let on_finish = callee.on_finish.as_ref().map(|on_finish| on_finish.clone_ref(py));
        let handler = callee.handler.as_ref().map(|handler| handler.clone_ref(py));
        Ok(Self {
            callee: Py::new(py, Callee { app: Arc::new(core), outgoing, handler, sinks, on_finish })?,
            _shares: shares,
            component: self.component.clone_ref(py),
            limits: self.limits.clone_ref(py),
            reuse,
            simulation,
        })
    }

    /// Calls the guest's handler, and blocks until it has set its response. The GIL is released.
    ///
    /// The body streams from the guest as the response is read; the guest may still be running. Ctrl-C interrupts the
    /// call and cancels the guest.
    ///
    /// Args:
    ///     request: The guest consumes a streamed body; a request whose body is bytes can be sent again.
    ///
    /// Returns:
    ///     The response. It owns the guest: closing or dropping it before its body has ended cancels the guest.
    ///
    /// Raises:
    ///     UnsupportedComponentError: The component exports no HTTP handler.
    ///     GuestError: The guest trapped, exited, exceeded a limit, or returned without a response.
    ///     ErrorCode: The guest responded with an error-code.
    ///     OverloadedError: `Limits.concurrency` was reached, and the queue was full or timed out.
    ///     AppClosedError: The app was closed.
    ///     BodyError: The request's body streams, and was consumed before.
    ///     Exception: The exception of the iterator of the request's body, unchanged.
    fn handle(&self, py: Python<'_>, request: &Bound<'_, PyRequest>) -> PyResult<PyResponse> {
        self.callee.get().call(py, request, None)
    }

    /// `handle`, but no longer than so many seconds.
    fn _handle_within(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyRequest>,
        seconds: Option<f64>,
    ) -> PyResult<PyResponse> {
        self.callee.get().call(py, request, seconds)
    }

    /// For tests of isolation: begins an exchange with each request, and gives what waits for its response.
    fn _handle_together(&self, py: Python<'_>, requests: Vec<Bound<'_, PyRequest>>) -> PyResult<Vec<PyTogether>> {
        crate::py::together::begin(py, self.callee.get(), &requests)
    }

    /// Like `handle`, for a task of an asyncio event loop, which it never blocks.
    ///
    /// The guest starts when this is awaited. Cancelling the task cancels the guest, its outgoing requests and bodies.
    fn handle_async(&self, py: Python<'_>, request: Py<PyRequest>) -> Awaitable {
        Awaitable::of_call(
            "App.handle_async",
            Handle::New { callee: self.callee.clone_ref(py).into(), request: request.into() },
        )
    }

    /// Refuses new exchanges, and waits until those under way have ended, work after their responses included.
    ///
    /// Leaving ``with app:`` or ``async with app:`` does this.
    ///
    /// Args:
    ///     timeout: Seconds; then the remaining exchanges are cancelled, with `AppClosedError` for their callers. None:
    ///         no timeout.
    #[pyo3(signature = (timeout=Some(Number(10.0))), text_signature = "($self, timeout=10.0)")]
    fn close(&self, py: Python<'_>, timeout: Option<Seconds>) -> PyResult<()> {
        let mut closing = self.closing(py, drain(timeout)?)?;
        block_on(py, |cx| closing.as_mut().poll(cx))
    }

    /// Like `close`, for a task of an asyncio event loop. Closing begins when this is awaited.
    #[pyo3(signature = (timeout=Some(Number(10.0))), text_signature = "($self, timeout=10.0)")]
    fn aclose(slf: Py<Self>, timeout: Option<Seconds>) -> PyResult<Awaitable> {
        let drain = drain(timeout)?;
        Ok(Awaitable::new(Closed::New(slf.into(), drain)))
    }

    /// For start-up: see [`App::warm`].
    fn _warm(&self, py: Python<'_>) -> PyResult<()> {
        crate::py::executor::threads::threads().ensure(py)?;
        let app = &self.callee.get().app;
        detach(py, || app.warm()).map_err(|error| to_py(py, &error))?;
        app.open();
        self.callee.get().make_ready(py)
    }

    /// For the start of a server: see `Reuse.ready`.
    fn _make_ready(&self, py: Python<'_>) -> PyResult<()> {
        self.callee.get().make_ready(py)
    }

    #[getter]
    fn outgoing(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.callee.get().outgoing.as_ref().map(|outgoing| outgoing.object(py))
    }

    #[getter]
    fn handler(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.callee.get().handler.as_ref().map(|handler| handler.object(py))
    }

    #[getter]
    fn simulation(&self, py: Python<'_>) -> Option<Py<PySimulation>> {
        self.simulation.as_ref().map(|simulation| simulation.clone_ref(py))
    }

    /// What log records name it by: its component and a number.
    #[getter]
    fn _label(&self) -> &str {
        &self.callee.get().sinks.get().app
    }

    /// Hints about what its guests are refused name flags of the command line, which has made it.
    fn _name_flags(&self) {
        self.callee.get().app.name_flags();
    }

    /// The number of exchanges under way: those whose guest has not ended.
    #[getter]
    fn exchanges(&self) -> usize {
        self.callee.get().app.exchanges()
    }

    /// Whether `close` was called.
    #[getter]
    fn closed(&self) -> bool {
        self.callee.get().app.is_closed()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) -> PyResult<()> {
        self.close(py, DRAIN.map(Number))
    }

    fn __aenter__(slf: Py<Self>) -> Awaitable {
        Awaitable::new(Itself(Some(slf.into_any().into())))
    }

    fn __aexit__(slf: Py<Self>, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) -> PyResult<Awaitable> {
        Self::aclose(slf, DRAIN.map(Number))
    }

    fn __repr__(&self) -> String {
        format!("<wasgi.App {}>", self.callee.get().sinks.get().component)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.callee)
    }
}

impl PyApp {
    pub(crate) fn callee(&self) -> &Py<Callee> {
        &self.callee
    }

    fn closing(&self, py: Python<'_>, drain: Option<Duration>) -> PyResult<Closing> {
        let callee = self.callee.get();
        let closing = callee.app.close(drain).map_err(|error| to_py(py, &error))?;
        let (Some(on_finish), Some(process)) = (&callee.on_finish, crate::engine::existing()) else {
            return Ok(closing);
        };
        let lane = on_finish.get().lane();
        let bound = drain.map_or(MOST_TELLING, |drain| drain.clamp(LEAST_TELLING, MOST_TELLING));
        let told = process.runtime.within(async move {
            let _ = tokio::time::timeout(bound, std::future::poll_fn(|cx| lane.poll_empty(cx))).await;
        });
        let told = told.map_err(|error| to_py(py, &error))?;
        Ok(Box::pin(async move {
            closing.await;
            told.await;
        }))
    }
}

fn drain(timeout: Option<Seconds>) -> PyResult<Option<Duration>> {
    let Some(Number(seconds)) = timeout else { return Ok(None) };
    match Duration::try_from_secs_f64(seconds) {
        Ok(drain) if drain <= LONGEST => Ok(Some(drain)),
        _ => Err(PyValueError::new_err(format!(
            "`timeout` must be a number of seconds, from 0 to {}, or None: {seconds}",
            LONGEST.as_secs()
        ))),
    }
}

/// How long an app that closes lets `on_finish` be told of what has ended.
const LEAST_TELLING: Duration = Duration::from_secs(1);
const MOST_TELLING: Duration = Duration::from_secs(10);

/// How long `with App(...)` lets exchanges finish.
const DRAIN: Option<f64> = Some(10.0);

/// It begins to close when it is awaited.
enum Closed {
    New(Held<Py<PyApp>>, Option<Duration>),
    Closing(Closing),
}

impl Operation for Closed {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Self::New(app, drain) = self {
            *self = match app.get().closing(py, *drain) {
                Ok(closing) => Self::Closing(closing),
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        match self {
            Self::New(..) => Poll::Pending,
            Self::Closing(closing) => closing.as_mut().poll(cx).map(|()| Ok(py.None())),
        }
    }

    fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match self {
            Self::New(app, _) => visit.call(&**app),
            Self::Closing(_) => Ok(()),
        }
    }
}
