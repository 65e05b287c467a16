//! How an event loop and its queue of jobs ([`LoopCore`]) find each other: the pipe that the loop watches, the loops that are known,
//! and the loop of our own.

use std::io::{PipeReader, Read};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use pyo3::exceptions::{PyNotImplementedError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::process::fork::PerProcess;
use crate::py::executor::event_loop::LoopCore;
use crate::py::once::{Once, text};

impl LoopCore {
    /// The jobs' queue of a loop, which must be the one of this thread.
    pub fn of(running: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let found = known(running.py())?.call_method1(text!(running.py(), "get"), (running,))?;
        if !found.is_none() {
            let found: Bound<'_, LoopCoreRef> = found.extract()?;
            if found.get().process == std::process::id() {
                return Ok(found.get().core.clone());
            }
        }
        Ok(LoopBridge::attach(running)?.get().core.clone())
    }

    /// The loop of our own, for calls from where no loop runs.
    pub fn own(py: Python<'_>) -> PyResult<Arc<Self>> {
        if let Some(core) = OWN.existing() {
            return Ok(core.clone());
        }
        let bridge = py.import("wasgi._native.background_loop")?.call_method0("background_loop")?;
        let core = bridge.extract::<Bound<'_, LoopBridge>>()?.get().core.clone();
        Ok(OWN.get(|| core).clone())
    }
}

/// The loops that have a queue of jobs. The keys are weak: a loop that is forgotten takes its pipe with it.
fn known(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    static KNOWN: Once<Py<PyAny>> = Once::new();
    let made = || py.import("weakref")?.getattr("WeakKeyDictionary")?.call0().map(Bound::unbind);
    Ok(KNOWN.try_get(py, made)?.bind(py))
}

static OWN: PerProcess<Arc<LoopCore>> = PerProcess::new();

/// In a forked child.
pub(crate) fn forget() {
    OWN.forget();
}

/// Threads that run a loop of our own.
pub(crate) fn own_threads() -> usize {
    OWN.existing().map_or(0, |_| 1)
}

/// How a loop's jobs are found.
#[pyclass(module = "wasgi._wasgi", frozen)]
struct LoopCoreRef {
    core: Arc<LoopCore>,
    process: u32,
}

/// The queue of jobs that Rust has for an event loop; the loop calls it when there are some.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct LoopBridge {
    core: Arc<LoopCore>,
    pipe: PipeReader,
    process: u32,
}

impl LoopBridge {
    /// Makes the queue of a loop that is not known yet; from then on [`LoopCore::of`] finds it.
    fn attach(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        let py = event_loop.py();
        let (reader, writer) = std::io::pipe()?;
        let descriptor = reader.as_raw_fd();
        let core = LoopCore::new(py.import("weakref")?.getattr("ref")?.call1((event_loop,))?.unbind(), writer);
        let bridge = Py::new(py, Self { core, pipe: reader, process: std::process::id() })?;
        // In a context of its own: the reader would keep alive the one of whoever came first.
        let context = py.import("contextvars")?.getattr("Context")?.call0()?;
        context.call_method1("run", (event_loop.getattr("add_reader")?, descriptor, &bridge)).map_err(|error| {
            if error.is_instance_of::<PyNotImplementedError>(py) {
                PyRuntimeError::new_err(
                    "this event loop cannot watch a pipe (`add_reader`); hint: use asyncio.SelectorEventLoop or uvloop",
                )
            } else {
                error
            }
        })?;
        // not the bridge: it refers to tasks, and these to the loop, which would never be forgotten
        let known_as = Py::new(py, LoopCoreRef { core: bridge.get().core.clone(), process: std::process::id() })?;
        known(py)?.call_method1(text!(py, "__setitem__"), (event_loop, known_as))?;
        Ok(bridge)
    }
}

impl std::ops::Deref for LoopBridge {
    type Target = Arc<LoopCore>;

    fn deref(&self) -> &Arc<LoopCore> {
        &self.core
    }
}

#[pymethods]
impl LoopBridge {
    #[staticmethod]
    #[pyo3(name = "attach")]
    fn py_attach(event_loop: &Bound<'_, PyAny>) -> PyResult<Py<Self>> {
        Self::attach(event_loop)
    }

    fn __call__(&self, py: Python<'_>) -> PyResult<()> {
        crate::py::executor::finalization::protect();
        let mut byte = [0];
        (&self.pipe).read_exact(&mut byte)?;
        self.core.run_due(py);
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.core.visit(&visit)
    }

    fn __clear__(&self) {
        self.let_go();
    }
}

impl LoopBridge {
    fn let_go(&self) {
        // a forked child's copy: what it waits for is its parent's
        if self.process == std::process::id() {
            self.core.let_go();
        }
    }
}

impl Drop for LoopBridge {
    fn drop(&mut self) {
        self.let_go();
    }
}
