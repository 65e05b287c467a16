//! The event loop that runs on this thread, and tasks on it.

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::py::once::{Once, text};

/// The loop that runs on this thread.
pub(crate) fn running_loop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    crate::py::executor::finalization::protect();
    static GET: Once<Py<PyAny>> = Once::new();
    GET.import(py, "asyncio", "get_running_loop")?.call0().map_err(|error| match error.is_instance_of::<PyRuntimeError>(py) {
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
    options.set_item(text!(py, "context"), context)?;
    let running = running_loop(py)?;
    Ok(running.call_method(text!(py, "create_task"), (coroutine,), Some(&options))?.unbind())
}
