//! What a server counts, and whom it tells: its access log and its journal.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::server::answered::Told;

/// How grave a line of the journal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gravity {
    /// For whoever looks for something.
    Debug,
    /// Something has happened that was to be expected.
    Info,
    /// Something is wrong, and the server goes on.
    Warning,
}

/// Takes lines of the server's about itself. Called on the server's threads: it must not block.
pub type Journal = Box<dyn Fn(Gravity, String) + Send + Sync>;

/// Takes requests that are over. Called on the server's threads: it must not block.
pub(super) type Log = Box<dyn Fn(&Told<'_>) + Send + Sync>;

/// See the module.
pub(super) struct Accounts {
    connections: AtomicUsize,
    accepted: AtomicU64,
    requests: AtomicU64,
    journal: Journal,
    log: Option<Log>,
}

impl Accounts {
    pub(super) fn new(journal: Journal, log: Option<Log>) -> Self {
        let (connections, accepted, requests) = Default::default();
        Self { connections, accepted, requests, journal, log }
    }

    pub(super) fn journal(&self, gravity: Gravity, line: impl Into<String>) {
        (self.journal)(gravity, line.into());
    }

    /// Whether requests are told of.
    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    pub(super) fn tell(&self, told: &Told<'_>) {
        if let Some(log) = &self.log {
            log(told);
        }
    }

    pub(super) fn counts(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn opens(&self) {
        self.accepted.fetch_add(1, Ordering::Relaxed);
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn closes(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Connections and requests since the server was made.
    pub(super) fn totals(&self) -> (u64, u64) {
        (self.accepted.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }
}
