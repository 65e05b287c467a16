//! A guest's world that is the same each time: its clocks, its randomness, and sleeps that take no time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::{DynPollable, Pollable, subscribe};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, async_trait};

use crate::host::Host;
use crate::sync::lock;

/// What an app's guests find, each of them anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct World {
    /// Since the epoch of POSIX.
    pub now: Duration,
    pub seed: u64,
}

impl World {
    /// The clock of one guest. `under_way` counts its outgoing requests.
    pub(crate) fn stage(self, wasi: &mut WasiCtxBuilder, under_way: Arc<AtomicU64>) -> Clock {
        let time = Arc::new(Time::default());
        wasi.wall_clock(Wall { now: self.now, time: time.clone() })
            .monotonic_clock(Monotonic(time.clone()))
            .secure_random(StdRng::seed_from_u64(self.seed))
            .insecure_random(StdRng::seed_from_u64(!self.seed))
            .insecure_random_seed(u128::from(self.seed));
        Clock { time, under_way }
    }
}

/// A guest's time: it passes only while the guest sleeps.
#[derive(Default)]
struct Time {
    /// Nanoseconds since the guest began.
    passed: AtomicU64,
    /// When those that are waited for end.
    ends: Mutex<Vec<u64>>,
}

impl Time {
    fn now(&self) -> u64 {
        self.passed.load(Ordering::Acquire)
    }
}

struct Wall {
    now: Duration,
    time: Arc<Time>,
}

impl HostWallClock for Wall {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        self.now.saturating_add(Duration::from_nanos(self.time.now()))
    }
}

struct Monotonic(Arc<Time>);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.0.now()
    }
}

/// What makes a guest's timers.
#[derive(Clone)]
pub(crate) struct Clock {
    time: Arc<Time>,
    under_way: Arc<AtomicU64>,
}

/// One timer of a guest's.
struct Timer {
    clock: Clock,
    end: u64,
}

/// In the list of what is waited for, for as long as it is.
struct Awaited<'a>(&'a Timer);

impl<'a> Awaited<'a> {
    fn new(timer: &'a Timer) -> Self {
        let now = timer.clock.time.now();
        let mut ends = lock(&timer.clock.time.ends);
        ends.retain(|end| *end > now);
        ends.push(timer.end);
        Self(timer)
    }

    /// It is over. It stays in the list until the guest waits again, so that none of those that are waited for with it is the
    /// first as well.
    fn stay(self) {
        std::mem::forget(self);
    }

    fn is_first(&self) -> bool {
        lock(&self.0.clock.time.ends).iter().all(|end| *end >= self.0.end)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut ends = lock(&self.0.clock.time.ends);
        if let Some(place) = ends.iter().position(|end| *end == self.0.end) {
            ends.swap_remove(place);
        }
    }
}

/// How often a timer looks whether the requests are done that it stands behind.
const LOOK: Duration = Duration::from_millis(1);

#[async_trait]
impl Pollable for Timer {
    /// At once if the guest waits for nothing but timers, the first of them first. While a request of its own is under way, a
    /// timer takes its time, so that a guest's patience with others ends no sooner than it would.
    async fn ready(&mut self) {
        let time = &self.clock.time;
        let awaited = Awaited::new(self);
        // all that are waited for together are in the list then
        tokio::task::yield_now().await;
        let mut left = Duration::from_nanos(self.end.saturating_sub(time.now()));
        while time.now() < self.end && !left.is_zero() {
            if self.clock.under_way.load(Ordering::Acquire) == 0 && awaited.is_first() {
                break;
            }
            let pause = LOOK.min(left);
            tokio::time::sleep(pause).await;
            left -= pause;
        }
        time.passed.fetch_max(self.end, Ordering::AcqRel);
        awaited.stay();
    }
}

/// Replaces the timers of `wasi:clocks/monotonic-clock`, for guests whose world is staged.
pub(crate) fn stage_timers(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clocks = linker.instance("wasi:clocks/monotonic-clock@0.2.12")?;
    clocks.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, Host>, (when,): (u64,)| {
        let host = store.data_mut();
        Ok((match host.staged() {
            Some(clock) => timer(host, clock, when)?,
            None => host.clocks().subscribe_instant(when)?,
        },))
    })?;
    clocks.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, Host>, (duration,): (u64,)| {
        let host = store.data_mut();
        Ok((match host.staged() {
            Some(clock) => {
                let end = clock.time.now().saturating_add(duration);
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
