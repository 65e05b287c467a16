//! The time of an exchange in a staged world: it passes only where everybody sleeps who takes part in it.
//!
//! Those who wait for a time to come are in one list. The first of them has waited long enough as soon as the guest does not
//! run, and nobody works on a request of its own.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::sync::lock;

#[derive(Default)]
struct Time {
    /// When the exchange began, in nanoseconds since its instance did.
    began: u64,
    /// Nanoseconds since the instance began.
    passed: AtomicU64,
    /// When what is waited for ends.
    ends: Mutex<Vec<u64>>,
    /// How many requests of the guest's somebody works on.
    busy: AtomicI64,
    /// Whether the guest runs, or is about to.
    turn: AtomicBool,
}

impl Time {
    fn now(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }
}

/// What measures the time of one exchange, for all who take part in it.
#[derive(Clone)]
pub(crate) struct Clock(Arc<Time>);

/// Who waits for a time to come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The guest, in a turn of its own.
    Guest,
    /// Somebody else, at any moment.
    Other,
}

/// In the list of what is waited for, for as long as it is.
struct Awaited {
    time: Arc<Time>,
    end: u64,
}

impl Awaited {
    fn new(time: &Arc<Time>, end: u64) -> Self {
        let now = time.now();
        let mut ends = lock(&time.ends);
        ends.retain(|end| *end > now);
        ends.push(end);
        Self { time: time.clone(), end }
    }

    /// Waits until then: no longer than until all others wait, too, and for later times.
    async fn pass(&self, who: Who) {
        let time = &self.time;
        // all that are waited for together are in the list then
        tokio::task::yield_now().await;
        let mut left = Duration::from_nanos(self.end.saturating_sub(time.now()));
        while time.now() < self.end && !left.is_zero() {
            let quiet = time.busy.load(Ordering::Acquire) == 0;
            let runs = who == Who::Other && time.turn.load(Ordering::SeqCst);
            if quiet && !runs && self.is_first(who) {
                break;
            }
            let pause = LOOK.min(left);
            tokio::time::sleep(pause).await;
            left -= pause;
        }
        time.passed.fetch_max(self.end, Ordering::AcqRel);
    }

    fn is_first(&self, who: Who) -> bool {
        let now = self.time.now();
        lock(&self.time.ends).iter().all(|end| *end >= self.end || (who == Who::Other && *end <= now))
    }

    /// A timer of the guest's is over. Its end stays in the list until somebody waits again, so that none of the guest's others,
    /// which it may wait for in the same turn, is the first as well.
    fn stay(&self) {
        lock(&self.time.ends).push(self.end);
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let mut ends = lock(&self.time.ends);
        if let Some(place) = ends.iter().position(|end| *end == self.end) {
            ends.swap_remove(place);
        }
    }
}

/// How often somebody who waits looks whether those are done that it stands behind.
const LOOK: Duration = Duration::from_millis(1);

impl Clock {
    /// Of an exchange that begins so many nanoseconds after its instance did.
    pub fn new(began: u64) -> Self {
        Self(Arc::new(Time { began, passed: AtomicU64::new(began), ..Time::default() }))
    }

    /// Nanoseconds since the instance began.
    pub fn now(&self) -> u64 {
        self.0.now()
    }

    /// Since the exchange began.
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.now().saturating_sub(self.0.began))
    }

    /// A timer of the guest's.
    pub async fn timer(&self, end: u64) {
        let awaited = Awaited::new(&self.0, end);
        awaited.pass(Who::Guest).await;
        awaited.stay();
    }

    fn after(&self, duration: Duration) -> u64 {
        self.0.now().saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX))
    }

    /// A limit of time on what an upstream does, from now on. `in_turn`: it is waited for in the guest's own turns.
    pub fn limit(&self, duration: Duration, in_turn: bool) -> impl Future<Output = ()> + Send + use<> {
        let awaited = Awaited::new(&self.0, self.after(duration));
        async move { awaited.pass(if in_turn { Who::Guest } else { Who::Other }).await }
    }

    /// A request of the guest's, which somebody works on from now on.
    pub fn request(&self) -> Arc<Request> {
        let request = Request { clock: self.clone(), state: Mutex::default() };
        request.change(|state| state.awaited = true);
        Arc::new(request)
    }

    /// A guest's run, by whose turns the time is told when it waits.
    pub fn turns<F: Future<Output = ()> + Send>(&self, run: F) -> impl Future<Output = ()> + Send + use<F> {
        Turns { run: Box::pin(run), time: self.0.clone() }
    }
}

/// A request that the guest has sent.
pub(crate) struct Request {
    clock: Clock,
    state: Mutex<RequestState>,
}

#[derive(Default)]
struct RequestState {
    /// Whether the guest may wait for an answer, or for more of it.
    awaited: bool,
    /// Whether whoever answers sleeps.
    asleep: bool,
}

impl RequestState {
    fn is_busy(&self) -> bool {
        self.awaited && !self.asleep
    }
}

impl Request {
    fn change(&self, change: impl FnOnce(&mut RequestState)) {
        let mut state = lock(&self.state);
        let before = state.is_busy();
        change(&mut state);
        let change = i64::from(state.is_busy()) - i64::from(before);
        self.clock.0.busy.fetch_add(change, Ordering::AcqRel);
    }

    /// Whether the guest waits for more of the answer. It does from the beginning, until it has looked at what has come.
    pub fn is_awaited(&self, awaited: bool) {
        self.change(|state| state.awaited = awaited);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.change(|state| state.awaited = false);
    }
}

/// A request's time, for whoever answers it.
#[derive(Clone)]
pub(crate) struct Pace {
    pub clock: Clock,
    request: Weak<Request>,
}

impl Pace {
    pub fn of(request: &Arc<Request>) -> Self {
        Self { clock: request.clock.clone(), request: Arc::downgrade(request) }
    }

    /// Whoever answers does nothing for so long.
    pub async fn sleep(self, duration: Duration) {
        // first this, and last to go: nobody else may seem to be the first while nobody works
        let awaited = Awaited::new(&self.clock.0, self.clock.after(duration));
        let _asleep = Asleep::new(&self.request);
        awaited.pass(Who::Other).await;
    }
}

struct Asleep<'a>(&'a Weak<Request>);

impl<'a> Asleep<'a> {
    fn new(request: &'a Weak<Request>) -> Self {
        Self::tell(request, true);
        Self(request)
    }

    fn tell(request: &Weak<Request>, asleep: bool) {
        if let Some(request) = request.upgrade() {
            request.change(|state| state.asleep = asleep);
        }
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        Self::tell(self.0, false);
    }
}

/// See [`Clock::turns`].
struct Turns<F> {
    run: Pin<Box<F>>,
    time: Arc<Time>,
}

/// The waker of one turn.
struct Told {
    time: Arc<Time>,
    woken: AtomicBool,
    waker: Waker,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.time.turn.store(true, Ordering::SeqCst);
        self.waker.wake_by_ref();
    }
}

impl<F: Future<Output = ()>> Future for Turns<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        this.time.turn.store(true, Ordering::SeqCst);
        let told = Arc::new(Told { time: this.time.clone(), woken: AtomicBool::new(false), waker: cx.waker().clone() });
        let polled = this.run.as_mut().poll(&mut Context::from_waker(&Waker::from(told.clone())));
        if polled.is_pending() {
            this.time.turn.store(false, Ordering::SeqCst);
            if told.woken.load(Ordering::SeqCst) {
                this.time.turn.store(true, Ordering::SeqCst); // it only paused, or is about to go on
            }
        }
        polled
    }
}
