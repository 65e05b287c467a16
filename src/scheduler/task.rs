//! A guest under way.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use super::credit::Credit;
use super::lane::{Kind, Lane};
use super::turn::LongTurns;
use crate::sync::lock;

/// A guest that runs until it has ended or is stopped.
pub(crate) type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A guest that comes from its caller's thread.
pub(crate) struct Newcomer<'a> {
    pub run: Run,
    pub lane: &'a Arc<Lane>,
    /// It has computed for as long as its caller's thread lets it, or others of its component have lately.
    pub computes: bool,
    /// Of its app: turns that were longer than a tick lets them be. Its own are added here.
    pub long_turns: &'a Arc<LongTurns>,
}

/// It waits for a waker.
pub(super) const IDLE: u8 = 0;
/// It waits for a turn.
pub(super) const READY: u8 = 1;
pub(super) const RUNNING: u8 = 2;
/// It was woken in its turn.
const WOKEN: u8 = 3;
pub(super) const DONE: u8 = 4;

/// Who gives guests their turns.
pub(super) trait Turns: Send + Sync {
    /// It is ready for one; or it was stopped, and only goes away.
    fn push(&self, task: Arc<Task>, is_stopped: bool);

    /// Whether its threads are in the process that forked this one.
    fn is_foreign(&self) -> bool;
}

/// A guest under way.
pub(crate) struct Task {
    scheduler: &'static dyn Turns,
    pub(super) number: u64,
    pub(super) lane: Arc<Lane>,
    pub(super) long_turns: Arc<LongTurns>,
    pub(super) state: AtomicU8,
    stopped: AtomicBool,
    pub(super) credit: Mutex<Credit>,
    /// Until it has ended. Locked by whose turn it is.
    pub(super) run: Mutex<Option<Run>>,
}

impl Task {
    pub(super) fn new(scheduler: &'static dyn Turns, number: u64, guest: Newcomer<'_>) -> Arc<Self> {
        Arc::new(Self {
            scheduler,
            number,
            lane: guest.lane.clone(),
            long_turns: guest.long_turns.clone(),
            state: AtomicU8::new(READY),
            stopped: AtomicBool::new(false),
            credit: Mutex::new(Credit::of_guest(guest.computes)),
            run: Mutex::new(Some(guest.run)),
        })
    }

    /// One that waits for a turn, and has nothing to do in it.
    #[cfg(test)]
    #[allow(clippy::unwrap_used)]
    pub(super) fn waiting(lane: &Arc<Lane>, number: u64) -> Arc<Self> {
        let run = Box::pin(std::future::ready(()));
        let guest = Newcomer { run, lane, computes: false, long_turns: &Arc::default() };
        Self::new(&crate::engine::process_state().unwrap().scheduler, number, guest)
    }

    pub(super) fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Where its next turn is.
    pub(super) fn kind(&self) -> Kind {
        let is_prompt = !self.long_turns.are_many() && lock(&self.credit).is_enough();
        if is_prompt { Kind::Prompt } else { Kind::Computing }
    }

    /// Ends it where it stands: its future is dropped on one of the scheduler's threads.
    pub(crate) fn stop(self: &Arc<Self>) {
        if self.stopped.swap(true, Ordering::SeqCst) || self.is_foreign() {
            return;
        }
        // one that has its turn finds out at its end
        if self.change(IDLE, READY) || self.state.load(Ordering::SeqCst) == READY {
            self.scheduler.push(self.clone(), true);
        }
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Whether it is in the process that forked this one, whose threads do not exist here and may have held its locks.
    fn is_foreign(&self) -> bool {
        self.scheduler.is_foreign()
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_foreign() {
            return;
        }
        loop {
            match self.state.load(Ordering::SeqCst) {
                IDLE if self.change(IDLE, READY) => {
                    lock(&self.credit).earn();
                    return self.scheduler.push(self.clone(), false);
                }
                RUNNING if self.change(RUNNING, WOKEN) => return,
                // its turn has ended, or begun, meanwhile
                IDLE | RUNNING => {}
                _ => return,
            }
        }
    }
}

/// A future that panics is dropped while the thread panics, so that what it holds can tell.
pub(super) struct DropInPanic<'a>(pub(super) &'a mut Option<Run>);

impl Drop for DropInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.take();
        }
    }
}
