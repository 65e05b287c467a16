//! `wasgi.Reuse`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::limits::{duration, hash_of, positive, seconds};
use crate::instance::Reuse;

#[pyclass(name = "Reuse", module = "wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyReuse {
    requests: Option<i64>,
    concurrent: i64,
    idle: Option<f64>,
}

#[pymethods]
impl PyReuse {
    #[new]
    #[pyo3(signature = (*, requests=Some(128), concurrent=1, idle=Some(10.0)), text_signature = "(*, requests=128, concurrent=1, idle=10.0)")]
    fn new(requests: Option<i64>, concurrent: i64, idle: Option<f64>) -> PyResult<Self> {
        positive("requests", "requests", requests)?;
        if concurrent != 1 {
            return Err(PyValueError::new_err(format!(
                "`concurrent` must be 1: a guest of WASI 0.2 handles one request at a time, not {concurrent}"
            )));
        }
        seconds("idle", idle)?;
        Ok(Self { requests, concurrent, idle })
    }

    fn __repr__(&self) -> String {
        let requests = self.requests.map_or_else(|| "None".to_owned(), |requests| requests.to_string());
        let idle = self.idle.map_or_else(|| "None".to_owned(), |idle| format!("{idle:?}"));
        format!("Reuse(requests={requests}, concurrent={}, idle={idle})", self.concurrent)
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.__repr__())
    }
}

impl PyReuse {
    pub fn core(&self) -> Reuse {
        Reuse { requests: self.requests.and_then(|requests| u64::try_from(requests).ok()), idle: duration(self.idle) }
    }
}
