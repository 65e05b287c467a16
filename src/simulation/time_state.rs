//! When virtual time passes, and to when: the rules alone. Nothing here waits or wakes.

use std::collections::HashMap;
use std::task::Waker;

/// The time of one exchange, and all that it depends on.
pub(super) struct TimeState {
    /// Nanoseconds since the instance began.
    pub now: u64,
    /// Whether the guest runs, or is about to.
    pub turn: bool,
    /// Wakes the guest.
    pub guest: Waker,
    pub waiting: Vec<Waiting>,
    /// What others have to do for the guest.
    pub work: HashMap<u64, Doing>,
    /// The last number that was given to any of these.
    next: u64,
}

/// How far others are with it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Doing {
    /// The guest has no answer yet.
    pub answers: bool,
    /// The guest has asked for more of a body, by the look of this number.
    pub gives: Option<u64>,
    /// Whoever answers waits for the guest to send more, likewise.
    pub reads: Option<u64>,
    /// Whoever is at it does nothing for some time.
    pub sleeps: bool,
}

impl Doing {
    pub(super) fn is_at_it(self) -> bool {
        (self.gives.is_some() || self.answers && self.reads.is_none()) && !self.sleeps
    }
}

/// Somebody who waits for a time to come.
pub(super) struct Waiting {
    pub number: u64,
    pub end: u64,
    pub who: Who,
    pub waker: Waker,
}

/// In the order in which they go on where their times are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Who {
    /// Whoever is at this work, and does nothing until then; or a limit on it.
    Worker(u64),
    /// The guest.
    Guest,
}

