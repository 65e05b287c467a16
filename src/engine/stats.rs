//! A look at the counters of this process.

use std::sync::atomic::Ordering;

use crate::telemetry::counters::Outcome;

/// A look at them.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Guests that exist.
    pub exchanges: u64,
    /// Exchanges that wait for a place.
    pub queued: u64,
    /// Outgoing requests under way.
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
    /// Bytes that the host keeps to put instances back to what they were.
    pub snapshots: u64,
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
        let Some(process) = crate::engine::existing() else {
            let outcomes = Outcome::ALL.iter().map(|(_, name)| (*name, 0)).collect();
            return Self { outcomes, ..Self::default() };
        };
        let counters = &process.counters;
        let (mut slots, mut memories, mut stacks) = (0, 0, 0);
        for engine in process.engines() {
            if let Some(metrics) = engine.pooling_allocator_metrics() {
                slots += metrics.component_instances();
                memories += metrics.memories() as u64;
                stacks += metrics.stacks() as u64;
            }
        }
        Self {
            exchanges: process.live() as u64,
            queued: counters.queued.load(Ordering::Relaxed),
            outgoing: counters.outgoing.load(Ordering::Relaxed),
            idle: counters.idle.load(Ordering::Relaxed),
            slots,
            memories,
            stacks,
            memory: u64::try_from(counters.memory.load(Ordering::Relaxed)).unwrap_or(0),
            snapshots: u64::try_from(counters.snapshots.load(Ordering::Relaxed)).unwrap_or(0),
            tasks: (process.runtime.tasks() + process.scheduler.tasks()) as u64,
            threads: (process.runtime.workers() + process.scheduler.workers() + usize::from(process.has_ticker()))
                as u64,
            outcomes: Outcome::ALL
                .iter()
                .zip(&counters.outcomes)
                .map(|((_, name), counter)| (*name, counter.load(Ordering::Relaxed)))
                .collect(),
        }
    }
}
