//! Which app has the next turn on one kind of threads: the one that has had least.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lane::{Key, Kind, Lane};
use super::task::Task;
use super::turn::TICK;

/// What a turn is charged with before it is known what it took, so that threads that choose at the same time choose differently.
const ESTIMATE: u64 = TICK.as_nanos() as u64;

/// Guests that wait for a turn on one kind of threads.
pub(super) struct Queue {
    kind: Kind,
    lanes: BTreeMap<Key, (Arc<Lane>, VecDeque<Arc<Task>>)>,
    /// Those that were stopped: they only go away, and come first.
    stopped: VecDeque<Arc<Task>>,
    /// What the app that was last chosen has had: one that comes back after a while has no claim on the time that it was away.
    floor: u64,
    pub sleeping: usize,
    pub closed: bool,
}

impl Queue {
    pub(super) fn new(kind: Kind) -> Self {
        Self { kind, lanes: BTreeMap::new(), stopped: VecDeque::new(), floor: 0, sleeping: 0, closed: false }
    }

    pub(super) fn push(&mut self, task: Arc<Task>) {
        let lane = &task.lane;
        if let Some((_, tasks)) = self.lanes.get_mut(&lane.key(self.kind)) {
            tasks.push_back(task);
            return;
        }
        let lane = lane.clone();
        lane.of(self.kind).spent.fetch_max(self.floor, Ordering::Relaxed);
        self.lanes.insert(lane.key(self.kind), (lane, VecDeque::from([task])));
    }

    pub(super) fn push_stopped(&mut self, task: Arc<Task>) {
        self.stopped.push_back(task);
    }

    /// The next one: of the app that has had least, the exchange that has waited longest.
    pub(super) fn pop(&mut self) -> Option<Arc<Task>> {
        if let Some(task) = self.stopped.pop_front() {
            self.change(&task.lane, |spent| spent.saturating_add(ESTIMATE));
            return Some(task);
        }
        let kind = self.kind;
        let (&key, _) = self.lanes.iter().find(|(_, (lane, _))| lane.of(kind).stuck.load(Ordering::Relaxed) == 0)?;
        let (lane, mut tasks) = self.lanes.remove(&key)?;
        let task = tasks.pop_front();
        self.floor = self.floor.max(key.0);
        lane.of(kind).spent.fetch_add(ESTIMATE, Ordering::Relaxed);
        if !tasks.is_empty() {
            self.lanes.insert(lane.key(kind), (lane, tasks));
        }
        task
    }

    /// What a turn has taken, in place of the estimate.
    pub(super) fn charge(&mut self, lane: &Arc<Lane>, took: Duration) {
        let took = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.change(lane, |spent| spent.saturating_sub(ESTIMATE).saturating_add(took));
    }

    /// Its place among the lanes that wait follows.
    fn change(&mut self, lane: &Arc<Lane>, change: impl FnOnce(u64) -> u64) {
        let waiting = self.lanes.remove(&lane.key(self.kind));
        let spent = &lane.of(self.kind).spent;
        spent.store(change(spent.load(Ordering::Relaxed)), Ordering::Relaxed);
        if let Some(waiting) = waiting {
            self.lanes.insert(lane.key(self.kind), waiting);
        }
    }

    pub(super) fn clear(&mut self) {
        self.lanes.clear();
        self.stopped.clear();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn task(lane: &Arc<Lane>, number: u64) -> Arc<Task> {
        Task::waiting(lane, number)
    }

    /// The lanes of the next turns, each of which takes so long, and whose guests go on.
    fn turns(queue: &mut Queue, count: usize, took: impl Fn(&Arc<Lane>) -> Duration) -> Vec<Arc<Lane>> {
        let turn = |_| {
            let task = queue.pop().unwrap();
            queue.charge(&task.lane, took(&task.lane));
            let lane = task.lane.clone();
            queue.push(task);
            lane
        };
        (0..count).map(turn).collect()
    }

    fn share(turns: &[Arc<Lane>], lane: &Arc<Lane>) -> usize {
        turns.iter().filter(|turn| Arc::ptr_eq(turn, lane)).count()
    }

    #[test]
    fn an_app_of_many_exchanges_gets_what_an_app_of_one_gets() {
        let (many, one) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        let mut queue = Queue::new(Kind::Computing);
        (0..64).for_each(|number| queue.push(task(&many, number)));
        queue.push(task(&one, 64));
        let turns = turns(&mut queue, 1000, |_| TICK);
        assert_eq!(share(&turns, &one), 500);
    }

    #[test]
    fn shares_are_of_time_and_not_of_turns() {
        let (slow, quick) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        let mut queue = Queue::new(Kind::Computing);
        queue.push(task(&slow, 0));
        queue.push(task(&quick, 1));
        let took = |lane: &Arc<Lane>| if Arc::ptr_eq(lane, &slow) { TICK * 70 } else { TICK };
        let turns = turns(&mut queue, 710, took);
        assert_eq!(share(&turns, &slow), 10);
    }

    #[test]
    fn exchanges_of_an_app_take_turns() {
        let lane = Arc::<Lane>::default();
        let mut queue = Queue::new(Kind::Prompt);
        (0..3).for_each(|number| queue.push(task(&lane, number)));
        let mut order = Vec::new();
        for _ in 0..6 {
            let task = queue.pop().unwrap();
            order.push(task.number);
            queue.push(task);
        }
        assert_eq!(order, [0, 1, 2, 0, 1, 2]);
    }

    #[test]
    fn an_app_that_was_away_has_no_claim_on_that_time() {
        let (busy, back) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        let mut queue = Queue::new(Kind::Computing);
        queue.push(task(&busy, 0));
        turns(&mut queue, 1000, |_| TICK);
        queue.push(task(&back, 1));
        let turns = turns(&mut queue, 100, |_| TICK);
        assert!((49..=51).contains(&share(&turns, &back)));
    }

    #[test]
    fn an_app_with_a_turn_that_is_stuck_gets_no_other() {
        let (stuck, other) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        let mut queue = Queue::new(Kind::Computing);
        queue.push(task(&stuck, 0));
        queue.push(task(&other, 1));
        stuck.of(Kind::Computing).stuck.store(1, Ordering::Relaxed);
        assert_eq!(share(&turns(&mut queue, 10, |_| TICK), &other), 10);
        drop(queue.lanes.remove(&other.key(Kind::Computing)));
        assert!(queue.pop().is_none());
        stuck.of(Kind::Computing).stuck.store(0, Ordering::Relaxed);
        assert!(queue.pop().is_some());
    }

    #[test]
    fn those_that_were_stopped_come_first() {
        let (lane, other) = (Arc::<Lane>::default(), Arc::<Lane>::default());
        let mut queue = Queue::new(Kind::Prompt);
        queue.push(task(&lane, 0));
        queue.push_stopped(task(&other, 1));
        assert_eq!(queue.pop().unwrap().number, 1);
        assert_eq!(other.of(Kind::Prompt).spent.load(Ordering::Relaxed), ESTIMATE, "its turn is charged as any other");
        assert_eq!(queue.pop().unwrap().number, 0);
    }

    #[test]
    fn nothing_is_left_of_a_queue_that_was_cleared() {
        let lane = Arc::<Lane>::default();
        let mut queue = Queue::new(Kind::Prompt);
        for clears in [false, true] {
            queue.push(task(&lane, 0));
            queue.push_stopped(task(&lane, 1));
            if clears {
                queue.clear();
            }
            assert_eq!(queue.pop().is_some(), !clears);
            assert_eq!(queue.pop().is_some(), !clears);
        }
    }
}