impl TimeState {
    /// An exchange begins: its guest has its turn.
    pub(super) fn begin(now: u64) -> Self {
        let guest = Waker::noop().clone();
        Self { now, turn: true, guest, waiting: Vec::new(), work: HashMap::new(), next: 0 }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Lets the first of those that wait go on, if nobody does anything. The wakers are to be called; none: nobody goes on.
    #[must_use]
    pub(super) fn advance(&mut self) -> Vec<Waker> {
        if self.turn || self.work.values().any(|work| work.is_at_it()) {
            return Vec::new();
        }
        let Some((first, _)) = self.waiting.iter().enumerate().min_by_key(|(_, one)| (one.end, one.who)) else {
            return Vec::new();
        };
        let first = self.waiting.swap_remove(first);
        self.passed(first.end, first.who);
        if first.who != Who::Guest {
            return vec![first.waker];
        }
        // with all others of its own that are over; it may have looked at them in a turn that is over, too
        let now = self.now;
        let over = self.waiting.extract_if(.., |one| one.who == Who::Guest && one.end <= now).map(|one| one.waker);
        let mut woken: Vec<Waker> = std::iter::once(first.waker).chain(over).collect();
        // a guest of WASI 0.3 looks at those that were woken, one of 0.2 at all
        woken.push(self.guest.clone());
        woken
    }

    pub(super) fn passed(&mut self, end: u64, who: Who) {
        self.now = self.now.max(end);
        match who {
            Who::Guest => self.turn = true,
            Who::Worker(work) => self.tell(work, |work| work.sleeps = false),
        }
    }

    pub(super) fn tell(&mut self, work: u64, change: impl FnOnce(&mut Doing)) {
        if let Some(work) = self.work.get_mut(&work) {
            change(work);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wait(state: &mut TimeState, end: u64, who: Who) -> u64 {
        let number = state.number();
        state.waiting.push(Waiting { number, end, who, waker: Waker::noop().clone() });
        number
    }

    fn work(state: &mut TimeState, doing: Doing) -> u64 {
        let number = state.number();
        state.work.insert(number, doing);
        number
    }

    /// An exchange whose guest waits.
    fn idle() -> TimeState {
        let mut state = TimeState::begin(0);
        state.turn = false;
        state
    }

    #[test]
    fn no_time_passes_while_the_guest_has_its_turn() {
        let mut state = TimeState::begin(7);
        wait(&mut state, 9, Who::Guest);
        assert!(state.advance().is_empty());
        assert_eq!(state.now, 7);
        state.turn = false;
        assert!(!state.advance().is_empty());
        assert_eq!((state.now, state.turn), (9, true));
    }

    #[test]
    fn no_time_passes_while_others_work_for_the_guest_unless_they_sleep_or_wait_for_it() {
        for (doing, passes) in [
            (Doing { answers: true, ..Doing::default() }, false),
            (Doing { answers: true, reads: Some(1), ..Doing::default() }, true),
            (Doing { answers: true, sleeps: true, ..Doing::default() }, true),
            (Doing { gives: Some(1), ..Doing::default() }, false),
            (Doing { gives: Some(1), reads: Some(1), ..Doing::default() }, false),
            (Doing { gives: Some(1), sleeps: true, ..Doing::default() }, true),
            (Doing::default(), true),
        ] {
            let mut state = idle();
            work(&mut state, doing);
            wait(&mut state, 5, Who::Guest);
            assert_eq!(!state.advance().is_empty(), passes, "{doing:?}");
        }
    }

    #[test]
    fn of_the_same_time_workers_come_before_the_guest() {
        let mut state = idle();
        let number = work(&mut state, Doing { answers: true, sleeps: true, ..Doing::default() });
        wait(&mut state, 5, Who::Guest);
        wait(&mut state, 5, Who::Worker(number));
        assert!(!state.advance().is_empty());
        assert!(!state.turn && !state.work[&number].sleeps, "the worker goes on");
        assert!(state.advance().is_empty(), "and works");
        assert_eq!(state.now, 5);
    }

    #[test]
    fn a_guest_that_goes_on_waits_for_nothing_that_is_over() {
        let mut state = idle();
        wait(&mut state, 5, Who::Guest);
        wait(&mut state, 5, Who::Guest);
        let later = wait(&mut state, 6, Who::Guest);
        assert!(!state.advance().is_empty());
        assert_eq!(state.waiting.iter().map(|one| one.number).collect::<Vec<_>>(), [later]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        GuestWaits(u64),
        WorkerWaits(usize, u64),
        Work(bool, bool, bool, bool),
        Done(usize),
        Turn(bool),
        Leave(usize),
        Advance,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            2 => (0..50u64).prop_map(Step::GuestWaits),
            2 => (any::<usize>(), 0..50u64).prop_map(|(which, end)| Step::WorkerWaits(which, end)),
            2 => any::<(bool, bool, bool, bool)>().prop_map(|(a, b, c, d)| Step::Work(a, b, c, d)),
            1 => any::<usize>().prop_map(Step::Done),
            2 => any::<bool>().prop_map(Step::Turn),
            1 => any::<usize>().prop_map(Step::Leave),
            6 => Just(Step::Advance),
        ];
        prop::collection::vec(step, 0..60)
    }

    proptest! {
        /// Time never goes back, passes only where all sleep, and then to the first that anybody waits for.
        #[test]
        fn time_passes_to_the_next_that_is_waited_for_where_all_sleep(steps in steps()) {
            let mut state = TimeState::begin(10);
            for step in steps {
                let before = state.now;
                match step {
                    Step::GuestWaits(end) => {
                        wait(&mut state, end, Who::Guest);
                    }
                    Step::WorkerWaits(which, end) => {
                        let mut numbers: Vec<_> = state.work.keys().copied().collect();
                        numbers.sort_unstable();
                        if let Some(number) = which.checked_rem(numbers.len()).map(|which| numbers[which]) {
                            wait(&mut state, end, Who::Worker(number));
                        }
                    }
                    Step::Work(answers, gives, reads, sleeps) => {
                        let (gives, reads) = (gives.then_some(1), reads.then_some(1));
                        work(&mut state, Doing { answers, gives, reads, sleeps });
                    }
                    Step::Done(which) => {
                        let number = which.checked_rem(state.work.len()).and_then(|at| state.work.keys().nth(at).copied());
                        number.and_then(|number| state.work.remove(&number));
                    }
                    Step::Turn(turn) => state.turn = turn,
                    Step::Leave(which) => {
                        if let Some(which) = which.checked_rem(state.waiting.len()) {
                            state.waiting.swap_remove(which);
                        }
                    }
                    Step::Advance => {
                        let is_held = state.turn || state.work.values().any(|work| work.is_at_it());
                        let first = state.waiting.iter().map(|one| (one.end, one.who)).min();
                        let waited = state.waiting.len();
                        match (state.advance(), first) {
                            (woken, Some((end, who))) if !woken.is_empty() => {
                                prop_assert!(!is_held);
                                prop_assert_eq!(state.now, before.max(end));
                                prop_assert_eq!(state.turn, who == Who::Guest);
                                prop_assert!(state.waiting.len() < waited);
                                let is_late = |one: &Waiting| one.who == Who::Guest && one.end <= state.now;
                                prop_assert!(who != Who::Guest || !state.waiting.iter().any(is_late));
                            }
                            (woken, first) => {
                                prop_assert!(woken.is_empty() && (is_held || first.is_none()));
                                prop_assert_eq!(state.now, before);
                            }
                        }
                    }
                }
                prop_assert!(state.now >= before);
            }
        }
    }
}
