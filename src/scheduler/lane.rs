//! An app's share of the threads.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::credit::Credit;
use crate::sync::lock;

/// Which threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Prompt,
    Computing,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Prompt, Self::Computing];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prompt => "wasgi-guest",
            Self::Computing => "wasgi-compute",
        }
    }
}

/// An app's share: its exchanges take turns with each other, and together with those of other apps.
pub(crate) struct Lane {
    kinds: [LaneOfKind; 2],
    /// What its guests may compute on prompt threads, all together.
    pub(super) credit: Mutex<Credit>,
}

/// Changed under the lock of the queue only.
#[derive(Default)]
pub(super) struct LaneOfKind {
    /// CPU time that it has had, in nanoseconds, as far as it counts.
    pub spent: AtomicU64,
    /// How many of its turns are stuck.
    pub stuck: AtomicU32,
}

impl Default for Lane {
    fn default() -> Self {
        Self { kinds: Default::default(), credit: Mutex::new(Credit::of_app()) }
    }
}

impl Lane {
    pub(super) fn of(&self, kind: Kind) -> &LaneOfKind {
        let [prompt, computing] = &self.kinds;
        match kind {
            Kind::Prompt => prompt,
            Kind::Computing => computing,
        }
    }

    pub(super) fn key(self: &Arc<Self>, kind: Kind) -> Key {
        (self.of(kind).spent.load(Ordering::Relaxed), Arc::as_ptr(self) as usize)
    }

    /// Whether its guests, all together, have not computed too much for prompt threads.
    pub(super) fn may_be_prompt(&self) -> bool {
        let mut credit = lock(&self.credit);
        credit.earn(); // it never waits as a whole
        credit.is_enough()
    }

    /// One of its guests had a turn on a prompt thread.
    pub(super) fn was_prompt(&self, took: Duration) {
        lock(&self.credit).spend(took);
    }
}

/// What an app has had, and which it is.
pub(super) type Key = (u64, usize);
