//! `wasgi.Response`: a guest's to its caller, and an upstream's to a guest.

use std::sync::Arc;

use http::StatusCode;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use wasmtime_wasi_http::WasiBody;

use crate::exchange::guest_body::GuestBody;
use crate::exchange::handle::ExchangeHandle;
use crate::py::executor::awaitable::{Awaitable, Itself, Once};
use crate::py::executor::event_loop::LoopCore;
use crate::py::message::body::{BodyOf, PyBody};
use crate::py::message::chunks::Chunks;
use crate::py::message::feed::OnError;
use crate::py::message::report::{End, Finished, PyReport};
use crate::py::message::{Changes, Message};
use crate::py::output::GuestOutput;
use crate::py::output::flushed::Flushed;
use crate::py::values::{Count, Number, Reduced, hash_of};

/// A response: of a guest, or to a guest's outgoing request.
///
/// It is a context manager, for ``with`` and ``async with``: leaving closes it. It is compared, copied and pickled like
/// a `Request`; a guest's response keeps its report.
///
/// Args:
///     status: From 100 to 999.
///     headers: A mapping or pairs.
///     body: As for `Request`.
///     trailers: Fields after the body.
///
/// Raises:
///     ValueError: The status or a header is invalid.
///     TypeError: A body or headers of another type.
#[pyclass(name = "Response", module = "wasgi", frozen)]
pub struct PyResponse {
    status: u16,
    message: Message,
    exchange: Option<(u64, ExchangeHandle)>,
    /// What its exchange had cost when it was copied or pickled.
    past: Option<PyReport>,
}

impl PyResponse {
    fn end(&self) -> Option<End> {
        let (exchange, owner) = self.exchange.as_ref()?;
        Some(End::new(*exchange, owner, &self.message.body))
    }

    /// What a guest answered.
    pub fn from_guest(
        response: http::Response<GuestBody>,
        exchange: u64,
        output: Arc<GuestOutput>,
        blocking: bool,
    ) -> Self {
        let (parts, body) = response.into_parts();
        let observer = body.owner().observe();
        Self {
            status: parts.status.as_u16(),
            message: Message::native(parts.headers, PyBody::of_guest(body, Some(output)).of_blocking_call(blocking)),
            exchange: Some((exchange, observer)),
            past: None,
        }
    }

    /// What an upstream answered to Python's own request.
    pub fn from_upstream(response: http::Response<GuestBody>) -> Self {
        let (parts, body) = response.into_parts();
        Self {
            status: parts.status.as_u16(),
            message: Message::native(parts.headers, PyBody::of_guest(body, None)),
            exchange: None,
            past: None,
        }
    }

    pub fn body(&self) -> &PyBody {
        &self.message.body
    }

    /// As the answer to a guest's outgoing request.
    pub fn to_guest(
        &self,
        py: Python<'_>,
        event_loop: &Arc<LoopCore>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<http::Response<WasiBody>> {
        let (headers, body, _) = self.message.to_guest(py, Some(event_loop), context, OnError::TellGuest)?;
        let mut response = http::Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).map_err(|_| PyValueError::new_err("invalid status"))?;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn parse_status(Number(status): Count) -> PyResult<u16> {
    u16::try_from(status)
        .ok()
        .filter(|status| (100..1000).contains(status))
        .ok_or_else(|| PyValueError::new_err(format!("invalid status, it must be from 100 to 999: {status}")))
}

#[pymethods]
impl PyResponse {
    #[new]
    #[pyo3(
        signature = (status=Number(200), *, headers=None, body=None, trailers=None),
        text_signature = "(status=200, *, headers=None, body=None, trailers=None)"
    )]
    fn new(
        py: Python<'_>,
        status: Count,
        headers: Option<&Bound<'_, PyAny>>,
        body: Option<&Bound<'_, PyAny>>,
        trailers: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        Ok(Self {
            status: parse_status(status)?,
            message: Message::given(py, headers, body, trailers)?,
            exchange: None,
            past: None,
        })
    }

    #[getter]
    fn status(&self) -> u16 {
        self.status
    }

    /// The fields. Always the same object; names from a guest are lower-case.
    #[getter]
    fn headers(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.fields.object(py)
    }

    /// Whether its body is an iterator or a file, which nobody may read in an event loop.
    #[getter]
    fn _blocks(&self) -> bool {
        matches!(self.message.body.kind(), (false, Some(false)))
    }

