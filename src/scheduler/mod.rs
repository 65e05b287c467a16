//! Who gets the next turn, on which thread.
//!
//! A guest that has not finished on its caller's thread is a [`Task`] here. Two kinds of threads give turns:
//!
//! - **prompt** threads, for guests that mostly wait: they answer a timer or a socket and wait again;
//! - **computing** threads of a lower priority, as many as there are processors, for guests that have used up what a prompt
//!   guest may ([`credit`]), and for those of components whose past says so.
//!
//! On both the apps take turns, whatever the number of their exchanges ([`Queue`]); within an app its exchanges do. A turn ends at the
//! next tick of the epoch, but one long instruction (`memory.fill`) or host call does not. A thread that is in one is *stuck*: it
//! gets the lowest priority for the rest of that turn, another thread takes its place ([`stuck`]), and its app gets no other turn of
//! that kind meanwhile. Timers, sockets and outgoing requests belong to tokio's workers, where no guest has a turn ([`crate::process::runtime`]).

pub(crate) mod thread_priority;

mod credit;
mod lane;
mod late_wakes;
mod queue;
mod stuck;
mod task;
mod turn;
mod worker;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use self::credit::processors;
use self::lane::Kind;
pub(crate) use self::lane::Lane;
use self::late_wakes::LateWakes;
pub(crate) use self::late_wakes::{wake_at_end_of_turn, wake_now};
use self::queue::Queue;
use self::task::{DONE, DropInPanic, IDLE, READY, RUNNING, Turns};
pub(crate) use self::task::{Newcomer, Run, Task};
pub(crate) use self::turn::{
    LONG_TURN, LongTurns, TICK, begin_turn, excuse_turn, is_guests_thread, is_turn_over, tick, was_unruly,
};
pub(crate) use self::worker::for_host;
use self::worker::{Took, Worker};
use crate::error::Error;
use crate::process::runtime::Runtime;
use crate::sync::lock;

/// The scheduler of one process.
pub(crate) struct Scheduler {
    generation: u64,
    prompt: Threads,
    computing: Threads,
    tasks: Mutex<HashMap<u64, Arc<Task>>>,
    next: AtomicU64,
    workers: Mutex<Vec<Arc<Worker>>>,
    started: AtomicBool,
    /// Turns on callers' threads.
    visitors: AtomicUsize,
    closed: AtomicBool,
}

/// The threads of one kind, and who waits for them.
struct Threads {
    queue: Mutex<Queue>,
    ready: Condvar,
    /// How many are stuck. Changed under the lock of the queue.
    stuck: AtomicU32,
}

impl Threads {
    fn new(kind: Kind) -> Self {
        Self { queue: Mutex::new(Queue::new(kind)), ready: Condvar::new(), stuck: AtomicU32::new(0) }
    }

    /// Waits for the next one; none when there will be none.
    fn next(&self) -> Option<Arc<Task>> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.closed {
                return None;
            }
            if let Some(task) = queue.pop() {
                return Some(task);
            }
            queue.sleeping += 1;
            queue = self.ready.wait(queue).unwrap_or_else(|poisoned| poisoned.into_inner());
            queue.sleeping -= 1;
        }
    }

    fn push(&self, task: Arc<Task>, is_stopped: bool) {
        let mut queue = lock(&self.queue);
        if is_stopped {
            queue.push_stopped(task);
        } else {
            queue.push(task);
        }
        if queue.sleeping > 0 {
            self.ready.notify_one();
        }
    }

    fn close(&self) {
        lock(&self.queue).closed = true;
        self.ready.notify_all();
    }
}

