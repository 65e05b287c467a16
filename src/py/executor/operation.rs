//! `Operation`: a future that is polled with the GIL. A task awaits it.

use std::mem::ManuallyDrop;
use std::sync::Mutex;
use std::task::{Context, Poll};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

/// Something to wait for. Dropping it cancels it.
pub trait Operation: Send {
    /// Called with the GIL held. Until it is ready it must have kept the waker.
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>>;

    /// Shows the collector the Python objects that this alone owns: not what an `Arc` shares.
    fn traverse(&self, _visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        Ok(())
    }

    /// Whether nobody else has the body that it reads.
    fn owns_body(&self) -> bool {
        false
    }
}

/// An operation whose task waits.
pub(crate) type Waiting = Mutex<Option<Begun>>;

/// An operation that has begun. A forked child goes on with none of its parent's, nor drops it: that would be to wait for locks that no
/// thread there gives back.
pub struct Begun {
    pub operation: ManuallyDrop<Box<dyn Operation>>,
    generation: u64,
}

impl Begun {
    pub fn new(operation: Box<dyn Operation>) -> Self {
        Self { operation: ManuallyDrop::new(operation), generation: crate::process::fork::generation() }
    }

    pub fn is_foreign(&self) -> bool {
        self.generation != crate::process::fork::generation()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_foreign() {
            // SAFETY: it is dropped here and nowhere else, and not used after this.
            unsafe { ManuallyDrop::drop(&mut self.operation) }
        }
    }
}
