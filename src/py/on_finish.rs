//! `on_finish=`: a callable that gets each exchange when its guest has ended.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{Method, Uri};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::error::Error;
use crate::exchange::handle::ExchangeHandle;
use crate::process::fork::PerFork;
use crate::process::fork::generation;
use crate::py::errors::seen_from_aside;
use crate::py::executor::serial::{Serial, Turn};
use crate::py::held::Held;
use crate::py::lock;
use crate::py::message::report::PyReport;
use crate::py::once::text;
use crate::py::output::Sinks;

/// How many exchanges may wait for one callable; those that end meanwhile are dropped, and counted.
const MOST_WAITING: usize = 1024;

/// The callable of an app. A class of its own, which whoever may call it refers to: the collector sees each reference.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct OnFinish {
    callable: Py<PyAny>,
    lane: PerFork<Serial<Finished>>,
}

impl OnFinish {
    pub fn given(callable: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let py = callable.py();
        if !callable.is_callable() {
            let kind = callable.get_type();
            return Err(PyTypeError::new_err(format!("`on_finish` must be callable, or None, not {}", kind.name()?)));
        }
        let callbacks = py.import(text!(py, "wasgi._native.callbacks"))?;
        if callbacks.call_method1(text!(py, "is_async"), (callable,))?.is_truthy()? {
            return Err(PyTypeError::new_err("`on_finish` must not be a coroutine function: it runs on a thread"));
        }
        Py::new(py, Self { callable: callable.clone().unbind(), lane: PerFork::default() })
    }

    /// Those that wait for it, in this process.
    pub fn lane(&self) -> Arc<Serial<Finished>> {
        self.lane.get(|| Serial::new(MOST_WAITING))
    }
}

#[pymethods]
impl OnFinish {
    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        visit.call(&self.callable)
    }
}

/// Why an exchange has no answer.
pub(crate) enum Failure {
    /// In a core error's words.
    Core(Error),
    /// Raised by Python code of the caller's.
    Python(Held<PyErr>),
}

/// What is known of an exchange.
struct Record {
    id: u64,
    /// Name the component and the app.
    sinks: Held<Py<Sinks>>,
    /// Not the request itself: nobody is to keep its body.
    method: Method,
    uri: Uri,
    context: Held<Py<PyAny>>,
    begun: Instant,
    status: Option<u16>,
    failure: Option<Failure>,
    owner: Option<ExchangeHandle>,
}

/// Held by both sides of an exchange, the caller's until it has the head or a reason, the guest's until nothing is left of it. The
/// one that lets go last has it told: so each exchange is told of once, however it ended.
pub(crate) struct Finishing {
    on_finish: Option<Held<Py<OnFinish>>>,
    record: Mutex<Option<Record>>,
    generation: u64,
}

impl Finishing {
    pub(crate) fn new(
        on_finish: &Py<OnFinish>,
        id: u64,
        sinks: &Py<Sinks>,
        method: &Method,
        uri: &Uri,
        context: Bound<'_, PyAny>,
    ) -> Arc<Self> {
        let py = context.py();
        let record = Record {
            id,
            sinks: sinks.clone_ref(py).into(),
            method: method.clone(),
            uri: uri.clone(),
            context: context.unbind().into(),
            begun: Instant::now(),
            status: None,
            failure: None,
            owner: None,
        };
        Arc::new(Self {
            on_finish: Some(on_finish.clone_ref(py).into()),
            record: Mutex::new(Some(record)),
            generation: generation(),
        })
    }

    fn note(&self, note: impl FnOnce(&mut Record)) {
        if let Some(record) = &mut *lock(&self.record) {
            note(record);
        }
    }

    pub(crate) fn began(&self, owner: ExchangeHandle) {
        self.note(|record| record.owner = Some(owner));
    }

    pub(crate) fn answered(&self, status: u16) {
        self.note(|record| record.status = Some(status));
    }

