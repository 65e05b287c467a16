//! `wasgi.Limits`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::limits::Limits;
use crate::py::options::{not_negative, options, positive, seconds, within};

/// More would be no bound: each may have 16 KiB.
const MOST_CHUNKS: i64 = 1024;

options! {
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
    #[pyclass(name = "Limits", module = "wasgi")]
    pub struct PyLimits as "Limits" -> Limits {
        memory: Option<i64> = 268435456 => positive("bytes"),
        memory_per_app: Option<i64> = None => positive("bytes"),
        table_elements: Option<i64> = 1000000 => not_negative("elements"),
        instances: Option<i64> = 256 => positive("core instances"),
        handles: Option<i64> = 4096 => positive("handles"),
        files: Option<i64> = 64 => not_negative("files"),
        files_per_app: Option<i64> = 256 => not_negative("files"),
        timeout: Option<f64> = 30.0 => seconds(),
        fuel: Option<i64> = None => positive("units of fuel"),
        fields: Option<i64> = 65536 => positive("bytes"),
        request_body: Option<i64> = None => not_negative("bytes"),
        response_body: Option<i64> = None => not_negative("bytes"),
        outgoing: Option<i64> = 1000 => not_negative("requests"),
        outgoing_concurrency: Option<i64> = 64 => positive("requests"),
        concurrency: Option<i64> = 256 => positive("exchanges"),
        queue: i64 = 0 => not_negative("exchanges"),
        queue_timeout: Option<f64> = 10.0 => seconds(),
        chunks: i64 = 8 => within(1, MOST_CHUNKS),
    }
}

impl PyLimits {
    fn made(limits: Self) -> PyResult<Self> {
        if limits.queue > 0 && limits.concurrency.is_none() {
            return Err(PyValueError::new_err("`queue` needs `concurrency`: without that limit no exchange waits"));
        }
        Ok(limits)
    }
}
