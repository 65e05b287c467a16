//! `wasgi.Reuse`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::guest::instance::Reuse;
use crate::py::options::{ToCore, options, positive, seconds};

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
    ///
    /// Raises:
    ///     ValueError: A number is out of range, or ``isolated`` is combined with ``concurrent``.
    ///
    /// Example:
    ///     >>> app = wasgi.App("plugin.wasm", reuse=wasgi.Reuse(requests=1000, idle=60))
    #[pyclass(name = "Reuse", module = "wasgi")]
    pub struct PyReuse as "Reuse" {
        requests: Option<i64> = 128 => positive("requests"),
        concurrent: i64 = 1 => at_once(),
        idle: Option<f64> = 10.0 => seconds(),
        isolated: bool = false,
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

impl PyReuse {
    fn made(reuse: Self) -> PyResult<Self> {
        if reuse.isolated && reuse.concurrent > 1 {
            return Err(PyValueError::new_err(format!(
                "`concurrent` must be 1, not {}, with `isolated`: exchanges that are in an instance at once share its memory",
                reuse.concurrent
            )));
        }
        Ok(reuse)
    }

    pub(crate) fn core(&self) -> Reuse {
        Reuse {
            requests: self.requests.to_core(),
            concurrent: self.concurrent.to_core(),
            idle: self.idle.to_core(),
            isolated: self.isolated,
        }
    }
}
