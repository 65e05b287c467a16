//! The only folder that knows Python.
//!
//! Rules of the house: tokio's workers never call Python, they submit a job to a [lane](executor::lane); Python code never
//! runs on a guest's stack; nothing holds the GIL while it waits.

pub mod app;
pub mod bytes;
pub mod call;
pub mod component;
pub mod counters;
pub mod dir;
pub mod errors;
pub mod executor;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod message;
pub mod on_finish;
pub mod options;
pub mod outgoing;
pub mod output;
pub mod paths;
pub mod reuse;
pub mod simulation;
pub mod stats;
pub mod values;
pub mod wit;

use std::sync::OnceLock;

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;

use crate::engine::ProcessState;

pub(crate) use crate::sync::lock;

/// The state of the process. The first use makes it without the GIL: the hook before a fork holds the lock under which it is made, and comes
/// for the GIL.
pub fn process_of(py: Python<'_>) -> PyResult<&'static ProcessState> {
    match crate::engine::existing() {
        Some(process) => Ok(process),
        None => py.detach(crate::engine::process_state).map_err(|error| errors::to_py(py, &error)),
    }
}

/// Threads, loops and cached objects here are one interpreter's: a second one would be handed the first one's.
pub fn refuse_sub_interpreters(_: Python<'_>) -> PyResult<()> {
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
