//! `wasgi.App`: a component, what its guests may do, the two ways to call it, and its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyMapping, PyString};

use super::awaitable::{Awaitable, Operation};
use super::component::PyComponent;
use super::errors::to_py;
use super::limits::PyLimits;
use super::loops::LoopCore;
use super::message::{Itself, PyRequest, PyResponse};
use super::reuse::PyReuse;
use super::route::{Outgoing, check_depth};
use super::stdio::{GuestOutput, Sinks};
use super::waiting::{Inside, block_on, block_on_until, deadline};
use super::world::PyWorld;
use crate::error::Error;
use crate::gate::{Admission, Permit, Queued};
use crate::host::{DirGrant, Grants};
use crate::incoming::{App, Closing, Exchange};
use crate::outgoing::Upstream;

#[pyclass(name = "Dir", module = "wasgi", frozen, get_all)]
pub struct PyDir {
    path: std::path::PathBuf,
    write: bool,
}

#[pymethods]
impl PyDir {
    #[new]
    #[pyo3(signature = (path, *, write=false))]
    fn new(path: std::path::PathBuf, write: bool) -> Self {
        Self { path, write }
    }

    fn __repr__(&self) -> String {
        format!("Dir({:?}, write={})", self.path, if self.write { "True" } else { "False" })
    }
}

#[pyclass(name = "App", module = "wasgi", frozen, subclass)]
pub struct PyApp {
    app: Arc<App>,
    #[pyo3(get)]
    component: Py<PyComponent>,
    outgoing: Option<Outgoing>,
    sinks: Arc<Sinks>,
    #[pyo3(get)]
    limits: Py<PyLimits>,
    #[pyo3(get)]
    reuse: Option<Py<PyReuse>>,
}

fn grants(
    env: Option<&Bound<'_, PyMapping>>,
    args: Option<&Bound<'_, PyAny>>,
    dirs: Option<&Bound<'_, PyMapping>>,
) -> PyResult<Grants> {
    let mut grants = Grants::default();
    if let Some(env) = env {
        for item in env.items()?.iter() {
            let (name, value): (String, String) =
                item.extract().map_err(|_| PyTypeError::new_err("`env` must map str to str"))?;
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(PyValueError::new_err(format!(
                    "`env` has a name or value that no environment holds: {name:?}"
                )));
            }
            grants.env.push((name, value));
        }
    }
    if let Some(args) = args {
        if args.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("`args` must be a sequence of str, not one str"));
        }
        for arg in args.try_iter()? {
            grants.args.push(arg?.extract().map_err(|_| PyTypeError::new_err("`args` must be a sequence of str"))?);
        }
    }
    if let Some(dirs) = dirs {
        for item in dirs.items()?.iter() {
            let (guest, given): (String, Bound<'_, PyAny>) = item.extract()?;
            let (host, write) = match given.cast::<PyDir>() {
                Ok(dir) => (dir.get().path.clone(), dir.get().write),
                Err(_) => (
                    given
                        .extract()
                        .map_err(|_| PyTypeError::new_err("`dirs` must map guest paths to `Dir` or paths"))?,
                    false,
                ),
            };
            if !host.is_dir() {
                return Err(PyValueError::new_err(format!("`dirs`: no such directory: `{}`", host.display())));
            }
            grants.dirs.push(DirGrant { guest, host: std::path::absolute(&host).unwrap_or(host), write });
        }
    }
    Ok(grants)
}

