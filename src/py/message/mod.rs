//! What `wasgi.Request` and `wasgi.Response` have in common.

pub(crate) mod async_chunks;
pub(crate) mod body;
pub(crate) mod chunks;
pub(crate) mod feed;
pub(crate) mod feed_body;
pub(crate) mod headers;
pub(crate) mod read;
pub(crate) mod report;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod server_request;
pub(crate) mod source;
pub(crate) mod timeouts;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use pyo3::exceptions::{PyRecursionError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use wasmtime_wasi_http::WasiBody;

use crate::py::executor::event_loop::LoopCore;
use crate::py::message::body::PyBody;
use crate::py::message::feed::{Feed, OnError};
use crate::py::message::headers::Fields;

/// The parts of a message that `wasgi.Request` and `wasgi.Response` have in common.
pub(crate) struct Message {
    pub fields: Fields,
    /// The trailers that a caller gave. Those of a guest are the body's.
    given_trailers: Option<Fields>,
    pub body: Arc<PyBody>,
}

impl Message {
    /// Of the arguments of a constructor.
    pub(crate) fn given(
        py: Python<'_>,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
        trailers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            fields: Fields::given(py, headers)?,
            given_trailers: trailers.map(|trailers| Fields::given(py, Some(trailers))).transpose()?,
            body: Arc::new(PyBody::given(body)?),
        })
    }

    pub(crate) fn native(fields: HeaderMap, body: PyBody) -> Self {
        Self { fields: Fields::native(fields), given_trailers: None, body: Arc::new(body) }
    }

    /// The fields after the body: given beforehand, or known when a guest's body has ended.
    pub(crate) fn trailers(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        match (&self.given_trailers, self.body.trailers()) {
            (Some(given), _) => given.object(py).map(Some),
            (None, Some(map)) => Fields::native(map).object(py).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// A copy of the trailers, given or read.
    fn copied_trailers(&self, py: Python<'_>) -> PyResult<Option<Fields>> {
        match (&self.given_trailers, self.body.trailers()) {
            (Some(given), _) => given.copied(py, false).map(Some),
            (None, read) => Ok(read.map(Fields::native)),
        }
    }

    pub(crate) fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.body.whole(py)?))
    }

    pub(crate) fn text(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let content = self.content(py)?;
        let content_type = self.fields.object(py)?.bind(py).call_method1("get", ("content-type", ""))?;
        let decode = py.import("wasgi.headers")?.getattr("_decode")?;
        Ok(decode.call1((content, content_type))?.unbind())
    }

    pub(crate) fn json(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let content = self.content(py)?;
        let parsed = py.import("json")?.call_method1("loads", (content,));
        parsed.map(Bound::unbind).map_err(|error| {
            if !error.is_instance_of::<PyRecursionError>(py) {
                return error;
            }
            let refused = PyValueError::new_err("the body cannot be parsed as JSON: it is nested too deeply");
            refused.set_cause(py, Some(error));
            refused
        })
    }

    /// Bodies that stream are equal to themselves only.
    pub(crate) fn equal(&self, py: Python<'_>, other: &Self) -> PyResult<bool> {
        let same_trailers = match (self.copied_trailers(py)?, other.copied_trailers(py)?) {
            (Some(one), Some(other)) => one.equal(py, &other)?,
            (one, other) => one.is_none() && other.is_none(),
        };
        let same_body = Arc::ptr_eq(&self.body, &other.body)
            || self.body.known().is_some_and(|known| other.body.known() == Some(known));
        Ok(same_trailers && same_body && self.fields.equal(py, &other.fields)?)
    }

    /// Adds the arguments that make an equal one, for pickle.
    pub(crate) fn add_to(&self, settings: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = settings.py();
        settings.set_item("headers", self.fields.raw(py)?)?;
        settings.set_item("body", PyBytes::new(py, &self.body.copied(py, "pickled")?))?;
        if let Some(trailers) = self.copied_trailers(py)? {
            settings.set_item("trailers", trailers.raw(py)?)?;
        }
        Ok(())
    }

    /// A changed copy: what is not given is copied, but a body that streams moves over.
    pub(crate) fn changed(&self, py: Python<'_>, changes: &Changes<'_>) -> PyResult<Self> {
        let other_body = changes.get("body")?.map(unless_none);
        let fields = match changes.get("headers")?.map(unless_none) {
            Some(headers) => Fields::given(py, headers.as_ref())?,
            None => self.fields.copied(py, other_body.is_some())?,
        };
        let given_trailers = match changes.get("trailers")?.map(unless_none) {
            Some(trailers) => trailers.map(|trailers| Fields::given(py, Some(&trailers))).transpose()?,
            None => self.copied_trailers(py)?,
        };
        let body = match (other_body, self.body.known()) {
            (Some(other), _) => PyBody::given(other.as_ref())?,
            (None, Some(known)) => PyBody::of_bytes(known),
            (None, None) => self.body.take_over(py)?,
        };
        Ok(Self { fields, given_trailers, body: Arc::new(body) })
    }

    /// Fields and body for a guest. The body is consumed.
    pub(crate) fn to_guest(
        &self,
        py: Python<'_>,
        event_loop: Option<&Arc<LoopCore>>,
        context: &Bound<'_, PyAny>,
        on_error: OnError,
    ) -> PyResult<(HeaderMap, WasiBody, Option<Arc<Feed>>)> {
        let headers = with_length(self.fields.to_map(py)?, &self.body);
        let trailers = self.given_trailers.as_ref().map(|trailers| trailers.to_map(py)).transpose()?;
        let (body, feed) = self.body.to_guest(py, trailers, event_loop, context, on_error)?;
        Ok((headers, body, feed))
    }

    pub(crate) fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.fields.traverse(visit)?;
        self.body.traverse(visit)
    }
}

/// What `copy.replace` was asked to change.
pub(crate) struct Changes<'py>(Bound<'py, PyDict>);

impl<'py> Changes<'py> {
    /// Each of them must be one of `names`.
    pub(crate) fn new(
        py: Python<'py>,
        given: Option<&Bound<'py, PyDict>>,
        class: &str,
        names: &[&str],
    ) -> PyResult<Self> {
        let Some(given) = given else { return Ok(Self(PyDict::new(py))) };
        for name in given.keys() {
            let name: String = name.extract()?;
            if !names.contains(&name.as_str()) {
                return Err(PyTypeError::new_err(format!("a {class} has no `{name}` that could be replaced")));
            }
        }
        Ok(Self(given.clone()))
    }

    pub(crate) fn get(&self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.0.get_item(name)
    }
}

fn unless_none<'py>(value: Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    if value.is_none() { None } else { Some(value) }
}

/// Says how long the body is where that is known and not said, as a server or a client on the wire would.
fn with_length(mut headers: HeaderMap, body: &PyBody) -> HeaderMap {
    if let Some(length) = body.length().filter(|length| *length > 0)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers
}
