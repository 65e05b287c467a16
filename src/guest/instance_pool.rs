//! Instances that wait for their app's next exchange: how many there may be, and for how long.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::task::{AbortHandle, JoinHandle};

use crate::engine::ProcessState;
use crate::guest::instance::{Instance, Reuse};
use crate::process::fork::PerFork;
use crate::sync::lock;
use crate::telemetry::counters::Counters;

/// Those of one app, the one that has waited longest in front.
pub(crate) struct InstancePool {
    reuse: Reuse,
    process: &'static ProcessState,
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
    fn new(process: &'static ProcessState) -> Option<Self> {
        let most = u64::from(process.slots() / 2);
        let before = process.counters.idle.fetch_add(1, Ordering::Relaxed);
        let counted = Self(&process.counters);
        (before < most).then_some(counted)
    }
}

/// Those of this process.
fn pools() -> Arc<InstancePools> {
    static POOLS: PerFork<InstancePools> = PerFork::new();
    POOLS.get(InstancePools::default)
}

/// Ends the instance that has waited longest if there is no room for another one that runs. Gives the task that gives back what
/// it holds: to be waited for before that room is taken.
pub(crate) fn make_room(process: &ProcessState) -> Option<JoinHandle<()>> {
    let idle = process.counters.idle.load(Ordering::Relaxed);
    let is_full = idle > 0 && process.live() as u64 + idle >= u64::from(process.slots());
    if is_full { pools().end_oldest() } else { None }
}

/// All who keep instances in a process, so that one may take the place of another's.
#[derive(Default)]
struct InstancePools(Mutex<Vec<Weak<InstancePool>>>);

impl InstancePools {
    fn add(&self, idle: &Arc<InstancePool>) {
        let mut all = lock(&self.0);
        all.retain(|idle| idle.strong_count() > 0);
        all.push(Arc::downgrade(idle));
    }

    /// Ends the instance that has waited longest, whoever's it is. Gives the task that gives back what it holds, if there was one.
    fn end_oldest(&self) -> Option<JoinHandle<()>> {
        let all: Vec<Arc<InstancePool>> = lock(&self.0).iter().filter_map(Weak::upgrade).collect();
        let oldest = all.iter().filter_map(|idle| Some((idle.oldest()?, idle))).min_by_key(|(since, _)| *since);
        let (_, idle) = oldest?;
        let kept = lock(&idle.state).kept.pop_front()?;
        drop(kept._counted); // it waits no more
        give_back(idle.process, kept.instance)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Ordering::Relaxed);
    }
}

impl InstancePool {
    pub(crate) fn new(process: &'static ProcessState, reuse: Reuse, reusable: Arc<AtomicBool>) -> Arc<Self> {
        let idle = Arc::new(Self { reuse, process, reusable, state: Mutex::default() });
        pools().add(&idle);
        idle
    }

    fn oldest(&self) -> Option<Instant> {
        lock(&self.state).kept.front().map(|kept| kept.since)
    }

    /// The one that has waited for the shortest time: its memory is warm, and the others may go.
    pub(crate) fn take(&self) -> Option<Instance> {
        lock(&self.state).kept.pop_back().map(|kept| kept.instance)
    }

    /// An instance that had answered before has ended without an answer: guests of some toolchains can have one exchange only.
    /// No instance of this app has another one. Returns whether that is new.
    pub(crate) fn stop_reusing(&self) -> bool {
        let is_new = self.reusable.swap(false, Ordering::Relaxed);
        drop(self.end_all());
        is_new
    }

    /// Ends those that wait, on a thread of the runtime.
    fn end_all(&self) -> Option<JoinHandle<()>> {
        let ended = std::mem::take(&mut lock(&self.state).kept);
        if ended.is_empty() { None } else { give_back(self.process, ended) }
    }