#[pymethods]
impl PyApp {
    #[new]
    #[pyo3(signature = (component, *, outgoing=None, env=None, args=None, dirs=None, stdout=None, stderr=None, limits=None, reuse=None, world=None))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        component: &Bound<'_, PyAny>,
        outgoing: Option<Bound<'_, PyAny>>,
        env: Option<&Bound<'_, PyMapping>>,
        args: Option<&Bound<'_, PyAny>>,
        dirs: Option<&Bound<'_, PyMapping>>,
        stdout: Option<Bound<'_, PyAny>>,
        stderr: Option<Bound<'_, PyAny>>,
        limits: Option<Py<PyLimits>>,
        reuse: Option<Py<PyReuse>>,
        world: Option<Bound<'_, PyWorld>>,
    ) -> PyResult<Self> {
        let component: Py<PyComponent> = match component.cast::<PyComponent>() {
            Ok(component) => component.clone().unbind(),
            Err(_) => Py::new(py, PyComponent::load(component)?)?,
        };
        let limits = match limits {
            Some(limits) => limits,
            None => py.get_type::<PyLimits>().call0()?.extract()?,
        };
        let outgoing = outgoing.map(|outgoing| Outgoing::given(&outgoing)).transpose()?;
        let sinks = Sinks::given(stdout, stderr, component.get().label())?;
        let mut grants = grants(env, args, dirs)?;
        grants.world = world.map(|world| world.get().core());
        let terms = reuse.as_ref().map(|reuse| reuse.get().core());
        let core = App::new(component.get().component.clone(), grants, limits.get().core(), terms);
        if core.limits.fuel.is_some() {
            component.get().prepare_for_fuel(py)?;
        }
        Ok(Self { app: Arc::new(core), component, outgoing, sinks, limits, reuse })
    }

    /// An app of the same component on the same terms, save for these.
    #[pyo3(signature = (*, outgoing, stdout, stderr, reuse, world))]
    fn _sibling(
        &self,
        py: Python<'_>,
        outgoing: Option<Bound<'_, PyAny>>,
        stdout: Option<Bound<'_, PyAny>>,
        stderr: Option<Bound<'_, PyAny>>,
        reuse: Option<Py<PyReuse>>,
        world: Option<Bound<'_, PyWorld>>,
    ) -> PyResult<Self> {
        let sinks = Sinks::given(stdout, stderr, self.sinks.component.clone())?;
        let mut grants = self.app.grants.clone();
        grants.world = world.map(|world| world.get().core());
        let terms = reuse.as_ref().map(|reuse| reuse.get().core());
        Ok(Self {
            app: Arc::new(App::new(self.app.component.clone(), grants, self.app.limits, terms)),
            component: self.component.clone_ref(py),
            outgoing: outgoing.map(|outgoing| Outgoing::given(&outgoing)).transpose()?,
            sinks,
            limits: self.limits.clone_ref(py),
            reuse,
        })
    }

    fn handle(&self, py: Python<'_>, request: &Bound<'_, PyRequest>) -> PyResult<PyResponse> {
        self._handle_within(py, request, None)
    }

    /// `handle`, but no longer than so many seconds.
    fn _handle_within(
        &self,
        py: Python<'_>,
        request: &Bound<'_, PyRequest>,
        seconds: Option<f64>,
    ) -> PyResult<PyResponse> {
        let inside = Inside::enter();
        inside.check(py);
        let deadline = deadline(seconds);
        let permit = match self.app.admit().map_err(|error| to_py(py, &error))? {
            Admission::Permit(permit) => permit,
            Admission::Queued(mut queued) => {
                block_on_until(py, deadline, |cx| queued.poll(cx))?.map_err(|error| to_py(py, &error))?
            }
        };
        let mut begun = self.begin(py, permit, request, None, true)?;
        let outcome = block_on_until(py, deadline, |cx| begun.exchange.poll_head(cx));
        begun.output.deliver(py)?;
        inside.check(py);
        begun.answer(py, outcome?)
    }

    fn handle_async(slf: Py<Self>, request: Py<PyRequest>) -> Awaitable {
        Awaitable::new(Handle::New { app: slf, request })
    }

    #[pyo3(signature = (timeout=Some(10.0)), text_signature = "($self, timeout=10.0)")]
    fn close(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        let mut closing = self.closing(py, timeout)?;
        block_on(py, |cx| closing.as_mut().poll(cx))
    }

    #[pyo3(signature = (timeout=Some(10.0)), text_signature = "($self, timeout=10.0)")]
    fn aclose(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Awaitable> {
        Ok(Awaitable::new(Closed(self.closing(py, timeout)?)))
    }

    /// For start-up: see [`App::warm`].
    fn _warm(&self, py: Python<'_>) -> PyResult<()> {
        super::threads::threads().ensure(py)?;
        py.detach(|| self.app.warm()).map_err(|error| to_py(py, &error))
    }

    #[getter]
    fn outgoing(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.outgoing.as_ref().map(|outgoing| outgoing.object(py))
    }

    #[getter]
    fn world(&self) -> Option<PyWorld> {
        self.app.grants.world.map(PyWorld::of)
    }

    #[getter]
    fn exchanges(&self) -> usize {
        self.app.exchanges()
    }

    #[getter]
    fn closed(&self) -> bool {
        self.app.is_closed()
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) -> PyResult<()> {
        self.close(py, DRAIN)
    }

    fn __aenter__(slf: Py<Self>) -> Awaitable {
        Awaitable::new(Itself(Some(slf.into_any())))
    }

    fn __aexit__(
        &self,
        py: Python<'_>,
        _type: Py<PyAny>,
        _value: Py<PyAny>,
        _traceback: Py<PyAny>,
    ) -> PyResult<Awaitable> {
        self.aclose(py, DRAIN)
    }

    fn __repr__(&self) -> String {
        format!("<wasgi.App {}>", self.sinks.component)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        if let Some(outgoing) = &self.outgoing {
            outgoing.traverse(&visit)?;
        }
        for sink in [&self.sinks.stdout, &self.sinks.stderr] {
            if let Some(object) = sink.object() {
                visit.call(object)?;
            }
        }
        Ok(())
    }
}

