//! `wasgi.Limits`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::limits::Limits;

#[pyclass(name = "Limits", module = "wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyLimits {
    memory: Option<u64>,
    table_elements: Option<u64>,
    instances: Option<u64>,
    handles: Option<u64>,
    timeout: Option<f64>,
    fuel: Option<u64>,
    fields: Option<u64>,
    request_body: Option<u64>,
    response_body: Option<u64>,
    outgoing: Option<u64>,
    outgoing_concurrency: Option<u64>,
    concurrency: Option<usize>,
    queue: usize,
    queue_timeout: Option<f64>,
    chunks: usize,
}

impl Default for PyLimits {
    /// Those of the signature below.
    fn default() -> Self {
        Self {
            memory: Some(256 << 20),
            table_elements: Some(1_000_000),
            instances: Some(256),
            handles: Some(4096),
            timeout: Some(30.0),
            fuel: None,
            fields: Some(64 << 10),
            request_body: None,
            response_body: None,
            outgoing: Some(1000),
            outgoing_concurrency: Some(64),
            concurrency: Some(256),
            queue: 0,
            queue_timeout: Some(10.0),
            chunks: 4,
        }
    }
}

/// Zero is no limit that leaves anything to run.
fn positive(name: &str, unit: &str, value: Option<u64>) -> PyResult<()> {
    match value {
        Some(0) => Err(PyValueError::new_err(format!("`{name}` must be a positive number of {unit}, or None: 0"))),
        _ => Ok(()),
    }
}

fn seconds(name: &str, value: Option<f64>) -> PyResult<()> {
    match value {
        Some(seconds) if seconds <= 0.0 || Duration::try_from_secs_f64(seconds).is_err() => {
            Err(PyValueError::new_err(format!("`{name}` must be a positive number of seconds, or None: {seconds}")))
        }
        _ => Ok(()),
    }
}

#[pymethods]
impl PyLimits {
    #[new]
    #[pyo3(
        signature = (*, memory=Some(256 << 20), table_elements=Some(1_000_000), instances=Some(256), handles=Some(4096),
            timeout=Some(30.0), fuel=None, fields=Some(64 << 10), request_body=None, response_body=None,
            outgoing=Some(1000), outgoing_concurrency=Some(64), concurrency=Some(256), queue=0,
            queue_timeout=Some(10.0), chunks=4),
        text_signature = "(*, memory=268435456, table_elements=1000000, instances=256, handles=4096, timeout=30.0, \
            fuel=None, fields=65536, request_body=None, response_body=None, outgoing=1000, outgoing_concurrency=64, \
            concurrency=256, queue=0, queue_timeout=10.0, chunks=4)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        memory: Option<u64>,
        table_elements: Option<u64>,
        instances: Option<u64>,
        handles: Option<u64>,
        timeout: Option<f64>,
        fuel: Option<u64>,
        fields: Option<u64>,
        request_body: Option<u64>,
        response_body: Option<u64>,
        outgoing: Option<u64>,
        outgoing_concurrency: Option<u64>,
        concurrency: Option<usize>,
        queue: usize,
        queue_timeout: Option<f64>,
        chunks: usize,
    ) -> PyResult<Self> {
        positive("memory", "bytes", memory)?;
        positive("instances", "core instances", instances)?;
        positive("handles", "handles", handles)?;
        positive("fuel", "units of fuel", fuel)?;
        positive("fields", "bytes", fields)?;
        positive("outgoing_concurrency", "requests", outgoing_concurrency)?;
        positive("concurrency", "exchanges", concurrency.map(|most| most as u64))?;
        positive("chunks", "chunks", Some(chunks as u64))?;
        seconds("timeout", timeout)?;
        seconds("queue_timeout", queue_timeout)?;
        if chunks > 1024 {
            return Err(PyValueError::new_err(format!("`chunks` must be at most 1024: {chunks}")));
        }
        Ok(Self {
            memory,
            table_elements,
            instances,
            handles,
            timeout,
            fuel,
            fields,
            request_body,
            response_body,
            outgoing,
            outgoing_concurrency,
            concurrency,
            queue,
            queue_timeout,
            chunks,
        })
    }

    fn __repr__(&self) -> String {
        fn show<T: std::fmt::Debug>(name: &str, value: &Option<T>) -> String {
            value.as_ref().map_or_else(|| format!("{name}=None"), |value| format!("{name}={value:?}"))
        }
        let fields = [
            show("memory", &self.memory),
            show("table_elements", &self.table_elements),
            show("instances", &self.instances),
            show("handles", &self.handles),
            show("timeout", &self.timeout),
            show("fuel", &self.fuel),
            show("fields", &self.fields),
            show("request_body", &self.request_body),
            show("response_body", &self.response_body),
            show("outgoing", &self.outgoing),
            show("outgoing_concurrency", &self.outgoing_concurrency),
            show("concurrency", &self.concurrency),
            show("queue", &Some(self.queue)),
            show("queue_timeout", &self.queue_timeout),
            show("chunks", &Some(self.chunks)),
        ];
        format!("Limits({})", fields.join(", "))
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.__repr__().hash(&mut hasher);
        hasher.finish()
    }
}

impl PyLimits {
    pub fn core(&self) -> Limits {
        let time = |seconds: Option<f64>| seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        Limits {
            memory: self.memory,
            table_elements: self.table_elements,
            instances: self.instances,
            handles: self.handles,
            timeout: time(self.timeout),
            fuel: self.fuel,
            fields: self.fields,
            request_body: self.request_body,
            response_body: self.response_body,
            outgoing: self.outgoing,
            outgoing_concurrency: self.outgoing_concurrency,
            concurrency: self.concurrency,
            queue: self.queue,
            queue_timeout: time(self.queue_timeout),
            chunks: self.chunks,
        }
    }
}
