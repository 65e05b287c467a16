//! Callables of the user's that are called one call at a time, in order, on threads of ours.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::py::executor::exit::is_too_late;
use crate::py::executor::job::Job;
use crate::py::executor::threads::threads;
use crate::py::lock;

/// One call, or some that belong together.
pub trait Turn: Send + 'static {
    fn run(self, py: Python<'_>);
}

/// The calls that wait. They keep one thread of ours at the most, and it is lent: one that blocks keeps nobody else from theirs.
pub struct Serial<T> {
    state: Mutex<State<T>>,
    /// How many may wait.
    most: usize,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Whether a thread is about it, or is asked to be.
    busy: bool,
    by: Option<ThreadId>,
    emptied: Vec<Waker>,
}

/// For so long a thread serves one of these while others wait for a thread.
const SHIFT: Duration = Duration::from_millis(5);

impl<T: Turn> Serial<T> {
    pub fn new(most: usize) -> Self {
        Self { state: Mutex::new(State { waiting: VecDeque::new(), busy: false, by: None, emptied: Vec::new() }), most }
    }

    /// Needs no GIL, but a thread of ours. Returns whether there was a place.
    pub fn submit(self: &Arc<Self>, turn: T) -> bool {
        {
            let mut state = lock(&self.state);
            if state.waiting.len() >= self.most {
                drop(state);
                drop(turn);
                return false;
            }
            state.waiting.push_back(turn);
            if std::mem::replace(&mut state.busy, true) {
                return true;
            }
        }
        threads().submit(self.clone());
        true
    }

    /// Whether it is this thread that calls.
    pub fn is_here(&self) -> bool {
        lock(&self.state).by == Some(std::thread::current().id())
    }

    /// Ready when none waits and none is under way; also for one that would wait for itself.
    pub fn poll_empty(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = lock(&self.state);
        if !state.busy || state.by == Some(std::thread::current().id()) {
            return Poll::Ready(());
        }
        if !state.emptied.iter().any(|known| known.will_wake(cx.waker())) {
            state.emptied.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Gives this thread up if turns wait: another thread goes on, or this one later. Returns whether turns wait.
    fn give_way(&self) -> bool {
        let mut state = lock(&self.state);
        let more = !state.waiting.is_empty();
        if more {
            state.by = None;
        }
        more
    }

    fn next(&self) -> Option<T> {
        let emptied = {
            let mut state = lock(&self.state);
            if let Some(turn) = state.waiting.pop_front() {
                state.by = Some(std::thread::current().id());
                return Some(turn);
            }
            state.by = None;
            state.busy = false;
            std::mem::take(&mut state.emptied)
        };
        for waker in emptied {
            waker.wake();
        }
        None
    }
}

impl<T: Turn> Job for Serial<T> {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        // without, if so many are lent already that there is no thread to take its place
        let _lent = crate::py::executor::threads::lend(py).ok().flatten();
        let begun = Instant::now();
        while let Some(turn) = self.next() {
            if !is_too_late() {
                turn.run(py);
            }
            if begun.elapsed() > SHIFT && self.give_way() {
                threads().submit(self);
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_waited_for_at_exit(&self) -> bool {
        true
    }
}