/// An exchange whose guest has had its first turn.
struct Begun {
    exchange: Exchange,
    number: u64,
    output: Arc<GuestOutput>,
}

impl PyApp {
    /// Starts the guest and gives it a turn on this thread (unless setting it up would hold up an event loop); if it
    /// is not done then, the runtime goes on with it.
    fn begin(
        &self,
        py: Python<'_>,
        permit: Permit,
        request: &Bound<'_, PyRequest>,
        event_loop: Option<&Arc<LoopCore>>,
        may_block: bool,
    ) -> PyResult<Begun> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let request = request.get();
        let context = if self.needs_loop(request) { copy_context(py)? } else { py.None().into_bound(py) };
        let upstream = self.upstream(py, event_loop, &context)?;
        let (request, feed) = request.to_guest(py, event_loop, &context)?;
        let exchange = py.detach(|| {
            let mut exchange = self.app.start(permit, request, upstream)?;
            if let Some(feed) = &feed {
                feed.belongs_to(exchange.owner().stopper());
            }
            let done = if may_block || !exchange.keep_off_loop() { exchange.run_here()? } else { false };
            Ok::<_, Error>((exchange, done))
        });
        let (mut exchange, done) = exchange.map_err(|error| to_py(py, &error))?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let output = GuestOutput::new(self.sinks.clone(), exchange.owner().stdio().clone(), number);
        if !done {
            super::threads::threads().ensure(py)?;
            output.go_live();
            exchange.hand_over().map_err(|error| to_py(py, &error))?;
        }
        Ok(Begun { exchange, number, output })
    }

    fn upstream(
        &self,
        py: Python<'_>,
        event_loop: Option<&Arc<LoopCore>>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Arc<dyn Upstream>>> {
        let Some(outgoing) = &self.outgoing else { return Ok(None) };
        if outgoing.is_python() {
            check_depth(py)?;
        }
        outgoing.upstream(py, event_loop, context).map(Some)
    }

    /// Whether an exchange may need the caller's event loop and context: Python code takes part in it.
    fn needs_loop(&self, request: &PyRequest) -> bool {
        self.outgoing.as_ref().is_some_and(Outgoing::is_python) || request.body().is_python()
    }

    fn closing(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Closing> {
        let drain = timeout.map(Duration::try_from_secs_f64).transpose().map_err(|_| {
            PyValueError::new_err(format!("`timeout` must be a number of seconds, or None: {}", timeout.unwrap_or(0.0)))
        })?;
        self.app.close(drain).map_err(|error| to_py(py, &error))
    }
}

/// How long `with App(...)` lets exchanges finish.
const DRAIN: Option<f64> = Some(10.0);

struct Closed(Closing);

impl Operation for Closed {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        self.0.as_mut().poll(cx).map(|()| Ok(py.None()))
    }
}

