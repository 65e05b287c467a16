//! `wasgi.Limits`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::limits::Limits;

#[pyclass(name = "Limits", module = "wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyLimits {
    memory: Option<i64>,
    table_elements: Option<i64>,
    instances: Option<i64>,
    handles: Option<i64>,
    timeout: Option<f64>,
    fuel: Option<i64>,
    fields: Option<i64>,
    request_body: Option<i64>,
    response_body: Option<i64>,
    outgoing: Option<i64>,
    outgoing_concurrency: Option<i64>,
    concurrency: Option<i64>,
    queue: i64,
    queue_timeout: Option<f64>,
    chunks: i64,
}

/// More would be no bound: each may have 16 KiB.
const MOST_CHUNKS: i64 = 1024;

/// Zero is no limit that leaves anything to run.
pub fn positive(name: &str, unit: &str, value: Option<i64>) -> PyResult<()> {
    match value {
        Some(value) if value < 1 => {
            Err(PyValueError::new_err(format!("`{name}` must be a positive number of {unit}, or None: {value}")))
        }
        _ => Ok(()),
    }
}

fn not_negative(name: &str, unit: &str, value: Option<i64>) -> PyResult<()> {
    match value {
        Some(value) if value < 0 => {
            Err(PyValueError::new_err(format!("`{name}` must be a number of {unit}, zero or more: {value}")))
        }
        _ => Ok(()),
    }
}

pub fn seconds(name: &str, value: Option<f64>) -> PyResult<()> {
    match value {
        Some(seconds) if seconds <= 0.0 || Duration::try_from_secs_f64(seconds).is_err() => {
            Err(PyValueError::new_err(format!("`{name}` must be a positive number of seconds, or None: {seconds}")))
        }
        _ => Ok(()),
    }
}

/// The hash of a value that is all in its repr.
pub fn hash_of(repr: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    repr.hash(&mut hasher);
    hasher.finish()
}

pub fn duration(seconds: Option<f64>) -> Option<Duration> {
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

#[pymethods]
impl PyLimits {
    #[new]
    #[pyo3(
        signature = (*, memory=Some(256 << 20), table_elements=Some(1_000_000), instances=Some(256), handles=Some(4096),
            timeout=Some(30.0), fuel=None, fields=Some(64 << 10), request_body=None, response_body=None,
            outgoing=Some(1000), outgoing_concurrency=Some(64), concurrency=Some(256), queue=0,
            queue_timeout=Some(10.0), chunks=8),
        text_signature = "(*, memory=268435456, table_elements=1000000, instances=256, handles=4096, timeout=30.0, \
            fuel=None, fields=65536, request_body=None, response_body=None, outgoing=1000, outgoing_concurrency=64, \
            concurrency=256, queue=0, queue_timeout=10.0, chunks=8)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        memory: Option<i64>,
        table_elements: Option<i64>,
        instances: Option<i64>,
        handles: Option<i64>,
        timeout: Option<f64>,
        fuel: Option<i64>,
        fields: Option<i64>,
        request_body: Option<i64>,
        response_body: Option<i64>,
        outgoing: Option<i64>,
        outgoing_concurrency: Option<i64>,
        concurrency: Option<i64>,
        queue: i64,
        queue_timeout: Option<f64>,
        chunks: i64,
    ) -> PyResult<Self> {
        positive("memory", "bytes", memory)?;
        not_negative("table_elements", "elements", table_elements)?;
        positive("instances", "core instances", instances)?;
        positive("handles", "handles", handles)?;
        seconds("timeout", timeout)?;
        positive("fuel", "units of fuel", fuel)?;
        positive("fields", "bytes", fields)?;
        not_negative("request_body", "bytes", request_body)?;
        not_negative("response_body", "bytes", response_body)?;
        not_negative("outgoing", "requests", outgoing)?;
        positive("outgoing_concurrency", "requests", outgoing_concurrency)?;
        positive("concurrency", "exchanges", concurrency)?;
        not_negative("queue", "exchanges", Some(queue))?;
        seconds("queue_timeout", queue_timeout)?;
        if !(1..=MOST_CHUNKS).contains(&chunks) {
            return Err(PyValueError::new_err(format!("`chunks` must be from 1 to {MOST_CHUNKS}: {chunks}")));
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
        hash_of(&self.__repr__())
    }
}

impl PyLimits {
    pub fn core(&self) -> Limits {
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let size = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        Limits {
            memory: count(self.memory),
            table_elements: count(self.table_elements),
            instances: count(self.instances),
            handles: count(self.handles),
            timeout: duration(self.timeout),
            fuel: count(self.fuel),
            fields: count(self.fields),
            request_body: count(self.request_body),
            response_body: count(self.response_body),
            outgoing: count(self.outgoing),
            outgoing_concurrency: count(self.outgoing_concurrency),
            concurrency: self.concurrency.map(size),
            queue: size(self.queue),
            queue_timeout: duration(self.queue_timeout),
            chunks: size(self.chunks),
        }
    }
}
