//! Paths that a caller gives.

use std::path::PathBuf;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// No file system has a path with a NUL.
pub(crate) fn without_nul(name: &str, path: PathBuf) -> PyResult<PathBuf> {
    if path.as_os_str().as_encoded_bytes().contains(&0) {
        return Err(PyValueError::new_err(format!("`{name}` has a NUL: {path:?}")));
    }
    Ok(path)
}

/// A path as Python has it. What its `__fspath__` raises is told as it is.
pub(crate) fn path_of(given: &Bound<'_, PyAny>, wrong: impl FnOnce() -> String) -> PyResult<PathBuf> {
    if !given.is_instance_of::<PyString>() && !given.hasattr("__fspath__")? {
        return Err(PyTypeError::new_err(wrong()));
    }
    given.extract()
}
