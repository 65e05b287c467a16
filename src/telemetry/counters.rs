//! What there is and what there was: counters of one process, for whoever wants to see that nothing is left over.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::error::Error;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest returned.
    Returned,
    /// A trap, or a limit inside of the store.
    Trapped,
    /// `wasi:cli/exit`.
    Exited,
    /// `Limits.timeout`.
    TimedOut,
    /// It ran into one of its limits.
    Limited,
    /// Its caller gave it up, or its app was closed.
    Stopped,
    /// A fault of the host's own, or no place for its instance.
    Failed,
}

impl Outcome {
    /// Each with its name in the statistics.
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Returned, "returned"),
        (Self::Trapped, "trapped"),
        (Self::Exited, "exited"),
        (Self::TimedOut, "timed_out"),
        (Self::Limited, "limited"),
        (Self::Stopped, "stopped"),
        (Self::Failed, "failed"),
    ];

    /// How an exchange ended that has this outcome.
    pub fn of(outcome: &Result<(), Error>) -> Self {
        match outcome {
            Ok(()) => Self::Returned,
            Err(Error::Trap(_)) => Self::Trapped,
            Err(Error::GuestExit { .. }) => Self::Exited,
            Err(Error::Timeout { .. }) => Self::TimedOut,
            Err(Error::Limit { .. } | Error::Limited { .. }) => Self::Limited,
            Err(Error::Cancelled | Error::Closed | Error::Caller(_)) => Self::Stopped,
            Err(_) => Self::Failed,
        }
    }
}

/// The counters of one process.
#[derive(Default)]
pub struct Counters {
    pub(crate) outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Bytes of linear memory that guests hold.
    pub(crate) memory: AtomicI64,
    /// Bytes that the host keeps to put instances back to what they were.
    pub(crate) snapshots: AtomicI64,
    /// Exchanges that wait for a place.
    pub(crate) queued: AtomicU64,
    /// Requests of guests that wait for their answer.
    pub(crate) outgoing: AtomicU64,
    /// Instances that wait for their next exchange.
    pub(crate) idle: AtomicU64,
}

impl Counters {
    pub(crate) fn ended(&self, outcome: Outcome) {
        for ((known, _), counter) in Outcome::ALL.iter().zip(&self.outcomes) {
            if *known == outcome {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn snapshots_grew(&self, bytes: i64) {
        self.snapshots.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn memory_grew(&self, bytes: i64) {
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }
}
