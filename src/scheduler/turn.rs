//! The present turn on a thread, measured in ticks of the epoch where a clock would cost too much.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A turn of this much CPU time, in which ticks have passed, was no turn of a guest that ticks can interrupt.
pub(crate) const LONG_TURN: Duration = Duration::from_millis(3);

/// How long a guest runs before its thread's turn ends. A guest polled on an event loop's thread holds it for two
/// of these at the most.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// Ticks of the epoch in this process.
static TICKS: AtomicU64 = AtomicU64::new(0);

/// How long the operations were in which an app's guests held their threads for longer than a turn, less what is forgotten with time: a
/// microsecond a tick. One such turn may be the kernel's doing, which is charged to whoever calls it; few of them are no habit.
#[derive(Default)]
pub(crate) struct LongTurns {
    /// The tick at which they were counted last, and the microseconds then.
    counted: AtomicU64,
}

/// From here on an app's guests are unruly.
const MANY: u64 = 12_000;

/// More than this, which is forgotten in ten minutes, is not counted.
const MOST: u64 = 600_000;

impl LongTurns {
    pub(crate) fn add(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(MOST);
        let now = tick() & u64::from(u32::MAX);
        let add = |counted| Some(now << 32 | left(counted, now).saturating_add(took).min(MOST));
        let _ = self.counted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }

    /// Whether the next turn of its guests is to be expected to be long.
    pub(crate) fn are_many(&self) -> bool {
        match self.counted.load(Ordering::Relaxed) {
            0 => false,
            counted => left(counted, tick() & u64::from(u32::MAX)) >= MANY,
        }
    }
}

/// The microseconds that are left at a tick.
fn left(counted: u64, now: u64) -> u64 {
    let low = u64::from(u32::MAX);
    (counted & low).saturating_sub(now.wrapping_sub(counted >> 32) & low)
}

thread_local! {
    /// The tick in which the present turn on this thread began.
    static TURN: Cell<u64> = const { Cell::new(0) };
    static IS_GUESTS: Cell<bool> = const { Cell::new(false) };
    /// What makes the present turn long is not the guest's.
    static IS_EXCUSED: Cell<bool> = const { Cell::new(false) };
}

/// A turn begins on this thread.
pub(crate) fn begin_turn() {
    TURN.set(TICKS.load(Ordering::Relaxed));
    IS_EXCUSED.set(false);
}

/// An instance was made in this turn: how long that took is known elsewhere, and says nothing of other turns.
pub(crate) fn excuse_turn() {
    IS_EXCUSED.set(true);
}

/// Whether what made the present turn long is not its guest's.
pub(super) fn is_excused() -> bool {
    IS_EXCUSED.get()
}

/// Whether the turn that has just ended on a caller's thread was one long operation. Where the ticker itself was late it was not.
pub(crate) fn was_unruly(took: Duration) -> bool {
    took > LONG_TURN && is_turn_over() && !is_excused()
}

/// How often the epoch has ticked.
pub(crate) fn tick() -> u64 {
    TICKS.load(Ordering::Relaxed)
}

/// It ticks once more. Returns how often it has.
pub(super) fn tick_once() -> u64 {
    TICKS.fetch_add(1, Ordering::Relaxed) + 1
}

/// Whether the present turn should have ended: a whole tick of it has passed.
pub(crate) fn is_turn_over() -> bool {
    TICKS.load(Ordering::Relaxed).wrapping_sub(TURN.get()) > 1
}

/// This is a thread of the scheduler's from now on.
pub(super) fn is_of_guests() {
    IS_GUESTS.set(true);
}

/// Whether this is a thread of the scheduler's, which guests may hold up.
pub(crate) fn is_guests_thread() -> bool {
    IS_GUESTS.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_turn_that_is_a_little_too_long_is_no_habit() {
        let turns = LongTurns::default();
        for _ in 0..3 {
            assert!(!turns.are_many());
            turns.add(LONG_TURN + Duration::from_millis(2));
        }
        assert!(turns.are_many());
    }

    #[test]
    fn one_long_operation_is_enough() {
        let turns = LongTurns::default();
        turns.add(Duration::from_millis(20));
        assert!(turns.are_many());
    }

    #[test]
    fn a_millisecond_is_forgotten_in_a_thousand_ticks() {
        let counted = 0xffff_ff00 << 32 | 20_000; // the count of ticks wraps
        assert_eq!(left(counted, 0xffff_ff00), 20_000);
        assert_eq!(left(counted, 0x1000 - 0x100), 20_000 - 0x1000);
        assert_eq!(left(counted, 0x10_0000), 0);
    }

    #[test]
    fn years_of_computing_are_forgotten_as_soon_as_minutes() {
        let turns = LongTurns::default();
        turns.add(Duration::MAX);
        turns.add(Duration::MAX);
        assert_eq!(turns.counted.load(Ordering::Relaxed) & u64::from(u32::MAX), MOST);
    }

    #[test]
    fn long_operations_are_counted_with_their_tick() {
        let turns = LongTurns::default();
        let before = tick_once();
        turns.add(Duration::from_micros(5));
        let counted = turns.counted.load(Ordering::Relaxed);
        assert!((before..=tick()).contains(&(counted >> 32)), "{counted:x}");
        assert_eq!(left(counted, counted >> 32), 5);
    }

    #[test]
    fn ticks_are_counted() {
        let before = tick();
        let once = tick_once();
        assert!(once > before && tick_once() > once && tick() > once);
    }

    /// What is said of a turn that has just begun; ticks come on another thread meanwhile.
    fn in_the_tick_of_its_begin<T>(look: impl Fn() -> T) -> T {
        loop {
            begin_turn();
            let (before, found) = (TURN.get(), look());
            if tick() == before {
                return found;
            }
        }
    }

    #[test]
    fn a_turn_is_over_when_a_whole_tick_of_it_has_passed() {
        assert!(!in_the_tick_of_its_begin(is_turn_over));
        TURN.set(tick().wrapping_sub(2));
        assert!(is_turn_over());
        // the tick that came first may have been about to come when it began
        let after_one_tick = || {
            TURN.set(TURN.get().wrapping_sub(1));
            let is_over = is_turn_over();
            TURN.set(TURN.get().wrapping_add(1));
            is_over
        };
        assert!(!in_the_tick_of_its_begin(after_one_tick));
    }

    #[test]
    fn an_operation_that_no_tick_ended_is_unruly_unless_it_made_the_instance() {
        let long = LONG_TURN + Duration::from_nanos(1);
        assert!(!in_the_tick_of_its_begin(|| was_unruly(long)), "the ticker was late");
        begin_turn();
        TURN.set(tick().wrapping_sub(2));
        assert!(was_unruly(long));
        assert!(!was_unruly(LONG_TURN));
        excuse_turn();
        assert!(!was_unruly(long));
        begin_turn();
        TURN.set(tick().wrapping_sub(2));
        assert!(was_unruly(long), "the next turn has no excuse");
    }

    #[test]
    fn a_thread_of_the_schedulers_knows_that_it_is_one() {
        let told = std::thread::spawn(|| {
            let before = is_guests_thread();
            is_of_guests();
            (before, is_guests_thread())
        });
        assert_eq!(told.join().ok(), Some((false, true)));
    }
}
