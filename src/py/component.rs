//! `wasgi.Component`.

use std::path::PathBuf;
use std::sync::Arc;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::errors::{named, to_py};
use crate::component::Component;
use crate::outline::{Outline, Wasi};

#[pyclass(name = "Component", module = "wasgi", frozen)]
pub struct PyComponent {
    pub component: Arc<Component>,
    source: Source,
}

enum Source {
    Path(PathBuf),
    Bytes(Py<PyBytes>),
}

/// Reads a file without the GIL; a failure is the `OSError` that `open` would raise.
fn read_file(py: Python<'_>, path: &PathBuf) -> PyResult<Vec<u8>> {
    py.detach(|| std::fs::read(path)).map_err(|error| {
        let Some(number) = error.raw_os_error() else {
            // a path with a null byte, which no system has been asked for
            return match error.kind() {
                std::io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
                _ => PyOSError::new_err(error.to_string()),
            };
        };
        match py.import("os").and_then(|os| os.call_method1("strerror", (number,))) {
            Ok(text) => PyOSError::new_err((number, text.unbind(), path.clone().into_os_string())),
            Err(failure) => failure,
        }
    })
}

/// A path as Python has it. What its `__fspath__` raises is told as it is.
pub fn path_of(given: &Bound<'_, PyAny>, wrong: impl FnOnce() -> String) -> PyResult<PathBuf> {
    if !given.is_instance_of::<PyString>() && !given.hasattr("__fspath__")? {
        return Err(PyTypeError::new_err(wrong()));
    }
    given.extract()
}

/// Tells the log what was worth telling about the set-up of this process.
fn tell_notes(py: Python<'_>) -> PyResult<()> {
    let Some(world) = crate::engine::existing() else { return Ok(()) };
    for note in world.take_notes() {
        py.import("logging")?.call_method1("getLogger", ("wasgi",))?.call_method1("warning", ("%s", note))?;
    }
    Ok(())
}

impl PyComponent {
    pub fn load(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = source.py();
        if !source.is_instance_of::<PyString>()
            && let Some(bytes) = super::body::bytes_of(source)?
        {
            let component = py.detach(|| Component::new(&bytes)).map_err(|error| to_py(py, &error))?;
            tell_notes(py)?;
            return Ok(Self { component, source: Source::Bytes(PyBytes::new(py, &bytes).unbind()) });
        }
        let path = path_of(source, || {
            let kind = source.get_type().name().map_or_else(|_| "that".to_owned(), |name| name.to_string());
            format!("a component is loaded from a path or from bytes, not from {kind}")
        })?;
        let bytes = read_file(py, &path)?;
        let component = py.detach(|| Component::new(&bytes)).map_err(|error| {
            let exception = to_py(py, &error);
            let _ = exception.value(py).call_method1("add_note", (format!("in `{}`", path.display()),));
            exception
        })?;
        tell_notes(py)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Self { component, source: Source::Path(path) })
    }

    /// Compiles it for guests under a limit of fuel, from what it was loaded from.
    pub fn prepare_for_fuel(&self, py: Python<'_>) -> PyResult<()> {
        let source = match &self.source {
            Source::Path(path) => read_file(py, path)?,
            Source::Bytes(bytes) => bytes.as_bytes(py).to_vec(),
        };
        py.detach(|| self.component.prepare_for_fuel(&source)).map_err(|error| to_py(py, &error))
    }

    /// A short name for logs: the file's, or the digest's beginning.
    pub fn label(&self) -> String {
        match &self.source {
            Source::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
            Source::Bytes(_) => None,
        }
        .unwrap_or_else(|| self.component.digest.chars().take(12).collect())
    }
}

#[pymethods]
impl PyComponent {
    #[new]
    fn new(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::load(source)
    }

    #[getter]
    fn imports(&self) -> Vec<String> {
        self.component.outline.imports.clone()
    }

    #[getter]
    fn exports(&self) -> Vec<String> {
        self.component.outline.exports.clone()
    }

    #[getter]
    fn wasi(&self) -> &'static str {
        wasi_version(&self.component.outline).unwrap_or("0.2")
    }

    #[getter]
    fn digest(&self) -> &str {
        &self.component.digest
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Self>().is_ok_and(|other| other.get().component.digest == self.component.digest)
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyString::new(py, &self.component.digest).hash()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let this = slf.get();
        match &this.source {
            Source::Bytes(bytes) => Ok((slf.get_type().into_any(), PyTuple::new(py, [bytes])?)),
            Source::Path(path) => {
                let restore = py.import("wasgi._wasgi")?.getattr("_restore_component")?;
                let path = path.clone().into_os_string();
                Ok((restore, (path, &this.component.digest).into_pyobject(py)?))
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("<wasgi.Component {} wasi={} digest={:.12}>", self.label(), self.wasi(), self.component.digest)
    }
}

/// Unpickles a component that was loaded from a path: the file must still be the same.
#[pyfunction]
pub fn _restore_component(path: &Bound<'_, PyAny>, digest: &str) -> PyResult<PyComponent> {
    let restored = PyComponent::load(path)?;
    if restored.component.digest == digest {
        Ok(restored)
    } else {
        Err(named(
            path.py(),
            "InvalidComponentError",
            format!(
                "`{path}` has changed since the component was pickled: its digest is {}",
                restored.component.digest
            ),
        ))
    }
}

fn wasi_version(outline: &Outline) -> Option<&'static str> {
    outline.wasi().map(|wasi| match wasi {
        Wasi::P2 => "0.2",
        Wasi::P3 => "0.3",
    })
}

/// What a component says of itself, read without compiling it: (imports, exports, wasi, missing imports).
#[pyfunction]
#[allow(clippy::type_complexity)]
pub fn _outline(
    py: Python<'_>,
    source: &[u8],
) -> PyResult<(Vec<String>, Vec<String>, Option<&'static str>, Vec<String>)> {
    let outline = py
        .detach(|| crate::outline::to_binary(source).and_then(|binary| Outline::read(&binary)))
        .map_err(|error| to_py(py, &error))?;
    let (wasi, missing) = (wasi_version(&outline), outline.missing());
    Ok((outline.imports, outline.exports, wasi, missing))
}
