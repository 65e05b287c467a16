//! `outgoing=`: handling outgoing requests by a callable, the network, or a route to several upstreams.

pub(crate) mod callable;
pub(crate) mod network;

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString};
use pyo3::{PyTraverseError, PyVisit};

use crate::error::Error;
use crate::http::error_code::ErrorCode;
use crate::http::url_pattern::Table;
use crate::network::places::Apps;
use crate::outgoing::route::Route;
use crate::outgoing::upstream::Upstream;
use crate::py::errors::to_py;
use crate::py::executor::event_loop::LoopCore;
use crate::py::message::request::PyRequest;
use crate::py::once::text;
use crate::py::outgoing::callable::PyUpstream;
use crate::py::outgoing::network::PyNetwork;
use crate::py::values::{Reduced, hash_of};

/// An upstream as a caller gave it.
pub enum Outgoing {
    Callable { callable: Py<PyAny>, is_async: bool },
    Route(Py<PyRoute>),
    Network(Py<PyNetwork>),
}

impl Outgoing {
    pub fn given(upstream: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of_option(upstream, "outgoing")
    }

    /// What answers the requests that a guest passes on. It is no network, so no policy would be asked.
    pub fn given_handler(handler: &Bound<'_, PyAny>) -> PyResult<Self> {
        let handler = Self::of_option(handler, "handler")?;
        let mut networks = Vec::new();
        handler.shared(&mut networks);
        if networks.is_empty() {
            return Ok(handler);
        }
        Err(PyTypeError::new_err(
            "`handler` answers in process, and must not be or have a `Network`; hint: `outgoing` takes one, for the requests of \
             `wasi:http/client`",
        ))
    }

    fn of_option(upstream: &Bound<'_, PyAny>, option: &str) -> PyResult<Self> {
        if let Ok(route) = upstream.cast::<PyRoute>() {
            return Ok(Self::Route(route.clone().unbind()));
        }
        if let Ok(network) = upstream.cast::<PyNetwork>() {
            return Ok(Self::Network(network.clone().unbind()));
        }
        let callbacks = upstream.py().import("wasgi._native.callbacks")?;
        // what its requests need: a process that is forked while another thread imports it would wait for that thread for ever
        upstream.py().import("wasgi._native.background_loop")?;
        upstream.py().import("wasgi._native.bodies")?;
        let (callable, is_async) = callbacks.call_method1("as_upstream", (upstream, option))?.extract()?;
        Ok(Self::Callable { callable, is_async })
    }

    pub fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Callable { callable, is_async } => {
                Self::Callable { callable: callable.clone_ref(py), is_async: *is_async }
            }
            Self::Route(route) => Self::Route(route.clone_ref(py)),
            Self::Network(network) => Self::Network(network.clone_ref(py)),
        }
    }

    /// What was given.
    pub fn object(&self, py: Python<'_>) -> Py<PyAny> {
        match self {
            Self::Callable { callable, .. } => callable.clone_ref(py),
            Self::Route(route) => route.clone_ref(py).into_any(),
            Self::Network(network) => network.clone_ref(py).into_any(),
        }
    }

    /// Whether Python code takes part, which needs its caller's loop and context.
    pub fn is_python(&self) -> bool {
        match self {
            Self::Callable { .. } => true,
            Self::Route(route) => route.get().upstreams.iter().any(|(upstream, _)| upstream.is_python()),
            Self::Network(_) => false,
        }
    }

    /// As one exchange uses it, with its caller's loop and context.
    pub fn upstream(
        &self,
        py: Python<'_>,
        event_loop: Option<&Arc<LoopCore>>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<Arc<dyn Upstream>> {
        Ok(match self {
            Self::Callable { callable, is_async } => {
                if !is_async {
                    crate::py::executor::threads::threads().ensure(py)?;
                }
                let context = context.clone().unbind();
                let event_loop = match event_loop {
                    Some(core) => core.clone(),
                    None => LoopCore::own(py)?,
                };
                Arc::new(PyUpstream::new(callable.clone_ref(py), *is_async, event_loop, context))
            }
            Self::Network(network) => network.get().network.clone(),
            Self::Route(route) => {
                let route = route.get();
                let upstreams = route.upstreams.iter().map(|(upstream, _)| upstream.upstream(py, event_loop, context));
                Arc::new(Route { table: route.table.clone(), upstreams: upstreams.collect::<PyResult<_>>()? })
            }
        })
    }

    /// Adds who shares each network that is asked.
    pub fn shared(&self, found: &mut Vec<Apps>) {
        match self {
            Self::Callable { .. } => {}
            Self::Network(network) => {
                let apps = network.get().network.apps();
                if !found.iter().any(|other| other.is_same(apps)) {
                    found.push(apps.clone());
                }
            }
            Self::Route(route) => route.get().upstreams.iter().for_each(|(upstream, _)| upstream.shared(found)),
        }
    }

    pub fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::Callable { callable, .. } => visit.call(callable),
            Self::Route(route) => visit.call(route),
            Self::Network(network) => visit.call(network),
        }
    }
}

