//! Who owns a guest: what both sides of an exchange know of each other, and the right to end it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::SetOnce;
use tokio::task::AbortHandle;

use crate::engine::ProcessState;
use crate::error::Error;
use crate::exchange::guest_clock::Clock;
use crate::exchange::stdio::Stdio;
use crate::scheduler::Task;
use crate::sync::lock;

/// What the owner of an exchange may stop.
pub(crate) enum UnderWay {
    Guest(Weak<Task>),
    /// One that no guest makes.
    Request(AbortHandle),
}

impl UnderWay {
    fn stop(self) {
        match self {
            Self::Guest(task) => {
                if let Some(task) = task.upgrade() {
                    task.stop();
                }
            }
            Self::Request(task) => task.abort(),
        }
    }
}

/// What the guest's side and the owner's side both know.
pub(crate) struct ExchangeState {
    pub process: &'static ProcessState,
    /// How the guest ended. The first to say so is right.
    pub fate: SetOnce<Result<(), Error>>,
    /// Set when nothing is left of the guest: its store, its slot, its place among the exchanges of its app.
    pub finished: SetOnce<()>,
    pub clock: Arc<Clock>,
    /// What runs, since it does not on its caller's thread any more.
    pub task: Mutex<Option<UnderWay>>,
    pub stopped: AtomicBool,
    /// Its body was read to the end: it may work on, and only its app and its limits stop it.
    released: AtomicBool,
    pub stdio: Arc<Stdio>,
    pub begun: Instant,
    pub took: OnceLock<Duration>,
    pub peak: Arc<AtomicU64>,
    pub sent: AtomicU64,
    /// How many exchanges its instance has had before.
    pub earlier: AtomicU64,
    /// Whether the guest has answered.
    pub answered: AtomicBool,
    /// Whether there is somebody who may still read the body of its request.
    pub has_reader: AtomicBool,
    /// What a guest under a limit of fuel has used, when it has ended.
    pub fuel: OnceLock<u64>,
    /// Whether there is a guest, whose end is counted.
    has_guest: bool,
}

impl ExchangeState {
    pub fn new(process: &'static ProcessState, timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self::made(process, timeout, true))
    }

    /// Of a request that no guest makes.
    pub fn without_guest(process: &'static ProcessState) -> Arc<Self> {
        Arc::new(Self::made(process, None, false))
    }

    fn made(process: &'static ProcessState, timeout: Option<Duration>, has_guest: bool) -> Self {
        Self {
            process,
            fate: SetOnce::new(),
            finished: SetOnce::new(),
            clock: Clock::new(timeout),
            task: Mutex::new(None),
            stopped: AtomicBool::new(false),
            released: AtomicBool::new(false),
            stdio: Arc::default(),
            begun: Instant::now(),
            took: OnceLock::new(),
            peak: Arc::default(),
            sent: AtomicU64::new(0),
            earlier: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            has_reader: AtomicBool::new(false),
            fuel: OnceLock::new(),
            has_guest,
        }
    }

    pub fn stop(&self, reason: Error) {
        if self.is_foreign() {
            return; // the parent's
        }
        self.settle(Err(reason));
        self.stopped.store(true, Ordering::SeqCst);
        if let Some(task) = self.take_task() {
            task.stop();
        }
    }

    fn take_task(&self) -> Option<UnderWay> {
        if self.is_foreign() {
            // the parent's: a thread of its own may have held this lock, or one of its runtime's, which no thread here ever gives back
            return None;
        }
        lock(&self.task).take()
    }

    /// Whether the guest is in the process that forked this one.
    pub fn is_foreign(&self) -> bool {
        self.process.generation != crate::process::fork::generation()
    }

    pub fn settle(&self, fate: Result<(), Error>) {
        if self.fate.initialized() {
            return;
        }
        let _ = self.took.set(self.begun.elapsed());
        let outcome = crate::telemetry::counters::Outcome::of(&fate);
        if self.fate.set(fate).is_ok() && self.has_guest {
            self.process.counters.ended(outcome);
        }
    }
}

