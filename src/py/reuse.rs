//! `wasgi.Reuse`.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http_body_util::BodyExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;

use crate::app::warm_up::WarmUps;
use crate::guest::instance::Reuse;
use crate::py::held::Held;
use crate::py::message::request::PyRequest;
use crate::py::options::{Setting, ToCore, options, positive, seconds, within};

options! {
    /// Reuse of instances: an instance of an `App` handles one exchange after another, or several at once.
    ///
    /// For components that are slow to instantiate. The next exchange, whoever's it is, finds what the guest keeps in its
    /// memory: `wasgi.testing.check_isolation` shows what a component leaks. Time, fuel, outgoing requests, output and
    /// simulation are still separate for each exchange. Handles that a guest keeps of an earlier exchange (of bodies, of
    /// requests that it sent) have no effect.
    ///
    /// An instance is kept if its guest has responded and returned, has finished all bodies that it began, waits for no
    /// response, and holds at most three quarters of ``Limits.memory`` and ``Limits.handles`` (streams, futures and tasks
    /// of WASI 0.3 count as handles). At most half of the instance pool (512 instances in a process, mostly) is idle at
    /// once, and less if running instances need the room: then the instance that has been idle for longest ends, whichever
    /// app's it is. `Stats.idle` counts idle instances; `Report.reused` is the number of earlier exchanges of an exchange's
    /// instance.
    ///
    /// Guests of some toolchains cannot handle a second exchange. The host detects this when an instance that has responded
    /// before returns without a response: from then on the app keeps no instance, and the logger ``wasgi`` says so once.
    ///
    /// With ``concurrent`` above 1 a guest of WASI 0.3 handles several requests at once, if its toolchain can (the
    /// documentation of toolchains says so for each): while one waits for an upstream or for its caller, others go on.
    /// Upstreams, output, bodies, time, simulation and reports are each exchange's own; memory and handles are the
    /// instance's. A guest that traps or exits ends all exchanges of its instance: `TrapError.culprit` is the exchange
    /// whose guest it was. When an exchange is cancelled or times out, its instance admits no others, and ends with those
    /// that are in it.
    ///
    /// With ``isolated`` each exchange finds its instance as it was before the first: the host puts the memories, the
    /// globals and the numbers of handles back to what they were after the instantiation, and drops what the guest has
    /// left behind. That costs a fraction of a fresh instance of a guest that brings its interpreter along. The
    /// documentation says what a guest could still observe. An instance whose memory has grown is not kept. Where a
    /// component or the system does not allow it (`wasgi inspect` says so of a component), each exchange gets a fresh
    /// instance, and the logger ``wasgi`` says why.
    ///
    /// Args:
    ///     requests: The number of exchanges of an instance. None: unlimited.
    ///     concurrent: Concurrent exchanges of an instance, at most 128. More than 1: of WASI 0.3 only.
    ///     idle: Seconds that an instance waits for its next exchange. None: until its app is closed.
    ///     isolated: Put an instance back to what it was after each exchange.
    ///     warm: A `Request`, or several: each new instance handles them before its first exchange, and is put back to what
    ///         it is after them. That makes exchanges faster, and what the guest drew by then (the seed of an interpreter's
    ///         hashes) is the same in all exchanges of the instance. They are answered by the upstreams of the app, and
    ///         count in the time of the first exchange; one that fails, fails that exchange.
    ///     ready: Instances that are made ahead, 0 to 512: at the start of a server, of an ASGI server's lifespan, and at
    ///         `Server.swap`. They wait for at most ``idle``. A warm-up that fails there is an error of the start.
    ///
    /// Raises:
    ///     ValueError: A number is out of range, ``isolated`` is combined with ``concurrent``, or ``warm`` is not with
    ///         ``isolated``, or has a body that streams.
    ///
    /// Example:
    ///     >>> app = wasgi.App("plugin.wasm", reuse=wasgi.Reuse(requests=1000, idle=60))
    #[pyclass(name = "Reuse", module = "wasgi")]
    pub struct PyReuse as "Reuse" {
        requests: Option<i64> = 128 => positive("requests"),
        concurrent: i64 = 1 => at_once(),
        idle: Option<f64> = 10.0 => seconds(),
        isolated: bool = false,
        warm: Warm = None,
        ready: i64 = 0 => within(0, 512),
    }
}

