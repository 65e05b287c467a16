//! Context variables.

use pyo3::prelude::*;

use crate::py::once::Once;

/// A copy of the context of whoever asks.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static COPY: Once<Py<PyAny>> = Once::new();
    COPY.import(py, "contextvars", "copy_context")?.call0()
}
