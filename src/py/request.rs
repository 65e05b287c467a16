//! `wasgi.Request`: a caller's to a guest, and a guest's to its upstream.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, Uri};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use wasmtime_wasi_http::WasiBody;

use super::awaitable::Awaitable;
use super::body::PyBody;
use super::feed::{Feed, OnError};
use super::headers::Fields;
use super::loops::LoopCore;
use super::message::{json, text, trailers, with_length};
use super::reading::Chunks;
use super::world::pause;
use crate::body::GuestBody;
use crate::normal;
use crate::outgoing::Timeouts;
use crate::pace::Pace;

#[pyclass(name = "Timeouts", module = "wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyTimeouts {
    connect: Option<f64>,
    first_byte: Option<f64>,
    between_bytes: Option<f64>,
}

#[pymethods]
impl PyTimeouts {
    fn __repr__(&self) -> String {
        let show = |seconds: Option<f64>| seconds.map_or_else(|| "None".to_owned(), |seconds| seconds.to_string());
        format!(
            "Timeouts(connect={}, first_byte={}, between_bytes={})",
            show(self.connect),
            show(self.first_byte),
            show(self.between_bytes)
        )
    }
}

#[pyclass(name = "Request", module = "wasgi", frozen)]
pub struct PyRequest {
    method: Method,
    uri: Uri,
    fields: Fields,
    trailers: Option<Fields>,
    body: Arc<PyBody>,
    timeouts: Timeouts,
    /// The time of the guest that has sent it, if that is not the machine's.
    pace: OnceLock<Pace>,
}

impl PyRequest {
    pub fn of_server(method: Method, uri: Uri, fields: HeaderMap, body: PyBody) -> Self {
        Self {
            method,
            uri,
            fields: Fields::native(fields),
            trailers: None,
            body: Arc::new(body),
            timeouts: Timeouts::default(),
            pace: OnceLock::new(),
        }
    }

    pub fn from_guest(request: http::Request<GuestBody>, timeouts: Timeouts) -> Self {
        let (mut parts, body) = request.into_parts();
        Self {
            method: parts.method,
            uri: parts.uri,
            fields: Fields::native(parts.headers),
            trailers: None,
            body: Arc::new(PyBody::of_guest(body, None)),
            timeouts,
            pace: parts.extensions.remove::<Pace>().map_or_else(OnceLock::new, OnceLock::from),
        }
    }

    pub fn body(&self) -> &Arc<PyBody> {
        &self.body
    }

    /// The guest's options, if it is a guest's.
    pub fn limits(&self) -> Timeouts {
        self.timeouts
    }

    /// Its URL. One for `*` has an empty path (RFC 9112, 3.3).
    fn written(&self) -> String {
        match self.uri.path() {
            "*" => format!("{}://{}", self.scheme(), self.authority()),
            _ => self.uri.to_string(),
        }
    }

    pub fn http_method(&self) -> &Method {
        &self.method
    }

    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// For a guest's incoming handler. The body is consumed by it.
    pub fn to_guest(
        &self,
        py: Python<'_>,
        event_loop: Option<&Arc<LoopCore>>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<(http::Request<WasiBody>, Option<Arc<Feed>>)> {
        let headers = with_length(self.fields.to_map(py)?, &self.body);
        let trailers = self.trailers.as_ref().map(|trailers| trailers.to_map(py)).transpose()?;
        let on_error = OnError::StopExchange(std::sync::OnceLock::new());
        let (body, feed) = self.body.to_guest(py, trailers, event_loop, context, on_error)?;
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        Ok((request, feed))
    }
}

fn parse_url(url: &str) -> PyResult<Uri> {
    crate::url::parse(url).map_err(|why| PyValueError::new_err(format!("invalid URL: {why}: {url:?}")))
}

/// A URL in the form in which URLs are compared, or what is none as it is. `glob`: it is a pattern, with `*` for any characters.
#[pyfunction]
#[pyo3(signature = (url, *, glob=false))]
pub fn _normal_url(url: &str, glob: bool) -> String {
    if glob { normal::glob(url) } else { normal::url(url).unwrap_or_else(|| url.to_owned()) }
}

#[pymethods]
impl PyRequest {
    #[new]
    #[pyo3(signature = (method, url, *, headers=None, body=None, trailers=None))]
    fn new(
        py: Python<'_>,
        method: &str,
        url: &str,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
        trailers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let invalid = || PyValueError::new_err(format!("invalid method: {method:?}"));
        Ok(Self {
            method: Method::from_bytes(method.as_bytes()).map_err(|_| invalid())?,
            uri: parse_url(url)?,
            fields: Fields::given(py, headers)?,
            trailers: trailers.map(|trailers| Fields::given(py, Some(trailers))).transpose()?,
            body: Arc::new(PyBody::given(body)?),
            timeouts: Timeouts::default(),
            pace: OnceLock::new(),
        })
    }

    #[getter]
    fn method(&self) -> &str {
        self.method.as_str()
    }

    #[getter]
    fn url(&self) -> String {
        self.written()
    }

    #[getter]
    fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("http")
    }

    #[getter]
    fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    #[getter]
    fn path(&self) -> &str {
        self.uri.path()
    }

    #[getter]
    fn query(&self) -> &str {
        self.uri.query().unwrap_or("")
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.fields.object(py)
    }

    #[getter]
    fn trailers(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        trailers(py, self.trailers.as_ref(), &self.body)
    }

    /// Whoever answers it has done with its body: a guest that still writes it can finish.
    fn _discard_rest(&self) {
        self.body.discard_rest();
    }

    /// The host and the port that it is for; an address of IPv6 without brackets.
    fn _address(&self) -> (&str, u16) {
        let (host, port) = crate::url::split(self.authority()).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host, port.or_else(|| crate::url::implied_port(self.scheme())).unwrap_or_default())
    }

    /// The path with the query.
    fn _target(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// Is sent for another one: in its time.
    fn _follow(&self, other: &Bound<'_, Self>) {
        if let Some(pace) = other.get().pace.get() {
            let _ = self.pace.set(pace.clone());
        }
    }

    /// So many seconds of doing nothing, for whoever answers it: where the time of the guest that has sent it is not the
    /// machine's. Else None.
    fn _pause(&self, seconds: f64) -> PyResult<Option<Awaitable>> {
        self.pace.get().map(|pace| pause(pace.clone(), seconds)).transpose()
    }

    #[getter]
    fn timeouts(&self) -> PyTimeouts {
        let seconds = |limit: Option<std::time::Duration>| limit.map(|limit| limit.as_secs_f64());
        PyTimeouts {
            connect: seconds(self.timeouts.connect),
            first_byte: seconds(self.timeouts.first_byte),
            between_bytes: seconds(self.timeouts.between_bytes),
        }
    }

    fn read(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.body.read(py)
    }

    fn aread(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.body.aread(py)
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<Chunks> {
        self.body.iterate(py)
    }

    fn __aiter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.body.aiterate(py)
    }

    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
        Ok(pyo3::types::PyBytes::new(py, &self.body.whole(py)?))
    }

    #[getter]
    fn text(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        text(py, &self.fields, &self.body)
    }

    fn json(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        json(py, &self.body)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<wasgi.Request {} {}>", self.method, PyString::new(py, &self.written()).repr()?))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.fields.traverse(&visit)?;
        self.body.traverse(&visit)
    }
}
