//! What a process has once, and a forked child has anew.

use std::cell::Cell;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};
use std::time::Duration;

use crate::error::Error;
use crate::error::reason::Reason;
use crate::sync::lock;

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// How many forks lie between the first process and this one, counting those of which something was to be left behind.
pub fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

/// In a forked child: what belongs to the parent is told by its number.
pub fn begin_generation() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

/// A lock that a forked child may take though a thread of its parent's held it when it was forked: that thread does not exist
/// here. For what is done seldom; whoever waits looks again each millisecond.
pub struct ForkLock {
    /// The process whose thread holds it; 0 if none does.
    holder: AtomicU32,
}

impl ForkLock {
    /// One that nobody holds.
    pub const fn new() -> Self {
        Self { holder: AtomicU32::new(0) }
    }

    /// Waits until nobody else holds it.
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

/// Gives the lock back when it is dropped.
pub struct ForkLockGuard<'a>(&'a ForkLock);

impl Drop for ForkLockGuard<'_> {
    fn drop(&mut self) {
        self.0.holder.store(0, Ordering::Release);
    }
}

/// A lock that a forked child does not wait for: what it is about is the parent's, and the thread that held it at the fork does not
/// exist there.
pub struct ParentsLock<T> {
    generation: u64,
    value: Mutex<T>,
}

impl<T> ParentsLock<T> {
    /// Of this process.
    pub fn new(value: T) -> Self {
        Self { generation: generation(), value: Mutex::new(value) }
    }

    /// Without the lock: nobody else has it any more.
    pub fn into_inner(self) -> T {
        self.value.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<T> ParentsLock<T> {
    /// Whether this is a forked child of the process that it was made in.
    pub fn is_foreign(&self) -> bool {
        self.generation != generation()
    }

    /// None in a forked child, if somebody has it: a thread of the parent's, perhaps, for ever.
    pub fn lock(&self) -> Option<MutexGuard<'_, T>> {
        if !self.is_foreign() {
            return Some(lock(&self.value));
        }
        match self.value.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A thread cannot be started: what is told of it. `what` it was for.
pub(crate) fn no_thread(what: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error = error.into();
    let text = format!(
        "no thread can be started for {what}: {error}; hint: the limits of processes count threads, too (`ulimit -u`, and \
         `pids.max` of the control group)"
    );
    Error::Host(Reason::new(text, error))
}

/// A process cannot be started.
pub(crate) fn no_process(error: std::io::Error) -> Error {
    let text = format!(
        "no process can be started to compile in: {error}; hint: the limit of processes (`ulimit -u`, and `pids.max` of the control \
         group) counts threads, too"
    );
    Error::Host(Reason::new(text, error))
}

/// Tries. For libraries that panic where they cannot start theirs.
pub(crate) fn can_start_thread() -> Result<(), std::io::Error> {
    let started = std::thread::Builder::new().name("wasgi-try".into()).stack_size(64 << 10).spawn(|| ())?;
    let _ = started.join();
    Ok(())
}

thread_local! {
    /// What it holds while it forks ([`PerProcess::hold`]), by its address: what it does meanwhile must not wait for itself.
    static HOLDS: Cell<usize> = const { Cell::new(0) };
}

/// One value a process: made at first use, made anew in a forked child where that says so ([`Self::forget`]). A `OnceLock` whose value a
/// thread of the parent's was making when it was forked would keep the child waiting for ever.
pub struct PerProcess<T> {
    value: AtomicPtr<T>,
    making: ForkLock,
}

impl<T: Sync> PerProcess<T> {
    /// Nothing is made yet.
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(std::ptr::null_mut()), making: ForkLock::new() }
    }

    /// What this process has made, if it has.
    pub fn existing(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null or came from `Box::leak` below, and is never freed.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    /// What this process has, made now if it has none.
    pub fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        match self.try_get(|| Ok::<_, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The same, where making it can fail.
    pub fn try_get<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        if let Some(value) = self.existing() {
            return Ok(value);
        }
        let _making = (HOLDS.get() != self.address()).then(|| self.making.lock());
        if let Some(value) = self.existing() {
            return Ok(value);
        }
        let value = Box::leak(Box::new(make()?));
        self.value.store(value, Ordering::Release);
        Ok(value)
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Before a fork: nobody makes it until [`Self::release`], which a child need not call. What is half made in the parent would stay
    /// so in the child, and with it whatever libraries lock while they make their part.
    pub fn hold(&self) {
        std::mem::forget(self.making.lock());
        HOLDS.set(self.address());
    }

    /// See [`Self::hold`].
    pub fn release(&self) {
        HOLDS.set(0);
        self.making.holder.store(0, Ordering::Release);
    }

    /// In a forked child: what the parent had is leaked, because dropping it would wait for threads that do not exist
    /// here.
    pub fn forget(&self) {
        HOLDS.set(0);
        self.value.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// A value of something that does not live as long as the process: a forked child makes it anew, and leaks the parent's, of which
/// threads that do not exist here may hold parts. Without a lock, for the same reason.
pub struct PerFork<T> {
    made: AtomicPtr<Made<T>>,
    _owns: PhantomData<Arc<T>>,
}

/// A value, and the number of its process then.
struct Made<T> {
    generation: u64,
    value: Arc<T>,
}

impl<T> Default for PerFork<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PerFork<T> {
    /// Nothing is made yet.
    pub const fn new() -> Self {
        Self { made: AtomicPtr::new(std::ptr::null_mut()), _owns: PhantomData }
    }

    /// Of several threads that make it at the same time one is heard.
    pub fn get(&self, make: impl Fn() -> T) -> Arc<T> {
        let generation = generation();
        loop {
            let made = self.made.load(Ordering::Acquire);
            // SAFETY: it is null or came from `Box::into_raw` below, and nobody frees it while this is borrowed.
            if let Some(own) = unsafe { made.as_ref() }.filter(|made| made.generation == generation) {
                return own.value.clone();
            }
            let value = Arc::new(make());
            let new = Box::into_raw(Box::new(Made { generation, value: value.clone() }));
            if self.made.compare_exchange(made, new, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return value;
            }
            // SAFETY: it came from `Box::into_raw` just now, and nobody else has seen it.
            drop(unsafe { Box::from_raw(new) });
        }
    }
}

impl<T> Drop for PerFork<T> {
    fn drop(&mut self) {
        let made = *self.made.get_mut();
        // SAFETY: it is null or came from `Box::into_raw`, and is freed here and nowhere else.
        if unsafe { made.as_ref() }.is_some_and(|made| made.generation == generation()) {
            // SAFETY: likewise.
            drop(unsafe { Box::from_raw(made) });
        }
    }
}

impl<T: Sync> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}
