//! What is known of how an app's guests behave, which decides where the next one runs. It is the app's, not the component's: two tenants
//! may have the same component, and what one of them asks of it is not held against the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::guest::prepared::Prepared;
use crate::scheduler::LongTurns;

/// After a guest that computed for longer than its turn, so many others start on the scheduler's threads: an app whose guests always
/// do so holds an event loop up once in a while, not each time.
const KEEP_OFF: u32 = 32;

/// Turns on callers' threads that are shorter than this are many before they hold an event loop up.
pub(crate) const BRIEF: Duration = Duration::from_micros(100);

/// A tick that meets an app's turn on a caller's thread counts two, one that does not takes one off: at this many, the app's turns
/// have had eight milliseconds of the thread, or more than a third of it for longer.
const HELD: u32 = 16;

/// So many others start on the scheduler's threads then.
const ELSEWHERE: u32 = 256;

/// So many turns are measured after one that seemed long.
const SUSPECT: u32 = 64;

#[derive(Default)]
pub(crate) struct History {
    /// How many of the next exchanges are to keep off event loops, because a guest computed for longer than its turn.
    computes: AtomicU32,
    /// How many are to, because its guests together held one up, each within its turn.
    elsewhere: AtomicU32,
    /// How much of its callers' threads its guests had lately: the tick at which that was counted last, and the count.
    held: AtomicU64,
    /// How many of the next turns on callers' threads are measured by the threads' own clocks, which costs 0.3 µs: one took long by the
    /// wall's.
    suspect: AtomicU32,
    /// Turns that were one long operation each, which no tick could end.
    long_turns: Arc<LongTurns>,
}

impl History {
    /// To be asked before a turn on a caller's thread: whether the thread's own clock should time it.
    pub(crate) fn take_timed_turn(&self) -> bool {
        take_one(&self.suspect)
    }

    /// A turn on a caller's thread took long by the wall's clock. Perhaps its thread only waited for a processor.
    pub(crate) fn seemed_long(&self) {
        self.suspect.store(SUSPECT, Ordering::Relaxed);
    }

    /// A guest has computed on a caller's thread for longer than it may.
    pub(crate) fn was_long(&self) {
        self.computes.store(KEEP_OFF, Ordering::Relaxed);
        self.suspect.store(SUSPECT, Ordering::Relaxed);
    }

    /// A tick came in a turn on a caller's thread that was not brief, and within its slice. One guest may have so much, but hundreds
    /// that come at once have it one after the other: a request that waits for the loop waits for all of them.
    pub(crate) fn met_tick(&self, tick: u64) {
        let tick = tick & u64::from(u32::MAX);
        let before = self.held.load(Ordering::Relaxed);
        let passed = tick.wrapping_sub(before >> 32) & u64::from(u32::MAX);
        if passed == 0 {
            return; // counted
        }
        let left = (before & u64::from(u32::MAX)).saturating_sub(passed - 1) + 2;
        let is_enough = left >= u64::from(HELD);
        if is_enough {
            self.elsewhere.store(ELSEWHERE, Ordering::Relaxed);
        }
        self.held.store(tick << 32 | if is_enough { 0 } else { left }, Ordering::Relaxed);
    }

    /// What ticks that met turns count.
    #[cfg(test)]
    pub(crate) fn met_ticks(&self) -> u64 {
        self.held.load(Ordering::Relaxed) & u64::from(u32::MAX)
    }

    /// Turns were long operations, or making an instance is one: such guests have no turn on a caller's thread.
    pub(crate) fn is_unruly(&self, prepared: &Prepared, needs_set_up: bool) -> bool {
        self.long_turns.are_many() || (needs_set_up && prepared.is_slow_to_set_up())
    }

    /// For whoever gives turns to its guests, to add to them.
    pub(crate) fn long_turns(&self) -> &Arc<LongTurns> {
        &self.long_turns
    }

    /// Decides whether the next guest starts off its caller's event loop: instantiating is slow (if it has to be done), or its
    /// time is not known yet, or a guest computed for too long lately (the second answer), or, where others have a share of the thread
    /// (`is_shared`), the app's guests held one up together. Uses up one of the starts that are to keep off event loops.
    pub(crate) fn decide_off_loop(&self, prepared: &Prepared, needs_set_up: bool, is_shared: bool) -> (bool, bool) {
        let computes = take_one(&self.computes);
        let is_slow = needs_set_up && prepared.keeps_off_loop();
        (computes || (is_shared && take_one(&self.elsewhere)) || is_slow || self.is_unruly(prepared, false), computes)
    }
}

/// Whether one was left. Most of the time none is, and nothing is written.
fn take_one(of: &AtomicU32) -> bool {
    of.load(Ordering::Relaxed) > 0
        && of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suspected(history: &History) -> u32 {
        std::iter::repeat_with(|| history.take_timed_turn())
            .take_while(|is_suspect| *is_suspect)
            .fold(0, |count, _| count + 1)
    }

    #[test]
    fn nothing_is_suspected_of_guests_that_nobody_knows() {
        let history = History::default();
        assert_eq!(suspected(&history), 0);
        assert_eq!(history.computes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_turn_that_seemed_long_has_the_next_ones_measured_and_keeps_none_off() {
        let history = History::default();
        history.seemed_long();
        assert_eq!(suspected(&history), SUSPECT);
        assert_eq!(history.computes.load(Ordering::Relaxed), 0);
        assert!(!history.take_timed_turn(), "that is over");
    }

    #[test]
    fn a_turn_that_was_long_keeps_the_next_ones_off_and_has_them_measured() {
        let history = History::default();
        history.was_long();
        assert_eq!(history.computes.load(Ordering::Relaxed), KEEP_OFF);
        assert_eq!(suspected(&history), SUSPECT);
    }
}
