//! For `wasgi run`: a component that is a command, run with the process's stdin, stdout and stderr.

use pyo3::exceptions::PyBrokenPipeError;
use pyo3::prelude::*;

use crate::app::admission::Admission;
use crate::app::command::Ended;
use crate::guest::process_stdio::ProcessStdio;
use crate::py::app::PyApp;
use crate::py::errors::to_py;
use crate::py::executor::blocking::{Inside, block_on};
use crate::py::executor::context::copy_context;
use crate::py::held::detach;
use crate::py::output::GuestOutput;
use crate::py::process_of;

/// Has an app's component run as a command, and waits for its exit code. Ctrl-C stops it. `streams`: whether the process was started with a
/// stdin, a stdout and a stderr.
#[pyfunction]
pub(crate) fn _run_command(
    py: Python<'_>,
    app: &Bound<'_, PyApp>,
    args: Vec<String>,
    streams: (bool, bool, bool),
) -> PyResult<i32> {
    let inside = Inside::enter();
    inside.check(py);
    let callee = app.get().callee().get();
    let permit = match callee.app.admit_command(process_of(py)?).map_err(|error| to_py(py, &error))? {
        Admission::Permit(permit) => permit,
        Admission::Queued(mut queued) => block_on(py, |cx| queued.poll(cx))?.map_err(|error| to_py(py, &error))?,
    };
    crate::py::executor::threads::threads().ensure(py)?;
    let number = permit.number;
    let upstreams = callee.for_command(py, number)?;
    let (stdin, stdout, stderr) = streams;
    let stdio = ProcessStdio::new(stdin, stdout, stderr);
    let begun = detach(py, || callee.app.run_command(permit, args, stdio, upstreams));
    let mut command = begun.map_err(|error| to_py(py, &error))?;
    let output = GuestOutput::new(callee.sinks.clone_ref(py), command.owner().stdio().clone(), number);
    output.go_live(copy_context(py)?);
    let ended = block_on(py, |cx| command.poll(cx));
    match output.deliver_after(py, ended)?.map_err(|error| to_py(py, &error))? {
        Ended::Code(code) => Ok(code),
        Ended::BrokenPipe => Err(PyBrokenPipeError::new_err("nobody reads what the guest writes")),
    }
}
