//! `wasgi.stats()`: a snapshot of process-wide counters, of the core and of the Python side.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::engine::stats::Stats;
use crate::py::counters::{Live, live};

/// A snapshot of process-wide counters.
///
/// When all work is done and no instance is idle, all but ``threads``, ``dropped`` and ``outcomes`` are zero.
#[pyclass(name = "Stats", module = "wasgi", frozen, get_all)]
pub struct PyStats {
    /// Guests that exist.
    exchanges: u64,
    /// Exchanges that wait in a queue (`Limits.queue`).
    queued: u64,
    /// Outgoing requests under way.
    outgoing: u64,
    /// Outgoing requests that Python code handles, or will handle.
    calls: u64,
    /// Bodies whose chunks Python code produces.
    feeds: u64,
    /// Idle instances, which wait for their next exchange (`Reuse`).
    idle: u64,
    /// Tasks of the native runtime.
    tasks: u64,
    /// Component instances in the pool.
    slots: u64,
    /// Linear memories in the pool.
    memories: u64,
    /// Call stacks in the pool.
    stacks: u64,
    /// Bytes of the guests' linear memory, and of the host's memory for their instances and behind their handles.
    memory: u64,
    /// Bytes of the snapshots to which instances are put back (`Reuse.isolated`).
    snapshots: u64,
    /// Threads of wasgi, which are kept for the next exchange.
    threads: u64,
    /// Exchanges that `App(on_finish=)` was not called for, because 1024 waited for it; since the process began.
    dropped: u64,
    /// The number of exchanges by how they ended, each counted once.
    ///
    /// Commands count, too; warm-ups and instances that are made ahead (`Reuse`) do not.
    ///
    /// ``returned``, ``trapped``, ``exited``, ``timed_out``, ``limited``, ``stopped`` (cancelled by its caller, or with
    /// its app), ``failed`` (a failure of the host).
    outcomes: Py<PyDict>,
}

#[pymethods]
impl PyStats {
    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        Ok(format!(
            "Stats(exchanges={}, queued={}, outgoing={}, calls={}, feeds={}, idle={}, tasks={}, slots={}, memories={}, stacks={}, \
             memory={}, snapshots={}, threads={}, dropped={}, outcomes={})",
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
            self.snapshots,
            self.threads,
            self.dropped,
            self.outcomes.bind(py).repr()?
        ))
    }
}

/// A snapshot of the counters of this process: see `Stats`. Cheap enough for a health check.
#[pyfunction]
pub(crate) fn stats(py: Python<'_>) -> PyResult<PyStats> {
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
        snapshots: core.snapshots,
        threads: core.threads
            + (crate::py::executor::threads::count() + crate::py::executor::loop_bridge::own_threads()) as u64,
        dropped: count(|live| &live.dropped),
        outcomes: outcomes.unbind(),
    })
}
