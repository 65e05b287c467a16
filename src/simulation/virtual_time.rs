//! The time of an exchange in a simulation: it passes only where everybody sleeps who takes part in it.
//!
//! Those who wait for a time to come are in one list. When the guest neither runs nor is about to, and nobody works on what it
//! waits for, the time has come that the first of them waits for, and that one goes on. While anybody works, waits take their
//! time.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::simulation::time_state::{Doing, TimeState, Waiting, Who};
use crate::sync::lock;

/// What measures the time of one exchange, for all who take part in it. What the guest waits for otherwise, a file say, it does
/// not know: a guest that waits for that is one that sleeps.
#[derive(Clone)]
pub(crate) struct Clock(pub(super) Arc<Time>);

pub(super) struct Time {
    /// When the exchange began, in nanoseconds since its instance did.
    began: u64,
    pub(super) state: Mutex<TimeState>,
}

impl Time {
    /// Changes something, and sees whether time passes by that.
    pub(super) fn change(&self, change: impl FnOnce(&mut TimeState)) {
        let woken = {
            let mut state = lock(&self.state);
            change(&mut state);
            state.advance()
        };
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Clock {
    /// Of an exchange that begins so many nanoseconds after its instance did.
    pub(crate) fn new(began: u64) -> Self {
        let state = TimeState::begin(began);
        Self(Arc::new(Time { began, state: Mutex::new(state) }))
    }

    /// Nanoseconds since the instance began.
    pub(crate) fn now(&self) -> u64 {
        lock(&self.0.state).now
    }

    /// When a time of its will have come at the latest.
    pub(crate) fn due(&self, end: u64) -> Instant {
        far_from_now(Duration::from_nanos(end.saturating_sub(self.now())))
    }

    /// Since the exchange began.
    pub(crate) fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.0.began))
    }

    /// What the guest waits for from now on, or in its turns: a timer, or a limit that it looks at itself. `due` is when it is
    /// over at the latest.
    pub(crate) fn until(&self, end: u64, due: Instant) -> Until {
        Until::new(self, end, due, Who::Guest)
    }

    /// The same, so long from now.
    pub(crate) fn after(&self, duration: Duration) -> Until {
        Until::after(self, duration, Who::Guest)
    }

    /// Something that others have to do for the guest. `answers`: somebody is at it.
    pub(crate) fn work(&self, answers: bool) -> Arc<Work> {
        let mut state = lock(&self.0.state);
        let number = state.number();
        state.work.insert(number, Doing { answers, ..Doing::default() });
        Arc::new(Work(WorkClock { clock: self.clone(), work: number }))
    }
}

/// In the list of those that wait, until its time has come or nobody waits any more.
pub struct Until {
    time: Arc<Time>,
    number: u64,
    end: u64,
    who: Who,
    due: Instant,
    /// The machine's time, once it is waited for.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Until {
    fn new(clock: &Clock, end: u64, due: Instant, who: Who) -> Self {
        let time = clock.0.clone();
        let number = {
            let mut state = lock(&time.state);
            let number = state.number();
            if state.now < end {
                state.waiting.push(Waiting { number, end, who, waker: Waker::noop().clone() });
            }
            number
        };
        Self { time, number, end, who, due, sleep: None }
    }

    fn after(clock: &Clock, duration: Duration, who: Who) -> Self {
        let end = clock.now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX));
        Self::new(clock, end, far_from_now(duration), who)
    }
}

/// So long from now, or so far that nobody will wait for it.
fn far_from_now(duration: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(duration).unwrap_or_else(|| now + Duration::from_secs(1 << 30))
}

impl Future for Until {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        {
            let mut state = lock(&this.time.state);
            match state.waiting.iter_mut().find(|one| one.number == this.number) {
                None => return Poll::Ready(()),
                Some(waiting) => waiting.waker.clone_from(cx.waker()),
            }
        }
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(this.due.into())));
        ready!(sleep.as_mut().poll(cx));
        let mut state = lock(&this.time.state);
        state.waiting.retain(|one| one.number != this.number);
        state.passed(this.end, this.who);
        Poll::Ready(())
    }
}

impl Drop for Until {
    fn drop(&mut self) {
        lock(&self.time.state).waiting.retain(|one| one.number != self.number);
    }
}

/// Something that others have to do for the guest, until nobody wants it any more.
pub struct Work(WorkClock);

