//! Reading a body: whole or by chunks, blocking or awaited.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::awaitable::{Awaitable, Operation};
use super::body::{Content, PyBody};
use super::errors::to_py;
use super::lock;
use super::stdio::Flushed;
use crate::body::{GuestBody, Next};

/// Collects a guest's body.
pub struct Gather {
    body: Arc<Mutex<GuestBody>>,
    gathered: BytesMut,
    first: Option<Bytes>,
}

pub type Gathered = Result<(Bytes, Option<HeaderMap>), crate::error::Error>;

impl Gather {
    pub fn new(body: Arc<Mutex<GuestBody>>) -> Self {
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
    body: &Mutex<GuestBody>,
    cx: &mut Context<'_>,
    mut take: impl FnMut(Bytes),
) -> Poll<Result<Option<HeaderMap>, crate::error::Error>> {
    for _ in 0..MOST_AT_ONCE {
        match std::task::ready!(lock(body).poll_next(cx)) {
            Ok(Next::Chunk(chunk)) => take(chunk),
            Ok(Next::End(trailers)) => return Poll::Ready(Ok(trailers)),
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

/// Reads the rest of a guest's body and throws it away.
pub struct Drain(Arc<Mutex<GuestBody>>);

impl Drain {
    pub fn new(body: Arc<Mutex<GuestBody>>) -> Self {
        Self(body)
    }

    pub fn into_body(self) -> Arc<Mutex<GuestBody>> {
        self.0
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<HeaderMap>, crate::error::Error>> {
        poll_chunks(&self.0, cx, drop)
    }
}

/// `await aread()`.
pub struct ReadAll {
    pub body: Arc<PyBody>,
    pub gather: Option<Gather>,
    pub ready: Option<Bytes>,
}

impl Operation for ReadAll {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let whole = match &mut self.gather {
            None => self.ready.take().unwrap_or_default(),
            Some(gather) => match std::task::ready!(gather.poll(cx)) {
                Ok((whole, trailers)) => {
                    self.body.keep_trailers(trailers);
                    whole
                }
                Err(error) => return Poll::Ready(Err(to_py(py, &error))),
            },
        };
        let object = PyBytes::new(py, &whole).into_any().unbind();
        self.body.keep_whole(whole);
        Poll::Ready(Ok(object))
    }
}

/// For `wasgi._bridge.gather`: keeps what was read of an async iterable.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct KeepWhole {
    pub body: Arc<PyBody>,
}

#[pymethods]
impl KeepWhole {
    fn __call__(&self, whole: &Bound<'_, PyBytes>) {
        self.body.keep_whole(Bytes::copy_from_slice(whole.as_bytes()));
    }
}

/// What `iter(message)` gives.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct Chunks {
    pub body: Arc<PyBody>,
    pub content: Mutex<Content>,
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
        let content = std::mem::replace(&mut *lock(&self.content), Content::Consumed);
        let chunk = match content {
            Content::Consumed => return Ok(None),
            Content::Bytes(bytes) => (!bytes.is_empty()).then_some(bytes),
            Content::Source(source) => {
                let chunk = source.next(py)?;
                if chunk.is_some() {
                    *lock(&self.content) = Content::Source(source);
                }
                chunk
            }
            Content::Guest(body) => {
                let outcome = super::waiting::block_on_until(py, super::waiting::deadline(seconds), |cx| {
                    lock(&body).poll_next(cx)
                });
                self.body.deliver(py)?;
                match outcome?.map_err(|error| to_py(py, &error))? {
                    Next::Chunk(chunk) => {
                        *lock(&self.content) = Content::Guest(body);
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

    fn take_ready(&self, py: Python<'_>) -> Option<(Py<PyBytes>, bool)> {
        take_ready(py, &self.body, &self.content)
    }
}

/// See `AsyncChunks.take_ready` in `_wasgi.pyi`.
fn take_ready(py: Python<'_>, body: &PyBody, content: &Mutex<Content>) -> Option<(Py<PyBytes>, bool)> {
    let (chunk, ended) = {
        let mut content = lock(content);
        let taken = match &*content {
            Content::Guest(body) => {
                let mut body = lock(body);
                let chunk = match body.take_ready() {
                    Some(chunk) => chunk,
                    None if body.has_ended() => Bytes::new(),
                    None => return None,
                };
                // the end has come with it: taken, too, so that a guest that works on is let go
                (chunk, body.has_ended() && body.take_ready().is_none())
            }
            Content::Bytes(bytes) => (bytes.clone(), true),
            _ => return None,
        };
        if taken.1 {
            *content = Content::Consumed;
        }
        taken
    };
    if let Some(output) = body.output() {
        output.show(py);
    }
    Some((PyBytes::new(py, &chunk).unbind(), ended))
}

/// What `aiter(message)` gives.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct AsyncChunks {
    pub body: Arc<PyBody>,
    pub content: Arc<Mutex<Content>>,
}

#[pymethods]
impl AsyncChunks {
    fn __aiter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __anext__(&self) -> Awaitable {
        let next = NextChunk { body: self.body.clone(), content: self.content.clone() };
        Awaitable::new(Flushed::new(next, self.body.output()))
    }

    /// What there is without waiting: a chunk, and whether it was the last. None if nothing is there, or something went wrong:
    /// then the next one is to be awaited.
    fn take_ready(&self, py: Python<'_>) -> Option<(Py<PyBytes>, bool)> {
        take_ready(py, &self.body, &self.content)
    }

    /// Stops the guest, if the body has not ended.
    fn aclose(&self) -> Awaitable {
        let content = std::mem::replace(&mut *lock(&self.content), Content::Consumed);
        if let Content::Guest(body) = content {
            lock(&body).close();
        }
        Awaitable::new(Nothing)
    }
}

/// Nothing to wait for.
pub struct Nothing;

impl Operation for Nothing {
    fn poll(&mut self, py: Python<'_>, _: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        Poll::Ready(Ok(py.None()))
    }
}

struct NextChunk {
    body: Arc<PyBody>,
    content: Arc<Mutex<Content>>,
}

impl Operation for NextChunk {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let stop = || Poll::Ready(Err(PyStopAsyncIteration::new_err(())));
        let body = {
            let mut content = lock(&self.content);
            match &*content {
                Content::Guest(body) => body.clone(),
                Content::Bytes(_) => match std::mem::replace(&mut *content, Content::Consumed) {
                    Content::Bytes(bytes) if !bytes.is_empty() => {
                        return Poll::Ready(Ok(PyBytes::new(py, &bytes).into_any().unbind()));
                    }
                    _ => return stop(),
                },
                _ => return stop(),
            }
        };
        let next = std::task::ready!(lock(&body).poll_next(cx));
        match next {
            Ok(Next::Chunk(chunk)) => Poll::Ready(Ok(PyBytes::new(py, &chunk).into_any().unbind())),
            Ok(Next::End(trailers)) => {
                self.body.keep_trailers(trailers);
                *lock(&self.content) = Content::Consumed;
                stop()
            }
            Err(error) => {
                *lock(&self.content) = Content::Consumed;
                Poll::Ready(Err(to_py(py, &error)))
            }
        }
    }
}
