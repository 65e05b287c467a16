//! Locking, for the whole crate.

use std::sync::{Mutex, MutexGuard};

/// Locks; a panic elsewhere does not make the value unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
