//! The present turn on a thread, measured in ticks of the epoch where a clock would cost too much.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A turn of this much CPU time, in which ticks have passed, was no turn of a guest that ticks can interrupt.
pub(crate) const LONG_TURN: Duration = Duration::from_millis(3);

/// Ticks of the epoch in this process.
/// How long a guest runs before its thread's turn ends. A guest polled on an event loop's thread holds it for two
/// of these at the most.
pub(crate) const TICK: Duration = Duration::from_millis(1);

static TICKS: AtomicU64 = AtomicU64::new(0);

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

/// Whether the turn that has just ended on this thread was one long operation. Where the ticker itself was late it was not.
pub(crate) fn was_unruly(took: Duration) -> bool {
    took > LONG_TURN && is_turn_over() && !IS_EXCUSED.get()
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
