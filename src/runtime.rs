//! The tokio runtime: made when the first guest has to wait, bounded, shut down at exit.
//!
//! Its workers poll guests and timers. They never call Python.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::error::Error;
use crate::sync::lock;

pub struct Runtime {
    handle: OnceLock<tokio::runtime::Handle>,
    owned: Mutex<Option<tokio::runtime::Runtime>>,
    shut_down: AtomicBool,
}

/// Threads that blocking file operations of guests may use at once.
const BLOCKING_THREADS: usize = 64;

impl Runtime {
    pub(crate) fn new() -> Self {
        Self { handle: OnceLock::new(), owned: Mutex::new(None), shut_down: AtomicBool::new(false) }
    }

    pub fn handle(&self) -> Result<&tokio::runtime::Handle, Error> {
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        let mut owned = lock(&self.owned);
        if let Some(handle) = self.handle.get() {
            return Ok(handle);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("wasgi-worker")
            .max_blocking_threads(BLOCKING_THREADS)
            .enable_all()
            .build()
            .map_err(|error| Error::Host(format!("cannot start the runtime: {error}")))?;
        let handle = runtime.handle().clone();
        *owned = Some(runtime);
        Ok(self.handle.get_or_init(|| handle))
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

    /// Stops every guest that is still running. Waits for their threads, but not longer than `bound`.
    pub fn shut_down(&self, bound: Duration) {
        self.shut_down.store(true, Ordering::SeqCst);
        let owned = lock(&self.owned).take();
        if let Some(runtime) = owned {
            runtime.shutdown_timeout(bound);
        }
    }
}
