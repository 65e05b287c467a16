//! What a process has once, and a forked child has anew.

use std::convert::Infallible;
use std::sync::Mutex;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::sync::lock;

/// One value a process: made at first use, made anew in a forked child.
pub struct PerProcess<T> {
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
        match self.try_get(|| Ok::<_, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    pub fn try_get<E>(&self, make: impl FnOnce() -> Result<T, E>) -> Result<&'static T, E> {
        if let Some(value) = self.existing() {
            return Ok(value);
        }
        let _making = lock(&self.making);
        if let Some(value) = self.existing() {
            return Ok(value);
        }
        let value = Box::leak(Box::new(make()?));
        self.value.store(value, Ordering::Release);
        Ok(value)
    }

    /// In a forked child: what the parent had is leaked, because dropping it would wait for threads that do not exist
    /// here.
    pub fn forget(&self) {
        self.value.store(std::ptr::null_mut(), Ordering::Release);
    }
}

impl<T: Sync> Default for PerProcess<T> {
    fn default() -> Self {
        Self::new()
    }
}
