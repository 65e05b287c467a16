//! Reading a whole body, blocking or awaited.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::exchange::guest_body::Next;
use crate::exchange::shared_body::SharedBody;
use crate::py::errors::{named, to_py};
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::operation::Operation;
use crate::py::executor::running_loop::running_loop;
use crate::py::message::async_chunks::AsyncChunks;
use crate::py::message::body::{Content, PyBody};
use crate::py::message::chunks::Chunks;
use crate::py::once::text;
use crate::py::output::flushed::Flushed;

impl PyBody {
    /// What stands in the way of whoever asks for a reader; nothing is consumed by asking.
    fn refuse(&self, py: Python<'_>, reader: Reader) -> PyResult<()> {
        let (is_consumed, is_async) = self.kind();
        match (is_async, reader) {
            _ if is_consumed => Err(self.consumed(py)),
            (Some(true), Reader::Blocking) => {
                Err(PyTypeError::new_err("this body is an async iterable; hint: `async for`"))
            }
            (Some(false), Reader::Async) => Err(PyTypeError::new_err(
                "this body is an iterator or a file, which blocks; hint: `read()` or `for`, outside the event loop",
            )),
            _ => Ok(()),
        }
    }

    /// Blocks until the whole body is here.
    pub fn read(self: &Arc<Self>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let whole = match self.consume(py)? {
            Content::Bytes(bytes) => bytes,
            Content::Source(source) => {
                let mut whole = BytesMut::new();
                while let Some(chunk) = source.next(py)? {
                    whole.extend_from_slice(&chunk);
                }
                whole.freeze()
            }
            Content::Guest(body) => {
                let mut gather = Gather::new(body);
                let outcome = crate::py::executor::blocking::block_on(py, |cx| gather.poll(cx));
                let (whole, trailers) = self.deliver_after(py, outcome)?.map_err(|error| to_py(py, &error))?;
                self.keep_trailers(trailers);
                whole
            }
            Content::Consumed => Bytes::new(),
        };
        let object = PyBytes::new(py, &whole).into_any().unbind();
        self.keep_whole(whole);
        Ok(object)
    }

    pub fn aread(self: &Arc<Self>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.refuse(py, Reader::Async)?;
        if self.is_python() {
            let source = SourceOf { body: self.clone() };
            return Ok(py.import("wasgi._native.bodies")?.call_method1("gather", (source,))?.unbind());
        }
        Ok(Py::new(py, Awaitable::new(Flushed::new(ReadAll::new(self.clone()), self.output())))?.into_any())
    }

    pub fn iterate(self: &Arc<Self>, py: Python<'_>) -> PyResult<Chunks> {
        self.refuse(py, Reader::Blocking)?;
        Ok(Chunks::new(self.clone()))
    }

    pub fn aiterate(self: &Arc<Self>, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.refuse(py, Reader::Async)?;
        if self.is_python() {
            let Content::Source(source) = self.consume(py)? else { return Err(self.consumed(py)) };
            return Ok(source.object().bind(py).call_method0(text!(py, "__aiter__"))?.unbind());
        }
        Ok(Py::new(py, AsyncChunks::new(self.clone()))?.into_any())
    }

    /// The whole body after `read`; reads it now if that cannot disturb an event loop.
    pub fn whole(self: &Arc<Self>, py: Python<'_>) -> PyResult<Bytes> {
        if let Some(whole) = self.known() {
            return Ok(whole);
        }
        if !self.is_of_blocking_call() && running_loop(py).is_ok() {
            return Err(named(py, "BodyError", "the body has not been read; hint: `await aread()` first"));
        }
        self.read(py)?;
        self.known().ok_or_else(|| named(py, "BodyError", "the body has not been read"))
    }
}

enum Reader {
    Blocking,
    Async,
}

/// Collects a guest's body.
pub(crate) struct Gather {
    body: Arc<SharedBody>,
    gathered: BytesMut,
    first: Option<Bytes>,
}

