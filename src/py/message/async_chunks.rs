//! A body by its chunks, awaited.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::exchange::guest_body::Next;
use crate::py::errors::to_py;
use crate::py::executor::awaitable::{Awaitable, Once};
use crate::py::executor::operation::Operation;
use crate::py::lock;
use crate::py::message::body::{Content, PyBody};
use crate::py::message::chunks::{Ending, let_end, take_ready};
use crate::py::output::flushed::Flushed;

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
