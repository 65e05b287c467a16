//! `wasgi.Dir`.

use std::path::PathBuf;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::py::paths::without_nul;
use crate::py::values::{Reduced, reduce, replaced};

/// A directory of the host that is granted to a guest.
///
/// Args:
///     path: The directory. Links in it do not lead out of it.
///     write: Whether the guest may write to it.
///
/// Raises:
///     ValueError: The path is invalid: it has a NUL.
#[pyclass(name = "Dir", module = "wasgi", frozen, eq, hash, get_all)]
#[derive(Clone, PartialEq, Hash)]
pub struct PyDir {
    pub path: PathBuf,
    pub write: bool,
}

#[pymethods]
impl PyDir {
    #[new]
    #[pyo3(signature = (path, *, write=false))]
    fn new(path: PathBuf, write: bool) -> PyResult<Self> {
        let path = without_nul("path", path)?;
        Ok(Self { path, write })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let path = self.path.as_os_str().into_pyobject(py)?;
        Ok(format!("Dir({}, write={})", path.repr()?, if self.write { "True" } else { "False" }))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(&slf.get_type(), &slf.get().settings(slf.py())?)
    }

    #[pyo3(signature = (**changes))]
    fn __replace__<'py>(slf: &Bound<'py, Self>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        replaced(&slf.get_type(), &slf.get().settings(slf.py())?, changes)
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }
}

impl PyDir {
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let settings = PyDict::new(py);
        settings.set_item("path", self.path.clone())?;
        settings.set_item("write", self.write)?;
        Ok(settings)
    }
}
