//! Something of this machine that is so from the moment at which it was first seen, and is told once.

use std::sync::atomic::{AtomicBool, Ordering};

/// A forked child inherits it.
pub(super) struct SeenOnce {
    seen: AtomicBool,
    told: AtomicBool,
    /// What is said of it.
    news: &'static str,
}

impl SeenOnce {
    pub(super) const fn new(news: &'static str) -> Self {
        Self { seen: AtomicBool::new(false), told: AtomicBool::new(false), news }
    }

    pub(super) fn is_seen(&self) -> bool {
        self.seen.load(Ordering::SeqCst)
    }

    pub(super) fn see(&self) {
        self.seen.store(true, Ordering::SeqCst);
    }

    /// It has been told, or need not be.
    pub(super) fn is_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// What is to be said of it, once a process.
    pub(super) fn news(&self) -> Option<&'static str> {
        (self.is_seen() && !self.told.swap(true, Ordering::Relaxed)).then_some(self.news)
    }
}