/// A routing table of upstreams, by URL pattern: see `wasgi.outgoing.route`.
#[pyclass(name = "Route", module = "wasgi._wasgi", frozen)]
pub struct PyRoute {
    table: Arc<Table>,
    /// In the order of the table's patterns, each with what the caller gave.
    upstreams: Vec<(Outgoing, Py<PyAny>)>,
    patterns: Vec<String>,
}

#[pymethods]
impl PyRoute {
    #[new]
    fn new(table: &Bound<'_, PyMapping>) -> PyResult<Self> {
        let (mut patterns, mut upstreams) = (Vec::new(), Vec::new());
        for item in table.items()?.iter() {
            let (pattern, upstream): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            let pattern = pattern
                .cast::<PyString>()
                .map_err(|_| PyTypeError::new_err("a route maps patterns, which are str, to upstreams"))?;
            patterns.push(pattern.to_string());
            upstreams.push((Outgoing::given(&upstream)?, upstream.unbind()));
        }
        let texts = patterns.iter().map(String::as_str);
        let table = Table::new(texts).map_err(|why| PyValueError::new_err(format!("invalid route: {why}")))?;
        Ok(Self { table: Arc::new(table), upstreams, patterns })
    }

    /// The upstream for a request; None if no pattern matches it.
    fn find(&self, py: Python<'_>, request: &PyRequest) -> Option<Py<PyAny>> {
        let (_, upstream) = self.upstreams.get(self.table.find(request.uri())?)?;
        Some(upstream.clone_ref(py))
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("wasgi.outgoing.route({})", self.given(py)?.repr()?))
    }

    /// As its upstreams are: by what was given, in that order.
    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<bool> {
        Ok(self.patterns == other.get().patterns && self.given(py)?.eq(other.get().given(py)?)?)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.patterns.join(" "))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let table = slf.get().given(slf.py())?;
        Ok((slf.get_type().into_any(), (table,).into_pyobject(slf.py())?))
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.upstreams.iter().try_for_each(|(upstream, given)| {
            upstream.traverse(&visit)?;
            visit.call(given)
        })
    }
}

impl PyRoute {
    /// The table as it was given.
    fn given<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let table = PyDict::new(py);
        for (pattern, (_, upstream)) in self.patterns.iter().zip(&self.upstreams) {
            table.set_item(pattern, upstream)?;
        }
        Ok(table)
    }
}

/// How many components may ask one another in a chain. More is taken for a loop.
const DEEPEST: u32 = 16;

/// Refuses an exchange that is too deep in a chain of components, each the upstream of the one before.
pub(crate) fn check_depth(py: Python<'_>) -> PyResult<()> {
    let context = py.import(text!(py, "wasgi._native.context"))?;
    let depth: u32 = context.getattr(text!(py, "depth"))?.call_method0(text!(py, "get"))?.extract()?;
    if depth < DEEPEST {
        return Ok(());
    }
    Err(to_py(py, &Error::Code(ErrorCode::plain("loop-detected").into())))
}
