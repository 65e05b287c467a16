//! Exchanges that begin together: in one instance of an app whose instances they may share.

use std::sync::Mutex;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::app::admission::Admission;
use crate::py::call::{Begins, Begun, Callee};
use crate::py::errors::to_py;
use crate::py::executor::blocking::{Inside, block_on};
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::process_of;
use crate::sync::lock;

/// An exchange whose response is to be asked for: once.
#[pyclass(module = "wasgi._wasgi", name = "_Together", frozen)]
pub struct PyTogether(Mutex<Option<PyResult<Begun>>>);

#[pymethods]
impl PyTogether {
    /// Waits for the response.
    fn answer(&self, py: Python<'_>) -> PyResult<PyResponse> {
        let inside = Inside::enter();
        inside.check(py);
        let begun = lock(&self.0).take();
        match begun {
            Some(begun) => begun?.wait(py, None, &inside),
            None => Err(pyo3::exceptions::PyRuntimeError::new_err("its response was asked for before")),
        }
    }

    /// Its number, if it has begun.
    #[getter]
    fn number(&self) -> Option<u64> {
        lock(&self.0).as_ref()?.as_ref().ok().map(Begun::number)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self.0.try_lock().as_deref() {
            Ok(Some(Ok(begun))) => begun.traverse(&visit),
            _ => Ok(()),
        }
    }
}

/// Begins an exchange with each of these requests. No guest runs before all of them have begun: those that share an instance overlap as far as
/// their guests wait for anything. One that has to wait for its place begins when those before it run.
pub(crate) fn begin(py: Python<'_>, callee: &Callee, requests: &[Bound<'_, PyRequest>]) -> PyResult<Vec<PyTogether>> {
    let inside = Inside::enter();
    inside.check(py);
    let mut all = All::default();
    for request in requests {
        let permit = match callee.app.admit(process_of(py)?).map_err(|error| to_py(py, &error))? {
            Admission::Permit(permit) => permit,
            Admission::Queued(mut queued) => {
                all.go_on(py);
                block_on(py, |cx| queued.poll(cx))?.map_err(|error| to_py(py, &error))?
            }
        };
        let first = all.first.and_then(|first| all.begun.get(first)?.as_ref().ok());
        let begins = first.map_or(Begins::First, |first| Begins::Beside(first.reserve_beside()));
        let begun = callee.begin(py, permit, request, None, begins);
        if all.first.is_none() && begun.is_ok() {
            all.first = Some(all.begun.len());
        }
        all.begun.push(begun);
    }
    all.go_on(py);
    Ok(all.begun.into_iter().map(|begun| PyTogether(Mutex::new(Some(begun)))).collect())
}

#[derive(Default)]
struct All {
    begun: Vec<PyResult<Begun>>,
    /// Which of them the others begin beside, until it runs.
    first: Option<usize>,
}

impl All {
    fn go_on(&mut self, py: Python<'_>) {
        let first = self.first.take().and_then(|first| self.begun.get_mut(first));
        if let Some(first) = first
            && let Ok(begun) = first
            && let Err(error) = begun.hand_over(py)
        {
            *first = Err(error);
        }
    }
}