    /// An exchange has ended well. Keeps its instance, if that may have another.
    /// Else gives it back.
    pub(crate) fn keep(self: &Arc<Self>, mut instance: Instance) -> Option<Instance> {
        if !self.reusable.load(Ordering::Relaxed) || !instance.prepare_for_reuse(&self.reuse) {
            return Some(instance);
        }
        let counted = Counted::new(self.process).or_else(|| {
            // one that has waited longest goes instead
            drop(pools().end_oldest());
            Counted::new(self.process)
        });
        let Some(counted) = counted else { return Some(instance) };
        let mut state = lock(&self.state);
        if state.closed {
            return Some(instance);
        }
        state.kept.push_back(Kept { instance, since: Instant::now(), _counted: counted });
        if let (Some(limit), None) = (self.reuse.idle, &state.sweeper)
            && let Ok(handle) = self.process.runtime.handle()
        {
            state.sweeper = Some(handle.spawn(sweep(Arc::downgrade(self), limit)).abort_handle());
        }
        None
    }

    /// Ends those that wait, and keeps no more.
    pub(crate) fn close(&self) -> Option<JoinHandle<()>> {
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
        if !ended.is_empty() {
            drop(give_back(self.process, ended));
        }
        next
    }
}

/// Drops instances on a thread of the runtime: the more memory they hold, the longer that takes (0.2 to 2 ms for a guest that brings
/// its interpreter along), and whoever is done with them may be an event loop, or a thread of low priority.
pub(crate) fn give_back(process: &ProcessState, ended: impl Send + 'static) -> Option<JoinHandle<()>> {
    process.runtime.block(move || drop(ended))
}

async fn sweep(idle: Weak<InstancePool>, limit: Duration) {
    let mut pause = limit;
    loop {
        tokio::time::sleep(pause).await;
        match idle.upgrade().and_then(|idle| idle.expire(limit)) {
            Some(next) => pause = next,
            None => return,
        }
    }
}

