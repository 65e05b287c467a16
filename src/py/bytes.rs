//! Bytes of any object with the buffer protocol.

use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyString};

use crate::py::once::text;

/// Bytes of any bytes-like object; `None` if it is not one.
pub(crate) fn bytes_of(object: &Bound<'_, PyAny>) -> PyResult<Option<Bytes>> {
    if let Ok(bytes) = object.cast::<PyBytes>() {
        return Ok(Some(Bytes::copy_from_slice(bytes.as_bytes())));
    }
    if object.is_instance_of::<PyString>() {
        return Ok(None);
    }
    match PyBuffer::<u8>::get(object) {
        Ok(buffer) => Ok(Some(Bytes::from(buffer.to_vec(object.py())?))),
        // of other items than bytes, or no buffer at all; one that cannot be read any more says so
        Err(_) => match PyMemoryView::from(object) {
            Ok(view) => {
                let bytes = view.call_method0(text!(object.py(), "tobytes"))?;
                Ok(Some(Bytes::copy_from_slice(bytes.cast::<PyBytes>()?.as_bytes())))
            }
            Err(error) if error.is_instance_of::<PyTypeError>(object.py()) => Ok(None),
            Err(error) => Err(error),
        },
    }
}