/// What whoever asks for a guest is told in a forked child.
pub(crate) fn in_parent() -> Error {
    Error::Host("its guest is in the parent process; hint: a forked child makes its own exchanges".into())
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
    /// How many exchanges its instance has had before.
    pub reused: u64,
    /// How much fuel it used, if that was limited and it has ended.
    pub fuel: Option<u64>,
    /// Whether it still runs.
    pub running: bool,
}

/// The right to a guest's life: dropping it stops the guest, unless it was released. An observer only looks on.
pub struct ExchangeHandle {
    pub(crate) shared: Arc<ExchangeState>,
    owns: bool,
}

impl ExchangeHandle {
    pub(crate) fn new(shared: Arc<ExchangeState>) -> Self {
        Self { shared, owns: true }
    }

    pub(crate) fn observer(shared: &Arc<ExchangeState>) -> Self {
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
        if self.owns && !self.shared.released.load(Ordering::SeqCst) {
            self.shared.stop(reason);
        }
    }

    /// A way to stop the guest for whoever does not own it.
    pub fn abort_handle(&self) -> ExchangeAbortHandle {
        ExchangeAbortHandle(Arc::downgrade(&self.shared))
    }

    /// The guest may work on after this owner is gone.
    pub fn release(&self) {
        if self.owns {
            self.shared.released.store(true, Ordering::SeqCst);
        }
    }

    pub fn fate(&self) -> Option<&Result<(), Error>> {
        self.shared.fate.get()
    }

    /// What ended the exchange whatever the guest had answered: the caller's own failure, or a request past a limit.
    pub(crate) fn overruled(&self) -> Option<Error> {
        match self.fate() {
            Some(Err(error @ (Error::Caller(_) | Error::Limited { .. }))) => Some(error.clone()),
            _ => None,
        }
    }

    /// Waits until nothing is left of the guest.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let shared = self.shared.clone();
        async move {
            shared.finished.wait().await;
        }
    }

    /// Why nothing will come from the guest any more, though it has not ended: it is in another process.
    pub(crate) fn out_of_reach(&self) -> Option<Error> {
        self.shared.is_foreign().then(in_parent)
    }

    pub fn stdio(&self) -> &Arc<Stdio> {
        &self.shared.stdio
    }

    /// Counts one more outgoing request; returns how many there were before.
    pub(crate) fn count_outgoing(&self) -> u64 {
        self.shared.sent.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether there is somebody who may still read the body of its request.
    pub(crate) fn has_reader(&self) -> bool {
        self.shared.has_reader.load(Ordering::Relaxed)
    }

    pub(crate) fn process(&self) -> &'static ProcessState {
        self.shared.process
    }

    pub fn report(&self) -> Report {
        let shared = &self.shared;
        Report {
            duration: shared.took.get().copied().unwrap_or_else(|| shared.begun.elapsed()),
            memory: shared.peak.load(Ordering::Relaxed),
            outgoing: shared.sent.load(Ordering::Relaxed),
            reused: shared.earlier.load(Ordering::Relaxed),
            fuel: shared.fuel.get().copied(),
            running: shared.fate.get().is_none(),
        }
    }
}

impl Drop for ExchangeHandle {
    fn drop(&mut self) {
        if !self.owns || self.shared.released.load(Ordering::SeqCst) {
            return;
        }
        if let Some(task) = self.shared.take_task() {
            self.shared.settle(Err(Error::Cancelled));
            task.stop();
        }
    }
}

/// Ends an exchange, and does not own it.
pub struct ExchangeAbortHandle(std::sync::Weak<ExchangeState>);

impl ExchangeAbortHandle {
    pub fn stop_because(&self, reason: Error) {
        if let Some(shared) = self.0.upgrade() {
            shared.stop(reason);
        }
    }
}
