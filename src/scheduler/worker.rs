//! A thread that gives turns, as the ticker sees it.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lane::{Kind, Lane};
use super::turn::{LONG_TURN, TICK, excuse_turn, is_excused, is_turn_over, tick};
use crate::scheduler::thread_priority::{self, ThreadTime};
use crate::sync::lock;

/// From this tick of its turn on a guest that runs has ended it, unless it is in one long operation.
const OVERDUE_TICKS: u64 = 2;

/// After so many ticks it is looked at whether a thread is stuck.
const STUCK_TICKS: u64 = 10;

/// What a turn took.
pub(super) struct Took {
    /// CPU time.
    pub time: Duration,
    /// It was one long operation, which no tick ends.
    pub was_unruly: bool,
    /// Another thread has taken this one's place.
    pub was_stuck: bool,
}

pub(super) struct Worker {
    pub kind: Kind,
    pub thread: thread_priority::Thread,
    /// The tick in which its turn began, or 1; 0 between turns.
    pub since: AtomicU64,
    pub turn: Mutex<Option<Turn>>,
    /// What it does in its turn just now is the host's own.
    is_hosts: AtomicBool,
}

pub(super) struct Turn {
    pub lane: Arc<Lane>,
    /// Of the thread, when the turn began.
    began: ThreadTime,
    /// Likewise, when the ticker first saw that its guest should have ended it.
    overdue: Option<ThreadTime>,
    /// Another thread has taken its place.
    pub is_stuck: bool,
}

thread_local! {
    /// Who gives the turns of this thread, if it is one of the scheduler's.
    static OWN: OnceCell<Arc<Worker>> = const { OnceCell::new() };
}

/// Does what the host has to do in the present turn, and not its guest: no thread is taken for stuck in it, and unless the guest has had
/// too much already, the turn is excused. For work that is bounded.
pub(crate) fn for_host<T>(work: impl FnOnce() -> T) -> T {
    let was_over = is_turn_over();
    let own = OWN.with(|own| own.get().cloned());
    if let Some(worker) = &own {
        worker.is_hosts.store(true, Ordering::SeqCst);
    }
    let done = work();
    if !was_over {
        excuse_turn();
    }
    if let Some(worker) = &own {
        worker.goes_on(was_over);
    }
    done
}

impl Worker {
    /// This is its thread from now on.
    pub(super) fn is_here(self: &Arc<Self>) {
        self.thread.is_here();
        OWN.with(|own| drop(own.set(self.clone())));
    }

    /// What the host did in its turn is done.
    fn goes_on(&self, was_over: bool) {
        if let (Some(turn), false) = (&mut *lock(&self.turn), was_over) {
            turn.overdue = None;
        }
        self.since.store(tick().max(1), Ordering::SeqCst);
        self.is_hosts.store(false, Ordering::SeqCst);
    }

    pub(super) fn new(kind: Kind) -> Arc<Self> {
        let (thread, since, turn) = (thread_priority::Thread::default(), AtomicU64::new(0), Mutex::new(None));
        Arc::new(Self { kind, thread, since, turn, is_hosts: AtomicBool::new(false) })
    }

    pub(super) fn begin(&self, lane: &Arc<Lane>) {
        *lock(&self.turn) = Some(Turn { lane: lane.clone(), began: ThreadTime::now(), overdue: None, is_stuck: false });
        self.since.store(tick().max(1), Ordering::SeqCst);
    }

    /// What the turn took. Where ticks were late, or the thread had no processor when they came, its guest has ended it as soon as it could.
    pub(super) fn end(&self) -> Took {
        self.since.store(0, Ordering::SeqCst);
        let Some(turn) = lock(&self.turn).take() else {
            return Took { time: Duration::ZERO, was_unruly: false, was_stuck: false };
        };
        let now = ThreadTime::now();
        let time = now.since(turn.began);
        let overran = turn.overdue.is_some_and(|overdue| now.since(overdue) > TICK);
        Took { time, was_unruly: time > LONG_TURN && overran && !is_excused(), was_stuck: turn.is_stuck }
    }

    /// Whether its turn began so many ticks ago.
    fn has_had(&self, ticks: u64, now: u64) -> bool {
        let since = self.since.load(Ordering::Relaxed);
        since > 0 && now.saturating_sub(since) >= ticks
    }

