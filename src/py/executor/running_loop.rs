//! The event loop that runs on this thread, and tasks on it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;

/// The loop that runs on this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    crate::py::executor::finalization::protect();
    static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let get =
        GET.get_or_try_init(py, || py.import("asyncio")?.getattr("get_running_loop").map(Bound::unbind))?.bind(py);
    get.call0().map_err(|error| match error.is_instance_of::<PyRuntimeError>(py) {
        true => PyRuntimeError::new_err(
            "no running event loop: this is for tasks of asyncio; hint: elsewhere use the blocking twin (`handle`, \
             `read`, `for`, `wait`, `close`), under trio in a thread: `await trio.to_thread.run_sync(app.handle, request)`",
        ),
        false => error,
    })
}

/// A task of the running loop, in the given context.
pub(crate) fn spawn(coroutine: &Bound<'_, PyAny>, context: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let py = coroutine.py();
    let options = PyDict::new(py);
    options.set_item(intern!(py, "context"), context)?;
    let running = running_loop(py)?;
    Ok(running.call_method(intern!(py, "create_task"), (coroutine,), Some(&options))?.unbind())
}
