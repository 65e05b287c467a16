//! `wasgi.Component`.

pub(crate) mod limits;
pub(crate) mod load;
pub(crate) mod source;
pub(crate) mod threads;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};
use tracing::Level;

use crate::component::Component;
use crate::component::blocks::Blocks;
use crate::component::census::Census;
use crate::component::inspect::{ComponentInfo, Wasi};
use crate::component::limits::ComponentLimits;
use crate::component::loading::{Launcher, Order};
use crate::component::variant::Variant;
use crate::error::Error;
use crate::process::own_stack;
use crate::py::component::limits::PyComponentLimits;
use crate::py::component::load::{Ask, Loading};
use crate::py::component::source::Source;
use crate::py::errors::{named, to_py};
use crate::py::executor::awaitable::Awaitable;
use crate::py::held::detach;
use crate::py::log;
use crate::py::paths::{path_of, without_nul};
use crate::telemetry::TARGET;
use crate::text::{LONGEST_NAME, tamed};

/// A WebAssembly component.
///
/// Any valid component can be loaded, whatever it imports and exports. An `App` of it needs all of its imports, and
/// handles requests if it exports `wasi:http/incoming-handler@0.2` or `wasi:http/handler@0.3`.
///
/// Compiled once, on all cores and without the GIL; the machine code is cached on disk (in `WASGI_CACHE_DIR`, by
/// default `wasgi` in the user's cache directory; if empty, nowhere). The logger ``wasgi`` (INFO) reports a compilation
/// that takes longer than a second. The same content is compiled and held once in a process, and by one process at a
/// time. Immutable, safe to share between threads, hashable and equal by its content. It pickles as the path or the
/// bytes that it was loaded from, with ``fuel``, ``isolated`` and ``limits``.
///
/// Args:
///     source: The path of a plain file, or the bytes of a component, in binary or text form.
///     fuel: Compile it for `Limits.fuel`, too. Otherwise an `App` that needs it does so itself, and logs that.
///     isolated: Compile it for `Reuse.isolated`, too; with ``fuel``: for both at once. Otherwise likewise.
///     limits: Bounds on the cost of loading it. None: the defaults of `ComponentLimits`.
///
/// Raises:
///     InvalidComponentError: It is not a component; the message says what it is instead.
///     ComponentLimitError: It exceeds ``limits``.
///     UnsupportedComponentError: It needs a feature that the engine does not have, or a pre-release of WASI 0.3.
///     OSError: The file cannot be read.
///     ValueError: The path is invalid: it has a NUL.
///
/// Example:
///     >>> component = wasgi.Component("hello.wasm")
///     >>> component.wasi
///     '0.2'
///     >>> component.handler
///     'wasi:http/incoming-handler@0.2.12'
#[pyclass(name = "Component", module = "wasgi", frozen)]
pub struct PyComponent {
    pub component: Arc<Component>,
    pub origin: Origin,
}

/// What it was asked for with, and hence what a copy of it elsewhere is.
pub struct Origin {
    /// Where it was loaded from; None: from bytes, which the component keeps, once for all that have the same.
    path: Option<PathBuf>,
    variant: Variant,
    limits: Py<PyComponentLimits>,
}

/// A source as Python has it, and how it is to be loaded.
fn asked(
    source: &Bound<'_, PyAny>,
    variant: Variant,
    limits: Option<Py<PyComponentLimits>>,
) -> PyResult<(Ask, Origin)> {
    let py = source.py();
    let limits = match limits {
        Some(limits) => limits,
        None => default_limits(py)?,
    };
    let order = order(py, variant, &limits)?;
    if !source.is_instance_of::<PyString>()
        && let Some(bytes) = crate::py::bytes::bytes_of(source)?
    {
        return Ok((Ask { source: Source::Bytes(bytes), order }, Origin { path: None, variant, limits }));
    }
    let path = path_of(source, || {
        let kind = source.get_type().name().map_or_else(|_| "that".to_owned(), |name| name.to_string());
        format!("a component is loaded from a path or from bytes, not from {kind}")
    })?;
    let path = without_nul("source", path)?;
    let absolute = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
    Ok((Ask { source: Source::Path(path), order }, Origin { path: Some(absolute), variant, limits }))
}