impl Work {
    /// It is answered: the guest is to look at that before any time passes. For a task that is spawned by the one that
    /// gives the guest the outcome, as the last thing it does: such a task is run after it, by the same worker.
    pub async fn answered(self: Arc<Self>) {
        // but for workers that are in a hurry: then another one may run this, and be a moment too early
        tokio::task::yield_now().await;
        let guest = {
            let mut state = lock(&self.0.clock.0.state);
            state.tell(self.0.work, |work| work.answers = false);
            state.turn = true;
            state.guest.clone()
        };
        guest.wake();
    }

    /// The clock of whoever works on it.
    pub fn clock(&self) -> &WorkClock {
        &self.0
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.clock.0.change(|state| {
            state.work.remove(&self.0.work);
        });
    }
}

/// The time of some work, for whoever is at it.
#[derive(Clone)]
pub struct WorkClock {
    clock: Clock,
    work: u64,
}

impl WorkClock {
    /// What its worker does changes; time may pass by that.
    pub(super) fn change(&self, change: impl FnOnce(&mut Doing)) {
        self.clock.0.change(|state| state.tell(self.work, change));
    }

    /// A number for one look at a body.
    pub(super) fn number(&self) -> u64 {
        lock(&self.clock.0.state).number()
    }

    /// A limit of time on the work, from now on.
    pub fn limit(&self, duration: Duration) -> Until {
        Until::after(&self.clock, duration, Who::Worker(self.work))
    }

    /// Whoever is at it does nothing for so long.
    pub async fn sleep(self, duration: Duration) {
        let until = self.limit(duration);
        self.change(|work| work.sleeps = true);
        let _goes_on = GoesOn(&self);
        until.await;
    }
}

/// Whoever slept is at work again, whether its time has come or it was told to stop.
struct GoesOn<'a>(&'a WorkClock);

