//! A guest's world that is the same each time: its clocks, its randomness, and sleeps that take no time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{SeedableRng, TryRng};
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, async_trait};

use crate::simulation::virtual_time::{Clock, far_from_now};
use crate::sync::lock;

/// What an app's guests find, each exchange anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulation {
    /// Since the epoch of POSIX.
    pub now: Duration,
    /// Of all that is random.
    pub seed: u64,
}

/// The world as one instance finds it.
pub(crate) struct SimulatedWorld {
    world: Simulation,
    present: Present,
    random: Seeded,
    insecure: Seeded,
}

impl Simulation {
    pub(crate) fn simulate(self, wasi: &mut WasiCtxBuilder) -> SimulatedWorld {
        let stage = SimulatedWorld {
            world: self,
            present: Present(Arc::new(Mutex::new(Clock::new(0)))),
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

impl SimulatedWorld {
    /// The time of the present exchange.
    pub(crate) fn clock(&self) -> Clock {
        self.present.clock()
    }

    pub(crate) fn timer_at(&self, end: u64) -> Timer {
        let left = end.saturating_sub(self.clock().now());
        Timer { present: self.present.clone(), end, due: far_from_now(Duration::from_nanos(left)) }
    }

    /// The next exchange finds the world as the first has. Only the monotonic clock does not go back.
    pub(crate) fn reset(&self) {
        let began = self.present.clock().now();
        *lock(&self.present.0) = Clock::new(began);
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
#[derive(Clone)]
struct Present(Arc<Mutex<Clock>>);

impl Present {
    fn clock(&self) -> Clock {
        lock(&self.0).clone()
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
        self.now.saturating_add(self.present.clock().elapsed())
    }
}

struct Monotonic(Present);

impl HostMonotonicClock for Monotonic {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        self.0.clock().now()
    }
}

/// One timer of a guest's. It may outlive the exchange that it was made in.
pub(crate) struct Timer {
    present: Present,
    end: u64,
    /// When it is over by the machine's time.
    due: Instant,
}

#[async_trait]
impl Pollable for Timer {
    async fn ready(&mut self) {
        self.present.clock().until(self.end, self.due).await;
    }
}
