//! Who owns a guest: what both sides of an exchange know of each other, and the right to end it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use crate::error::Error;
use crate::stdio::Stdio;
use crate::sync::lock;

/// What the guest's side and the owner's side both know.
pub(crate) struct Shared {
    /// How the guest ended. The first to say so is right.
    pub fate: OnceLock<Result<(), Error>>,
    pub task: Mutex<Option<AbortHandle>>,
    pub stopped: AtomicBool,
    pub stdio: Arc<Stdio>,
    pub begun: Instant,
    pub took: OnceLock<Duration>,
    pub peak: Arc<AtomicU64>,
    pub sent: AtomicU64,
}

impl Shared {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            fate: OnceLock::new(),
            task: Mutex::new(None),
            stopped: AtomicBool::new(false),
            stdio: Arc::default(),
            begun: Instant::now(),
            took: OnceLock::new(),
            peak: Arc::default(),
            sent: AtomicU64::new(0),
        })
    }

    fn stop(&self, reason: Error) {
        self.settle(Err(reason));
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(task) = self.take_task() {
            task.abort();
        }
    }

    fn take_task(&self) -> Option<AbortHandle> {
        lock(&self.task).take()
    }

    pub fn settle(&self, fate: Result<(), Error>) {
        if self.fate.set(fate).is_ok() {
            let _ = self.took.set(self.begun.elapsed());
        }
    }
}

/// What an exchange has cost.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// From the guest's start to its end, or until now if it still runs.
    pub duration: Duration,
    /// The most linear memory that it held, in bytes.
    pub memory: u64,
    /// How many requests it sent out.
    pub outgoing: u64,
    /// Whether it still runs.
    pub running: bool,
}

/// The right to a guest's life: dropping it stops the guest, unless it was released. An observer only looks on.
pub struct Owner {
    pub(crate) shared: Arc<Shared>,
    owns: bool,
}

impl Owner {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, owns: true }
    }

    pub(crate) fn observer(shared: &Arc<Shared>) -> Self {
        Self { shared: shared.clone(), owns: false }
    }

    pub(crate) fn observe(&self) -> Self {
        Self::observer(&self.shared)
    }

    /// Stops the guest, its outgoing requests and its bodies.
    pub fn stop(&self) {
        self.stop_because(Error::Cancelled);
    }

    /// Stops the guest; readers of its bodies are told why.
    pub fn stop_because(&self, reason: Error) {
        if self.owns {
            self.shared.stop(reason);
        }
    }

    /// A way to stop the guest for whoever does not own it.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::downgrade(&self.shared))
    }

    /// The guest may work on after this owner is gone.
    pub fn release(&self) {
        if self.owns {
            self.shared.take_task();
        }
    }

    pub fn fate(&self) -> Option<&Result<(), Error>> {
        self.shared.fate.get()
    }

    /// The caller's own failure, if that ended the exchange.
    pub(crate) fn callers_failure(&self) -> Option<Error> {
        match self.fate() {
            Some(Err(error @ Error::Caller(_))) => Some(error.clone()),
            _ => None,
        }
    }

    pub fn stdio(&self) -> &Arc<Stdio> {
        &self.shared.stdio
    }

    pub(crate) fn count_outgoing(&self) {
        self.shared.sent.fetch_add(1, Ordering::Relaxed);
    }

    pub fn report(&self) -> Report {
        let shared = &self.shared;
        Report {
            duration: shared.took.get().copied().unwrap_or_else(|| shared.begun.elapsed()),
            memory: shared.peak.load(Ordering::Relaxed),
            outgoing: shared.sent.load(Ordering::Relaxed),
            running: shared.fate.get().is_none(),
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.owns {
            return;
        }
        if let Some(task) = self.shared.take_task() {
            self.shared.settle(Err(Error::Cancelled));
            task.abort();
        }
    }
}

/// See [`Owner::stopper`].
pub struct Stopper(std::sync::Weak<Shared>);

impl Stopper {
    pub fn stop_because(&self, reason: Error) {
        if let Some(shared) = self.0.upgrade() {
            shared.stop(reason);
        }
    }
}
