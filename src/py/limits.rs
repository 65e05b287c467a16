//! `wasgi.Limits`.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::limits::Limits;
use crate::py::values::{Count, Number, Seconds, plain, settings, value_methods};

/// Resource limits of a guest: memory, time, fuel, concurrency. ``None`` lifts a limit.
///
/// The defaults suit an untrusted plug-in. A guest that exceeds a limit of its own resources ends with an exception
/// whose ``limit`` is the value. Limits of messages raise wasi:http's own error-codes, with a note that names the
/// limit. Limits of outgoing requests give the guest an error-code, and are logged by ``wasgi.outgoing``.
///
/// Args:
///     memory: Bytes: all linear memories of an instance, and the host's memory behind its handles (fields, the parts
///         of requests, bodies of unsent messages, 64 KiB for each stream of a file), which is checked for each
///         megabyte that is added. ``memory.grow`` beyond the limit fails. A guest that ends because of that, or whose
///         handles take more, raises `MemoryLimitError`.
///     memory_per_app: The same for all exchanges of one `App` together, and for its idle instances: the exchange that
///         asks for more is refused likewise.
///     table_elements: Elements of all tables of an instance together, refused like memory: `TableLimitError`. In the
///         instance pool, a single table holds a million at most, whatever the limit.
///     instances: Core instances in an instance of the component: `InstanceLimitError`.
///     handles: Handles of resources that a guest holds at once, its own resources included: `HandleLimitError`.
///     files: Files and folders that an exchange has open at once, those that it streams or lists included; the guest
///         gets ``quota``. The granted folders themselves do not count.
///     files_per_app: The same for all exchanges of one `App` together.
///     timeout: Seconds of the guest's own time: wall-clock time from its first instruction to its end, without the
///         time in which it waits for a chunk of its request, or (back-pressure) for the reader of its response. Then
///         `GuestTimeoutError`; a body that is being read fails with it as the cause.
///     fuel: Units of wasmtime's fuel, about one for each instruction. Unlike time, it is the same in every run, and
///         slower to count; the component is compiled a second time for it. `FuelExhaustedError`; `Report.fuel` says
///         how much was used.
///     fields: Bytes of one set of fields: names, values, and about 70 bytes for each. A request with more is refused
///         with ``HTTP-request-header-section-size``. A guest that makes more ends with `FieldsLimitError`. A guest
///         whose upstream responds with more gets ``HTTP-response-header-section-size``. Likewise for trailers. One
///         host call takes at most 2 MiB of strings and lists, or twice this limit if that is more.
///     request_body: Bytes. A longer body is refused at once if its length is announced, otherwise the exchange ends
///         when the limit is exceeded: ``HTTP-request-body-size``. A streamed body takes no memory, so there is no
///         limit by default.
///     response_body: Bytes, likewise: ``HTTP-response-body-size``, as the cause of a `BodyError` if the body has
///         begun.
///     outgoing: Requests that one exchange may send; the guest gets ``HTTP-request-denied``.
///     outgoing_concurrency: Concurrent outgoing requests of one exchange, until their responses have been read; the
///         guest gets ``connection-limit-reached``.
///     concurrency: Concurrent exchanges of one `App`. A guest counts until it has ended, which may be after its
///         response has been read.
///     queue: Exchanges that may wait for their turn; beyond that, `OverloadedError`. It needs ``concurrency``.
///     queue_timeout: Seconds that they wait; then `OverloadedError`.
///     chunks: Back-pressure: writes of a guest, of at most 16 KiB each, that are buffered for the reader of its body;
///         two more may be on their way.
///
/// Raises:
///     ValueError: A limit is negative, or zero where nothing could run.
#[pyclass(name = "Limits", module = "wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyLimits {
    memory: Option<i64>,
    memory_per_app: Option<i64>,
    table_elements: Option<i64>,
    instances: Option<i64>,
    handles: Option<i64>,
    files: Option<i64>,
    files_per_app: Option<i64>,
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

pub fn not_negative(name: &str, unit: &str, value: Option<i64>) -> PyResult<()> {
    match value {
        Some(value) if value < 0 => {
            Err(PyValueError::new_err(format!("`{name}` must be a number of {unit}, zero or more: {value}")))
        }
        _ => Ok(()),
    }
}

/// Some thirty years: what is added to a moment must be one still.
pub const LONGEST: Duration = Duration::from_secs(1_000_000_000);

pub fn seconds(name: &str, value: Option<f64>) -> PyResult<()> {
    match value {
        Some(seconds) if seconds > LONGEST.as_secs_f64() => Err(PyValueError::new_err(format!(
            "`{name}` must be at most {} seconds, or None: {seconds}",
            LONGEST.as_secs()
        ))),
        Some(seconds) if seconds.is_nan() || seconds <= 0.0 => {
            Err(PyValueError::new_err(format!("`{name}` must be a positive number of seconds, or None: {seconds}")))
        }
        _ => Ok(()),
    }
}

