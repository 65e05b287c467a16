//! What a server counts, and whom it tells: its access log and its journal.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use http::{HeaderMap, HeaderName};
use tracing::Level;

use crate::server::access_log::entry::Entry;
use crate::server::access_log::log::AccessLog;
use crate::server::journal::Journal;

/// See the module.
pub(super) struct Accounts {
    connections: AtomicUsize,
    accepted: AtomicU64,
    requests: AtomicU64,
    journal: Journal,
    log: Option<Log>,
}

/// The access log, and the names of the fields that its lines have.
struct Log {
    log: AccessLog,
    of_request: Vec<HeaderName>,
    of_response: Vec<HeaderName>,
}

fn chosen(names: &[HeaderName], fields: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in names {
        for value in fields.get_all(name) {
            kept.append(name, value.clone());
        }
    }
    kept
}

impl Accounts {
    pub(super) fn new(journal: Journal, log: Option<AccessLog>) -> Self {
        let (connections, accepted, requests) = Default::default();
        let log =
            log.map(|log| Log { of_request: log.format.of_request(), of_response: log.format.of_response(), log });
        Self { connections, accepted, requests, journal, log }
    }

    /// What is to be kept of a request's fields until it is over.
    pub(super) fn of_request(&self, fields: &HeaderMap) -> HeaderMap {
        self.log.as_ref().map(|log| chosen(&log.of_request, fields)).unwrap_or_default()
    }

    /// The same of an answer's.
    pub(super) fn of_response(&self, fields: &HeaderMap) -> HeaderMap {
        self.log.as_ref().map(|log| chosen(&log.of_response, fields)).unwrap_or_default()
    }

    pub(super) fn reopen(&self) {
        if let Some(log) = &self.log
            && let Err(error) = log.log.reopen()
        {
            self.journal(Level::WARN, format!("the access log cannot be opened anew: {error}"));
        }
    }

    /// Waits until lines are written, for a moment.
    pub(super) fn flush(&self) {
        if let Some(log) = &self.log {
            log.log.flush(std::time::Duration::from_secs(2));
        }
    }

    pub(super) fn journal(&self, gravity: Level, line: impl Into<String>) {
        (self.journal)(gravity, line.into());
    }

    /// Whether requests are told of.
    pub(super) fn logs(&self) -> bool {
        self.log.is_some()
    }

    pub(super) fn tell(&self, entry: &Entry<'_>) {
        if let Some(log) = &self.log {
            log.log.log(entry);
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
