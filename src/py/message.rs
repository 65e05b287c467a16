//! `wasgi.Request` and `wasgi.Response`: the same pair for both directions.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use wasmtime_wasi_http::WasiBody;

use super::awaitable::Awaitable;
use super::body::PyBody;
use super::feed::{Feed, OnError};
use super::headers::Fields;
use super::loops::LoopCore;
use super::reading::{Chunks, Nothing};
use super::report::{End, Finished, PyReport};
use super::stdio::{Flushed, GuestOutput};
use super::world::pause;
use crate::body::GuestBody;
use crate::outgoing::Timeouts;
use crate::owner::Owner;
use crate::pace::Pace;

/// The fields after the body: given beforehand, or known when a guest's body has ended.
fn trailers(py: Python<'_>, given: Option<&Fields>, body: &PyBody) -> PyResult<Option<Py<PyAny>>> {
    match (given, body.trailers()) {
        (Some(given), _) => given.object(py).map(Some),
        (None, Some(map)) => Fields::native(map).object(py).map(Some),
        (None, None) => Ok(None),
    }
}

fn text(py: Python<'_>, fields: &Fields, body: &Arc<PyBody>) -> PyResult<Py<PyAny>> {
    let whole = body.whole(py)?;
    let bridge = py.import("wasgi._bridge")?;
    Ok(bridge.call_method1("decode", (pyo3::types::PyBytes::new(py, &whole), fields.object(py)?))?.unbind())
}

fn json(py: Python<'_>, body: &Arc<PyBody>) -> PyResult<Py<PyAny>> {
    let whole = body.whole(py)?;
    Ok(py.import("json")?.call_method1("loads", (pyo3::types::PyBytes::new(py, &whole),))?.unbind())
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
    pace: Option<Pace>,
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
            pace: None,
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
            pace: parts.extensions.remove(),
        }
    }

    pub fn body(&self) -> &PyBody {
        &self.body
    }

    /// The guest's options, if it is a guest's.
    pub fn limits(&self) -> Timeouts {
        self.timeouts
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
            pace: None,
        })
    }

    #[getter]
    fn method(&self) -> &str {
        self.method.as_str()
    }

    #[getter]
    fn url(&self) -> String {
        self.uri.to_string()
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

    /// So many seconds of doing nothing, for whoever answers it: where the time of the guest that has sent it is not the
    /// machine's. Else None.
    fn _pause(&self, seconds: f64) -> PyResult<Option<Awaitable>> {
        self.pace.as_ref().map(|pace| pause(pace.clone(), seconds)).transpose()
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
        Ok(format!("<wasgi.Request {} {}>", self.method, PyString::new(py, &self.uri.to_string()).repr()?))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.fields.traverse(&visit)?;
        self.body.traverse(&visit)
    }
}

#[pyclass(name = "Response", module = "wasgi", frozen)]
pub struct PyResponse {
    status: u16,
    fields: Fields,
    trailers: Option<Fields>,
    body: Arc<PyBody>,
    exchange: Option<(u64, Owner)>,
}

impl PyResponse {
    fn end(&self) -> Option<End> {
        let (exchange, owner) = self.exchange.as_ref()?;
        Some(End::new(*exchange, owner, &self.body))
    }

    /// What a guest answered.
    pub fn from_guest(response: http::Response<GuestBody>, exchange: u64, output: Arc<GuestOutput>) -> Self {
        let (parts, body) = response.into_parts();
        let observer = body.owner().observe();
        Self {
            status: parts.status.as_u16(),
            fields: Fields::native(parts.headers),
            trailers: None,
            body: Arc::new(PyBody::of_guest(body, Some(output))),
            exchange: Some((exchange, observer)),
        }
    }

    /// What an upstream answered to Python's own request.
    pub fn from_upstream(response: http::Response<GuestBody>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            fields: Fields::native(parts.headers),
            trailers: None,
            body: Arc::new(PyBody::of_guest(body, None)),
            exchange: None,
        }
    }

    pub fn body(&self) -> &PyBody {
        &self.body
    }

    /// As the answer to a guest's outgoing request.
    pub fn to_guest(
        &self,
        py: Python<'_>,
        event_loop: &Arc<LoopCore>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<http::Response<WasiBody>> {
        let headers = with_length(self.fields.to_map(py)?, &self.body);
        let trailers = self.trailers.as_ref().map(|trailers| trailers.to_map(py)).transpose()?;
        let (body, _) = self.body.to_guest(py, trailers, Some(event_loop), context, OnError::TellGuest)?;
        let mut response = http::Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).map_err(|_| PyValueError::new_err("invalid status"))?;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

#[pymethods]
impl PyResponse {
    #[new]
    #[pyo3(signature = (status=200, *, headers=None, body=None, trailers=None))]
    fn new(
        py: Python<'_>,
        status: u16,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
        trailers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        if !(100..1000).contains(&status) {
            return Err(PyValueError::new_err(format!("invalid status, it must be from 100 to 999: {status}")));
        }
        Ok(Self {
            status,
            fields: Fields::given(py, headers)?,
            trailers: trailers.map(|trailers| Fields::given(py, Some(trailers))).transpose()?,
            body: Arc::new(PyBody::given(body)?),
            exchange: None,
        })
    }

    #[getter]
    fn status(&self) -> u16 {
        self.status
    }

    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.fields.object(py)
    }

    #[getter]
    fn trailers(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        trailers(py, self.trailers.as_ref(), &self.body)
    }

    #[getter]
    fn report(&self) -> Option<PyReport> {
        let (exchange, owner) = self.exchange.as_ref()?;
        Some(PyReport::of(*exchange, owner))
    }

    /// The fields that are meant for a server's client: those of a connection stay out. Names are in lower case.
    fn _served_headers(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        self.fields.served(py)
    }

    fn finished(&self) -> Awaitable {
        Awaitable::new(Flushed::new(Finished(self.end()), self.body.output()))
    }

    fn wait(&self, py: Python<'_>) -> PyResult<Option<PyReport>> {
        let Some(mut end) = self.end() else { return Ok(None) };
        let failure = super::waiting::block_on(py, |cx| end.poll(cx))?;
        self.body.deliver(py)?;
        end.tell(py, failure).map(Some)
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

    fn close(&self, py: Python<'_>) {
        self.body.close(py);
    }

    fn aclose(&self, py: Python<'_>) -> Awaitable {
        self.body.close(py);
        Awaitable::new(Nothing)
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) {
        self.body.close(py);
    }

    fn __aenter__(slf: Py<Self>, py: Python<'_>) -> Awaitable {
        let _ = py;
        Awaitable::new(Itself(Some(slf.into_any())))
    }

    fn __aexit__(&self, py: Python<'_>, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) -> Awaitable {
        self.aclose(py)
    }

    fn __repr__(&self) -> String {
        format!("<wasgi.Response {}>", self.status)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.fields.traverse(&visit)?;
        self.body.traverse(&visit)
    }
}

/// `async with` gives what it was asked of.
pub struct Itself(pub Option<Py<PyAny>>);

impl super::awaitable::Operation for Itself {
    fn poll(&mut self, py: Python<'_>, _: &mut std::task::Context<'_>) -> std::task::Poll<PyResult<Py<PyAny>>> {
        std::task::Poll::Ready(Ok(self.0.take().unwrap_or_else(|| py.None())))
    }
}
