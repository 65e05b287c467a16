//! What a process has once, and a forked child has anew.

use std::convert::Infallible;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::error::Error;
use crate::sync::lock;

/// A lock that a forked child may take though a thread of its parent's held it when it was forked: that thread does not exist
/// here. For what is done seldom; whoever waits looks again each millisecond.
pub struct ForkLock {
    /// The process whose thread holds it; 0 if none does.
    holder: AtomicU32,
}

impl ForkLock {
    pub const fn new() -> Self {
        Self { holder: AtomicU32::new(0) }
    }

    pub fn lock(&self) -> ForkLockGuard<'_> {
        let own = std::process::id();
        loop {
            let holder = self.holder.load(Ordering::Acquire);
            if holder != own && self.holder.compare_exchange(holder, own, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return ForkLockGuard(self);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Default for ForkLock {
    fn default() -> Self {
        Self::new()
    }
}

pub struct ForkLockGuard<'a>(&'a ForkLock);

impl Drop for ForkLockGuard<'_> {
    fn drop(&mut self) {
        self.0.holder.store(0, Ordering::Release);
    }
}

/// A thread cannot be started: what is told of it. `what` it was for.
pub(crate) fn no_thread(what: &str, error: &dyn std::fmt::Display) -> Error {
    Error::Host(format!(
        "no thread can be started for {what}: {error}; hint: the limits of processes count threads, too (`ulimit -u`, and \
         `pids.max` of the control group)"
    ))
}

/// A process cannot be started.
pub(crate) fn no_process(error: &dyn std::fmt::Display) -> Error {
    Error::Host(format!(
        "no process can be started to compile in: {error}; hint: the limit of processes (`ulimit -u`, and `pids.max` of the control \
         group) counts threads, too"
    ))
}

/// Tries. For libraries that panic where they cannot start theirs.
pub(crate) fn can_start_thread() -> Result<(), std::io::Error> {
    let started = std::thread::Builder::new().name("wasgi-try".into()).stack_size(64 << 10).spawn(|| ())?;
    let _ = started.join();
    Ok(())
}

/// One value a process: made at first use, made anew in a forked child.
pub struct PerProcess<T> {
    value: AtomicPtr<T>,
    making: ForkLock,
}

impl<T: Sync> PerProcess<T> {
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(std::ptr::null_mut()), making: ForkLock::new() }
    }

    pub fn existing(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null or came from `Box::leak` below, and is never freed.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    pub fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        match self.try_get(|| Ok::<_, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    pub fn try_get<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        if let Some(value) = self.existing() {
            return Ok(value);
        }
        let _making = self.making.lock();
        if let Some(value) = self.existing() {
            return Ok(value);
        }
        let value = Box::leak(Box::new(make()?));
        self.value.store(value, Ordering::Release);
        Ok(value)
    }

    /// Before a fork: nobody makes it until [`Self::release`], which a child need not call. What is half made in the parent would stay
    /// so in the child, and with it whatever libraries lock while they make their part.
    pub fn hold(&self) {
        std::mem::forget(self.making.lock());
    }

    /// See [`Self::hold`].
    pub fn release(&self) {
        self.making.holder.store(0, Ordering::Release);
    }

    /// In a forked child: what the parent had is leaked, because dropping it would wait for threads that do not exist
    /// here.
    pub fn forget(&self) {
        self.value.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// A value of something that does not live as long as the process: a forked child makes it anew, and leaks the parent's, of which
/// threads that do not exist here may hold parts.
pub struct PerFork<T> {
    first: OnceLock<Made<T>>,
    /// A forked child's: no thread of its parent's can have this lock.
    of_child: Mutex<Option<Made<T>>>,
}

/// A value, and the number of the process's world then.
struct Made<T>(u64, ManuallyDrop<Arc<T>>);

impl<T> Made<T> {
    fn new(value: T) -> Self {
        Self(crate::engine::generation(), ManuallyDrop::new(Arc::new(value)))
    }

    fn own(&self) -> Option<Arc<T>> {
        (self.0 == crate::engine::generation()).then(|| Arc::clone(&self.1))
    }
}

impl<T> Drop for Made<T> {
    fn drop(&mut self) {
        if self.0 == crate::engine::generation() {
            // SAFETY: it is dropped here and nowhere else, and not used after this.
            unsafe { ManuallyDrop::drop(&mut self.1) }
        }
    }
}

impl<T> Default for PerFork<T> {
    fn default() -> Self {
        Self { first: OnceLock::new(), of_child: Mutex::new(None) }
    }
}

impl<T> PerFork<T> {
    pub fn get(&self, make: impl Fn() -> T) -> Arc<T> {
        if let Some(own) = self.first.get_or_init(|| Made::new(make())).own() {
            return own;
        }
        let mut made = lock(&self.of_child);
        if let Some(own) = made.as_ref().and_then(Made::own) {
            return own;
        }
        let new = Made::new(make());
        let own = Arc::clone(&new.1);
        *made = Some(new);
        own
    }
}

impl<T: Sync> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}
