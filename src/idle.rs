//! Instances that wait for their app's next exchange: how many there may be, and for how long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinHandle};

use crate::engine::World;
use crate::instance::{Instance, Reuse};
use crate::stats::Counters;
use crate::sync::lock;

/// Those of one app, the one that has waited longest in front.
pub(crate) struct Idle {
    reuse: Reuse,
    world: &'static World,
    /// Whether instances of this app can have more than one exchange, as far as is known.
    reusable: Arc<AtomicBool>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: VecDeque<Kept>,
    closed: bool,
    /// Ends those that have waited too long; there is one while there is something to end.
    sweeper: Option<AbortHandle>,
}

struct Kept {
    instance: Instance,
    since: Instant,
    _counted: Counted,
}

/// One of the instances that wait in this process.
struct Counted(&'static Counters);

impl Counted {
    /// None if there are as many as may be: instances that wait leave room for those that run.
    fn new(world: &'static World) -> Option<Self> {
        let most = u64::from(world.slots() / 2);
        let before = world.counters.idle.fetch_add(1, Ordering::Relaxed);
        let counted = Self(&world.counters);
        (before < most).then_some(counted)
    }
}

/// All who keep instances in a process, so that one may take the place of another's.
#[derive(Default)]
pub(crate) struct Keepers(Mutex<Vec<Weak<Idle>>>);

impl Keepers {
    fn add(&self, idle: &Arc<Idle>) {
        let mut all = lock(&self.0);
        all.retain(|idle| idle.strong_count() > 0);
        all.push(Arc::downgrade(idle));
    }

    /// Ends the instance that has waited longest, whoever's it is. Returns whether there was one.
    pub fn end_oldest(&self) -> bool {
        let all: Vec<Arc<Idle>> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let oldest = all.iter().filter_map(|idle| Some((idle.oldest()?, idle))).min_by_key(|(since, _)| *since);
        oldest.is_some_and(|(_, idle)| {
            let kept = lock(&idle.state).kept.pop_front();
            kept.is_some()
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Idle {
    pub fn new(world: &'static World, reuse: Reuse, reusable: Arc<AtomicBool>) -> Arc<Self> {
        let idle = Arc::new(Self { reuse, world, reusable, state: Mutex::default() });
        world.keepers.add(&idle);
        idle
    }

    fn oldest(&self) -> Option<Instant> {
        lock(&self.state).kept.front().map(|kept| kept.since)
    }

    /// The one that has waited for the shortest time: its memory is warm, and the others may go.
    pub fn take(&self) -> Option<Instance> {
        lock(&self.state).kept.pop_back().map(|kept| kept.instance)
    }

    /// An instance that had answered before has ended without an answer: guests of some toolchains can have one exchange only.
    /// No instance of this app has another one. Returns whether that is new.
    pub fn stop_reusing(&self) -> bool {
        let is_new = self.reusable.swap(false, Ordering::Relaxed);
        drop(self.end_all());
        is_new
    }

    /// Ends those that wait, on a thread of the runtime.
    fn end_all(&self) -> Option<JoinHandle<()>> {
        let ended = std::mem::take(&mut lock(&self.state).kept);
        match self.world.runtime.handle() {
            Ok(runtime) if !ended.is_empty() => Some(runtime.spawn_blocking(move || drop(ended))),
            _ => None,
        }
    }

    /// An exchange has ended well. Keeps its instance, if that may have another.
    pub fn keep(self: &Arc<Self>, mut instance: Instance) {
        if !self.reusable.load(Ordering::Relaxed) || !instance.rest(&self.reuse) {
            return;
        }
        let mut counted = Counted::new(self.world);
        if counted.is_none() && self.world.keepers.end_oldest() {
            counted = Counted::new(self.world);
        }
        let Some(counted) = counted else { return };
        let kept = Kept { instance, since: Instant::now(), _counted: counted };
        let mut state = lock(&self.state);
        if state.closed {
            drop(state);
            drop(kept);
            return;
        }
        state.kept.push_back(kept);
        if let (Some(limit), None) = (self.reuse.idle, &state.sweeper)
            && let Ok(handle) = self.world.runtime.handle()
        {
            state.sweeper = Some(handle.spawn(sweep(Arc::downgrade(self), limit)).abort_handle());
        }
    }

    /// Ends those that wait, and keeps no more. What they hold is given back on a thread of the runtime: the more memory it is,
    /// the longer that takes, and whoever closes may be an event loop.
    pub fn close(&self) -> Option<JoinHandle<()>> {
        {
            let mut state = lock(&self.state);
            state.closed = true;
            if let Some(sweeper) = state.sweeper.take() {
                sweeper.abort();
            }
        }
        self.end_all()
    }

    /// Ends those that have waited for so long. Returns for how long the next one has still to wait, if there is one.
    fn expire(&self, limit: Duration) -> Option<Duration> {
        let (ended, next) = {
            let mut state = lock(&self.state);
            let fresh = state.kept.iter().position(|kept| kept.since.elapsed() < limit).unwrap_or(state.kept.len());
            let ended: Vec<_> = state.kept.drain(..fresh).collect();
            let next = state.kept.front().map(|kept| limit.saturating_sub(kept.since.elapsed()));
            if next.is_none() {
                state.sweeper = None;
            }
            (ended, next)
        };
        drop(ended);
        next
    }
}

async fn sweep(idle: Weak<Idle>, limit: Duration) {
    let mut pause = limit;
    loop {
        tokio::time::sleep(pause).await;
        match idle.upgrade().and_then(|idle| idle.expire(limit)) {
            Some(next) => pause = next,
            None => return,
        }
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        if self.world.generation == crate::engine::generation() {
            drop(self.close());
        } else {
            // the parent's: its slots and its tasks are not this process's to give back, and a lock that a thread of the
            // parent's held is never given back
            std::mem::forget(std::mem::take(match self.state.get_mut() {
                Ok(state) => state,
                Err(poisoned) => poisoned.into_inner(),
            }));
        }
    }
}
