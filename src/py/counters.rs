//! Counters of objects that the Python side keeps alive.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::process::fork::PerProcess;

/// What Python's side counts.
#[derive(Default)]
pub(crate) struct Live {
    pub calls: AtomicU64,
    pub feeds: AtomicU64,
    pub dropped: AtomicU64,
}

static LIVE: PerProcess<Live> = PerProcess::new();

/// What there is, if anything has been counted.
pub(crate) fn live() -> Option<&'static Live> {
    LIVE.existing()
}

/// In a forked child.
pub(crate) fn forget() {
    LIVE.forget();
}

/// An exchange that `on_finish` was not told of, because too many waited for it.
pub(crate) fn dropped_exchange() {
    LIVE.get(Live::default).dropped.fetch_add(1, Ordering::Relaxed);
}

/// Counted while it lives.
pub(crate) struct Counted(&'static AtomicU64);

impl Counted {
    fn new(counter: &'static AtomicU64) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }

    /// An outgoing request on its way through Python.
    pub(crate) fn call() -> Self {
        Self::new(&LIVE.get(Live::default).calls)
    }

    /// A body whose chunks Python makes.
    pub(crate) fn feed() -> Self {
        Self::new(&LIVE.get(Live::default).feeds)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