fn default_limits(py: Python<'_>) -> PyResult<Py<PyComponentLimits>> {
    Ok(py.get_type::<PyComponentLimits>().call0()?.extract()?)
}

fn order(py: Python<'_>, variant: Variant, limits: &Py<PyComponentLimits>) -> PyResult<Order> {
    let limits = limits.get().core();
    let launcher = if limits.are_of_a_process() { Some(launcher(py)?) } else { None };
    Ok(Order::new(variant, limits, launcher))
}

/// Loads the native module by its path, with nothing of this process's settings, and has it compile.
const CHILD: &str = "\
import importlib.util, os, signal, sys
os.closerange(3, 1 << 16)
if hasattr(signal, 'pthread_sigmask'):
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
spec = importlib.util.spec_from_file_location('wasgi._wasgi', sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
os._exit(module._compile())
";

/// How a process that compiles is started: by the interpreter that runs this one.
fn launcher(py: Python<'_>) -> PyResult<Launcher> {
    let sys = py.import("sys")?;
    let program: Option<PathBuf> = sys.getattr("executable")?.extract()?;
    let program = program.filter(|program| !program.as_os_str().is_empty());
    let is_frozen = sys.getattr_opt("frozen")?.is_some_and(|frozen| frozen.is_truthy().unwrap_or(true));
    let Some(program) = program.filter(|_| !is_frozen) else {
        let why = if is_frozen { "this program is frozen" } else { "`sys.executable` is empty" };
        return Err(to_py(
            py,
            &Error::Host(format!(
                "`ComponentLimits.timeout` and `memory` need a Python interpreter to compile in a process of its own, and {why}; \
                 hint: `sys.executable` says which one"
            ).into()),
        ));
    };
    let module: PathBuf = py.import("wasgi._wasgi")?.getattr("__file__")?.extract()?;
    let args = ["-I", "-S", "-c", CHILD].map(OsString::from).into_iter().chain([module.into_os_string()]).collect();
    Ok(Launcher { program, args })
}

/// What a process that compiles does; returns its exit status.
#[pyfunction]
pub(crate) fn _compile(py: Python<'_>) -> u8 {
    detach(py, || own_stack::run(|| crate::component::compile_child::serve(std::io::stdin(), std::io::stdout())))
        .unwrap_or(1)
}

impl PyComponent {
    pub(crate) fn load(
        source: &Bound<'_, PyAny>,
        variant: Variant,
        limits: Option<Py<PyComponentLimits>>,
    ) -> PyResult<Self> {
        crate::py::executor::finalization::protect();
        let py = source.py();
        let (ask, origin) = asked(source, variant, limits)?;
        let component = load::load(py, ask)?;
        log::tell_events(py)?;
        Ok(Self { component, origin })
    }

    /// Whether an app can be made of it, see [`Component::check`].
    pub fn check(&self, py: Python<'_>, has_handler: bool) -> PyResult<()> {
        self.component.check(has_handler).map_err(|error| {
            let error = match &self.origin.path {
                Some(path) => error.of_file(&path.display().to_string()),
                None => error,
            };
            to_py(py, &error)
        })
    }

    /// Compiles it for what an app needs, from what it was loaded from. Says that it does: this is asked for where nobody expects to wait.
    pub fn prepare(&self, py: Python<'_>, variant: Variant) -> PyResult<()> {
        if !self.component.lacks(variant) {
            return Ok(());
        }
        let label = self.label();
        let (what, option) = match (variant.fuel, variant.restorable) {
            (true, true) => ("`Limits.fuel` and `Reuse.isolated`", "fuel=True, isolated=True"),
            (false, true) => ("`Reuse.isolated`", "isolated=True"),
            _ => ("`Limits.fuel`", "fuel=True"),
        };
        log::write(
            py,
            TARGET,
            Level::WARN,
            &format!(
                "`{label}` is compiled once more, for {what}; hint: `Component(..., {option})`, or `await \
                 Component.load_async(..., {option})`, does so beforehand"
            ),
        )?;
        let source = match &self.origin.path {
            Some(path) => Source::Path(path.clone()),
            None => Source::Bytes(self.component.source.get().cloned().unwrap_or_default()),
        };
        let order = order(py, variant, &self.origin.limits)?;
        load::prepare(py, &label, self.component.clone(), Ask { source, order })
    }

    /// A short name for logs: the file's, or the digest's beginning.
    pub fn label(&self) -> String {
        match &self.origin.path {
            Some(path) => source::file_name(path),
            None => self.component.digest.chars().take(12).collect(),
        }
    }
}

#[pymethods]
impl PyComponent {
    #[new]
    #[pyo3(signature = (source, *, fuel=false, isolated=false, limits=None))]
    fn new(
        source: &Bound<'_, PyAny>,
        fuel: bool,
        isolated: bool,
        limits: Option<Py<PyComponentLimits>>,
    ) -> PyResult<Self> {
        Self::load(source, Variant { fuel, restorable: isolated }, limits)
    }

    /// Like the constructor, for a task of an asyncio event loop, which it never blocks.
    ///
    /// Cancelling the task returns at once. A compilation in this process cannot be cancelled: it continues in the
    /// background, and its machine code is cached for the next time. A compilation in a child process
    /// (`ComponentLimits.timeout` and ``memory``) is cancelled, unless another caller waits for it.
    #[staticmethod]
    #[pyo3(signature = (source, *, fuel=false, isolated=false, limits=None))]
    fn load_async(
        source: &Bound<'_, PyAny>,
        fuel: bool,
        isolated: bool,
        limits: Option<Py<PyComponentLimits>>,
    ) -> PyResult<Awaitable> {
        let variant = Variant { fuel, restorable: isolated };
        let (ask, origin) = asked(source, variant, limits)?;
        Ok(Awaitable::of_call(
            "Component.load_async",
            Loading::new(ask, Box::new(|py, component| Ok(Py::new(py, Self { component, origin })?.into_any()))),
        ))
    }

    /// Its imports, like ``"wasi:http/types@0.2.12"``.
    #[getter]
    fn imports(&self) -> Vec<String> {
        self.component.info.imports.clone()
    }

    /// Its exports.
    #[getter]
    fn exports(&self) -> Vec<String> {
        self.component.info.exports.clone()
    }

    /// The generation of WASI that it speaks. A component that exports the handlers of both speaks 0.3.
    #[getter]
    fn wasi(&self) -> &'static str {
        wasi_version(&self.component.info)
    }

    /// The export that handles requests, like ``"wasi:http/handler@0.3.0"``. None: `App.handle` raises.
    #[getter]
    fn handler(&self) -> Option<&str> {
        self.component.info.handler()
    }

    /// Whether the host can put its instances back to what they were (`Reuse.isolated`).
    ///
    /// None: it was not compiled for that. `wasgi inspect` tells the reason.
    #[getter]
    fn restorable(&self) -> Option<bool> {
        self.component.is_restorable()
    }

    /// The SHA-256 of its binary form, in hexadecimal.
    #[getter]
    fn digest(&self) -> &str {
        &self.component.digest
    }

    /// Raises what keeps every `App` of it from handling requests.
    fn _check(&self, py: Python<'_>) -> PyResult<()> {
        self.check(py, true)?;
        self.component.info.check_handler().map_err(|error| to_py(py, &error))
    }

    /// Raises what keeps it from being run as a command.
    fn _check_command(&self, py: Python<'_>) -> PyResult<()> {
        self.component.check_command().map_err(|error| to_py(py, &error))
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
        let (variant, limits) = (this.origin.variant, this.origin.limits.bind(py));
        match &this.origin.path {
            None => {
                let source = this.component.source.get().cloned().unwrap_or_default();
                let options = PyDict::new(py);
                options.set_item("fuel", variant.fuel)?;
                options.set_item("isolated", variant.restorable)?;
                options.set_item("limits", limits)?;
                let restore = py.import("functools")?.getattr("partial")?.call((slf.get_type(),), Some(&options))?;
                Ok((restore, PyTuple::new(py, [PyBytes::new(py, &source)])?))
            }
            Some(path) => {
                let restore = py.import("wasgi._wasgi")?.getattr("_restore_component")?;
                let path = path.clone().into_os_string();
                Ok((
                    restore,
                    (path, &this.component.digest, variant.fuel, variant.restorable, limits).into_pyobject(py)?,
                ))
            }
        }
    }

    fn __repr__(&self) -> String {
        format!("<wasgi.Component {} wasi={} digest={:.12}>", self.label(), self.wasi(), self.component.digest)
    }
}

