//! Reading a body: whole or by chunks, blocking or awaited.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pyo3::exceptions::{PyStopAsyncIteration, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::oneshot;

use crate::exchange::guest_body::{GuestBody, Next, SharedBody};
use crate::py::errors::{named, to_py};
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::operation::Operation;
use crate::py::lock;
use crate::py::message::body::{Content, PyBody};
use crate::py::output::Flushed;

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
            return Ok(source.object().bind(py).call_method0(intern!(py, "__aiter__"))?.unbind());
        }
        Ok(Py::new(py, AsyncChunks::new(self.clone()))?.into_any())
    }

    /// The whole body after `read`; reads it now if that cannot disturb an event loop.
    pub fn whole(self: &Arc<Self>, py: Python<'_>) -> PyResult<Bytes> {
        if let Some(whole) = self.known() {
            return Ok(whole);
        }
        if !self.is_of_blocking_call() && LoopCore::running_loop(py).is_ok() {
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
pub struct Gather {
    body: Arc<SharedBody>,
    gathered: BytesMut,
    first: Option<Bytes>,
}

pub type Gathered = Result<(Bytes, Option<HeaderMap>), crate::error::Error>;

impl Gather {
    pub fn new(body: Arc<SharedBody>) -> Self {
        Self { body, gathered: BytesMut::new(), first: None }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Gathered> {
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
pub struct Drain(Arc<SharedBody>);

impl Drain {
    pub fn new(body: Arc<SharedBody>) -> Self {
        Self(body)
    }

    pub fn into_body(self) -> Arc<SharedBody> {
        self.0
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, crate::error::Error>> {
        poll_chunks(&self.0, cx, drop)
    }
}

/// `await aread()`.
pub struct ReadAll {
    body: Arc<PyBody>,
    gather: Option<Gather>,
}

impl ReadAll {
    pub fn new(body: Arc<PyBody>) -> Self {
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

/// The chunks of a body, as they arrive. Dropping it before the end cancels the guest that writes them.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct Chunks {
    body: Arc<PyBody>,
    /// None: not begun. A reader that is never used takes nothing away.
    content: Mutex<Option<Content>>,
}

impl Chunks {
    pub fn new(body: Arc<PyBody>) -> Self {
        Self { body, content: Mutex::new(None) }
    }
}

#[pymethods]
impl Chunks {
    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self._next_within(py, None)
    }

    /// The next chunk, or None at the end; no longer than so many seconds.
    fn _next_within(&self, py: Python<'_>, seconds: Option<f64>) -> PyResult<Option<Py<PyAny>>> {
        let deadline = crate::py::executor::blocking::deadline(seconds)?;
        let content = lock(&self.content).replace(Content::Consumed);
        let chunk = match content.map_or_else(|| self.body.consume(py), Ok)? {
            Content::Consumed => return Ok(None),
            Content::Bytes(bytes) => (!bytes.is_empty()).then_some(bytes),
            Content::Source(source) => {
                let chunk = source.next(py)?;
                if chunk.is_some() {
                    *lock(&self.content) = Some(Content::Source(source));
                }
                chunk
            }
            Content::Guest(body) => {
                let outcome = crate::py::executor::blocking::block_on_until(py, deadline, |cx| body.poll_next(cx));
                match self.body.deliver_after(py, outcome)?.map_err(|error| to_py(py, &error))? {
                    Next::Chunk(chunk) => {
                        *lock(&self.content) = Some(Content::Guest(body));
                        Some(chunk)
                    }
                    Next::End(trailers) => {
                        self.body.keep_trailers(trailers);
                        None
                    }
                }
            }
        };
        Ok(chunk.map(|chunk| PyBytes::new(py, &chunk).into_any().unbind()))
    }

    /// What is ready without waiting; see `AsyncChunks.take_ready`.
    fn take_ready(&self, py: Python<'_>) -> Option<(Py<PyBytes>, bool)> {
        take_ready(py, &self.body, &self.content)
    }

    /// As of `AsyncChunks`; blocks until that is over, or not.
    #[pyo3(signature = (*, wait))]
    fn _let_end(&self, py: Python<'_>, wait: bool) -> PyResult<()> {
        let mut ending = Ending(let_end(py, &self.body, &self.content));
        if wait { crate::py::executor::blocking::block_on(py, |cx| ending.poll(cx)) } else { Ok(()) }
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.body.traverse(&visit)?;
        match self.content.try_lock().as_deref() {
            Ok(Some(Content::Source(source))) => visit.call(source.object()),
            _ => Ok(()),
        }
    }
}

/// Nobody may have any of it: its guest may end it all the same.
fn let_end(py: Python<'_>, body: &PyBody, content: &Mutex<Option<Content>>) -> Option<oneshot::Receiver<()>> {
    if lock(content).is_none() {
        let begun = body.consume(py).ok()?;
        *lock(content) = Some(begun);
    }
    let mut content = lock(content);
    match content.replace(Content::Consumed) {
        Some(Content::Guest(guest)) => Some(GuestBody::let_end(guest)),
        other => {
            *content = other;
            None
        }
    }
}

/// Waits until a guest has ended a body that nobody may have, or its time for that is over.
struct Ending(Option<oneshot::Receiver<()>>);

impl Ending {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(is_over) = &mut self.0 {
            let _ = std::task::ready!(Pin::new(is_over).poll(cx));
        }
        self.0 = None;
        Poll::Ready(())
    }
}

impl Operation for Ending {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        Ending::poll(self, cx).map(|()| Ok(py.None()))
    }
}

/// See `AsyncChunks.take_ready` in `_wasgi.pyi`.
fn take_ready(py: Python<'_>, body: &PyBody, content: &Mutex<Option<Content>>) -> Option<(Py<PyBytes>, bool)> {
    if lock(content).is_none() {
        let begun = body.consume(py).ok()?; // else whoever waits for the next one is told
        *lock(content) = Some(begun);
    }
    let (chunk, ended) = {
        let mut content = lock(content);
        let taken = match &*content {
            Some(Content::Guest(body)) => {
                let mut body = body.lock()?; // in a forked child whoever waits for the next one is told
                let chunk = match body.take_ready() {
                    Some(chunk) => chunk,
                    None if body.has_ended() => Bytes::new(),
                    None => return None,
                };
                // the end has come with it: taken, too, so that a guest that works on is let go
                (chunk, body.has_ended() && body.take_ready().is_none())
            }
            Some(Content::Bytes(bytes)) => (bytes.clone(), true),
            _ => return None,
        };
        if taken.1 {
            *content = Some(Content::Consumed);
        }
        taken
    };
    if let Some(output) = body.output() {
        output.show(py);
    }
    Some((PyBytes::new(py, &chunk).unbind(), ended))
}

/// The chunks of a body, as they arrive. Dropping it before the end cancels the guest that writes them.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct AsyncChunks(Arc<Taking>);

/// What an async reader takes from.
struct Taking {
    body: Arc<PyBody>,
    /// None: not begun, as in [`Chunks`].
    content: Mutex<Option<Content>>,
}

impl Taking {
    /// The guest's body, if it is one; else what is at hand, which is taken.
    fn begin(&self, py: Python<'_>) -> PyResult<Content> {
        let begun = self.end();
        let begun = match begun {
            Some(begun) => begun,
            None => self.body.consume(py).inspect_err(|_| *lock(&self.content) = None)?,
        };
        if let Content::Guest(body) = &begun {
            *lock(&self.content) = Some(Content::Guest(body.clone()));
        }
        Ok(begun)
    }

    fn end(&self) -> Option<Content> {
        lock(&self.content).replace(Content::Consumed)
    }

    fn stop_waiting(&self) {
        let body = match &*lock(&self.content) {
            Some(Content::Guest(body)) => body.clone(),
            _ => return,
        };
        if let Some(mut body) = body.lock() {
            body.reader_is_gone();
        }
    }
}

impl AsyncChunks {
    pub fn new(body: Arc<PyBody>) -> Self {
        Self(Arc::new(Taking { body, content: Mutex::new(None) }))
    }
}

#[pymethods]
impl AsyncChunks {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    /// Whether trailers are known to follow the chunks that are ready.
    fn ends_with_trailers(&self) -> bool {
        match &*lock(&self.0.content) {
            Some(Content::Guest(body)) => body.lock().is_some_and(|body| body.ends_with_trailers()),
            _ => false,
        }
    }

    fn __anext__(&self) -> Awaitable {
        Awaitable::new(Flushed::new(NextChunk(self.0.clone()), self.0.body.output()))
    }

    /// What is ready without waiting: a chunk, and whether it is the last. None: await the next one.
    ///
    /// For an empty body whose end is known, it is an empty chunk.
    fn take_ready(&self, py: Python<'_>) -> Option<(Py<PyBytes>, bool)> {
        take_ready(py, &self.0.body, &self.0.content)
    }

    /// Nobody may have any of it: what the guest writes is thrown away, so that it can end it, but not for ever. Awaited, it waits
    /// until that is over.
    fn _let_end(&self, py: Python<'_>) -> Awaitable {
        let ending = Ending(let_end(py, &self.0.body, &self.0.content));
        Awaitable::new(Flushed::new(ending, self.0.body.output()))
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        match Arc::strong_count(&self.0) {
            1 => self.0.body.traverse(&visit),
            _ => Ok(()),
        }
    }

    /// Stops the guest, if the body has not ended.
    fn aclose(&self) -> Awaitable {
        let taking = self.0.clone();
        Awaitable::new(Once(Some(move |py: Python<'_>| {
            if let Ok(Content::Guest(body)) = taking.begin(py) {
                body.close();
            }
            taking.end();
        })))
    }
}

/// Something that is done when it is awaited, without waiting.
pub struct Once<F>(pub Option<F>);

impl<F: FnOnce(Python<'_>) + Send> Operation for Once<F> {
    fn poll(&mut self, py: Python<'_>, _: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Some(act) = self.0.take() {
            act(py);
        }
        Poll::Ready(Ok(py.None()))
    }
}

struct NextChunk(Arc<Taking>);

/// One that is cancelled waits no longer.
impl Drop for NextChunk {
    fn drop(&mut self) {
        self.0.stop_waiting();
    }
}

impl Operation for NextChunk {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let stop = || Poll::Ready(Err(PyStopAsyncIteration::new_err(())));
        let body = match self.0.begin(py) {
            Ok(Content::Guest(body)) => body,
            Ok(Content::Bytes(bytes)) if !bytes.is_empty() => {
                return Poll::Ready(Ok(PyBytes::new(py, &bytes).into_any().unbind()));
            }
            Ok(_) => return stop(),
            Err(error) => return Poll::Ready(Err(error)),
        };
        let next = std::task::ready!(body.poll_next(cx));
        match next {
            Ok(Next::Chunk(chunk)) => Poll::Ready(Ok(PyBytes::new(py, &chunk).into_any().unbind())),
            Ok(Next::End(trailers)) => {
                self.0.body.keep_trailers(trailers);
                self.0.end();
                stop()
            }
            Err(error) => {
                self.0.end();
                Poll::Ready(Err(to_py(py, &error)))
            }
        }
    }

    fn owns_body(&self) -> bool {
        Arc::strong_count(&self.0) == 1 && Arc::strong_count(&self.0.body) == 1
    }
}
