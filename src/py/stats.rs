//! `wasgi.stats()`: a snapshot of process-wide counters, of the core and of the Python side.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::stats::Stats;
use crate::py::counters::{Live, live};

/// What there is in this process, and what there was: a look at its counters.
///
/// When all work is done and no instance waits for more, all but ``threads``, ``dropped`` and ``outcomes`` are zero.
#[pyclass(name = "Stats", module = "wasgi", frozen, get_all)]
pub struct PyStats {
    /// Guests that exist.
    exchanges: u64,
    /// Exchanges that wait for a place (`Limits.queue`).
    queued: u64,
    /// Requests of guests that are under way.
    outgoing: u64,
    /// Those of them that Python code answers, or will.
    calls: u64,
    /// Bodies whose chunks Python code makes.
    feeds: u64,
    /// Instances that wait for their next exchange (`Reuse`).
    idle: u64,
    /// Tasks of the native runtime.
    tasks: u64,
    /// Component instances in the pool.
    slots: u64,
    /// Linear memories in the pool.
    memories: u64,
    /// Call stacks in the pool.
    stacks: u64,
    /// Bytes of linear memory that guests hold, and of the host's for their instances and behind their handles.
    memory: u64,
    /// Threads of ours: they are kept for the next exchange.
    threads: u64,
    /// Exchanges that `App(on_finish=)` was not told of, because 1024 waited for it; since the process began.
    dropped: u64,
    /// How exchanges have ended, each counted once.
    ///
    /// ``returned``, ``trapped``, ``exited``, ``timed_out``, ``limited``, ``stopped`` (by its caller, or with its app),
    /// ``failed`` (on the host's side).
    outcomes: Py<PyDict>,
}

#[pymethods]
impl PyStats {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Stats(exchanges={}, queued={}, outgoing={}, calls={}, feeds={}, idle={}, tasks={}, slots={}, memories={}, stacks={}, \
             memory={}, threads={}, dropped={}, outcomes={})",
            self.exchanges,
            self.queued,
            self.outgoing,
            self.calls,
            self.feeds,
            self.idle,
            self.tasks,
            self.slots,
            self.memories,
            self.stacks,
            self.memory,
            self.threads,
            self.dropped,
            self.outcomes.bind(py).repr()?
        ))
    }
}

/// Counts what there is now: see `Stats`. Cheap enough for a health check.
#[pyfunction]
pub fn stats(py: Python<'_>) -> PyResult<PyStats> {
    let core = Stats::read();
    let count = |counter: fn(&Live) -> &AtomicU64| live().map_or(0, |live| counter(live).load(Ordering::Relaxed));
    let outcomes = PyDict::new(py);
    for (name, number) in core.outcomes {
        outcomes.set_item(name, number)?;
    }
    Ok(PyStats {
        exchanges: core.exchanges,
        queued: core.queued,
        outgoing: core.outgoing,
        calls: count(|live| &live.calls),
        feeds: count(|live| &live.feeds),
        idle: core.idle,
        tasks: core.tasks,
        slots: core.slots,
        memories: core.memories,
        stacks: core.stacks,
        memory: core.memory,
        threads: core.threads
            + (crate::py::executor::threads::count() + crate::py::executor::event_loop::own_threads()) as u64,
        dropped: count(|live| &live.dropped),
        outcomes: outcomes.unbind(),
    })
}
