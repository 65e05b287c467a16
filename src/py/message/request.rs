//! `wasgi.Request`: a caller's to a guest, and a guest's to its upstream.

use std::sync::{Arc, OnceLock};

use http::{HeaderMap, Method, Uri};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};
use wasmtime_wasi_http::WasiBody;

use crate::exchange::guest_body::GuestBody;
use crate::http::canonical_url;
use crate::outgoing::upstream::Timeouts;
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::event_loop::LoopCore;
use crate::py::message::body::{BodyOf, PyBody};
use crate::py::message::chunks::Chunks;
use crate::py::message::feed::{Feed, OnError};
use crate::py::message::timeouts::PyTimeouts;
use crate::py::message::{Changes, Message};
use crate::py::simulation::pause;
use crate::py::values::{Reduced, hash_of, reduce};
use crate::simulation::virtual_time::WorkClock;

/// A request: to a guest's incoming handler, or an outgoing request of a guest.
///
/// Args:
///     method: Any token (RFC 9110, 9.1), unchanged: methods are case-sensitive.
///     url: Absolute. Characters that a URL must not contain are percent-encoded in its path and query, a
///         percent-encoded host is decoded, and a fragment is removed.
///     headers: A mapping or pairs. ``host`` and hop-by-hop fields do not reach a guest: the URL names the host.
///     body: Bytes, str (as UTF-8), a file, an iterable or async iterable of bytes, or another message, whose body
///         moves over. A body of known length gets a ``content-length``, unless there is one.
///     trailers: Fields after the body.
///     timeouts: Its timeouts in `wasgi.outgoing.call`; a guest's own request has those of its `request-options`. A
///         guest of WASI 0.3 that handles the request finds them as its `request-options`.
///
/// Raises:
///     ValueError: The URL has no host or an invalid port, or a method or a header is invalid.
///     TypeError: A body or headers of another type.
///
/// A request whose body is bytes, or that has none, can be sent many times; a streamed body is sent once. Requests are
/// equal if all their parts are; a streamed body is equal to itself only. A request whose body is bytes, or has been
/// read, can be copied and pickled. ``copy.replace(request, url=...)`` (Python 3.13) makes a changed request; a
/// streamed body moves to it.
#[pyclass(name = "Request", module = "wasgi", frozen)]
pub struct PyRequest {
    method: Method,
    uri: Uri,
    message: Message,
    timeouts: Timeouts,
    /// The time of the guest that has sent it, if that is not the machine's.
    clock: OnceLock<WorkClock>,
}

impl PyRequest {
    pub fn of_server(method: Method, uri: Uri, fields: HeaderMap, body: PyBody) -> Self {
        Self {
            method,
            uri,
            message: Message::native(fields, body),
            timeouts: Timeouts::default(),
            clock: OnceLock::new(),
        }
    }

    pub fn from_guest(request: http::Request<GuestBody>, timeouts: Timeouts) -> Self {
        let (mut parts, body) = request.into_parts();
        Self {
            method: parts.method,
            uri: parts.uri,
            message: Message::native(parts.headers, PyBody::of_guest(body, None)),
            timeouts,
            clock: parts.extensions.remove::<WorkClock>().map_or_else(OnceLock::new, OnceLock::from),
        }
    }

    pub fn body(&self) -> &Arc<PyBody> {
        &self.message.body
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
        let on_error = OnError::StopExchange(std::sync::OnceLock::new());
        let (headers, body, feed) = self.message.to_guest(py, event_loop, context, on_error)?;
        let mut request = http::Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = headers;
        if self.timeouts != Timeouts::default() {
            request.extensions_mut().insert(self.timeouts);
        }
        Ok((request, feed))
    }
}

fn parse_method(method: &str) -> PyResult<Method> {
    Method::from_bytes(method.as_bytes()).map_err(|_| PyValueError::new_err(format!("invalid method: {method:?}")))
}

fn parse_url(url: &str) -> PyResult<Uri> {
    crate::http::url::parse(url).map_err(|why| PyValueError::new_err(format!("invalid URL: {why}: {url:?}")))
}

/// A URL in the form in which URLs are compared; None if it is none. `glob`: it is a pattern, with `*` for any characters.
#[pyfunction]
#[pyo3(signature = (url, *, glob=false))]
pub(crate) fn _normal_url(url: &str, glob: bool) -> Option<String> {
    if glob { Some(canonical_url::glob(url)) } else { canonical_url::url(url) }
}

#[pymethods]
impl PyRequest {
    #[new]
    #[pyo3(signature = (method, url, *, headers=None, body=None, trailers=None, timeouts=None))]
    fn new(
        py: Python<'_>,
        method: &str,
        url: &str,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
        trailers: Option<&Bound<'_, PyAny>>,
        timeouts: Option<&Bound<'_, PyTimeouts>>,
    ) -> PyResult<Self> {
        Ok(Self {
            method: parse_method(method)?,
            uri: parse_url(url)?,
            message: Message::given(py, headers, body, trailers)?,
            timeouts: timeouts.map_or_else(Timeouts::default, |timeouts| timeouts.get().core()),
            clock: OnceLock::new(),
        })
    }

    #[getter]
    fn method(&self) -> &str {
        self.method.as_str()
    }

    /// The whole URL.
    #[getter]
    fn url(&self) -> String {
        self.written()
    }

