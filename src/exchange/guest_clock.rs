//! The time that is a guest's own: what its caller takes to send a body or to read one is not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// Counts a guest's time. It runs while the guest has its turn, and while the guest waits; it stands still while the guest waits
/// and something is *held*: a chunk of its request that has not come, or one of its response that nobody has taken.
#[derive(Default)]
pub(crate) struct Clock {
    limit: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    spent: Duration,
    since: Option<Instant>,
    running: bool,
    holds: u32,
    /// To be told when it runs again.
    waiting: Option<Waker>,
}

impl State {
    fn go(&mut self) {
        if self.since.is_none() {
            self.since = Some(Instant::now());
        }
    }

    fn stop(&mut self) {
        if let Some(since) = self.since.take() {
            self.spent += since.elapsed();
        }
    }
}

impl Clock {
    pub(crate) fn new(limit: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { limit, state: Mutex::default() })
    }

    pub(crate) fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// The guest has its turn. Returns when its time is up.
    pub(crate) fn enter(&self) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.running = true;
        state.go();
        self.deadline(&state)
    }

    /// The guest waits; `waker` is told when a clock that stands still runs again. Returns when its time is up, if the clock runs.
    pub(crate) fn leave(&self, waker: Option<&Waker>) -> Option<Instant> {
        let mut state = lock(&self.state);
        state.running = false;
        if state.holds == 0 {
            return self.deadline(&state);
        }
        state.stop();
        state.waiting = waker.cloned();
        None
    }

    fn deadline(&self, state: &State) -> Option<Instant> {
        state.since?.checked_add(self.limit?.saturating_sub(state.spent))
    }

    /// The guest's time until now.
    #[cfg(test)]
    fn spent(&self) -> Duration {
        let state = lock(&self.state);
        state.spent + state.since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// So much of the time that has passed was not its: another guest of the same instance had the turn.
    pub(crate) fn spare(&self, time: Duration) {
        let mut state = lock(&self.state);
        if let Some(since) = state.since {
            state.since = Some((since + time).min(Instant::now()));
        }
    }

    pub(crate) fn hold(&self) {
        let mut state = lock(&self.state);
        state.holds += 1;
        if !state.running {
            state.stop();
        }
    }

    pub(crate) fn release(&self) {
        let waiting = {
            let mut state = lock(&self.state);
            state.holds = state.holds.saturating_sub(1);
            if state.holds > 0 || state.running {
                return;
            }
            state.go();
            state.waiting.take()
        };
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

/// Something is held until this is dropped.
pub(crate) struct Held(Arc<Clock>);

impl Held {
    pub(crate) fn of(clock: &Arc<Clock>) -> Self {
        clock.hold();
        Self(clock.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// A wait for something of the other side's, under way until it is over or is given up.
pub(crate) struct Wait {
    over: AtomicBool,
    /// Held while it is under way.
    clock: Weak<Clock>,
    waker: Waker,
}

impl Wait {
    /// `clock` stands still meanwhile, if there is one.
    pub(crate) fn begin(clock: Option<&Arc<Clock>>, waker: &Waker) -> Arc<Self> {
        if let Some(clock) = clock {
            clock.hold();
        }
        let clock = clock.map_or_else(Weak::new, Arc::downgrade);
        Arc::new(Self { over: AtomicBool::new(false), clock, waker: waker.clone() })
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    pub(crate) fn finish(&self) {
        if !self.over.swap(true, Ordering::AcqRel)
            && let Some(clock) = self.clock.upgrade()
        {
            clock.release();
        }
    }
}

impl Wake for Wait {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.finish();
        crate::scheduler::wake_at_end_of_turn(&self.waker);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Lets some time pass, and says how much at least.
    fn pass() -> Duration {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2) {
            std::thread::yield_now();
        }
        begun.elapsed()
    }

    #[test]
    fn a_guest_that_waits_for_its_caller_spends_nothing() {
        let clock = Clock::new(Some(Duration::from_secs(1)));
        assert!(clock.enter().is_some());
        clock.hold();
        let turn = pass();
        assert!(clock.leave(None).is_none(), "held: nothing is due");
        let spent = clock.spent();
        assert!(spent >= turn, "its turn is its own, whatever is held");
        pass();
        assert_eq!(clock.spent(), spent);
        clock.release();
        let waited = pass();
        assert!(clock.spent() >= spent + waited);
    }

    #[test]
    fn what_is_held_moves_the_deadline() {
        let clock = Clock::new(Some(Duration::from_secs(1)));
        clock.enter();
        let before = clock.leave(None).unwrap();
        clock.hold();
        let passed = pass();
        clock.release();
        assert!(clock.enter().unwrap() >= before + passed);
    }

    #[test]
    fn what_is_spared_was_not_the_guests_time() {
        let clock = Clock::new(None);
        clock.spare(Duration::from_secs(1)); // it has not begun
        let begun = Instant::now();
        clock.enter();
        let passed = pass();
        clock.spare(passed);
        let spent = clock.spent();
        assert!(spent <= begun.elapsed() - passed);
        let spared = Instant::now();
        clock.spare(Duration::from_secs(60));
        let spent = clock.spent();
        assert!(spent <= spared.elapsed(), "no more than there was");
    }

    #[test]
    fn a_wait_is_over_once() {
        let clock = Clock::new(None);
        clock.enter();
        let wait = Wait::begin(Some(&clock), Waker::noop());
        clock.leave(None);
        assert!(!wait.is_over());
        Waker::from(wait.clone()).wake();
        assert!(wait.is_over());
        wait.finish();
        assert_eq!(lock(&clock.state).holds, 0);
    }

    struct Calls(std::sync::atomic::AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn what_is_held_twice_is_held_until_both_let_go() {
        let calls = Arc::new(Calls(0.into()));
        let woken = || calls.0.load(Ordering::Relaxed);
        let clock = Clock::new(Some(Duration::from_secs(9)));
        assert_eq!(clock.limit(), Some(Duration::from_secs(9)));
        clock.enter();
        clock.hold();
        clock.hold();
        assert!(clock.leave(Some(&Waker::from(calls.clone()))).is_none());
        let spent = clock.spent();
        clock.release();
        pass();
        assert_eq!((clock.spent(), woken()), (spent, 0));
        clock.release();
        assert_eq!(woken(), 1, "it runs again");
        assert!(clock.leave(None).is_some());
        assert!(clock.enter().is_some());
        clock.hold();
        clock.release();
        assert_eq!(woken(), 1, "it ran all the time");
    }
}
