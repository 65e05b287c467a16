//! The tokio runtime: made when the first guest has to wait, bounded, shut down at exit.
//!
//! Its workers poll guests and timers. They never call Python.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use crate::error::Error;
use crate::sync::lock;

pub struct Runtime {
    handle: OnceLock<tokio::runtime::Handle>,
    owned: Mutex<Option<tokio::runtime::Runtime>>,
}

/// Threads that blocking file operations of guests may use at once.
const BLOCKING_THREADS: usize = 64;

impl Runtime {
    pub(crate) fn new() -> Self {
        Self { handle: OnceLock::new(), owned: Mutex::new(None) }
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

    /// Stops every guest that is still running. Waits for their threads, but not longer than `bound`.
    pub fn shut_down(&self, bound: Duration) {
        let owned = lock(&self.owned).take();
        if let Some(runtime) = owned {
            runtime.shutdown_timeout(bound);
        }
    }
}
