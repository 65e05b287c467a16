//! What makes the chunks of a body: an iterator, a file, an async iterable.

use std::sync::Arc;

use bytes::Bytes;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::lane::Lane;
use crate::py::held::Held;
use crate::py::once::text;

/// How much of a file is read at once.
const FILE_CHUNK: usize = 64 << 10;

pub enum Source {
    Iterator(Held<Py<PyAny>>),
    File(Held<Py<PyAny>>),
    Async(Held<Py<PyAny>>),
}

impl Source {
    pub fn object(&self) -> &Py<PyAny> {
        match self {
            Self::Iterator(object) | Self::File(object) | Self::Async(object) => object,
        }
    }

    /// What closes a source that blocks: an iterator that can be closed is. A file stays open, it is the caller's.
    pub fn closing<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self {
            Self::Iterator(iterator) => iterator.bind(py).getattr_opt(text!(py, "close")),
            _ => Ok(None),
        }
    }

    /// The next chunk of a source that blocks; `None` at its end.
    pub fn next(&self, py: Python<'_>) -> PyResult<Option<Bytes>> {
        crate::py::executor::finalization::protect();
        loop {
            let chunk = match self {
                Self::Iterator(iterator) => match iterator.bind(py).try_iter()?.next() {
                    Some(item) => item?,
                    None => return Ok(None),
                },
                Self::File(file) => {
                    let chunk = file.bind(py).call_method1(text!(py, "read"), (FILE_CHUNK,))?;
                    if chunk.len().is_ok_and(|length| length == 0) {
                        return Ok(None);
                    }
                    chunk
                }
                Self::Async(_) => {
                    return Err(PyTypeError::new_err(
                        "this body is an async iterable; hint: read it with `async for` or `await aread()`",
                    ));
                }
            };
            let chunk = chunk_bytes(&chunk)?;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
        }
    }
}

/// A chunk of a body that Python made.
pub(crate) fn chunk_bytes(chunk: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    crate::py::bytes::bytes_of(chunk)?.ok_or_else(|| {
        let kind = chunk.get_type();
        PyTypeError::new_err(format!(
            "a body's chunks must be bytes, not {}; hint: encode text, or pass a whole `str` as the body",
            kind.name().map_or_else(|_| "that".to_owned(), |name| name.to_string())
        ))
    })
}

/// The lane on which a source is driven: its loop if it is async, else a thread.
pub(crate) fn lane_of(py: Python<'_>, source: &Source, event_loop: Option<&Arc<LoopCore>>) -> PyResult<Lane> {
    match source {
        Source::Async(_) => Ok(Lane::Loop(match event_loop {
            Some(core) => core.clone(),
            None => LoopCore::own(py)?,
        })),
        Source::Iterator(_) | Source::File(_) => {
            crate::py::executor::threads::threads().ensure(py)?;
            Ok(Lane::Threads)
        }
    }
}
