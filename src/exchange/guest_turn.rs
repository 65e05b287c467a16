//! Turns of a guest of WASI 0.3: what it does from one wait of its own to the next, however often it is interrupted in between.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};

use crate::sync::lock;

/// So often a turn is interrupted before a guest that goes on is taken to be in good health: it computes, and traps in some other turn, if
/// at all. One that traps gets there sooner; a caller is not to wait for the end of its response for as long as its guest works on.
const PATIENCE: u64 = 20;

/// When something was done.
#[derive(Clone, Copy, Default)]
pub(crate) struct Moment {
    turn: u64,
    interrupts: u64,
}

/// The turns of a store's guest. It is its driver that counts them; whoever reads a body waits for the end of one.
#[derive(Default)]
pub(crate) struct GuestTurn {
    /// Odd while a turn may be under way.
    number: AtomicU64,
    /// The guest's thread was taken from it in the midst of a turn.
    is_interrupted: AtomicBool,
    /// How often that was so, in all.
    interrupts: AtomicU64,
    waiting: Mutex<Vec<Waker>>,
}

impl GuestTurn {
    fn begin(&self) {
        self.number.fetch_or(1, Ordering::AcqRel);
    }

    /// The guest waits for something, and has not trapped.
    pub(crate) fn end(&self) {
        if self.now().turn & 1 == 0 {
            return;
        }
        self.number.fetch_add(1, Ordering::AcqRel);
        self.wake();
    }

    fn wake(&self) {
        let waiting = std::mem::take(&mut *lock(&self.waiting));
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn interrupt(&self) {
        self.is_interrupted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn now(&self) -> Moment {
        Moment { turn: self.number.load(Ordering::Acquire), interrupts: self.interrupts.load(Ordering::Acquire) }
    }

    /// Whether the turn in which this moment was has ended. Whoever asks too early is woken.
    pub(crate) fn is_over(&self, moment: Moment, cx: &Context<'_>) -> bool {
        let is_over = || {
            let now = self.now();
            moment.turn & 1 == 0 || now.turn > moment.turn || now.interrupts - moment.interrupts >= PATIENCE
        };
        if is_over() {
            return true;
        }
        lock(&self.waiting).push(cx.waker().clone());
        is_over()
    }

    /// What is run by `run_concurrent`: that is polled when no guest's code is in the midst of anything, and before any goes on.
    ///
    /// Pinned by whoever calls this, as the other one: an `async fn` would have room for what it gets twice, and an allocation of more than
    /// a KiB is slow.
    pub(crate) fn inside<F: Future>(&self, mut work: Pin<&mut F>) -> impl Future<Output = F::Output> {
        poll_fn(move |cx| {
            self.end();
            let polled = work.as_mut().poll(cx);
            self.begin();
            polled
        })
    }

    /// `run_concurrent` itself: when it has nothing more to do, all guests wait.
    pub(crate) fn around<F: Future>(&self, mut work: Pin<&mut F>) -> impl Future<Output = F::Output> {
        poll_fn(move |cx| {
            self.is_interrupted.store(false, Ordering::Relaxed);
            self.begin();
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() {
                match self.is_interrupted.load(Ordering::Relaxed) {
                    true => {
                        self.interrupts.fetch_add(1, Ordering::AcqRel);
                        self.wake();
                    }
                    false => self.end(),
                }
            }
            polled
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::Poll;

    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// A guest that is interrupted `times`, and then waits.
    async fn interrupted(turn: &GuestTurn, times: u64) {
        let mut polls = 0;
        let guest = poll_fn(|_| {
            polls += 1;
            if polls <= times {
                turn.interrupt();
            }
            Poll::<()>::Pending
        });
        turn.around(pin!(guest)).await;
    }

    #[test]
    fn a_turn_ends_when_its_guest_waits() {
        let turn = GuestTurn::default();
        let mut guest = Box::pin(interrupted(&turn, 1));
        turn.begin();
        let begun = turn.now();
        assert!(guest.as_mut().poll(&mut cx()).is_pending());
        assert!(!turn.is_over(begun, &cx()), "it was interrupted");
        assert!(guest.as_mut().poll(&mut cx()).is_pending());
        assert!(turn.is_over(begun, &cx()));
    }

    #[test]
    fn a_turn_that_goes_on_and_on_is_over() {
        let turn = GuestTurn::default();
        let mut guest = Box::pin(interrupted(&turn, u64::MAX));
        turn.begin();
        let begun = turn.now();
        for _ in 0..PATIENCE {
            assert!(!turn.is_over(begun, &cx()));
            assert!(guest.as_mut().poll(&mut cx()).is_pending());
        }
        assert!(turn.is_over(begun, &cx()));
        assert!(!turn.is_over(turn.now(), &cx()));
    }

    #[test]
    fn a_turn_does_not_end_with_a_trap() {
        let turn = GuestTurn::default();
        let work = pin!(async {});
        let inside = pin!(turn.inside(work));
        let guest = pin!(turn.around(inside));
        assert!(guest.poll(&mut cx()).is_ready());
        assert!(!turn.is_over(turn.now(), &cx()));
    }

    #[test]
    fn whoever_waits_for_its_end_is_woken() {
        struct Woken(AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let turn = GuestTurn::default();
        turn.begin();
        let woken = Arc::new(Woken(AtomicBool::new(false)));
        assert!(!turn.is_over(turn.now(), &Context::from_waker(&Waker::from(woken.clone()))));
        turn.end();
        assert!(woken.0.load(Ordering::SeqCst));
    }
}
