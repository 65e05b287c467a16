//! `wasgi.Timeouts`.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::outgoing::upstream::Timeouts;
use crate::py::options::options;

options! {
    /// The timeouts of a request in seconds: a guest's `request-options`. None: not set.
    ///
    /// Args:
    ///     connect: From the request to the connection.
    ///     first_byte: From the connection to the head of the response.
    ///     between_bytes: Between two chunks of the response.
    ///
    /// Raises:
    ///     ValueError: A number of seconds is negative or NaN.
    #[pyclass(name = "Timeouts", module = "wasgi")]
    pub struct PyTimeouts as "Timeouts" -> Timeouts {
        connect: Option<f64> = None => number_of_seconds(),
        first_byte: Option<f64> = None => number_of_seconds(),
        between_bytes: Option<f64> = None => number_of_seconds(),
    }
}

/// Zero is one: a guest may set it.
fn number_of_seconds(name: &str, given: Option<f64>) -> PyResult<()> {
    match given {
        Some(seconds) if Duration::try_from_secs_f64(seconds).is_err() => {
            Err(PyValueError::new_err(format!("`{name}` must be a number of seconds, or None: {seconds}")))
        }
        _ => Ok(()),
    }
}

impl PyTimeouts {
    fn made(timeouts: Self) -> PyResult<Self> {
        Ok(timeouts)
    }

    /// What a request has.
    pub(crate) fn of(timeouts: Timeouts) -> Self {
        let seconds = |timeout: Option<Duration>| timeout.map(|timeout| timeout.as_secs_f64());
        Self {
            connect: seconds(timeouts.connect),
            first_byte: seconds(timeouts.first_byte),
            between_bytes: seconds(timeouts.between_bytes),
        }
    }
}