pub(crate) type Gathered = Result<(Bytes, Option<HeaderMap>), crate::error::Error>;

impl Gather {
    pub(crate) fn new(body: Arc<SharedBody>) -> Self {
        Self { body, gathered: BytesMut::new(), first: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Gathered> {
        let Self { body, gathered, first } = self;
        let trailers = std::task::ready!(poll_chunks(body, cx, |chunk| {
            if first.is_none() && gathered.is_empty() {
                *first = Some(chunk);
                return;
            }
            if let Some(first) = first.take() {
                gathered.extend_from_slice(&first);
            }
            gathered.extend_from_slice(&chunk);
        }))?;
        let whole = first.take().unwrap_or_else(|| std::mem::take(gathered).freeze());
        Poll::Ready(Ok((whole, trailers)))
    }
}

/// A guest that is as fast as its reader must not hold an event loop: after so many chunks others have their turn.
const MOST_AT_ONCE: usize = 16;

/// Takes the chunks that there are; ready with the trailers at the end.
fn poll_chunks(
    body: &SharedBody,
    cx: &mut Context<'_>,
    mut take: impl FnMut(Bytes),
) -> Poll<Result<Option<HeaderMap>, crate::error::Error>> {
    for _ in 0..MOST_AT_ONCE {
        match std::task::ready!(body.poll_next(cx)) {
            Ok(Next::Chunk(chunk)) => take(chunk),
            Ok(Next::End(trailers)) => return Poll::Ready(Ok(trailers)),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Reads the rest of a guest's body and throws it away.
pub(crate) struct Drain(Arc<SharedBody>);

impl Drain {
    pub(crate) fn new(body: Arc<SharedBody>) -> Self {
        Self(body)
    }

    pub(crate) fn into_body(self) -> Arc<SharedBody> {
        self.0
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, crate::error::Error>> {
        poll_chunks(&self.0, cx, drop)
    }
}

/// `await aread()`.
pub(crate) struct ReadAll {
    body: Arc<PyBody>,
    gather: Option<Gather>,
}

impl ReadAll {
    pub(crate) fn new(body: Arc<PyBody>) -> Self {
        Self { body, gather: None }
    }
}

impl Operation for ReadAll {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        // consumed when it is awaited, and not before: one that nobody awaits takes nothing away
        let whole = match &mut self.gather {
            Some(gather) => std::task::ready!(gather.poll(cx)),
            None => match self.body.consume(py) {
                Ok(Content::Guest(body)) => {
                    std::task::ready!(self.gather.insert(Gather::new(body)).poll(cx))
                }
                Ok(Content::Bytes(bytes)) => Ok((bytes, None)),
                Ok(_) => Ok((Bytes::new(), None)),
                Err(error) => return Poll::Ready(Err(error)),
            },
        };
        let whole = match whole {
            Ok((whole, trailers)) => {
                self.body.keep_trailers(trailers);
                whole
            }
            Err(error) => return Poll::Ready(Err(to_py(py, &error))),
        };
        let object = PyBytes::new(py, &whole).into_any().unbind();
        self.body.keep_whole(whole);
        Poll::Ready(Ok(object))
    }

    fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.body.traverse(visit)
    }

    fn owns_body(&self) -> bool {
        Arc::strong_count(&self.body) == 1
    }
}

/// For `wasgi._native.bodies.gather`: gives out the async iterable of a body, and keeps what was read of it.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct SourceOf {
    pub body: Arc<PyBody>,
}

#[pymethods]
impl SourceOf {
    fn take(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        match self.body.consume(py)? {
            Content::Source(source) => Ok(source.object().clone_ref(py)),
            _ => Err(PyTypeError::new_err("this body is not an async iterable any more")),
        }
    }

    fn keep(&self, whole: &Bound<'_, PyBytes>) {
        self.body.keep_whole(Bytes::copy_from_slice(whole.as_bytes()));
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.body.traverse(&visit)
    }
}