impl Drop for InstancePool {
    fn drop(&mut self) {
        if self.process.generation == crate::process::fork::generation() {
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::MutexGuard;

    use super::*;
    use crate::component::Component;
    use crate::component::limits::ComponentLimits;
    use crate::component::loading::Order;
    use crate::component::variant::Variant;
    use crate::engine::process_state;
    use crate::exchange::handle::{ExchangeHandle, ExchangeState};
    use crate::guest::app_share::AppShare;
    use crate::guest::grants::Grants;
    use crate::http::message::empty;
    use crate::limits::Limits;
    use crate::outgoing::hooks::Hooks;
    use crate::outgoing::upstream::Upstreams;

    const ALWAYS: Reuse = Reuse { requests: None, concurrent: 1, idle: None, isolated: false, ready: 0 };

    /// One test at a time, when nothing is left of the one before: what waits in a process is the process's, until it is given back.
    fn alone() -> (MutexGuard<'static, ()>, &'static ProcessState) {
        static ALONE: Mutex<()> = Mutex::new(());
        let (alone, process) = (lock(&ALONE), process_state().unwrap());
        while process.counters.idle.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
        (alone, process)
    }

    fn pool(process: &'static ProcessState, reuse: Reuse) -> Arc<InstancePool> {
        InstancePool::new(process, reuse, Arc::new(AtomicBool::new(true)))
    }

    /// An instance of a component, and the exchange that is to be its first.
    fn of_guest(process: &'static ProcessState, name: &str, upstreams: Upstreams) -> (Instance, Arc<ExchangeState>) {
        let order = Order::new(Variant::PLAIN, ComponentLimits::NONE, None);
        let binary = std::fs::read(format!("tests/guests/components/{name}.wasm")).unwrap();
        let prepared = Component::new(&binary, &order).unwrap().prepared(process, Variant::PLAIN).unwrap();
        let exchange = ExchangeState::new(process, 1, None);
        let hooks = Hooks::new(upstreams, ExchangeHandle::observer(&exchange), &Limits::NONE);
        let share = AppShare::new(&[]);
        let instance = Instance::new(prepared, &Grants::default(), &Limits::NONE, hooks, &exchange, &share).unwrap();
        (instance, exchange)
    }

    /// An instance that has had one exchange.
    fn served(process: &'static ProcessState) -> Instance {
        let (mut instance, _exchange) = of_guest(process, "hello", Upstreams::default());
        let request = http::Request::get("http://a.test/").body(empty()).unwrap();
        let (sender, answers) = std::sync::mpsc::channel();
        let call = instance.call(request, move |answer| drop(sender.send(answer))).unwrap();
        let _context = process.runtime.handle().unwrap().enter();
        block_on(instance.handle(call)).unwrap();
        assert!(answers.recv().unwrap().is_ok());
        instance
    }

    /// Panics where wasmtime polls a store.
    struct Panics;

    impl crate::outgoing::upstream::Upstream for Panics {
        fn send(
            &self,
            _: http::Request<crate::exchange::guest_body::GuestBody>,
            _: crate::outgoing::upstream::Timeouts,
            _: &Arc<crate::exchange::stdio::Stdio>,
        ) -> crate::outgoing::upstream::Answer {
            Box::pin(async {
                tokio::task::yield_now().await;
                #[allow(clippy::panic)]
                {
                    panic!("as asked")
                }
            })
        }
    }

    #[test]
    fn a_store_of_wasi_0_3_that_something_panicked_in_is_left_as_it_stands() {
        let (_alone, process) = alone();
        let upstreams = Upstreams { outgoing: Some(Arc::new(Panics)), handler: None };
        let slots = process.slots();
        let mut instance = of_guest(process, "probe_p3", upstreams);
        let request = http::Request::get("http://a.test/fetch?url=http://b.test/").body(empty()).unwrap();
        let call = instance.0.call(request, drop).unwrap();
        let _context = process.runtime.handle().unwrap().enter();
        let failed = block_on(instance.0.handle(call));
        let outcome = instance.0.outcome(failed, &instance.1);
        assert_eq!(outcome.unwrap_err().to_string(), "the host failed while the guest ran");
        assert!(!instance.0.prepare_for_reuse(&ALWAYS));
        assert_eq!(process.slots(), slots);
        drop(instance);
        assert_eq!(process.slots(), slots - 1, "it is not given back");
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn kept(pool: &InstancePool) -> usize {
        lock(&pool.state).kept.len()
    }

    fn waits_since(pool: &InstancePool, ago: Duration) {
        let mut state = lock(&pool.state);
        let kept = state.kept.back_mut().unwrap();
        kept.since = kept.since.checked_sub(ago).unwrap();
    }

    /// Fills up what may wait in the process, but for so many.
    fn fill(process: &'static ProcessState, most: u32) -> Vec<Counted> {
        let mut counted = Vec::new();
        while process.counters.idle.load(Ordering::Relaxed) < u64::from(most) {
            process.counters.idle.fetch_add(1, Ordering::Relaxed);
            counted.push(Counted(&process.counters));
        }
        counted
    }

    #[test]
    fn the_one_that_came_last_is_taken_first() {
        let (_alone, process) = alone();
        let pool = pool(process, ALWAYS);
        assert!(pool.take().is_none());
        assert!(pool.keep(served(process)).is_none());
        let first = pool.oldest();
        assert!(pool.keep(served(process)).is_none());
        assert_eq!(process.counters.idle.load(Ordering::Relaxed), 2);
        assert!(pool.take().is_some());
        assert!(first.is_some() && pool.oldest() == first);
        assert!(pool.take().is_some() && pool.take().is_none());
        assert_eq!(process.counters.idle.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn one_that_has_had_all_its_exchanges_is_not_kept() {
        let (_alone, process) = alone();
        let once = pool(process, Reuse { requests: Some(1), concurrent: 1, idle: None, isolated: false, ready: 0 });
        assert!(once.keep(served(process)).is_some());
        let twice = pool(process, Reuse { requests: Some(2), concurrent: 1, idle: None, isolated: false, ready: 0 });
        assert!(twice.keep(served(process)).is_none());
    }

    #[test]
    fn an_app_whose_guests_answer_once_keeps_none_of_them() {
        let (_alone, process) = alone();
        let pool = pool(process, ALWAYS);
        assert!(pool.keep(served(process)).is_none());
        assert!(pool.stop_reusing(), "that is new");
        assert!(!pool.stop_reusing());
        assert_eq!(kept(&pool), 0);
        assert!(pool.keep(served(process)).is_some());
    }

    #[test]
    fn one_that_has_closed_keeps_none() {
        let (_alone, process) = alone();
        let pool = pool(
            process,
            Reuse { requests: None, concurrent: 1, idle: Some(Duration::from_secs(3600)), isolated: false, ready: 0 },
        );
        assert!(pool.close().is_none(), "there is nothing to give back");
        lock(&pool.state).closed = false;
        assert!(pool.keep(served(process)).is_none());
        assert!(lock(&pool.state).sweeper.is_some());
        block_on(pool.close().unwrap()).unwrap();
        assert_eq!(process.counters.idle.load(Ordering::Relaxed), 0);
        assert!(lock(&pool.state).sweeper.is_none());
        assert!(pool.keep(served(process)).is_some());
    }

    #[test]
    fn those_that_have_waited_for_too_long_are_ended() {
        let (_alone, process) = alone();
        let limit = Duration::from_secs(3600);
        let pool = pool(process, Reuse { requests: None, concurrent: 1, idle: Some(limit), isolated: false, ready: 0 });
        for ago in [2, 1, 0] {
            assert!(pool.keep(served(process)).is_none());
            waits_since(&pool, limit * ago / 2);
        }
        let next = pool.expire(limit).unwrap();
        assert_eq!(kept(&pool), 2);
        assert!(next <= limit / 2 && next > limit / 4, "{next:?}");
        assert!(lock(&pool.state).sweeper.is_some());
        block_on(sweep(Arc::downgrade(&pool), Duration::ZERO));
        assert_eq!(kept(&pool), 0);
        assert!(lock(&pool.state).sweeper.is_none(), "the next one that is kept begins another");
    }

    #[test]
    fn those_that_wait_leave_half_of_the_slots_to_those_that_run() {
        let (_alone, process) = alone();
        let (one, other) = (pool(process, ALWAYS), pool(process, ALWAYS));
        let mut counted = fill(process, process.slots() / 2 - 1);
        assert!(one.keep(served(process)).is_none());
        assert!(other.keep(served(process)).is_none(), "the one that has waited longest goes instead");
        assert_eq!((kept(&one), kept(&other)), (0, 1));
        assert!(other.take().is_some());
        counted.extend(fill(process, process.slots() / 2));
        assert!(other.keep(served(process)).is_some(), "there is none to go instead");
    }

    #[test]
    fn the_one_that_has_waited_longest_makes_room_for_one_that_runs() {
        let (_alone, process) = alone();
        let (one, other) = (pool(process, ALWAYS), pool(process, ALWAYS));
        assert!(make_room(process).is_none(), "none waits");
        assert!(one.keep(served(process)).is_none());
        assert!(other.keep(served(process)).is_none());
        waits_since(&other, Duration::from_secs(9));
        assert!(make_room(process).is_none(), "there is room");
        let running = process.live() as u32;
        let _counted = fill(process, process.slots().saturating_sub(running));
        block_on(make_room(process).unwrap()).unwrap();
        assert_eq!((kept(&one), kept(&other)), (1, 0));
    }

    #[test]
    fn pools_that_are_gone_are_forgotten() {
        let (_alone, process) = alone();
        let all = InstancePools::default();
        for _ in 0..3 {
            all.add(&pool(process, ALWAYS));
        }
        let last = pool(process, ALWAYS);
        all.add(&last);
        assert_eq!(lock(&all.0).len(), 1);
        assert!(all.end_oldest().is_none());
    }
}