/// A turn on a caller's thread, which the end of the scheduler waits for.
pub(crate) struct Visit(&'static Scheduler);

impl Drop for Visit {
    fn drop(&mut self) {
        self.0.visitors.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Turns for Scheduler {
    fn push(&self, task: Arc<Task>, is_stopped: bool) {
        self.threads(task.kind()).push(task, is_stopped);
    }

    fn is_foreign(&self) -> bool {
        self.generation != crate::process::fork::generation()
    }
}

impl Scheduler {
    pub(crate) fn new(generation: u64) -> Self {
        Self {
            generation,
            prompt: Threads::new(Kind::Prompt),
            computing: Threads::new(Kind::Computing),
            tasks: Mutex::default(),
            next: AtomicU64::new(0),
            workers: Mutex::default(),
            started: AtomicBool::new(false),
            visitors: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        }
    }

    fn threads(&self, kind: Kind) -> &Threads {
        match kind {
            Kind::Prompt => &self.prompt,
            Kind::Computing => &self.computing,
        }
    }

    /// To be held while a guest has a turn on a caller's thread; none when no guest may have one any more.
    pub(crate) fn visit(&'static self) -> Option<Visit> {
        self.visitors.fetch_add(1, Ordering::SeqCst);
        let visit = Visit(self);
        (!self.closed.load(Ordering::SeqCst)).then_some(visit)
    }

    /// A guest goes on here. `told` gets the task before it can run.
    pub(crate) fn spawn(
        &'static self,
        runtime: &'static Runtime,
        guest: Newcomer<'_>,
        told: impl FnOnce(Weak<Task>),
    ) -> Result<(), Error> {
        self.start(runtime)?;
        let task = Task::new(self, self.next.fetch_add(1, Ordering::Relaxed), guest);
        told(Arc::downgrade(&task));
        lock(&self.tasks).insert(task.number, task.clone());
        self.push(task, false);
        if self.closed.load(Ordering::SeqCst) {
            self.drop_all();
        }
        Ok(())
    }

    /// All threads at once, by the first caller: one that a computing thread starts would inherit its priority.
    fn start(&'static self, runtime: &'static Runtime) -> Result<(), Error> {
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut workers = lock(&self.workers);
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        runtime.handle()?;
        let processors = processors() as usize;
        for kind in Kind::ALL {
            // some may have been started before one could not
            for _ in workers.iter().filter(|worker| worker.kind == kind).count()..processors {
                self.start_one(runtime, kind, &mut workers)
                    .map_err(|error| crate::process::fork::no_thread("guests", error))?;
            }
        }
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    fn start_one(
        &'static self,
        runtime: &'static Runtime,
        kind: Kind,
        workers: &mut Vec<Arc<Worker>>,
    ) -> std::io::Result<()> {
        let worker = Worker::new(kind);
        let own = worker.clone();
        std::thread::Builder::new().name(kind.name().into()).spawn(move || self.work(runtime, &own))?;
        workers.push(worker);
        Ok(())
    }

    fn work(&'static self, runtime: &'static Runtime, worker: &Arc<Worker>) {
        turn::is_of_guests();
        crate::process::signals::open_here();
        worker.is_here();
        if worker.kind == Kind::Computing {
            thread_priority::lower();
        }
        let Ok(handle) = runtime.handle() else { return };
        let _context = handle.enter();
        let threads = self.threads(worker.kind);
        while let Some(task) = threads.next() {
            if worker.kind == Kind::Prompt && !task.is_stopped() && !task.lane.may_be_prompt() {
                lock(&threads.queue).charge(&task.lane, Duration::ZERO);
                self.computing.push(task, false);
            } else if self.turn(worker, &task) {
                return;
            }
        }
    }

    /// Gives a guest its turn. Returns whether another thread has taken this one's place meanwhile.
    fn turn(&self, worker: &Worker, task: &Arc<Task>) -> bool {
        if !task.change(READY, RUNNING) {
            // it was stopped, and is gone
            lock(&self.threads(worker.kind).queue).charge(&task.lane, Duration::ZERO);
            return false;
        }
        worker.begin(&task.lane);
        let has_ended = self.run(task);
        let took = worker.end();
        self.settle(worker, task, &took);
        if has_ended {
            self.end(task);
        } else {
            self.wait(task);
        }
        took.was_stuck
    }

    /// Returns whether the guest has ended: by itself, because it was stopped, or by a panic.
    fn run(&self, task: &Arc<Task>) -> bool {
        let waker = Waker::from(task.clone());
        let mut slot = lock(&task.run);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let run = DropInPanic(&mut slot);
            begin_turn();
            let _open = crate::process::signals::reclaim();
            let _wakes = LateWakes::begin();
            // asked after the turn has begun, which the end of the scheduler waits for
            let goes_on = !task.is_stopped() && !self.closed.load(Ordering::SeqCst);
            let is_pending = |run: &mut Run| run.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
            if goes_on && run.0.as_mut().is_some_and(is_pending) {
                return false;
            }
            // what it holds is given back in its turn
            drop(run.0.take());
            true
        }));
        ended.unwrap_or(true)
    }

    /// A turn is over: its app, its guest and its component are charged with what it took.
    fn settle(&self, worker: &Worker, task: &Task, took: &Took) {
        let Took { time, was_unruly, was_stuck } = *took;
        let threads = self.threads(worker.kind);
        {
            let mut queue = lock(&threads.queue);
            queue.charge(&task.lane, time);
            if was_stuck {
                task.lane.of(worker.kind).stuck.fetch_sub(1, Ordering::Relaxed);
                threads.stuck.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if was_stuck {
            threads.ready.notify_all();
            lock(&self.workers).retain(|other| !std::ptr::eq(&**other, worker));
        }
        if was_unruly {
            task.long_turns.add(time);
        }
        let mut credit = lock(&task.credit);
        credit.spend(time);
        credit.begin_to_earn();
        if worker.kind == Kind::Prompt {
            task.lane.was_prompt(time);
        }
    }

    /// It waits for its waker; or for its next turn, if that was called meanwhile, or it was stopped.
    fn wait(&self, task: &Arc<Task>) {
        if !task.change(RUNNING, IDLE) {
            task.state.store(READY, Ordering::SeqCst);
            self.push(task.clone(), task.is_stopped());
        } else if task.is_stopped() && task.change(IDLE, READY) {
            self.push(task.clone(), true);
        }
    }

    /// Its future is gone: nothing of it is left.
    fn end(&self, task: &Arc<Task>) {
        task.state.store(DONE, Ordering::Release);
        lock(&self.tasks).remove(&task.number);
    }

    /// The epoch has ticked: looks for threads that are stuck.
    pub(crate) fn tick(&'static self, runtime: &'static Runtime) {
        let now = turn::tick_once();
        if !self.started.load(Ordering::Acquire) || self.closed.load(Ordering::SeqCst) {
            return;
        }
        let overdue: Vec<Arc<Worker>> = {
            let workers = lock(&self.workers);
            workers.iter().filter(|worker| worker.is_overdue(now)).cloned().collect()
        };
        for worker in overdue {
            self.replace_if_stuck(runtime, &worker, now);
        }
    }

    fn replace_if_stuck(&'static self, runtime: &'static Runtime, worker: &Arc<Worker>, now: u64) {
        let mut turn = lock(&worker.turn);
        let Some(turn) = worker.stuck(&mut turn, now) else { return };
        let threads = self.threads(worker.kind);
        let queue = lock(&threads.queue);
        let of_lane = &turn.lane.of(worker.kind).stuck;
        let (few, all) = (of_lane.load(Ordering::Relaxed), threads.stuck.load(Ordering::Relaxed));
        if !stuck::may_be_replaced(few, all, processors())
            || self.start_one(runtime, worker.kind, &mut lock(&self.workers)).is_err()
        {
            return;
        }
        turn.is_stuck = true;
        of_lane.fetch_add(1, Ordering::Relaxed);
        threads.stuck.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        worker.thread.lower_to_last();
    }

    /// How many guests there are.
    pub(crate) fn tasks(&self) -> usize {
        lock(&self.tasks).len()
    }

    /// How many threads give turns.
    pub(crate) fn workers(&self) -> usize {
        lock(&self.workers).len()
    }

    /// No more turns. Waits for those that are under way, but not longer than `bound`; then drops the guests.
    pub(crate) fn shut_down(&self, bound: Duration) {
        let deadline = Instant::now() + bound;
        self.closed.store(true, Ordering::SeqCst);
        self.prompt.close();
        self.computing.close();
        let has_turns = || {
            self.visitors.load(Ordering::SeqCst) > 0
                || lock(&self.workers).iter().any(|worker| worker.since.load(Ordering::SeqCst) > 0)
        };
        while has_turns() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.drop_all();
    }

    /// Those whose turn it is are left alone: somebody waited for them, but not for ever.
    fn drop_all(&self) {
        let tasks = std::mem::take(&mut *lock(&self.tasks));
        for task in tasks.into_values() {
            if let Ok(mut run) = task.run.try_lock() {
                task.state.store(DONE, Ordering::Release);
                let run = run.take();
                drop(run);
            }
        }
        for kind in Kind::ALL {
            let mut queue = lock(&self.threads(kind).queue);
            queue.clear();
        }
    }
}

#[cfg(test)]
mod tests;
