//! A guest's world that is the same each time: its clocks, its randomness, and sleeps that take no time.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{SeedableRng, TryRng};
use wasmtime_wasi::p2::Pollable;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock, WasiCtxBuilder, async_trait};

use crate::simulation::turns::Clocks;
use crate::simulation::virtual_time::Clock;
use crate::sync::lock;

/// What an app's guests find, each exchange anew.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulation {
    /// Since the epoch of POSIX.
    pub now: Duration,
    /// Of all that is random.
    pub seed: u64,
}

/// Where the exchanges of one instance begin.
#[derive(Clone)]
pub(crate) struct Stage {
    world: Simulation,
    clocks: Arc<Clocks>,
}

/// What one exchange finds: a time and randomness of its own.
#[derive(Clone)]
pub(crate) struct Scene {
    clock: Clock,
    random: Seeded,
    insecure: Seeded,
}

impl Stage {
    /// One more exchange finds the world as the first has. Only the monotonic clock does not go back.
    pub(crate) fn begin(&self) -> Scene {
        let clock = Clock::new(self.clocks.latest());
        self.clocks.add(&clock);
        Scene { clock, random: Seeded::new(self.world.seed), insecure: Seeded::new(!self.world.seed) }
    }

    /// The instance is as it was when it began, and remembers no time.
    pub(crate) fn restart(&self) {
        self.clocks.restart();
    }

    /// What runs the guests of the instance, by whose turns the time of each exchange is told.
    pub(crate) fn turns<F: Future<Output = ()> + Send>(&self, run: F) -> impl Future<Output = ()> + Send + use<F> {
        self.clocks.turns(run)
    }
}

impl Scene {
    /// The time of its exchange.
    pub(crate) fn clock(&self) -> &Clock {
        &self.clock
    }
}

/// The world as one instance finds it: that of the exchange that its guest acts for.
pub(crate) struct SimulatedWorld {
    stage: Stage,
    present: Present,
}

impl Simulation {
    pub(crate) fn simulate(self, wasi: &mut WasiCtxBuilder) -> SimulatedWorld {
        let stage = Stage { world: self, clocks: Arc::default() };
        let present = Present(Arc::new(Mutex::new(stage.begin())));
        wasi.wall_clock(Wall { now: self.now, present: present.clone() })
            .monotonic_clock(Monotonic(present.clone()))
            .secure_random(Random { present: present.clone(), which: |scene| &scene.random })
            .insecure_random(Random { present: present.clone(), which: |scene| &scene.insecure })
            .insecure_random_seed(u128::from(self.seed));
        SimulatedWorld { stage, present }
    }
}

impl SimulatedWorld {
    pub(crate) fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Of the exchange that its guest acts for.
    pub(crate) fn scene(&self) -> Scene {
        lock(&self.present.0).clone()
    }

    /// Its guest acts for another one.
    pub(crate) fn lead_to(&self, scene: &Scene) {
        *lock(&self.present.0) = scene.clone();
    }

    pub(crate) fn timer_at(&self, end: u64) -> Timer {
        Timer { present: self.present.clone(), end, due: self.scene().clock.due(end) }
    }
}

/// Random bytes that can be had once more.
#[derive(Clone)]
struct Seeded(Arc<Mutex<StdRng>>);

impl Seeded {
    fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(StdRng::seed_from_u64(seed))))
    }
}

/// Those of whichever exchange an instance is about.
struct Random {
    present: Present,
    which: fn(&Scene) -> &Seeded,
}

impl Random {
    fn with<R>(&self, draw: impl FnOnce(&mut StdRng) -> R) -> R {
        let scene = lock(&self.present.0);
        draw(&mut lock(&(self.which)(&scene).0))
    }
}

impl TryRng for Random {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.with(StdRng::try_next_u32)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.with(StdRng::try_next_u64)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.with(|random| random.try_fill_bytes(bytes))
    }
}

/// What whichever exchange an instance is about finds.
#[derive(Clone)]
struct Present(Arc<Mutex<Scene>>);

impl Present {
    fn clock(&self) -> Clock {
        lock(&self.0).clock.clone()
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
