//! Threads of somebody's own for calls that block: at most so many, made when they are needed, and gone with their owner. A call that
//! hangs takes one of its owner's threads, and of nobody else's.

use std::pin::pin;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

pub(crate) struct Threads {
    name: &'static str,
    most: usize,
    generation: u64,
    /// A runtime of which nothing but the threads for blocking calls is used.
    runtime: OnceLock<Option<Runtime>>,
}

impl Threads {
    pub fn new(name: &'static str, most: usize) -> Self {
        Self { name, most, generation: crate::engine::generation(), runtime: OnceLock::new() }
    }

    /// None if the machine gives none.
    pub fn handle(&self) -> Option<&Handle> {
        let make = || Builder::new_current_thread().thread_name(self.name).max_blocking_threads(self.most).build().ok();
        self.runtime.get_or_init(make).as_ref().map(Runtime::handle)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take().flatten() else { return };
        if self.generation == crate::engine::generation() {
            runtime.shutdown_background(); // one that hangs is not waited for
        } else {
            std::mem::forget(runtime); // they are the parent's, and do not exist here
        }
    }
}

/// Has what `future` gives to threads that may block done by these.
pub(crate) async fn within<F: Future>(threads: &Handle, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        let _entered = threads.enter();
        future.as_mut().poll(cx)
    })
    .await
}