impl Begun {
    fn answer(self, py: Python<'_>, outcome: Outcome) -> PyResult<PyResponse> {
        match outcome {
            Ok(response) => Ok(PyResponse::from_guest(response, self.number, self.output)),
            Err(error) => Err(to_py(py, &error)),
        }
    }
}

fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPY.get_or_try_init(py, || py.import("contextvars")?.getattr(intern!(py, "copy_context")).map(Bound::unbind))?
        .bind(py)
        .call0()
}

/// What `handle_async` waits for. The guest starts when it is awaited.
enum Handle {
    New {
        app: Py<PyApp>,
        request: Py<PyRequest>,
    },
    Queued {
        app: Py<PyApp>,
        request: Py<PyRequest>,
        queued: Queued,
    },
    Begun(Begun),
    /// The head is there; lines that were printed before it are on their way.
    Answered {
        begun: Begun,
        outcome: Box<Outcome>,
    },
    Done,
}

type Outcome = Result<http::Response<crate::body::GuestBody>, Error>;

impl Handle {
    fn begin(py: Python<'_>, app: &PyApp, permit: Permit, request: &Bound<'_, PyRequest>) -> PyResult<Begun> {
        let event_loop = match app.needs_loop(request.get()) {
            true => Some(LoopCore::of(&LoopCore::running_loop(py)?)?),
            false => None,
        };
        app.begin(py, permit, request, event_loop.as_ref(), false)
    }

    fn step(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> PyResult<Option<PyResponse>> {
        let _inside = Inside::enter();
        loop {
            *self = match std::mem::replace(self, Self::Done) {
                Self::New { app, request } => {
                    // asked for first: a guest must not have run where its caller cannot wait for it
                    LoopCore::running_loop(py)?;
                    match app.get().app.admit().map_err(|error| to_py(py, &error))? {
                        Admission::Permit(permit) => Self::Begun(Self::begin(py, app.get(), permit, request.bind(py))?),
                        Admission::Queued(queued) => Self::Queued { app, request, queued },
                    }
                }
                Self::Queued { app, request, mut queued } => match queued.poll(cx) {
                    Poll::Ready(permit) => {
                        let permit = permit.map_err(|error| to_py(py, &error))?;
                        Self::Begun(Self::begin(py, app.get(), permit, request.bind(py))?)
                    }
                    Poll::Pending => {
                        *self = Self::Queued { app, request, queued };
                        return Ok(None);
                    }
                },
                Self::Begun(mut begun) => match begun.exchange.poll_head(cx) {
                    Poll::Ready(outcome) => Self::Answered { begun, outcome: Box::new(outcome) },
                    Poll::Pending => {
                        *self = Self::Begun(begun);
                        return Ok(None);
                    }
                },
                Self::Answered { begun, outcome } => match begun.output.poll_deliver(py, cx) {
                    Poll::Ready(()) => return begun.answer(py, *outcome).map(Some),
                    Poll::Pending => {
                        *self = Self::Answered { begun, outcome };
                        return Ok(None);
                    }
                },
                Self::Done => return Ok(None),
            }
        }
    }
}

impl Operation for Handle {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        match self.step(py, cx) {
            Ok(Some(response)) => Poll::Ready(Py::new(py, response).map(Py::into_any)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