/// Unpickles a component that was loaded from a path: the file must still be the same.
#[pyfunction]
#[pyo3(signature = (path, digest, fuel=false, isolated=false, limits=None))]
pub(crate) fn _restore_component(
    path: &Bound<'_, PyAny>,
    digest: &str,
    fuel: bool,
    isolated: bool,
    limits: Option<Py<PyComponentLimits>>,
) -> PyResult<PyComponent> {
    let restored = PyComponent::load(path, Variant { fuel, restorable: isolated }, limits)?;
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

/// The bytes of a component's file, for whoever looks at one without loading it.
#[pyfunction]
pub(crate) fn _read_component<'py>(path: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let py = path.py();
    let path = without_nul("source", path_of(path, || "a component is read from a path".to_owned())?)?;
    Ok(PyBytes::new(py, &source::read(py, path, &default_limits(py)?.get().core())?))
}

fn wasi_version(info: &ComponentInfo) -> &'static str {
    match info.wasi() {
        Wasi::P2 => "0.2",
        Wasi::P3 => "0.3",
    }
}

/// Why instances of a component, which has been loaded before, could not be put back to what they were; None: they can.
#[pyfunction]
pub(crate) fn _why_not_restorable(py: Python<'_>, source: &[u8]) -> PyResult<Option<String>> {
    let looked = detach(py, || own_stack::run(|| crate::component::why_not_restorable(source)));
    looked.map_err(|error| to_py(py, &error))?.map_err(|error| to_py(py, &error))
}

