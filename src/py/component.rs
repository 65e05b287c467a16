//! `wasgi.Component`.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

use super::app::without_nul;
use super::errors::{named, to_py};
use super::lock;
use super::waiting::block_on;
use crate::component::Component;
use crate::error::Error;
use crate::outline::{Outline, Wasi};
use crate::text::{LONGEST_NAME, tamed};

/// A WebAssembly component that exports `wasi:http/incoming-handler@0.2`.
///
/// Compiled once, on all cores and without the GIL; the machine code is kept on disk (in `WASGI_CACHE_DIR`, by default
/// `wasgi` in the user's cache directory; empty: nowhere). What takes longer than a second is told to the logger
/// ``wasgi`` (INFO). The same content is compiled and held once in a process, and by one process at a time. Immutable,
/// safe to share between threads, hashable and equal by its content. It pickles as the path or the bytes that it was
/// loaded from.
///
/// Args:
///     source: A path, or the bytes of a component, in binary or text form.
///
/// Raises:
///     InvalidComponentError: It is no component; the message says what it is instead.
///     UnsupportedComponentError: It is a component, but exports no HTTP handler that can be called.
///     MissingImportError: It imports what is not provided.
///     OSError: The file cannot be read.
///     ValueError: A path that no file system has.
///
/// Example:
///     >>> component = wasgi.Component("hello.wasm")
///     >>> component.wasi
///     '0.2'
#[pyclass(name = "Component", module = "wasgi", frozen)]
pub struct PyComponent {
    pub component: Arc<Component>,
    /// Where it was loaded from; None: from bytes, which `component` keeps, once for all that have the same.
    path: Option<PathBuf>,
}

/// What takes longer is told to the log.
const LONG: Duration = Duration::from_secs(1);

/// Compiling recurses as deep as the component is nested: not on whatever stack the calling thread has.
const STACK: usize = 8 << 20;

/// Compiles on a thread of its own, so that the calling one hears signals, and can say that this takes its time.
fn compile<T: Send + 'static>(
    py: Python<'_>,
    name: &str,
    size: usize,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let begun = Instant::now();
    let (sender, mut receiver) = tokio::sync::oneshot::channel();
    let work = Arc::new(Mutex::new(Some(work)));
    let job = {
        let work = work.clone();
        move || {
            let work = lock(&work).take();
            if let Some(work) = work {
                let _ = sender.send(work());
            }
        }
    };
    let started = std::thread::Builder::new().name("wasgi-compile".into()).stack_size(STACK).spawn(job);
    if started.is_err() {
        // no more threads are to be had: then on this one
        let work = lock(&work).take();
        let Some(work) = work else { return Err(to_py(py, &Error::Host("the component was not compiled".into()))) };
        return py.detach(work).map_err(|error| to_py(py, &error));
    }
    let mut told = false;
    let result = loop {
        let ready = block_on(py, |cx| match Pin::new(&mut receiver).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if !told && begun.elapsed() >= LONG => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })?;
        if let Some(result) = ready {
            break result;
        }
        told = true;
        let kept = match crate::engine::existing().and_then(|world| world.cache_directory()) {
            Some(directory) => format!("its machine code will be kept in {}", directory.display()),
            None => "there is no cache to keep its machine code in".to_owned(),
        };
        log(py, "info", &format!("`{name}` ({:.1} MB) is being compiled; {kept}", size as f64 / 1e6))?;
    };
    if told {
        log(py, "info", &format!("`{name}` has been compiled, in {:.1} s", begun.elapsed().as_secs_f64()))?;
    }
    let result = result.unwrap_or_else(|_| Err(Error::Host("compiling the component failed".into())));
    result.map_err(|error| to_py(py, &error))
}

fn log(py: Python<'_>, level: &str, line: &str) -> PyResult<()> {
    py.import("logging")?.call_method1("getLogger", ("wasgi",))?.call_method1(level, ("%s", line))?;
    Ok(())
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
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
        log(py, "warning", &note)?;
    }
    Ok(())
}

impl PyComponent {
    pub fn load(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        super::finalization::protect();
        let py = source.py();
        if !source.is_instance_of::<PyString>()
            && let Some(bytes) = super::body::bytes_of(source)?
        {
            let source = bytes.clone();
            let component = compile(py, "a component", bytes.len(), move || Component::new(&source))?;
            component.source.get_or_init(|| bytes);
            tell_notes(py)?;
            return Ok(Self { component, path: None });
        }
        let path = path_of(source, || {
            let kind = source.get_type().name().map_or_else(|_| "that".to_owned(), |name| name.to_string());
            format!("a component is loaded from a path or from bytes, not from {kind}")
        })?;
        let path = without_nul("source", path)?;
        let bytes = read_file(py, &path)?;
        let bytes_len = bytes.len();
        let shown = path.display().to_string();
        let load = move || Component::new(&bytes).map_err(|error| error.of_file(&shown));
        let component = compile(py, &file_name(&path), bytes_len, load)?;
        tell_notes(py)?;
        let path = std::path::absolute(&path).unwrap_or(path);
        Ok(Self { component, path: Some(path) })
    }

    /// Compiles it for guests under a limit of fuel, from what it was loaded from.
    pub fn prepare_for_fuel(&self, py: Python<'_>) -> PyResult<()> {
        if self.component.is_prepared_for_fuel() {
            return Ok(());
        }
        let source = match &self.path {
            Some(path) => Bytes::from(read_file(py, path)?),
            None => self.component.source.get().cloned().unwrap_or_default(),
        };
        let component = self.component.clone();
        compile(py, &self.label(), source.len(), move || component.prepare_for_fuel(&source))
    }

    /// A short name for logs: the file's, or the digest's beginning.
    pub fn label(&self) -> String {
        match &self.path {
            Some(path) => file_name(path),
            None => self.component.digest.chars().take(12).collect(),
        }
    }
}

#[pymethods]
impl PyComponent {
    #[new]
    fn new(source: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::load(source)
    }

    /// What it imports, like ``"wasi:http/types@0.2.12"``.
    #[getter]
    fn imports(&self) -> Vec<String> {
        self.component.outline.imports.clone()
    }

    /// What it exports.
    #[getter]
    fn exports(&self) -> Vec<String> {
        self.component.outline.exports.clone()
    }

    /// The version of WASI that its handler speaks: ``"0.2"``.
    #[getter]
    fn wasi(&self) -> &'static str {
        wasi_version(&self.component.outline).unwrap_or("0.2")
    }

    /// The SHA-256 of its binary form, in hexadecimal.
    #[getter]
    fn digest(&self) -> &str {
        &self.component.digest
    }

    fn __eq__(&self, other: &Bound<'_, Self>) -> bool {
        other.get().component.digest == self.component.digest
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<isize> {
        PyString::new(py, &self.component.digest).hash()
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        let py = slf.py();
        let this = slf.get();
        match &this.path {
            None => {
                let source = this.component.source.get().cloned().unwrap_or_default();
                Ok((slf.get_type().into_any(), PyTuple::new(py, [PyBytes::new(py, &source)])?))
            }
            Some(path) => {
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
    // to be shown: a component names them as it likes
    let shown = |names: Vec<String>| names.into_iter().map(|name| tamed(name, LONGEST_NAME)).collect();
    Ok((shown(outline.imports), shown(outline.exports), wasi, shown(missing)))
}
