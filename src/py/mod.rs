//! The only folder that knows Python.
//!
//! Rules of the house: tokio's workers never call Python, they submit a job to a [lane](executor::lane); Python code never
//! runs on a guest's stack; nothing holds the GIL while it waits.

pub(crate) mod app;
pub(crate) mod bytes;
pub(crate) mod call;
pub(crate) mod command;
pub(crate) mod component;
pub(crate) mod counters;
pub(crate) mod dir;
pub(crate) mod errors;
pub(crate) mod executor;
pub(crate) mod grants;
pub(crate) mod handle_async;
pub(crate) mod held;
pub(crate) mod lifecycle;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod message;
pub(crate) mod on_finish;
pub(crate) mod once;
pub(crate) mod options;
pub(crate) mod outgoing;
pub(crate) mod output;
pub(crate) mod paths;
pub(crate) mod reuse;
pub(crate) mod server;
pub(crate) mod simulation;
pub(crate) mod stats;
pub(crate) mod together;
pub(crate) mod values;
pub(crate) mod wit;

use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use crate::engine::ProcessState;
use crate::py::held::detach;

pub(crate) use crate::sync::lock;

/// The state of the process. The first use makes it without the GIL: the hook before a fork holds the lock under which it is made, and comes
/// for the GIL.
pub(crate) fn process_of(py: Python<'_>) -> PyResult<&'static ProcessState> {
    match crate::engine::existing() {
        Some(process) => Ok(process),
        None => detach(py, crate::engine::process_state).map_err(|error| errors::to_py(py, &error)),
    }
}

/// Threads, loops and cached objects here are one interpreter's: a second one would be handed the first one's.
pub(crate) fn refuse_sub_interpreters(_: Python<'_>) -> PyResult<()> {
    static FIRST: OnceLock<i64> = OnceLock::new();
    // SAFETY: the GIL is held, so there is a present interpreter, and it stays while it is asked for its number.
    let present = unsafe { pyo3::ffi::PyInterpreterState_GetID(pyo3::ffi::PyInterpreterState_Get()) };
    if *FIRST.get_or_init(|| present) == present {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "wasgi works in one interpreter of a process, and another one has imported it; hint: use threads or processes, not \
         subinterpreters",
    ))
}