pub fn duration(seconds: Option<f64>) -> Option<Duration> {
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

value_methods! {
    impl PyLimits as "Limits" {
        #[new]
        #[pyo3(
            signature = (*, memory=Some(Number(256 << 20)), memory_per_app=None, table_elements=Some(Number(1_000_000)), instances=Some(Number(256)), handles=Some(Number(4096)),
                files=Some(Number(64)), files_per_app=Some(Number(256)), timeout=Some(Number(30.0)), fuel=None, fields=Some(Number(64 << 10)), request_body=None, response_body=None,
                outgoing=Some(Number(1000)), outgoing_concurrency=Some(Number(64)), concurrency=Some(Number(256)), queue=Number(0),
                queue_timeout=Some(Number(10.0)), chunks=Number(8)),
            text_signature = "(*, memory=268435456, memory_per_app=None, table_elements=1000000, instances=256, handles=4096, files=64, \
                files_per_app=256, timeout=30.0, \
                fuel=None, fields=65536, request_body=None, response_body=None, outgoing=1000, outgoing_concurrency=64, \
                concurrency=256, queue=0, queue_timeout=10.0, chunks=8)"
        )]
        #[allow(clippy::too_many_arguments)]
        fn new(
            memory: Option<Count>,
            memory_per_app: Option<Count>,
            table_elements: Option<Count>,
            instances: Option<Count>,
            handles: Option<Count>,
            files: Option<Count>,
            files_per_app: Option<Count>,
            timeout: Option<Seconds>,
            fuel: Option<Count>,
            fields: Option<Count>,
            request_body: Option<Count>,
            response_body: Option<Count>,
            outgoing: Option<Count>,
            outgoing_concurrency: Option<Count>,
            concurrency: Option<Count>,
            queue: Count,
            queue_timeout: Option<Seconds>,
            chunks: Count,
        ) -> PyResult<Self> {
            let (memory, table_elements, instances, handles) =
                (plain(memory), plain(table_elements), plain(instances), plain(handles));
            let memory_per_app = plain(memory_per_app);
            let (files, files_per_app) = (plain(files), plain(files_per_app));
            let (timeout, fuel, fields) = (plain(timeout), plain(fuel), plain(fields));
            let (request_body, response_body) = (plain(request_body), plain(response_body));
            let (outgoing, outgoing_concurrency) = (plain(outgoing), plain(outgoing_concurrency));
            let (concurrency, Number(queue), queue_timeout, Number(chunks)) =
                (plain(concurrency), queue, plain(queue_timeout), chunks);
            positive("memory", "bytes", memory)?;
            positive("memory_per_app", "bytes", memory_per_app)?;
            not_negative("table_elements", "elements", table_elements)?;
            positive("instances", "core instances", instances)?;
            positive("handles", "handles", handles)?;
            not_negative("files", "files", files)?;
            not_negative("files_per_app", "files", files_per_app)?;
            seconds("timeout", timeout)?;
            positive("fuel", "units of fuel", fuel)?;
            positive("fields", "bytes", fields)?;
            not_negative("request_body", "bytes", request_body)?;
            not_negative("response_body", "bytes", response_body)?;
            not_negative("outgoing", "requests", outgoing)?;
            positive("outgoing_concurrency", "requests", outgoing_concurrency)?;
            positive("concurrency", "exchanges", concurrency)?;
            not_negative("queue", "exchanges", Some(queue))?;
            if queue > 0 && concurrency.is_none() {
                return Err(PyValueError::new_err(
                    "`queue` needs `concurrency`: without that limit no exchange waits",
                ));
            }
            seconds("queue_timeout", queue_timeout)?;
            if !(1..=MOST_CHUNKS).contains(&chunks) {
                return Err(PyValueError::new_err(format!("`chunks` must be from 1 to {MOST_CHUNKS}: {chunks}")));
            }
            Ok(Self {
                memory,
                memory_per_app,
                table_elements,
                instances,
                handles,
                files,
                files_per_app,
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
    }
}

impl PyLimits {
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        settings!(
            py, self; memory, memory_per_app, table_elements, instances, handles, files, files_per_app, timeout, fuel, fields, request_body, response_body, outgoing,
            outgoing_concurrency, concurrency, queue, queue_timeout, chunks,
        )
    }

    pub fn core(&self) -> Limits {
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let size = |value: i64| usize::try_from(value).unwrap_or(usize::MAX);
        Limits {
            memory: count(self.memory),
            memory_per_app: count(self.memory_per_app),
            table_elements: count(self.table_elements),
            instances: count(self.instances),
            handles: count(self.handles),
            files: count(self.files),
            files_per_app: count(self.files_per_app),
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
