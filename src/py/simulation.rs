//! `wasgi.testing.Simulation`, and pauses in virtual time.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::py::errors::to_py;
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::operation::Operation;
use crate::py::options::options;
use crate::simulation::environment::Simulation;
use crate::simulation::virtual_time::WorkClock;

options! {
    /// Deterministic time and randomness for a guest, for ``App(simulation=...)``: two runs give the same bytes.
    ///
    /// Each exchange begins with the same time and the same seed. Time is virtual: it stands still while the guest runs;
    /// when the guest and all mocks are idle, it jumps to the earliest deadline, so sleeping takes no time. Deadlines are
    /// the guest's timers, the timeouts of its request-options, and the delays and pauses of `wasgi.testing.Upstream`.
    /// While other code works on a request of the guest (a function, the real network), the guest's timers take real time,
    /// so that its timeouts do not pass before that code can respond. A guest that waits for a file counts as idle.
    ///
    /// Args:
    ///     seed: The seed of its random bytes, 0 to 2**64 - 1. The bytes are the same in all runs of one version of wasgi.
    ///     now: The wall clock's time when a guest begins: seconds since 1970, UTC.
    ///
    /// Raises:
    ///     ValueError: ``now`` is out of range.
    ///     OverflowError: ``seed`` is.
    ///
    /// Example:
    ///     >>> app = wasgi.App("plugin.wasm", simulation=wasgi.testing.Simulation(seed=7, now=1_700_000_000))
    #[pyclass(name = "Simulation", module = "wasgi._wasgi")]
    pub struct PySimulation as "wasgi.testing.Simulation" {
        seed: u64 = 0,
        now: f64 = 0.0 => since_1970(),
    }
}

/// As many as a `u64` of nanoseconds holds, and more than any test wants.
fn since_1970(name: &str, given: f64) -> PyResult<()> {
    if (0.0..=1e10).contains(&given) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("`{name}` must be seconds since 1970, from 0 to 1e10: {given}")))
}

impl PySimulation {
    fn made(simulation: Self) -> PyResult<Self> {
        Ok(simulation)
    }

    pub(crate) fn core(&self) -> Simulation {
        Simulation { now: Duration::try_from_secs_f64(self.now).unwrap_or_default(), seed: self.seed }
    }
}

/// Waits for so many seconds of a guest's time.
pub(super) fn pause(clock: WorkClock, seconds: f64) -> PyResult<Awaitable> {
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("a pause must be a number of seconds: {seconds}")))?;
    Ok(Awaitable::new(Paused::New(clock, duration)))
}

enum Paused {
    New(WorkClock, Duration),
    Waiting(Pin<Box<dyn Future<Output = ()> + Send>>),
}

impl Operation for Paused {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Self::New(clock, duration) = self {
            let runtime = &crate::py::process_of(py)?.runtime;
            let sleep = runtime.within(clock.clone().sleep(*duration)).map_err(|error| to_py(py, &error))?;
            *self = Self::Waiting(Box::pin(sleep));
        }
        match self {
            Self::New(..) => Poll::Pending,
            Self::Waiting(sleep) => sleep.as_mut().poll(cx).map(|()| Ok(py.None())),
        }
    }
}
