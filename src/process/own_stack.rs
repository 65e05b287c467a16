//! Work that goes deep on the stack, on one of a size of our choice: wasmparser and wasmtime recurse as deep as types and components
//! are nested, which `component_limits::MOST_NESTED` bounds.

use std::panic::{AssertUnwindSafe, catch_unwind};

use wasmtime_internal_fiber::{Fiber, FiberStack};

use crate::error::Error;
use crate::error::reason::Reason;

/// Addresses, not memory.
pub const SIZE: usize = 64 << 20;

/// On a thread of its own, or on this one where no other is to be had.
pub fn run<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    let shared = std::sync::Mutex::new(Some(work));
    let take = || crate::sync::lock(&shared).take();
    let done = std::thread::scope(|scope| {
        let started = std::thread::Builder::new().stack_size(SIZE).spawn_scoped(scope, || take().map(|work| work()));
        started.map(|thread| thread.join().ok().flatten())
    });
    match done {
        Ok(done) => done.ok_or_else(broken),
        Err(_) => take().ok_or_else(broken).and_then(on_this_thread),
    }
}

/// The calling thread's own stack may be as small as Python lets it be: it waits, while its thread works on another.
pub fn on_this_thread<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
    let refused = |error| Error::Host(Reason::new(format!("no memory for a stack: {error}"), error));
    let stack = FiberStack::new(SIZE, false).map_err(refused)?;
    let work = |(), _: &mut _| catch_unwind(AssertUnwindSafe(work));
    let fiber = Fiber::<(), (), _>::new(stack, work).map_err(|(error, _)| refused(error))?;
    match fiber.resume(()) {
        Ok(Ok(done)) => Ok(done),
        // it has told its panic
        Ok(Err(_)) | Err(()) => Err(broken()),
    }
}

fn broken() -> Error {
    Error::Host("loading the component failed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As deep as a stack of 20 MiB.
    fn deep(levels: u32) -> u32 {
        let room = std::hint::black_box([levels as u8; 1024]);
        if levels == 0 { u32::from(room[0]) } else { 1 + deep(levels - 1) }
    }

    #[test]
    fn a_small_stack_is_not_used() {
        for how in [|| run(|| deep(20_000)).ok(), || on_this_thread(|| deep(20_000)).ok()] {
            let small = std::thread::Builder::new().stack_size(64 << 10).spawn(how);
            assert_eq!(small.ok().and_then(|thread| thread.join().ok()), Some(Some(20_000)));
        }
    }

    #[test]
    fn a_panic_is_an_error() {
        assert!(on_this_thread(|| std::panic::resume_unwind(Box::new(1))).is_err());
        assert!(run(|| std::panic::resume_unwind(Box::new(1))).is_err());
    }
}
