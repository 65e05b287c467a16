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

/// Locks; a panic elsewhere does not make the value unusable.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