    /// What closes that iterator.
    #[getter]
    fn _closing<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.message.body.closing(py)
    }

    /// For a message that is given this one as its body.
    #[getter]
    fn _body(&self) -> BodyOf {
        BodyOf(self.message.body.clone())
    }

    /// The fields after the body; for a guest's response, known when its body has ended.
    #[getter]
    fn trailers(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.message.trailers(py)
    }

    /// The cost of the exchange; None if this is not a guest's response.
    #[getter]
    fn report(&self) -> Option<PyReport> {
        match &self.exchange {
            Some((exchange, owner)) => Some(PyReport::of(*exchange, owner)),
            None => self.past.clone(),
        }
    }

    /// The fields that are meant for a server's client: those of a connection stay out. Names are in lower case.
    fn _served_headers(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        self.message.fields.served(py)
    }

    /// Waits until the guest has ended: it may work on after its response.
    ///
    /// An unread body is drained, because the guest cannot return until it is consumed. Cancelling the wait does not
    /// cancel the guest.
    ///
    /// Returns:
    ///     The cost of the exchange; None if this is not a guest's response.
    ///
    /// Raises:
    ///     GuestError: How the guest ended, if it did not return: `TrapError`, `GuestTimeoutError` and the others.
    ///     BodyError: The drained body failed midway.
    ///     WasgiError: The exchange was cancelled: its caller or client has gone.
    fn finished(&self) -> Awaitable {
        Awaitable::new(Flushed::new(Finished(self.end()), self.message.body.output()))
    }

    /// Like `finished`, but blocks.
    fn wait(&self, py: Python<'_>) -> PyResult<Option<PyReport>> {
        let Some(mut end) = self.end() else { return Ok(self.past.clone()) };
        let waited = crate::py::executor::blocking::block_on(py, |cx| end.poll(cx));
        let failure = self.message.body.deliver_after(py, waited)?;
        end.tell(py, failure).map(Some)
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

    /// The whole body; see `Request.content`.
    #[getter]
    fn content<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        self.message.content(py)
    }

    /// The body as text; see `Request.text`.
    #[getter]
    fn text(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.text(py)
    }

    /// The body parsed as JSON; see `Request.json`.
    fn json(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.message.json(py)
    }

    /// Cancels the guest, its outgoing requests and its bodies, unless the body has ended.
    fn close(&self, py: Python<'_>) {
        self.message.body.close(py);
    }

    /// Like `close`, when it is awaited.
    fn aclose(&self) -> Awaitable {
        let body = self.message.body.clone();
        Awaitable::new(Once(Some(move |py: Python<'_>| body.close(py))))
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __exit__(&self, py: Python<'_>, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) {
        self.message.body.close(py);
    }

    fn __aenter__(slf: Py<Self>, py: Python<'_>) -> Awaitable {
        let _ = py;
        Awaitable::new(Itself(Some(slf.into_any().into())))
    }

    fn __aexit__(&self, _type: Py<PyAny>, _value: Py<PyAny>, _traceback: Py<PyAny>) -> Awaitable {
        self.aclose()
    }

    /// A body that streams is equal to itself only; what its exchange has cost does not count.
    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<bool> {
        let other = other.get();
        Ok(std::ptr::eq(self, other) || (self.status == other.status && self.message.equal(py, &other.message)?))
    }

    /// Of what never changes in it.
    fn __hash__(&self) -> u64 {
        hash_of(&self.status.to_string())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let (py, this) = (slf.py(), slf.get());
        let settings = PyDict::new(py);
        settings.set_item("status", this.status)?;
        this.message.add_to(&settings)?;
        Ok((slf.get_type().getattr("_restore")?, (settings, this.report()).into_pyobject(py)?))
    }

    /// What `__reduce__` has pickled.
    #[staticmethod]
    fn _restore(py: Python<'_>, settings: &Bound<'_, PyDict>, report: Option<PyReport>) -> PyResult<Self> {
        let restored = py.get_type::<Self>().call((), Some(settings))?;
        let restored = restored.cast::<Self>()?.get();
        Ok(Self { past: report, ..restored.__replace__(py, None)? })
    }

    #[pyo3(signature = (**changes))]
    fn __replace__(&self, py: Python<'_>, changes: Option<&Bound<'_, PyDict>>) -> PyResult<Self> {
        let changes = Changes::new(py, changes, "Response", &["status", "headers", "body", "trailers"])?;
        let status = match changes.get("status")? {
            Some(status) => parse_status(status.extract()?)?,
            None => self.status,
        };
        let message = self.message.changed(py, &changes)?;
        let exchange = self.exchange.as_ref().map(|(exchange, owner)| (*exchange, owner.observe()));
        Ok(Self { status, message, exchange, past: self.past.clone() })
    }

    fn __copy__(&self, py: Python<'_>) -> PyResult<Self> {
        self.message.body.copied(py, "copied")?;
        self.__replace__(py, None)
    }

    fn __deepcopy__(&self, py: Python<'_>, _memo: &Bound<'_, PyAny>) -> PyResult<Self> {
        self.__copy__(py)
    }

    fn __repr__(&self) -> String {
        format!("<wasgi.Response {}>", self.status)
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.message.traverse(&visit)
    }
}
