//! The tokio runtime: made when the first guest has to wait, bounded, shut down at exit.
//!
//! Its workers serve timers, sockets and outgoing requests. No guest has a turn on them ([`crate::scheduler`]), and they never call
//! Python.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::process::{can_start_thread, no_thread};
use crate::sync::lock;

pub struct Runtime {
    handle: OnceLock<tokio::runtime::Handle>,
    /// Of guests that compute: what their threads start inherits their low priority, so it is kept apart.
    of_computing: OnceLock<tokio::runtime::Handle>,
    owned: Mutex<Vec<tokio::runtime::Runtime>>,
    shut_down: AtomicBool,
}

/// Threads that blocking file operations of guests may use at once.
const BLOCKING_THREADS: usize = 64;

/// After so many tasks a worker looks at timers and sockets; tokio's own number is 61.
const EVENT_INTERVAL: u32 = 8;

impl Runtime {
    pub(crate) fn new() -> Self {
        Self {
            handle: OnceLock::new(),
            of_computing: OnceLock::new(),
            owned: Mutex::default(),
            shut_down: AtomicBool::new(false),
        }
    }

    pub fn handle(&self) -> Result<&tokio::runtime::Handle, Error> {
        self.made(&self.handle, None)
    }

    /// What the scheduler's threads find while a guest has its turn.
    pub(crate) fn handle_for_guests(&self, computing: bool) -> Result<&tokio::runtime::Handle, Error> {
        if computing { self.made(&self.of_computing, Some(1)) } else { self.handle() }
    }

    fn made<'a>(
        &self,
        slot: &'a OnceLock<tokio::runtime::Handle>,
        workers: Option<usize>,
    ) -> Result<&'a tokio::runtime::Handle, Error> {
        if let Some(handle) = slot.get() {
            return Ok(handle);
        }
        let mut owned = lock(&self.owned);
        if let Some(handle) = slot.get() {
            return Ok(handle);
        }
        // tokio panics where it cannot start its first thread
        can_start_thread().map_err(|error| no_thread("the runtime", &error))?;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder
            .thread_name("wasgi-worker")
            .max_blocking_threads(BLOCKING_THREADS)
            .on_thread_start(crate::signals::open_here)
            .event_interval(EVENT_INTERVAL)
            .enable_all();
        if let Some(workers) = workers {
            builder.worker_threads(workers);
        }
        let runtime = builder.build().map_err(|error| Error::Host(format!("cannot start the runtime: {error}")))?;
        let handle = runtime.handle().clone();
        owned.push(runtime);
        Ok(slot.get_or_init(|| handle))
    }

    /// A future that finds the runtime's timers wherever it is polled.
    pub(crate) fn within<F: Future + Send>(&self, future: F) -> Result<impl Future<Output = F::Output> + Send, Error> {
        let handle = self.handle()?.clone();
        let mut future = Box::pin(future);
        Ok(std::future::poll_fn(move |cx| {
            let _entered = handle.enter();
            future.as_mut().poll(cx)
        }))
    }

    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.handles().map(|handle| handle.metrics().num_alive_tasks()).sum()
    }

    /// How many threads poll them.
    pub fn workers(&self) -> usize {
        self.handles().map(|handle| handle.metrics().num_workers()).sum()
    }

    fn handles(&self) -> impl Iterator<Item = &tokio::runtime::Handle> {
        self.handle.get().into_iter().chain(self.of_computing.get())
    }

    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::SeqCst)
    }

    /// From now on nobody begins anything.
    pub(crate) fn announce_shut_down(&self) {
        self.shut_down.store(true, Ordering::SeqCst);
    }

    /// Waits for its threads, but not longer than `bound`.
    pub(crate) fn shut_down(&self, bound: Duration) {
        self.announce_shut_down();
        let deadline = Instant::now() + bound;
        let owned = std::mem::take(&mut *lock(&self.owned));
        for runtime in owned {
            runtime.shutdown_timeout(deadline.saturating_duration_since(Instant::now()));
        }
    }
}
