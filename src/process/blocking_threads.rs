//! Threads of somebody's own for calls that block: at most so many, made when they are needed, and gone with their owner. A call that
//! hangs takes one of its owner's threads, and of nobody else's.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, OnceLock};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) struct Threads {
    name: &'static str,
    most: usize,
    generation: u64,
    places: Arc<Semaphore>,
    /// A runtime of which nothing but the threads for blocking calls is used.
    runtime: OnceLock<Option<Runtime>>,
}

impl Threads {
    pub(crate) fn new(name: &'static str, most: usize) -> Self {
        let places = Arc::new(Semaphore::new(most));
        Self { name, most, generation: crate::process::fork::generation(), places, runtime: OnceLock::new() }
    }

    /// None if the machine gives none.
    pub(crate) fn handle(&self) -> Option<&Handle> {
        let make = || Builder::new_current_thread().thread_name(self.name).max_blocking_threads(self.most).build().ok();
        self.runtime.get_or_init(make).as_ref().map(Runtime::handle)
    }

    pub(crate) fn pool(&self) -> Option<Pool> {
        let places = self.places.clone();
        self.handle().map(|handle| Pool { handle: handle.clone(), places })
    }

    /// Has something done there that nobody waits for, or here if that cannot be.
    pub(crate) fn do_later(&self, work: impl FnOnce() + Send + 'static) {
        if self.generation != crate::process::fork::generation() {
            return work(); // they are the parent's, and so are their locks
        }
        match self.handle() {
            // tokio panics where no thread can be started; what was to be done is dropped then
            Some(handle) => drop(catch_unwind(AssertUnwindSafe(|| handle.spawn_blocking(work)))),
            None => work(),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take().flatten() else { return };
        if self.generation == crate::process::fork::generation() {
            runtime.shutdown_background(); // one that hangs is not waited for
        } else {
            std::mem::forget(runtime); // they are the parent's, and do not exist here
        }
    }
}

/// Some [`Threads`], and how many calls they are given at once.
#[derive(Clone)]
pub(crate) struct Pool {
    handle: Handle,
    places: Arc<Semaphore>,
}

impl Pool {
    /// For a call that only begins here: what it gives to threads that may block is done by these.
    pub(crate) fn enter(&self) -> tokio::runtime::EnterGuard<'_> {
        self.handle.enter()
    }
}

/// A call's place on a pool's threads. Threads cannot be told from outside that nobody waits for what they do, so the place of a call
/// that was given up is free only when one of them comes by again: as many calls as there are threads wait in their queue at the most,
/// however many were given up because all threads hang.
struct Place<'a> {
    permit: Option<OwnedSemaphorePermit>,
    handle: &'a Handle,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            let _ = catch_unwind(AssertUnwindSafe(|| self.handle.spawn_blocking(move || drop(permit))));
        }
    }
}

/// Has what `future` gives to threads that may block done by these, when one of them is free.
pub(crate) async fn within<F: Future>(threads: &Pool, future: F) -> F::Output {
    // no error: nobody closes it
    let permit = threads.places.clone().acquire_owned().await.ok();
    let mut place = Place { permit, handle: &threads.handle };
    let output = entered(threads, future).await;
    place.permit = None;
    output
}

/// The same for what is with them already, or may never be.
pub(crate) async fn entered<F: Future>(threads: &Pool, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        let _entered = threads.enter();
        future.as_mut().poll(cx)
    })
    .await
}