    pub(crate) fn failed(&self, failure: Failure) {
        self.note(|record| record.failure = Some(failure));
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        let (Some(on_finish), Some(record)) = (self.on_finish.take(), lock(&self.record).take()) else { return };
        if self.generation != generation() {
            // in a forked child: its parent tells of it
            std::mem::forget((on_finish, record));
            return;
        }
        let lane = on_finish.get().lane();
        if !lane.submit(Finished { on_finish, record }) {
            crate::py::counters::dropped_exchange();
        }
    }
}

/// An exchange that is over.
pub struct Finished {
    on_finish: Held<Py<OnFinish>>,
    record: Record,
}

impl Turn for Finished {
    fn run(self, py: Python<'_>) {
        let Self { on_finish, record } = self;
        let context = record.context.clone_ref(py);
        let told = PyExchange::of(py, record).and_then(|exchange| {
            let callbacks = py.import(text!(py, "wasgi._native.callbacks"))?;
            let tell = callbacks.getattr(text!(py, "tell_finished"))?;
            context.call_method1(py, text!(py, "run"), (tell, &on_finish.get().callable, exchange))
        });
        if let Err(error) = told {
            error.write_unraisable(py, Some(on_finish.get().callable.bind(py)));
        }
    }
}

/// A finished exchange, for `App(on_finish=)`.
///
/// Each admitted exchange is reported once: when its caller has the head of the response, or the error instead, and
/// nothing is left of its guest. Requests that were refused before are not exchanges: by overload (`OverloadedError`),
/// by a closed app, or by the server (400, or a response of ``on_request``).
///
/// Example:
///     >>> def log(exchange: wasgi.Exchange) -> None:
///     ...     print(exchange.method, exchange.url, exchange.status, exchange.report.duration)
///     >>> app = wasgi.App("hello.wasm", on_finish=log)
#[pyclass(name = "Exchange", module = "wasgi", frozen, get_all)]
pub struct PyExchange {
    /// Its number in this process: `Report.exchange`, and ``wasgi_exchange`` of log records.
    id: u64,
    /// The component's file name, or the beginning of its digest: ``wasgi_component`` of log records.
    component: String,
    /// The component's name with the number of the app in this process: ``wasgi_app`` of log records.
    app: String,
    /// The method of the guest's request.
    method: String,
    /// The URL of the guest's request, as the guest saw it.
    url: String,
    /// The status of the guest's response; None if the caller got no response.
    status: Option<u16>,
    /// What the caller got instead of a response, or how the guest ended after it; None if it ended well.
    ///
    /// A guest that was cancelled, because its caller or client went away, has a `WasgiError`.
    error: Option<Py<PyAny>>,
    /// The cost of the exchange.
    report: Py<PyReport>,
}

impl PyExchange {
    fn of(py: Python<'_>, record: Record) -> PyResult<Self> {
        let Record { id, sinks, method, uri, begun, status, failure, owner, .. } = record;
        let outcome = owner.as_ref().and_then(|owner| owner.outcome()?.err());
        let error = match (&failure, &outcome) {
            (Some(Failure::Python(error)), _) => Some(error.clone_ref(py)),
            (Some(Failure::Core(error)), _) | (None, Some(error)) => Some(seen_from_aside(py, error)),
            (None, None) => None,
        };
        let report = owner.map_or_else(|| PyReport::of_nothing(id, begun), |owner| PyReport::of(id, &owner));
        let sinks = sinks.get();
        Ok(Self {
            id,
            component: sinks.component.clone(),
            app: sinks.app.clone(),
            method: method.to_string(),
            url: uri.to_string(),
            status,
            error: error.map(|error| error.into_value(py).into_any()),
            report: Py::new(py, report)?,
        })
    }
}

#[pymethods]
impl PyExchange {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut end = self.status.map_or_else(String::new, |status| format!(" {status}"));
        if let Some(error) = &self.error {
            end.push_str(&format!(" {}", error.bind(py).get_type().name()?));
        }
        let url = PyString::new(py, &self.url).repr()?;
        Ok(format!("<wasgi.Exchange {} {} {url}{end}>", self.id, self.method))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match &self.error {
            Some(error) => visit.call(error),
            None => Ok(()),
        }
    }
}
