//! Python objects that Rust holds, and lets go of on any thread.
//!
//! Without the GIL a reference cannot be given back: PyO3 puts it on a list, under a lock of the process's, for whoever has the GIL next. A
//! child that was forked at that moment would wait for that lock in its first call. So a fork waits for whoever is about it.

use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;

use pyo3::prelude::*;

use crate::process::undisturbed::DropUndisturbed;

/// What threads of ours are called: they have the GIL in [`attach`] alone. Those of Python's are called otherwise, or have no name here.
const OURS: &str = "wasgi";

thread_local! {
    /// Whether this thread is known to be without the GIL.
    static IS_DETACHED: Cell<bool> =
        Cell::new(std::thread::current().name().is_some_and(|name| name.starts_with(OURS)));
}

/// Does something with the GIL, or without it.
fn while_detached<T>(is_detached: bool, work: impl FnOnce() -> T) -> T {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            IS_DETACHED.set(self.0);
        }
    }
    let _before = Before(IS_DETACHED.replace(is_detached));
    work()
}

/// Does something without the GIL.
pub(crate) fn detach<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(|| while_detached(true, work))
}

/// Does something with the GIL.
pub(crate) fn attach<T>(work: impl FnOnce(Python<'_>) -> T) -> T {
    Python::attach(|py| while_detached(false, || work(py)))
}

/// A Python object, or what has some, that any thread may drop. Each field of Rust's own structs that refers to Python is one; those of
/// classes for Python need not be: Python drops them.
#[derive(Debug)]
pub struct Held<T: Send + 'static>(ManuallyDrop<T>);

impl<T: Send + 'static> Held<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }

    pub(crate) fn into_inner(self) -> T {
        let mut this = ManuallyDrop::new(self);
        // SAFETY: it is taken here, and the destructor that would take it, too, does not run.
        unsafe { ManuallyDrop::take(&mut this.0) }
    }
}

impl<T: Send + 'static> From<T> for Held<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Send + 'static> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + 'static> Drop for Held<T> {
    fn drop(&mut self) {
        // SAFETY: it is taken here and in `into_inner` alone, after which this does not run, and nobody can use it afterwards.
        let value = unsafe { ManuallyDrop::take(&mut self.0) };
        // with the GIL its own destructor may run, for as long as it likes, and no fork is to wait for that
        if IS_DETACHED.get() { drop(DropUndisturbed::new(value)) } else { drop(value) }
    }
}
