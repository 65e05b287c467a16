//! The only folder that knows Python.
//!
//! Rules of the house: tokio's workers never call Python, they leave a job with a [`bridge`]; Python code never runs
//! on a guest's stack; nothing holds the GIL while it waits.

pub mod app;
pub mod awaitable;
pub mod body;
pub mod bridge;
pub mod component;
pub mod errors;
pub mod feed;
pub mod headers;
pub mod message;
pub mod reading;
pub mod stdio;
pub mod upstream;
pub mod wit;

use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

/// One value a process: made at first use, made anew in a forked child.
pub(crate) struct PerProcess<T> {
    value: AtomicPtr<T>,
    making: Mutex<()>,
}

impl<T: Sync> PerProcess<T> {
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(std::ptr::null_mut()), making: Mutex::new(()) }
    }

    pub fn existing(&self) -> Option<&'static T> {
        // SAFETY: the pointer is null or came from `Box::leak` below, and is never freed.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }

    pub fn get(&self, make: impl FnOnce() -> T) -> &'static T {
        if let Some(value) = self.existing() {
            return value;
        }
        let _making = self.making.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(value) = self.existing() {
            return value;
        }
        let value = Box::leak(Box::new(make()));
        self.value.store(value, Ordering::Release);
        value
    }

    /// In a forked child: what the parent had is leaked, for its threads do not exist here.
    pub fn forget(&self) {
        self.value.store(std::ptr::null_mut(), Ordering::Release);
    }
}

/// Locks; a panic elsewhere does not make the value unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
