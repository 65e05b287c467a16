//! How much of its caller's thread a guest may have.

use std::time::{Duration, Instant};

use crate::app::history::{BRIEF, History};
use crate::scheduler::thread_priority::ThreadTime;

/// A guest that was interrupted by a tick goes on on its caller's thread if it has had less than this of the processor; with the tick
/// that follows it stays under 2 ms.
const SLICE: Duration = Duration::from_micros(500);

/// Whether a slice is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    No,
    /// By the wall's clock. The guest is nobody that computes, as far as is known: a thread of lower priority, which one that does
    /// belongs on, may not run for long where others want its processor.
    Perhaps,
    /// By the thread's own.
    Computed,
}

/// What a guest has had of its caller's thread.
pub(super) struct Slice<'a> {
    history: &'a History,
    begun: Instant,
    tick: u64,
    of_thread: Option<ThreadTime>,
}

impl<'a> Slice<'a> {
    /// `begun`: the exchange, a moment ago. A look at the clock is saved.
    pub(super) fn begin(history: &'a History, begun: Instant) -> Self {
        let of_thread = history.take_timed_turn().then(ThreadTime::now);
        Self { history, begun, tick: crate::scheduler::tick(), of_thread }
    }

    /// Whether it is used up; to be asked after each turn. The wall's clock says so first. Where the processor is shared it may be wrong,
    /// so it is the thread's own that counts against a component: the turns that follow are measured by that.
    pub(super) fn is_over(&mut self) -> Over {
        // within a tick there is no need to ask a clock
        let tick = crate::scheduler::tick();
        if self.tick == tick {
            return Over::No;
        }
        let elapsed = self.begun.elapsed();
        if elapsed < BRIEF {
            return Over::No;
        }
        let Some(begun) = self.of_thread else {
            self.history.seemed_long();
            return if elapsed <= SLICE { Over::No } else { Over::Perhaps };
        };
        let took = ThreadTime::now().since(begun);
        if crate::scheduler::was_unruly(took) {
            self.history.long_turns().add(took);
        }
        if took > SLICE {
            self.history.was_long();
        } else if took >= BRIEF {
            self.history.met_tick(tick);
        }
        if took > SLICE { Over::Computed } else { Over::No }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::component::Component;
    use crate::component::limits::ComponentLimits;
    use crate::component::loading::Order;
    use crate::component::variant::Variant;
    use crate::engine::process_state;
    use crate::guest::prepared::Prepared;

    fn prepared() -> Arc<Prepared> {
        let order = Order::new(Variant::PLAIN, ComponentLimits::NONE, None);
        let component = Component::new(&std::fs::read("tests/guests/components/hello.wasm").unwrap(), &order).unwrap();
        component.prepared(process_state().unwrap(), Variant::PLAIN).unwrap()
    }

    /// Whether the slice of a suspect turn is over after this, and what becomes of the next guest.
    fn after(turn: impl FnOnce()) -> (Over, (bool, bool)) {
        let _ticking = process_state().unwrap().tick().unwrap();
        let (prepared, history) = (prepared(), History::default());
        history.seemed_long();
        let mut slice = Slice::begin(&history, Instant::now());
        crate::scheduler::begin_turn();
        turn();
        (slice.is_over(), history.decide_off_loop(&prepared, false, true))
    }

    #[test]
    fn a_turn_that_waited_for_a_processor_is_not_held_against_its_app() {
        assert_eq!(after(|| std::thread::sleep(SLICE * 4)), (Over::No, (false, false)));
    }

    #[test]
    fn a_turn_that_nobody_measured_only_seems_to_have_computed() {
        let _ticking = process_state().unwrap().tick().unwrap();
        let history = History::default();
        let mut slice = Slice::begin(&history, Instant::now());
        let tick = crate::scheduler::tick();
        while crate::scheduler::tick() == tick || slice.begun.elapsed() <= SLICE {}
        assert_eq!(slice.is_over(), Over::Perhaps);
        assert!(!history.decide_off_loop(&prepared(), false, true).1);
        assert!(history.take_timed_turn(), "the next one is measured");
    }

    #[test]
    fn a_turn_that_computed_is() {
        let computes = || {
            let (begun, tick) = (ThreadTime::now(), crate::scheduler::tick());
            while ThreadTime::now().since(begun) < SLICE * 2 || crate::scheduler::tick() == tick {}
        };
        assert_eq!(after(computes), (Over::Computed, (true, true)));
    }

    /// What a turn counts that a tick met, which computed for so long and waited for its processor for so long; and whether the next one is
    /// measured.
    fn counts(turn: Duration, waited: Duration, is_measured: bool) -> (u64, bool) {
        let _ticking = process_state().unwrap().tick().unwrap();
        while crate::scheduler::tick() == 0 {}
        let history = History::default();
        let of_thread = is_measured.then(ThreadTime::now);
        let computes = ThreadTime::now();
        while ThreadTime::now().since(computes) < turn {}
        let begun = Instant::now().checked_sub(turn + waited).unwrap();
        let mut slice = Slice { history: &history, begun, tick: crate::scheduler::tick().wrapping_sub(1), of_thread };
        slice.is_over();
        (history.met_ticks(), history.take_timed_turn())
    }

    #[test]
    fn turns_that_are_not_brief_count_by_their_threads_clock() {
        for waited in [Duration::ZERO, BRIEF * 2, SLICE * 2] {
            assert_eq!(counts(BRIEF * 2, waited, true).0, 2, "{waited:?}");
            assert_eq!(counts(Duration::ZERO, waited, true).0, 0, "{waited:?}");
            assert_eq!(counts(BRIEF * 2, waited, false), (0, true), "{waited:?}");
        }
    }

    #[test]
    fn guests_that_hold_a_thread_together_are_kept_off_it() {
        let _ticking = process_state().unwrap().tick().unwrap();
        let prepared = prepared();
        let keeps_off = |history: &History| history.decide_off_loop(&prepared, false, true);
        let history = History::default();
        // a quarter of the thread's time
        for tick in (1..400).step_by(4) {
            history.met_tick(tick);
            assert_eq!(keeps_off(&history), (false, false));
        }
        // all of it
        for tick in 400..408 {
            assert_eq!(keeps_off(&history), (false, false));
            history.met_tick(tick);
            history.met_tick(tick);
        }
        // they do not compute for long: so they may have a prompt thread
        assert_eq!(history.decide_off_loop(&prepared, false, false), (false, false), "a thread of their own");
        for _ in 0..256 {
            assert_eq!(keeps_off(&history), (true, false));
        }
        assert_eq!(keeps_off(&history), (false, false));
    }

    #[test]
    fn guests_of_long_operations_have_no_turn_on_a_callers_thread() {
        let (prepared, history) = (prepared(), History::default());
        assert!(!history.is_unruly(&prepared, true), "it is quick to set up, as far as is known");
        history.long_turns().add(std::time::Duration::from_secs(60));
        assert!(history.is_unruly(&prepared, false));
        assert_eq!(history.decide_off_loop(&prepared, false, true), (true, false));
    }
}