/// Each may park a call on a stack of its own, of which a pool has eight for each instance.
const MOST_AT_ONCE: i64 = 128;

fn at_once(name: &str, given: i64) -> PyResult<()> {
    if (1..=MOST_AT_ONCE).contains(&given) {
        return Ok(());
    }
    Err(PyValueError::new_err(format!("`{name}` must be 1 to {MOST_AT_ONCE}, not {given}")))
}

/// Requests, as Python has them.
#[derive(Clone, Default)]
pub(crate) struct Warm(Arc<Vec<Held<Py<PyRequest>>>>);

impl PartialEq for Warm {
    fn eq(&self, other: &Self) -> bool {
        self.0.len() == other.0.len() && self.0.iter().zip(other.0.iter()).all(|(one, other)| is_equal(one, other))
    }
}

/// Whether two requests are the same to Python. Their bodies do not stream, so nothing is read of them.
fn is_equal(one: &Py<PyRequest>, other: &Py<PyRequest>) -> bool {
    one.is(other) || crate::py::held::attach(|py| one.bind(py).eq(other.bind(py)).unwrap_or(false))
}

impl Setting for Warm {
    type Given<'py> = Option<Bound<'py, PyAny>>;

    fn given(name: &str, given: Self::Given<'_>) -> PyResult<Self> {
        let Some(given) = given else { return Ok(Self::default()) };
        let requests = match given.cast::<PyRequest>() {
            Ok(request) => vec![request.clone().unbind()],
            Err(_) => {
                let each = given.try_iter().map_err(|_| wrong(name))?;
                each.map(|request| Ok(request?.cast::<PyRequest>().map_err(|_| wrong(name))?.clone().unbind()))
                    .collect::<PyResult<Vec<_>>>()?
            }
        };
        for request in &requests {
            whole(given.py(), request.get())?;
        }
        Ok(Self(Arc::new(requests.into_iter().map(Held::new).collect())))
    }
}

fn wrong(name: &str) -> PyErr {
    PyTypeError::new_err(format!("`{name}` must be a wasgi.Request, several of them, or None"))
}

/// A request that can be made again and again.
fn whole(py: Python<'_>, request: &PyRequest) -> PyResult<http::Request<Bytes>> {
    let streams = || PyValueError::new_err("the body of a request of `warm` must be bytes or a str");
    if !request.body().is_bytes() {
        return Err(streams());
    }
    let (request, _) = request.to_guest(py, None, py.None().bind(py))?;
    let (parts, body) = request.into_parts();
    let body = body.collect().now_or_never().and_then(Result::ok).ok_or_else(streams)?;
    Ok(http::Request::from_parts(parts, body.to_bytes()))
}

impl<'py> IntoPyObject<'py> for Warm {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        if self.0.is_empty() {
            return Ok(py.None().into_bound(py));
        }
        Ok(PyTuple::new(py, self.0.iter().map(|request| request.clone_ref(py)))?.into_any())
    }
}

impl PyReuse {
    /// What instances handle before their first exchange.
    pub(crate) fn warm_ups(&self, py: Python<'_>) -> PyResult<Option<Arc<WarmUps>>> {
        if self.warm.0.is_empty() {
            return Ok(None);
        }
        let requests = self.warm.0.iter().map(|request| whole(py, request.get())).collect::<PyResult<_>>()?;
        Ok(Some(WarmUps::new(requests)))
    }

    fn made(reuse: Self) -> PyResult<Self> {
        if reuse.isolated && reuse.concurrent > 1 {
            return Err(PyValueError::new_err(format!(
                "`concurrent` must be 1, not {}, with `isolated`: exchanges that are in an instance at once share its memory",
                reuse.concurrent
            )));
        }
        if !reuse.warm.0.is_empty() && !reuse.isolated {
            return Err(PyValueError::new_err(
                "`warm` is for `isolated` instances: others are warm after their first exchange",
            ));
        }
        Ok(reuse)
    }

    pub(crate) fn core(&self) -> Reuse {
        Reuse {
            requests: self.requests.to_core(),
            concurrent: self.concurrent.to_core(),
            idle: self.idle.to_core(),
            isolated: self.isolated,
            ready: self.ready.to_core(),
        }
    }
}
