//! What `wasgi.Request` and `wasgi.Response` have in common.

pub mod async_chunks;
pub mod body;
pub mod chunks;
pub mod feed;
pub mod headers;
pub mod read;
pub mod report;
pub mod request;
pub mod response;
pub mod server_request;
pub mod source;
pub mod timeouts;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::py::message::body::PyBody;
use crate::py::message::headers::Fields;

/// The fields after the body: given beforehand, or known when a guest's body has ended.
pub fn trailers(py: Python<'_>, given: Option<&Fields>, body: &PyBody) -> PyResult<Option<Py<PyAny>>> {
    match (given, body.trailers()) {
        (Some(given), _) => given.object(py).map(Some),
        (None, Some(map)) => Fields::native(map).object(py).map(Some),
        (None, None) => Ok(None),
    }
}

pub fn text(py: Python<'_>, fields: &Fields, body: &Arc<PyBody>) -> PyResult<Py<PyAny>> {
    let whole = body.whole(py)?;
    let content_type = fields.object(py)?.bind(py).call_method1("get", ("content-type", ""))?;
    let decode = py.import("wasgi.headers")?.getattr("_decode")?;
    Ok(decode.call1((pyo3::types::PyBytes::new(py, &whole), content_type))?.unbind())
}

pub fn json(py: Python<'_>, body: &Arc<PyBody>) -> PyResult<Py<PyAny>> {
    let whole = body.whole(py)?;
    let parsed = py.import("json")?.call_method1("loads", (pyo3::types::PyBytes::new(py, &whole),));
    parsed.map(Bound::unbind).map_err(|error| {
        if !error.is_instance_of::<PyRecursionError>(py) {
            return error;
        }
        let refused = PyValueError::new_err("the body cannot be parsed as JSON: it is nested too deeply");
        refused.set_cause(py, Some(error));
        refused
    })
}

/// Whether two bodies are known to be the same.
pub fn same_body(one: &Arc<PyBody>, other: &Arc<PyBody>) -> bool {
    Arc::ptr_eq(one, other) || one.known().is_some_and(|known| other.known() == Some(known))
}

pub fn same_trailers(py: Python<'_>, one: Option<&Fields>, other: Option<&Fields>) -> PyResult<bool> {
    match (one, other) {
        (Some(one), Some(other)) => one.equal(py, other),
        (one, other) => Ok(one.is_none() && other.is_none()),
    }
}

/// The trailers as somebody else may have them: given, or read.
pub fn own_trailers(py: Python<'_>, given: Option<&Fields>, body: &PyBody) -> PyResult<Option<Fields>> {
    match (given, body.trailers()) {
        (Some(given), _) => given.copied(py, false).map(Some),
        (None, read) => Ok(read.map(Fields::native)),
    }
}

/// What `copy.replace` was asked to change.
pub struct Changes<'py>(Bound<'py, PyDict>);

impl<'py> Changes<'py> {
    /// Each of them must be one of `names`.
    pub fn new(py: Python<'py>, given: Option<&Bound<'py, PyDict>>, class: &str, names: &[&str]) -> PyResult<Self> {
        let Some(given) = given else { return Ok(Self(PyDict::new(py))) };
        for name in given.keys() {
            let name: String = name.extract()?;
            if !names.contains(&name.as_str()) {
                return Err(PyTypeError::new_err(format!("a {class} has no `{name}` that could be replaced")));
            }
        }
        Ok(Self(given.clone()))
    }

    pub fn get(&self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.get_item(name)
    }
}

fn unless_none<'py>(value: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if value.is_none() { None } else { Some(value) }
}

/// The body and the fields of a changed copy: what is not given is copied, but a body that streams moves over.
pub fn changed(
    py: Python<'_>,
    changes: &Changes<'_>,
    fields: &Fields,
    given_trailers: Option<&Fields>,
    body: &Arc<PyBody>,
) -> PyResult<(Fields, Option<Fields>, PyBody)> {
    let other_body = changes.get("body")?.map(unless_none);
    let fields = match changes.get("headers")?.map(unless_none) {
        Some(headers) => Fields::given(py, headers.as_ref())?,
        None => fields.copied(py, other_body.is_some())?,
    };
    let trailers = match changes.get("trailers")?.map(unless_none) {
        Some(trailers) => trailers.map(|trailers| Fields::given(py, Some(&trailers))).transpose()?,
        None => own_trailers(py, given_trailers, body)?,
    };
    let body = match (other_body, body.known()) {
        (Some(other), _) => PyBody::given(other.as_ref())?,
        (None, Some(known)) => PyBody::of_bytes(known),
        (None, None) => body.take_over(py)?,
    };
    Ok((fields, trailers, body))
}

/// Says how long the body is where that is known and not said, as a server or a client on the wire would.
pub fn with_length(mut headers: HeaderMap, body: &PyBody) -> HeaderMap {
    if let Some(length) = body.length().filter(|length| *length > 0)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers
}
