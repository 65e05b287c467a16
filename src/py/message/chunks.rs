//! A body by its chunks, blocking.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::oneshot;

use crate::exchange::guest_body::Next;
use crate::exchange::shared_body::SharedBody;
use crate::py::errors::to_py;
use crate::py::executor::operation::Operation;
use crate::py::lock;
use crate::py::message::body::{Content, PyBody};

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
pub(crate) fn let_end(
    py: Python<'_>,
    body: &PyBody,
    content: &Mutex<Option<Content>>,
) -> Option<oneshot::Receiver<()>> {
    if lock(content).is_none() {
        let begun = body.consume(py).ok()?;
        *lock(content) = Some(begun);
    }
    let mut content = lock(content);
    match content.replace(Content::Consumed) {
        Some(Content::Guest(guest)) => Some(SharedBody::let_end(guest)),
        other => {
            *content = other;
            None
        }
    }
}

/// Waits until a guest has ended a body that nobody may have, or its time for that is over.
pub(crate) struct Ending(pub Option<oneshot::Receiver<()>>);

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
pub(crate) fn take_ready(
    py: Python<'_>,
    body: &PyBody,
    content: &Mutex<Option<Content>>,
) -> Option<(Py<PyBytes>, bool)> {
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
