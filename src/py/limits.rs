//! `wasgi.Limits`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::limits::Limits;
use crate::py::options::{not_negative, options, positive, seconds, within};

/// More would be no bound: each may have 16 KiB.
const MOST_CHUNKS: i64 = 1024;

options! {
    /// What a guest may use up. ``None`` lifts a limit; the defaults suit a plug-in that nobody has looked at.
    ///
    /// A limit that a guest meets inside ends it with an exception of its own, whose ``limit`` is the value. Those of
    /// messages are wasi:http's own error-codes, with a note that names the limit. Those of outgoing requests are told to
    /// the guest as an error-code, and to the logger ``wasgi.outgoing``.
    ///
    /// Args:
    ///     memory: Bytes: all linear memories of an instance, and what the host holds behind its handles (fields, the
    ///         parts of requests, bodies of messages that are not sent, 64 KiB for each stream of a file), which is weighed
    ///         for each megabyte that comes. A guest that asks for more memory is refused; if it ends because of that, or
    ///         has the host hold more: `MemoryLimitError`.
    ///     memory_per_app: The same of all exchanges of one `App` together, and of its instances that wait for one:
    ///         whoever asks for more then is refused likewise.
    ///     table_elements: Elements, all tables of an instance together; refused like memory: `TableLimitError`. A single
    ///         table holds a million at the most, whatever the limit, where instances come from the pool.
    ///     instances: Core instances that a component is made of: `InstanceLimitError`.
    ///     handles: Handles of resources that a guest holds at once, its own resources included: `HandleLimitError`.
    ///     files: Files and folders that an exchange has open at once, those that it reads by a stream or lists included;
    ///         the guest gets ``quota``. The granted folders themselves do not count.
    ///     files_per_app: The same of all exchanges of one `App` together.
    ///     timeout: Seconds of the guest's own time: wall clock from its first instruction to its end, but for the time in
    ///         which it waits for a chunk of its request that has not come, or for its reader to take a chunk of its
    ///         response. Then `GuestTimeoutError`; a body that is being read breaks off with it as the cause.
    ///     fuel: Units of wasmtime's fuel, about one for each instruction. Unlike time the same in every run, and slower to
    ///         count; the component is compiled once more for it. `FuelExhaustedError`; `Report.fuel` says what was used.
    ///     fields: Bytes of one set of fields: names, values, and about 70 bytes for each. A request with more is refused
    ///         with ``HTTP-request-header-section-size``; a guest that makes more is ended with `FieldsLimitError`; one
    ///         whose upstream answers with more gets ``HTTP-response-header-section-size``. Likewise for trailers. One host
    ///         call takes 2 MiB of strings and lists at the most, or twice this if that is more.
    ///     request_body: Bytes. A longer one is refused if it says so beforehand, else the exchange ends as soon as it is:
    ///         ``HTTP-request-body-size``. A body that streams costs no memory, so there is no limit by default.
    ///     response_body: Bytes, likewise: ``HTTP-response-body-size``, as the cause of a `BodyError` if the body had
    ///         begun.
    ///     outgoing: Requests that one exchange may send out; the guest gets ``HTTP-request-denied``.
    ///     outgoing_concurrency: Requests of one exchange that are under way at once, until their responses have been read;
    ///         the guest gets ``connection-limit-reached``.
    ///     concurrency: Exchanges of one `App` at once. A guest counts until it has ended, which may be after its response
    ///         has been read.
    ///     queue: Exchanges that may wait for a place; without one, `OverloadedError`. It needs ``concurrency``.
    ///     queue_timeout: Seconds that they wait; then `OverloadedError`.
    ///     chunks: Writes of a guest, of at most 16 KiB each, that may lie between it and whoever reads its body; two more
    ///         may be on their way.
    ///
    /// Raises:
    ///     ValueError: A limit that is negative, or zero where that leaves nothing to run.
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
            return Err(PyValueError::new_err(
                "`queue` needs `concurrency`: where there is a place for all, nobody waits",
            ));
        }
        Ok(limits)
    }
}
