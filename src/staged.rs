//! A guest's world that is the same each time: its clocks, its randomness, and sleeps that take no time.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{SeedableRng, TryRng};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, async_trait};

use crate::host::Host;
use crate::sync::lock;

/// What an app's guests find, each exchange anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct World {
    /// Since the epoch of POSIX.
    pub now: Duration,
    pub seed: u64,
}

/// The world as one instance finds it.
pub(crate) struct Stage {
    world: World,
    present: Present,
    random: Seeded,
    insecure: Seeded,
}

impl World {
    pub(crate) fn stage(self, wasi: &mut WasiCtxBuilder) -> Stage {
        let stage = Stage {
            world: self,
            present: Present::default(),
            random: Seeded::new(self.seed),
            insecure: Seeded::new(!self.seed),
        };
        wasi.wall_clock(Wall { now: self.now, present: stage.present.clone() })
            .monotonic_clock(Monotonic(stage.present.clone()))
            .secure_random(stage.random.clone())
            .insecure_random(stage.insecure.clone())
            .insecure_random_seed(u128::from(self.seed));
        stage
    }
}

impl Stage {
    /// The time of the present exchange.
    pub fn clock(&self) -> Clock {
        Clock(self.present.time())
    }

    /// The next exchange finds the world as the first has. Only the monotonic clock does not go back.
    pub fn begin_anew(&self) {
        let began = self.present.time().now();
        *lock(&self.present.0) = Arc::new(Time { began, passed: AtomicU64::new(began), ..Time::default() });
        self.random.seed(self.world.seed);
        self.insecure.seed(!self.world.seed);
    }
}

/// Random bytes that can be had once more.
#[derive(Clone)]
struct Seeded(Arc<Mutex<StdRng>>);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    fn seed(&self, seed: u64) {
        *lock(&self.0) = StdRng::seed_from_u64(seed);
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        lock(&self.0).try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        lock(&self.0).try_next_u64()
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        lock(&self.0).try_fill_bytes(bytes)
    }
}

/// The time of whichever exchange an instance is about.
#[derive(Clone, Default)]
struct Present(Arc<Mutex<Arc<Time>>>);

impl Present {
    fn time(&self) -> Arc<Time> {
        lock(&self.0).clone()
    }
}

/// The time of one exchange: it passes only where everybody sleeps who takes part in it.
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

struct Wall {
    now: Duration,
    present: Present,
}

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        let time = self.present.time();
        self.now.saturating_add(Duration::from_nanos(time.now().saturating_sub(time.began)))
    }
}

struct Monotonic(Present);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.0.time().now()
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

/// One timer of a guest's.
struct Timer {
    clock: Clock,
    end: u64,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        let awaited = Awaited::new(&self.clock.0, self.end);
        awaited.pass(Who::Guest).await;
        awaited.stay();
    }
}

/// Replaces the timers of `wasi:clocks/monotonic-clock`, for guests whose world is staged.
pub(crate) fn stage_timers(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clocks = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    clocks.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, Host>, (when,): (u64,)| {
        let host = store.data_mut();
        Ok((match host.clock() {
            Some(clock) => timer(host, clock, when)?,
            None => host.clocks().subscribe_instant(when)?,
        },))
    })?;
    clocks.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, Host>, (duration,): (u64,)| {
        let host = store.data_mut();
        Ok((match host.clock() {
            Some(clock) => {
                let end = clock.0.now().saturating_add(duration);
                timer(host, clock, end)?
            }
            None => host.clocks().subscribe_duration(duration)?,
        },))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn timer(host: &mut Host, clock: Clock, end: u64) -> wasmtime::Result<Resource<DynPollable>> {
    let timer = host.table().push(Timer { clock, end })?;
    subscribe(host.table(), timer)
}
