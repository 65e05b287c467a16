//! A thread that gives turns, as the ticker sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lane::{Kind, Lane};
use super::turn::tick;
use crate::scheduler::thread_priority::{self, ThreadTime};
use crate::sync::lock;

pub(super) struct Worker {
    pub kind: Kind,
    pub thread: thread_priority::Thread,
    /// The tick in which its turn began, or 1; 0 between turns.
    pub since: AtomicU64,
    pub turn: Mutex<Option<Turn>>,
}

pub(super) struct Turn {
    pub lane: Arc<Lane>,
    /// Of the thread, when the turn began.
    pub began: ThreadTime,
    /// Another thread has taken its place.
    pub is_stuck: bool,
}

impl Worker {
    pub(super) fn new(kind: Kind) -> Arc<Self> {
        let (thread, since, turn) = (thread_priority::Thread::default(), AtomicU64::new(0), Mutex::new(None));
        Arc::new(Self { kind, thread, since, turn })
    }

    pub(super) fn begin(&self, lane: &Arc<Lane>) {
        *lock(&self.turn) = Some(Turn { lane: lane.clone(), began: ThreadTime::now(), is_stuck: false });
        self.since.store(tick().max(1), Ordering::SeqCst);
    }

    /// What the turn took, and whether another thread has taken this one's place.
    pub(super) fn end(&self) -> (Duration, bool) {
        self.since.store(0, Ordering::SeqCst);
        match lock(&self.turn).take() {
            Some(turn) => (ThreadTime::now().since(turn.began), turn.is_stuck),
            None => (Duration::ZERO, false),
        }
    }

    /// Whether its turn began so many ticks ago.
    pub(super) fn is_late(&self, now: u64, ticks: u64) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && now.saturating_sub(since) >= ticks
    }
}
