//! What there is and what there was: counters of one process, for whoever wants to see that nothing is left over.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::error::Error;

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest returned.
    Returned,
    Trapped,
    Exited,
    TimedOut,
    /// It ran into one of its limits.
    Limited,
    /// Its caller gave it up, or its app was closed.
    Stopped,
    /// A fault of the host's own, or no place for its instance.
    Failed,
}

impl Outcome {
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::Returned, "returned"),
        (Self::Trapped, "trapped"),
        (Self::Exited, "exited"),
        (Self::TimedOut, "timed_out"),
        (Self::Limited, "limited"),
        (Self::Stopped, "stopped"),
        (Self::Failed, "failed"),
    ];

    pub fn of(fate: &Result<(), Error>) -> Self {
        match fate {
            Ok(()) => Self::Returned,
            Err(Error::Trap(_)) => Self::Trapped,
            Err(Error::GuestExit { .. }) => Self::Exited,
            Err(Error::Timeout { .. }) => Self::TimedOut,
            Err(Error::Limit { .. } | Error::Limited { .. }) => Self::Limited,
            Err(Error::Cancelled | Error::Closed | Error::Caller(_)) => Self::Stopped,
            Err(_) => Self::Failed,
        }
    }
}

/// The counters of one world.
#[derive(Default)]
pub struct Counters {
    outcomes: [AtomicU64; Outcome::ALL.len()],
    /// Bytes of linear memory that guests hold.
    memory: AtomicI64,
    /// Exchanges that wait for a place.
    pub(crate) queued: AtomicU64,
    /// Requests of guests that wait for their answer.
    pub(crate) outgoing: AtomicU64,
    /// Instances that wait for their next exchange.
    pub(crate) idle: AtomicU64,
}

impl Counters {
    pub(crate) fn ended(&self, outcome: Outcome) {
        for ((known, _), counter) in Outcome::ALL.iter().zip(&self.outcomes) {
            if *known == outcome {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    pub(crate) fn memory_grew(&self, bytes: i64) {
        self.memory.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A look at them.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Guests that exist.
    pub exchanges: u64,
    pub queued: u64,
    pub outgoing: u64,
    /// Instances that wait for their next exchange.
    pub idle: u64,
    /// Component instances in the pools.
    pub slots: u64,
    /// Linear memories in the pools.
    pub memories: u64,
    /// Call stacks in the pools.
    pub stacks: u64,
    /// Bytes of linear memory.
    pub memory: u64,
    /// Tasks of the runtime, and guests that do not run on their caller's thread.
    pub tasks: u64,
    /// Threads of the core: the runtime's workers, those that give guests their turns, and the epoch ticker.
    pub threads: u64,
    /// How exchanges ended, since the process began (or was forked).
    pub outcomes: Vec<(&'static str, u64)>,
}

impl Stats {
    /// What there is now; nothing where nothing has been used.
    pub fn read() -> Self {
        let Some(world) = crate::engine::existing() else {
            let outcomes = Outcome::ALL.iter().map(|(_, name)| (*name, 0)).collect();
            return Self { outcomes, ..Self::default() };
        };
        let counters = &world.counters;
        let (mut slots, mut memories, mut stacks) = (0, 0, 0);
        for engine in world.engines() {
            if let Some(metrics) = engine.pooling_allocator_metrics() {
                slots += metrics.component_instances();
                memories += metrics.memories() as u64;
                stacks += metrics.stacks() as u64;
            }
        }
        Self {
            exchanges: world.live() as u64,
            queued: counters.queued.load(Ordering::Relaxed),
            outgoing: counters.outgoing.load(Ordering::Relaxed),
            idle: counters.idle.load(Ordering::Relaxed),
            slots,
            memories,
            stacks,
            memory: u64::try_from(counters.memory.load(Ordering::Relaxed)).unwrap_or(0),
            tasks: (world.runtime.tasks() + world.scheduler.tasks()) as u64,
            threads: (world.runtime.workers() + world.scheduler.workers() + usize::from(world.has_ticker())) as u64,
            outcomes: Outcome::ALL
                .iter()
                .zip(&counters.outcomes)
                .map(|((_, name), counter)| (*name, counter.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}