    /// Whether its turn should have ended.
    pub(super) fn is_overdue(&self, now: u64) -> bool {
        !self.is_hosts.load(Ordering::SeqCst) && self.has_had(OVERDUE_TICKS, now)
    }

    /// Its turn, if that should have ended and it has computed since, by its own clock: it may only have waited for a processor, and ticks may
    /// have been late. To be asked at each tick in which it is overdue.
    pub(super) fn stuck<'a>(&self, turn: &'a mut Option<Turn>, now: u64) -> Option<&'a mut Turn> {
        // once more: it may have another one by now
        let turn = turn.as_mut().filter(|turn| !turn.is_stuck && self.is_overdue(now))?;
        let Some(overdue) = turn.overdue else {
            turn.overdue = Some(self.thread.time());
            return None;
        };
        (self.has_had(STUCK_TICKS, now) && self.thread.time().since(overdue) > LONG_TURN).then_some(turn)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Computes for so long, and stays on this thread.
    fn compute(time: Duration) {
        let begun = ThreadTime::now();
        while ThreadTime::now().since(begun) < time {
            std::hint::spin_loop();
        }
    }

    /// Of this thread, in a turn; and the tick in which that began.
    fn in_a_turn() -> (Arc<Worker>, u64) {
        let worker = Worker::new(Kind::Computing);
        worker.is_here();
        crate::scheduler::begin_turn();
        worker.begin(&Arc::default());
        let began = worker.since.load(Ordering::Relaxed);
        (worker, began)
    }

    fn is_stuck(worker: &Worker, now: u64) -> bool {
        worker.is_overdue(now) && worker.stuck(&mut lock(&worker.turn), now).is_some()
    }

    const LONG: Duration = Duration::from_millis(4);

    /// On a thread of its own: a thread has one worker.
    fn apart(work: impl FnOnce() + Send + 'static) {
        assert!(std::thread::spawn(work).join().is_ok());
    }

    #[test]
    fn a_thread_is_not_stuck_in_what_the_host_does() {
        apart(|| {
            let (worker, began) = in_a_turn();
            for_host(|| {
                assert!(!worker.is_overdue(began + STUCK_TICKS), "the ticker passes it over");
                compute(LONG);
            });
            assert!(!is_stuck(&worker, worker.since.load(Ordering::Relaxed)));
            assert!(!worker.end().was_unruly);
        });
    }

    #[test]
    fn what_its_guest_did_before_counts() {
        apart(|| {
            let (worker, began) = in_a_turn();
            let _ticking = crate::engine::process_state().unwrap().tick().unwrap();
            assert!(!is_stuck(&worker, began + OVERDUE_TICKS));
            while !is_turn_over() {
                compute(LONG);
            }
            for_host(|| {});
            assert!(worker.end().was_unruly);
        });
    }

    #[test]
    fn a_guest_that_computed_while_ticks_were_late_is_not_stuck() {
        let (worker, began) = in_a_turn();
        compute(LONG);
        // they all come now, and this thread has no processor meanwhile
        for tick in 1..100 {
            assert!(!is_stuck(&worker, began + tick));
        }
        let took = worker.end();
        assert!(took.time >= LONG && !took.was_unruly && !took.was_stuck);
    }

    #[test]
    fn one_that_goes_on_when_its_turn_is_over_is() {
        let (worker, began) = in_a_turn();
        assert!(!is_stuck(&worker, began + OVERDUE_TICKS));
        compute(LONG);
        assert!(!is_stuck(&worker, began + STUCK_TICKS - 1));
        assert!(is_stuck(&worker, began + STUCK_TICKS));
        lock(&worker.turn).as_mut().unwrap().is_stuck = true;
        assert!(!is_stuck(&worker, began + STUCK_TICKS + 1), "it is known");
        let took = worker.end();
        assert!(took.was_unruly && took.was_stuck);
        assert!(!is_stuck(&worker, began + 100), "it is over");
    }

    #[test]
    fn an_instance_that_was_made_is_an_excuse_for_one_that_is_late_but_not_for_one_that_is_stuck() {
        let (worker, began) = in_a_turn();
        assert!(!is_stuck(&worker, began + OVERDUE_TICKS));
        compute(LONG);
        crate::scheduler::excuse_turn();
        assert!(is_stuck(&worker, began + STUCK_TICKS));
        assert!(!worker.end().was_unruly);
    }
}
