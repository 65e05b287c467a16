//! Context variables.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// A copy of the context of whoever asks.
pub(crate) fn copy_context(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    static COPY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    COPY.get_or_try_init(py, || py.import("contextvars")?.getattr(intern!(py, "copy_context")).map(Bound::unbind))?
        .bind(py)
        .call0()
}
