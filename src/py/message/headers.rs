//! Fields between Rust and Python. `wasgi.Headers` is Python's; what comes from a guest becomes one only when asked for.

use std::sync::Mutex;

use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::http::fields::{self, Wrong};
use crate::http::server_request;
use crate::py::lock;
use crate::py::once::Once;

/// The fields of a message: as they came from a guest, or as the `Headers` that Python has seen and may have changed.
pub(crate) struct Fields(Mutex<State>);

enum State {
    Native(HeaderMap),
    Python(Py<PyAny>),
}

fn class(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static CLASS: Once<Py<PyAny>> = Once::new();
    CLASS.import(py, "wasgi.headers", "Headers")
}

impl Fields {
    pub(crate) fn native(map: HeaderMap) -> Self {
        Self(Mutex::new(State::Native(map)))
    }

    /// From what a caller gave: nothing, a mapping, or pairs.
    pub(crate) fn given(py: Python<'_>, headers: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        crate::py::executor::finalization::protect();
        Ok(match headers {
            None => Self::native(HeaderMap::new()),
            Some(headers) => Self(Mutex::new(State::Python(class(py)?.call1((headers,))?.unbind()))),
        })
    }

    /// The pairs as bytes, but for those of a connection.
    pub(crate) fn served(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let map = self.to_map(py)?;
        let is_left_out = server_request::left_out(&map);
        Ok(raw_pairs(py, map.iter().filter(|(name, _)| !is_left_out(name)))?.unbind())
    }

    /// The `Headers` object; always the same one.
    pub(crate) fn object(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        crate::py::executor::finalization::protect();
        // Python objects are made outside of the lock: making them may run any code (garbage collection).
        let map = match &*lock(&self.0) {
            State::Python(headers) => return Ok(headers.clone_ref(py)),
            State::Native(map) => map.clone(),
        };
        let made = class(py)?.call1((raw_pairs(py, map.iter())?,))?.unbind();
        let mut state = lock(&self.0);
        if let State::Python(headers) = &*state {
            return Ok(headers.clone_ref(py));
        }
        *state = State::Python(made.clone_ref(py));
        Ok(made)
    }

    /// For another message. Without what says how long the body is, if that message has a body of its own.
    pub(crate) fn copied(&self, py: Python<'_>, other_body: bool) -> PyResult<Self> {
        let copied = match &*lock(&self.0) {
            State::Native(map) => Err(map.clone()),
            State::Python(headers) => Ok(headers.clone_ref(py)),
        };
        match copied {
            Err(mut map) => {
                if other_body {
                    map.remove(CONTENT_LENGTH);
                }
                Ok(Self::native(map))
            }
            Ok(headers) => {
                let copied = class(py)?.call1((headers,))?;
                if other_body {
                    copied.call_method1("pop", (CONTENT_LENGTH.as_str(), py.None()))?;
                }
                Ok(Self(Mutex::new(State::Python(copied.unbind()))))
            }
        }
    }

    /// All pairs, as a list of tuples of bytes.
    pub(crate) fn raw<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.object(py)?.bind(py).getattr("raw")
    }

    pub(crate) fn equal(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        self.object(py)?.bind(py).eq(other.object(py)?)
    }

    pub(crate) fn to_map(&self, py: Python<'_>) -> PyResult<HeaderMap> {
        crate::py::executor::finalization::protect();
        let headers = match &*lock(&self.0) {
            State::Native(map) => return Ok(map.clone()),
            State::Python(headers) => headers.clone_ref(py),
        };
        let pairs: Vec<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)> = headers.bind(py).getattr("raw")?.extract()?;
        fields::from_pairs(pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())))
            .map_err(|wrong| refused(py, wrong))
    }

    pub(crate) fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match self.0.try_lock().as_deref() {
            Ok(State::Python(headers)) => visit.call(headers),
            _ => Ok(()),
        }
    }
}

/// Why there are no fields of these pairs.
pub(crate) fn refused(py: Python<'_>, wrong: Wrong) -> PyErr {
    let show = |bytes: &[u8]| format!("{:?}", PyBytes::new(py, bytes));
    PyValueError::new_err(match wrong {
        Wrong::Name(name) => format!("invalid header name: {}", show(&name)),
        Wrong::Value(name, value) => format!("invalid value of header `{name}`: {}", show(&value)),
        Wrong::TooMany => "too many headers".to_owned(),
        Wrong::TwoHosts => "more than one `host` header".to_owned(),
    })
}

fn raw_pairs<'py, 'a>(
    py: Python<'py>,
    fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
) -> PyResult<Bound<'py, PyList>> {
    let pairs = PyList::empty(py);
    for (name, value) in fields {
        pairs.append(PyTuple::new(
            py,
            [PyBytes::new(py, name.as_str().as_bytes()), PyBytes::new(py, value.as_bytes())],
        )?)?;
    }
    Ok(pairs)
}
