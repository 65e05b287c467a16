//! `wasgi.testing.World`.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::staged::World;

#[pyclass(name = "World", module = "wasgi._wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyWorld {
    seed: u64,
    now: f64,
}

impl PyWorld {
    pub fn core(&self) -> World {
        World { now: Duration::try_from_secs_f64(self.now).unwrap_or_default(), seed: self.seed }
    }
}

#[pymethods]
impl PyWorld {
    #[new]
    #[pyo3(signature = (*, seed=0, now=0.0))]
    fn new(seed: u64, now: f64) -> PyResult<Self> {
        // what a `u64` of nanoseconds holds, and more than any test wants
        if !(0.0..=1e10).contains(&now) {
            return Err(PyValueError::new_err(format!("`now` must be seconds since 1970, from 0 to 1e10: {now}")));
        }
        Ok(Self { seed, now })
    }

    fn __repr__(&self) -> String {
        format!("wasgi.testing.World(seed={}, now={})", self.seed, self.now)
    }
}
