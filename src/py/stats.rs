//! `wasgi.stats()`: what there is, in the core and on Python's side.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::process::PerProcess;
use crate::stats::Stats;

/// What Python's side counts.
#[derive(Default)]
struct Live {
    calls: AtomicU64,
    feeds: AtomicU64,
    dropped: AtomicU64,
}

static LIVE: PerProcess<Live> = PerProcess::new();

/// In a forked child.
pub fn forget() {
    LIVE.forget();
}

/// An exchange that `on_finish` was not told of, because too many waited for it.
pub fn dropped_exchange() {
    LIVE.get(Live::default).dropped.fetch_add(1, Ordering::Relaxed);
}

/// Counted while it lives.
pub struct Counted(&'static AtomicU64);

impl Counted {
    fn new(counter: &'static AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }

    /// An outgoing request on its way through Python.
    pub fn call() -> Self {
        Self::new(&LIVE.get(Live::default).calls)
    }

    /// A body whose chunks Python makes.
    pub fn feed() -> Self {
        Self::new(&LIVE.get(Live::default).feeds)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[pyclass(name = "Stats", module = "wasgi", frozen, get_all)]
pub struct PyStats {
    exchanges: u64,
    queued: u64,
    outgoing: u64,
    calls: u64,
    feeds: u64,
    idle: u64,
    tasks: u64,
    slots: u64,
    memories: u64,
    stacks: u64,
    memory: u64,
    threads: u64,
    dropped: u64,
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

#[pyfunction]
pub fn stats(py: Python<'_>) -> PyResult<PyStats> {
    let core = Stats::read();
    let count =
        |counter: fn(&Live) -> &AtomicU64| LIVE.existing().map_or(0, |live| counter(live).load(Ordering::Relaxed));
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
        threads: core.threads + (super::threads::count() + super::loops::own_threads()) as u64,
        dropped: count(|live| &live.dropped),
        outcomes: outcomes.unbind(),
    })
}