impl Drop for GoesOn<'_> {
    fn drop(&mut self) {
        lock(&self.0.clock.0.state).tell(self.0.work, |work| work.sleeps = false);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::simulation::turns::Clocks;

    const HOUR: Duration = Duration::from_secs(3600);
    const BEGAN: u64 = 5;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn turns<F: Future<Output = ()> + Send>(clock: &Clock, run: F) -> impl Future<Output = ()> + Send + use<F> {
        let clocks = Arc::new(Clocks::default());
        clocks.add(clock);
        clocks.turns(run)
    }

    fn poll<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
        Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn waiting(clock: &Clock) -> usize {
        lock(&clock.0.state).waiting.len()
    }

    fn doing(work: &Work) -> Doing {
        lock(&work.0.clock.0.state).work.get(&work.0.work).copied().unwrap()
    }

    /// Counts how often it is called.
    #[derive(Default)]
    struct Calls(AtomicUsize);

    impl Wake for Calls {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn an_hour_passes_at_once_where_the_guest_alone_waits() {
        let clock = Clock::new(BEGAN);
        let guest = clock.clone();
        block_on(turns(&clock, async move {
            guest.after(HOUR).await;
            guest.until(BEGAN + 2 * HOUR.as_nanos() as u64, far_from_now(HOUR)).await;
        }));
        assert_eq!(clock.elapsed(), HOUR * 2);
        assert_eq!(clock.now(), BEGAN + 2 * HOUR.as_nanos() as u64);
        assert_eq!(waiting(&clock), 0);
    }

    #[test]
    fn a_time_that_has_come_is_not_waited_for() {
        let clock = Clock::new(BEGAN);
        block_on(async {
            assert!(poll(&mut clock.until(BEGAN, far_from_now(HOUR))).is_ready());
            let mut next = clock.until(BEGAN + 1, far_from_now(HOUR));
            assert!(poll(&mut next).is_pending());
            assert_eq!(waiting(&clock), 1);
            drop(next);
            assert_eq!(waiting(&clock), 0, "nobody waits any more");
        });
    }

    #[test]
    fn what_others_work_at_takes_its_time() {
        let clock = Clock::new(BEGAN);
        let (guest, work) = (clock.clone(), clock.work(true));
        assert!(doing(&work).answers);
        let (begun, wait) = (Instant::now(), Duration::from_millis(5));
        let later = clock.after(HOUR);
        let number = later.number;
        block_on(turns(&clock, async move {
            let mut timer = guest.after(wait);
            std::future::poll_fn(|cx| Pin::new(&mut timer).poll(cx)).await;
            let left: Vec<_> = lock(&guest.0.state).waiting.iter().map(|one| one.number).collect();
            assert_eq!(left, [number], "who waits for later is in the list still");
        }));
        assert!(begun.elapsed() >= wait);
        assert_eq!(clock.elapsed(), wait, "it is the guest's time as well");
        drop(later);
    }

    #[test]
    fn time_passes_when_the_last_who_works_lets_go() {
        let clock = Clock::new(BEGAN);
        let (guest, work) = (clock.clone(), clock.work(true));
        let mut run = Box::pin(turns(&clock, async move { guest.after(HOUR).await }));
        block_on(async {
            assert!(poll(&mut run).is_pending());
            assert_eq!(clock.elapsed(), Duration::ZERO);
            drop(work);
            assert_eq!(clock.elapsed(), HOUR);
            assert!(poll(&mut run).is_ready());
        });
    }

    #[test]
    fn time_passes_while_whoever_works_sleeps() {
        let clock = Clock::new(BEGAN);
        let work = clock.work(true);
        let mut guest = Box::pin(turns(&clock, std::future::pending()));
        block_on(async {
            assert!(poll(&mut guest).is_pending());
            work.clock().clone().sleep(HOUR).await;
        });
        assert_eq!(clock.elapsed(), HOUR);
        assert!(!doing(&work).sleeps);
    }

    #[test]
    fn whoever_is_told_to_stop_sleeping_is_at_work_again() {
        let clock = Clock::new(BEGAN);
        let work = clock.work(true);
        block_on(async {
            let mut sleep = Box::pin(work.clock().clone().sleep(HOUR));
            assert!(poll(&mut sleep).is_pending());
            assert!(doing(&work).sleeps);
            drop(sleep);
            assert!(!doing(&work).sleeps);
        });
        assert_eq!(waiting(&clock), 0);
    }

    #[test]
    fn a_limit_on_work_ends_before_the_guest_goes_on() {
        let clock = Clock::new(BEGAN);
        let work = clock.work(false);
        let guest = clock.clone();
        let mut run = Box::pin(turns(&clock, async move { guest.after(HOUR).await }));
        block_on(async {
            let mut limit = work.clock().limit(HOUR);
            assert!(poll(&mut run).is_pending());
            assert_eq!(clock.elapsed(), HOUR);
            assert!(poll(&mut limit).is_ready());
            assert_eq!(waiting(&clock), 1, "the guest waits still");
        });
    }

    #[test]
    fn no_time_passes_between_an_answer_and_the_look_of_the_guest_at_it() {
        let clock = Clock::new(BEGAN);
        let (guest, work) = (clock.clone(), clock.work(true));
        let calls = Arc::new(Calls::default());
        let waker = Waker::from(calls.clone());
        let mut run = Box::pin(turns(&clock, async move { guest.after(HOUR).await }));
        block_on(async {
            assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            work.clone().answered().await;
            assert!(!doing(&work).answers);
            assert_eq!(calls.0.load(Ordering::Relaxed), 1, "the guest is woken");
            work.clock().change(|_| {});
            assert_eq!(clock.elapsed(), Duration::ZERO);
            assert!(run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!(clock.elapsed(), HOUR);
        });
    }

    #[test]
    fn no_time_passes_while_the_guest_pauses() {
        let clock = Clock::new(BEGAN);
        let guest = clock.clone();
        block_on(turns(&clock, async move {
            let (mut timer, mut paused) = (guest.after(HOUR), false);
            std::future::poll_fn(|cx| {
                assert!(Pin::new(&mut timer).poll(cx).is_pending());
                cx.waker().wake_by_ref();
                if std::mem::replace(&mut paused, true) { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert_eq!(guest.elapsed(), Duration::ZERO);
            timer.await;
        }));
        assert_eq!(clock.elapsed(), HOUR);
    }

    #[test]
    fn looks_are_told_apart() {
        let clock = Clock::new(BEGAN);
        let work = clock.work(true);
        assert_ne!(work.clock().number(), work.clock().number());
        work.clock().change(|work| work.gives = Some(7));
        assert_eq!(doing(&work).gives, Some(7));
    }

    #[test]
    fn no_duration_is_too_long_to_be_waited_for() {
        let now = Instant::now();
        assert!(far_from_now(Duration::MAX) > now + HOUR * 24 * 365);
        assert!(far_from_now(HOUR) >= now + HOUR);
        let clock = Clock::new(BEGAN);
        assert_eq!(clock.after(Duration::MAX).end, u64::MAX);
    }
}