/// What a component says of itself, read without compiling it: (imports, exports, wasi, handler, imports that no App provides).
#[pyfunction]
#[allow(clippy::type_complexity)]
pub(crate) fn _outline(
    py: Python<'_>,
    source: &[u8],
) -> PyResult<(Vec<String>, Vec<String>, &'static str, Option<String>, Vec<String>)> {
    let limits = default_limits(py)?.get().core();
    let read = || {
        limits.check_source(source)?;
        crate::component::file_format::to_binary(source).and_then(|binary| ComponentInfo::read(&binary))
    };
    let info = detach(py, || own_stack::run(read)).flatten().map_err(|error| to_py(py, &error))?;
    let (wasi, handler, missing) = (wasi_version(&info), info.handler().map(str::to_owned), info.missing(true));
    // to be shown: a component names them as it likes
    let shown = |names: Vec<String>| names.into_iter().map(|name| tamed(name, LONGEST_NAME)).collect();
    Ok((shown(info.imports), shown(info.exports), wasi, handler, shown(missing)))
}

/// What is counted in a component, by the names of `ComponentLimits`; and what its instance costs the host.
#[pyfunction]
pub(crate) fn _census<'py>(py: Python<'py>, source: &[u8]) -> PyResult<Bound<'py, PyDict>> {
    let read = || {
        let binary = crate::component::file_format::to_binary(source)?;
        Ok((Census::take(&binary, &ComponentLimits::NONE)?, Blocks::read(&binary, Blocks::default())))
    };
    let (census, depths) = detach(py, || own_stack::run(read)).flatten().map_err(|error| to_py(py, &error))?;
    let counted = PyDict::new(py);
    for (name, _, _, found) in ComponentLimits::NONE.against(&census) {
        counted.set_item(name, found)?;
    }
    counted.set_item("blocks", depths.blocks)?;
    counted.set_item("loops", depths.loops)?;
    counted.set_item("host", census.instance.host)?;
    Ok(counted)
}