    /// ``"http"`` or ``"https"``.
    #[getter]
    fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("http")
    }

    /// Host, and port if the URL has one.
    #[getter]
    fn authority(&self) -> &str {
        self.uri.authority().map_or("", |authority| authority.as_str())
    }

    /// The path, percent-encoded, at least ``"/"``.
    #[getter]
    fn path(&self) -> &str {
        self.uri.path()
    }

    /// The query without its ``?``; empty if there is none.
    #[getter]
    fn query(&self) -> &str {
        self.uri.query().unwrap_or("")
    }

    /// The fields. Always the same object; changing it changes the request.
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.fields.object(py)
    }

    /// For a message that is given this one as its body.
    #[getter]
    fn _body(&self) -> BodyOf {
        BodyOf(self.message.body.clone())
    }

    /// The fields after the body; for a guest's request, known when its body has ended.
    #[getter]
    fn trailers(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.message.trailers(py)
    }

    /// Whoever answers it has done with its body: a guest that still writes it can finish.
    fn _discard_rest(&self) {
        self.message.body.discard_rest();
    }

    /// The host and the port that it is for; an address of IPv6 without brackets.
    fn _address(&self) -> (&str, u16) {
        let (host, port) = crate::http::url::split(self.authority()).unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        (host, port.or_else(|| crate::http::url::implied_port(self.scheme())).unwrap_or_default())
    }

    /// The path with the query.
    fn _target(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    /// Is sent for another one: in its time.
    fn _follow(&self, other: &Bound<'_, Self>) {
        if let Some(clock) = other.get().clock.get() {
            let _ = self.clock.set(clock.clone());
        }
    }

    /// So many seconds of doing nothing, for whoever answers it: where the time of the guest that has sent it is not the
    /// machine's. Else None.
    fn _pause(&self, seconds: f64) -> PyResult<Option<Awaitable>> {
        self.clock.get().map(|clock| pause(clock.clone(), seconds)).transpose()
    }

    /// The timeouts of the guest for its outgoing request; they are enforced.
    #[getter]
    fn timeouts(&self) -> PyTimeouts {
        PyTimeouts::of(self.timeouts)
    }

    /// The whole body; blocks.
    ///
    /// Raises:
    ///     BodyError: The body failed midway, or was consumed before.
    fn read(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.body.read(py)
    }

    /// The whole body. It is consumed when this is awaited.
    ///
    /// Raises:
    ///     BodyError: The body failed midway, or was consumed before.
    fn aread(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.body.aread(py)
    }

    fn __iter__(&self, py: Python<'_>) -> PyResult<Chunks> {
        self.message.body.iterate(py)
    }

    fn __aiter__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.body.aiterate(py)
    }

    /// The whole body, as often as you like. Reads the body if necessary, like `text`.
    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.message.content(py)
    }

    /// The body as text, by the charset of its content-type, or else as UTF-8; invalid bytes are replaced.
    ///
    /// Reads the body if necessary. On a thread that runs an event loop, reading raises `BodyError` (``await aread()``
    /// first), except for the response of a blocking `App.handle`, and for a body that is already in memory.
    #[getter]
    fn text(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.text(py)
    }

    /// The body parsed as JSON (RFC 8259). Reads the body if necessary, like `text`.
    ///
    /// Raises:
    ///     ValueError: It is not JSON.
    fn json(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.json(py)
    }

    /// A body that streams is equal to itself only.
    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<bool> {
        let other = other.get();
        Ok(std::ptr::eq(self, other)
            || (self.method == other.method
                && self.uri == other.uri
                && self.timeouts == other.timeouts
                && self.message.equal(py, &other.message)?))
    }

    /// Of what never changes in it.
    fn __hash__(&self) -> u64 {
        hash_of(&format!("{} {}", self.method, self.uri))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (py, this) = (slf.py(), slf.get());
        let settings = PyDict::new(py);
        settings.set_item("method", this.method())?;
        settings.set_item("url", this.url())?;
        this.message.add_to(&settings)?;
        settings.set_item("timeouts", Bound::new(py, this.timeouts())?)?;
        reduce(&slf.get_type(), &settings)
    }

    #[pyo3(signature = (**changes))]
    fn __replace__(&self, py: Python<'_>, changes: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let changes =
            Changes::new(py, changes, "Request", &["method", "url", "headers", "body", "trailers", "timeouts"])?;
        let method = match changes.get("method")? {
            Some(method) => parse_method(method.extract()?)?,
            None => self.method.clone(),
        };
        let uri = match changes.get("url")? {
            Some(url) => parse_url(url.extract()?)?,
            None => self.uri.clone(),
        };
        let timeouts = match changes.get("timeouts")? {
            Some(timeouts) if timeouts.is_none() => Timeouts::default(),
            Some(timeouts) => timeouts.cast::<PyTimeouts>()?.get().core(),
            None => self.timeouts,
        };
        let message = self.message.changed(py, &changes)?;
        Ok(Self { method, uri, message, timeouts, clock: self.clock.clone() })
    }

    fn __copy__(&self, py: Python<'_>) -> PyResult<Self> {
        self.message.body.copied(py, "copied")?;
        self.__replace__(py, None)
    }

    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.__copy__(py)
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!("<wasgi.Request {} {}>", self.method, PyString::new(py, &self.written()).repr()?))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.message.traverse(&visit)
    }
}
