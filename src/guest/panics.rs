//! A store of WASI 0.3 that something panicked in is left as it stands.
//!
//! Its guests stand on stacks of their own. One of those that wasmtime had in hand when the panic came panics once more when it is dropped
//! (`assert!` in wasmtime's fiber.rs), and a panic that meets another one ends the process. So nothing of such a store is dropped: its
//! exchanges fail, its memory and its slot are lost, the process lives. A panic that comes while wasmtime drops such a stack itself cannot be
//! caught.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

/// Why its exchanges have ended.
#[derive(Debug)]
pub(crate) struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host failed while the guest ran")
    }
}

impl std::error::Error for Panicked {}

/// What runs a store, until it panics.
pub(crate) struct UntilItPanics<F>(Option<Pin<Box<F>>>);

impl<F> UntilItPanics<F> {
    pub(crate) fn new(run: F) -> Self {
        Self(Some(Box::pin(run)))
    }
}

impl<T, F: Future<Output = wasmtime::Result<T>>> Future for UntilItPanics<F> {
    type Output = wasmtime::Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(run) = &mut self.0 else { return Poll::Ready(Err(Panicked.into())) };
        match catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(cx))) {
            Ok(polled) => polled,
            Err(panic) => {
                // the message has been printed; one that panics when it is dropped would be another
                std::mem::forget((panic, self.0.take()));
                Poll::Ready(Err(Panicked.into()))
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::task::Waker;

    use super::*;

    struct Noticed(Arc<AtomicBool>);

    impl Drop for Noticed {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_waits_beside_a_panic_is_not_dropped() {
        let dropped = Arc::new(AtomicBool::new(false));
        // of those that are not on the way of the panic itself
        let held = Noticed(dropped.clone());
        let beside = Box::pin(async move {
            let _held = held;
            std::future::pending::<()>().await;
        });
        let mut beside = futures_util::future::maybe_done(beside);
        let mut run = UntilItPanics::new(std::future::poll_fn(move |cx| {
            assert!(Pin::new(&mut beside).poll(cx).is_pending());
            if std::hint::black_box(true) {
                panic!("as asked");
            }
            Poll::Ready(wasmtime::error::Ok(()))
        }));
        let Poll::Ready(Err(error)) = poll(&mut run) else { unreachable!() };
        assert!(error.is::<Panicked>());
        let Poll::Ready(Err(error)) = poll(&mut run) else { unreachable!() };
        assert!(error.is::<Panicked>(), "whoever asks once more is told the same");
        drop(run);
        assert!(!dropped.load(Ordering::Relaxed));
    }

    #[test]
    fn what_ends_well_is_dropped() {
        let dropped = Arc::new(AtomicBool::new(false));
        let held = Noticed(dropped.clone());
        let mut run = UntilItPanics::new(async move {
            let _held = held;
            wasmtime::error::Ok(7)
        });
        assert!(matches!(poll(&mut run), Poll::Ready(Ok(7))));
        assert!(dropped.load(Ordering::Relaxed));
    }
}
