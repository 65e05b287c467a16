//! `wasgi.Reuse`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::guest::instance::Reuse;
use crate::py::options::{ToCore, options, positive, seconds};

options! {
    /// On what terms the instances of an `App` have one exchange after another.
    ///
    /// For components that take long to instantiate. What a guest keeps in its memory meets its next exchange, whoever's
    /// that is: `wasgi.testing.check_isolation` shows what a component lets through. An exchange's time, fuel, outgoing
    /// requests, output and simulation are its own all the same, and what a guest has kept of an earlier one (its bodies,
    /// the requests that it has sent) leads nowhere.
    ///
    /// An instance is kept if its guest has answered and returned, has finished all bodies that it had begun, waits for no
    /// answer, and holds no more than three quarters of ``Limits.memory`` and ``Limits.handles``. At most half of the pool
    /// (512 instances in a process, mostly) wait at once, and fewer where those that run need the room: the one that has
    /// waited longest ends, whichever app's it is. `Stats.idle` counts them; `Report.reused` says of an exchange how many
    /// its instance had before.
    ///
    /// Not every toolchain's guests can have a second exchange. One that returns without an answer, though its instance had
    /// answered before, shows it: from then on its app keeps no instance, and the logger ``wasgi`` says so once.
    ///
    /// Args:
    ///     requests: How many exchanges an instance has. None: as many as come.
    ///     concurrent: How many at once: 1, since a guest of WASI 0.2 handles one request at a time.
    ///     idle: Seconds that an instance waits for the next. None: until its app is closed.
    ///
    /// Raises:
    ///     ValueError: A number that makes no sense.
    ///
    /// Example:
    ///     >>> app = wasgi.App("plugin.wasm", reuse=wasgi.Reuse(requests=1000, idle=60))
    #[pyclass(name = "Reuse", module = "wasgi")]
    pub struct PyReuse as "Reuse" {
        requests: Option<i64> = 128 => positive("requests"),
        concurrent: i64 = 1 => one_at_a_time(),
        idle: Option<f64> = 10.0 => seconds(),
    }
}

fn one_at_a_time(name: &str, given: i64) -> PyResult<()> {
    if given == 1 {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "`{name}` must be 1: a guest of WASI 0.2 handles one request at a time, not {given}"
    )))
}

impl PyReuse {
    fn made(reuse: Self) -> PyResult<Self> {
        Ok(reuse)
    }

    pub fn core(&self) -> Reuse {
        Reuse { requests: self.requests.to_core(), idle: self.idle.to_core() }
    }
}
