//! The tokio runtime: made when the first guest has to wait, bounded, shut down at exit.
//!
//! Its workers serve timers, sockets and outgoing requests. No guest has a turn on them (`crate::scheduler` has them), and they never call
//! Python.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::error::Error;
use crate::error::reason::Reason;
use crate::process::fork::{can_start_thread, no_thread};
use crate::sync::lock;

/// The runtime of a process, made when it is first needed.
pub struct Runtime {
    handle: OnceLock<tokio::runtime::Handle>,
    owned: Mutex<Option<tokio::runtime::Runtime>>,
    shut_down: AtomicBool,
}

/// Threads that may block: for instances that are given back. Guests' files and names have threads of their own.
const BLOCKING_THREADS: usize = 64;

/// After so many tasks a worker looks at timers and sockets; tokio's own number is 61.
const EVENT_INTERVAL: u32 = 8;

impl Runtime {
    pub(crate) fn new() -> Self {
        Self { handle: OnceLock::new(), owned: Mutex::default(), shut_down: AtomicBool::new(false) }
    }

    /// Of the runtime. Fails where the system gives no threads, or the process ends.
    pub fn handle(&self) -> Result<&tokio::runtime::Handle, Error> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        let mut owned = lock(&self.owned);
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        // tokio panics where it cannot start its first thread
        can_start_thread().map_err(|error| no_thread("the runtime", error))?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("wasgi-worker")
            .max_blocking_threads(BLOCKING_THREADS)
            .on_thread_start(crate::process::signals::open_here)
            .event_interval(EVENT_INTERVAL)
            .enable_all()
            .build()
            .map_err(|error| Error::Host(Reason::new(format!("cannot start the runtime: {error}"), error)))?;
        let handle = runtime.handle().clone();
        *owned = Some(runtime);
        Ok(self.handle.get_or_init(|| handle))
    }

    /// Works on a thread that may block. A worker has it started: a thread inherits its priority from the one that starts it, and guests'
    /// threads have a low one, which only privileges could raise again.
    pub(crate) fn block(&self, work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
        let handle = self.handle().ok()?;
        Some(handle.spawn(async move {
            let _ = tokio::task::spawn_blocking(work).await;
        }))
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
        self.handle.get().map_or(0, |handle| handle.metrics().num_alive_tasks())
    }

    /// How many threads poll them.
    pub fn workers(&self) -> usize {
        self.handle.get().map_or(0, |handle| handle.metrics().num_workers())
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
        let owned = lock(&self.owned).take();
        if let Some(runtime) = owned {
            runtime.shutdown_timeout(bound);
        }
    }
}
