//! Who waits for what a guest writes, or for its answer, is woken at the end of the guest's turn: once for all that it has written. Each is on
//! another thread, which would go to sleep again after every write.

use std::cell::RefCell;
use std::task::Waker;

thread_local! {
    /// Whom the guest that has its turn on this thread has something for.
    static TO_WAKE: RefCell<Option<Vec<Waker>>> = const { RefCell::new(None) };
}

/// A turn on one of the scheduler's threads.
pub(super) struct LateWakes(());

impl LateWakes {
    pub(super) fn begin() -> Self {
        TO_WAKE.set(Some(Vec::new()));
        Self(())
    }
}

impl Drop for LateWakes {
    fn drop(&mut self) {
        // whoever is woken may be polled here and now
        for waker in TO_WAKE.take().into_iter().flatten() {
            waker.wake();
        }
    }
}

/// Wakes whoever waits for the guest that has its turn on this thread, at the end of that; at once if none has.
pub(crate) fn wake_at_end_of_turn(waker: &Waker) {
    let is_left = TO_WAKE.with_borrow_mut(|waking| waking.as_mut().map(|waking| waking.push(waker.clone())));
    if is_left.is_none() {
        waker.wake_by_ref();
    }
}

/// Wakes them now, in the midst of a turn: what follows is somebody else's, who is not to come first.
pub(crate) fn wake_now() {
    let waking = TO_WAKE.with_borrow_mut(|waking| waking.as_mut().map(std::mem::take));
    waking.into_iter().flatten().for_each(Waker::wake);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn who_waits_for_a_guest_that_has_its_turn_is_woken_at_its_end() {
        let calls = Arc::<Calls>::default();
        let woken = || calls.0.load(Ordering::Relaxed);
        let waker = Waker::from(calls.clone());
        wake_at_end_of_turn(&waker);
        assert_eq!(woken(), 1, "nobody has a turn here");
        let turn = LateWakes::begin();
        wake_at_end_of_turn(&waker);
        assert_eq!(woken(), 1);
        std::thread::scope(|scope| scope.spawn(|| wake_at_end_of_turn(&waker)).join()).unwrap();
        assert_eq!(woken(), 2, "another thread has no turn");
        wake_now();
        assert_eq!(woken(), 3);
        wake_at_end_of_turn(&waker);
        assert_eq!(woken(), 3, "the turn goes on");
        drop(turn);
        assert_eq!(woken(), 4);
        wake_at_end_of_turn(&waker);
        assert_eq!(woken(), 5);
    }
}
