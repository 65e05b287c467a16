//! Who gets the next turn, on which thread.
//!
//! A guest that has not finished on its caller's thread is a [`Task`] here. Two kinds of threads give turns:
//!
//! - **prompt** threads, for guests that mostly wait: they answer a timer or a socket and wait again;
//! - **computing** threads of a lower priority, as many as there are processors, for guests that have used up what a prompt
//!   guest may ([`Credit`]), and for those of components whose past says so.
//!
//! On both the apps take turns, whatever the number of their exchanges ([`Queue`]); within an app its exchanges do. A turn ends at the
//! next tick of the epoch, but one long instruction (`memory.fill`) or host call does not. A thread that is in one is *stuck*: it
//! gets the lowest priority for the rest of that turn, another thread takes its place, and its app gets no other turn of that kind
//! meanwhile. Timers, sockets and outgoing requests belong to tokio's workers, where no guest has a turn ([`crate::runtime`]).

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use crate::engine::{TICK, World};
use crate::error::Error;
use crate::priority::{self, ThreadTime};
use crate::sync::lock;

/// A guest that runs until it has ended or is stopped.
pub(crate) type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What a guest may compute on prompt threads before it counts as one that computes.
const CREDIT: Duration = Duration::from_millis(2);

/// It earns one part in so many of the time that passes.
const EARNS: u32 = 10;

/// A turn of this much CPU time, in which ticks have passed, was no turn of a guest that ticks can interrupt.
pub(crate) const LONG_TURN: Duration = Duration::from_millis(3);

/// After so many ticks it is looked at whether a thread is stuck.
const STUCK_TICKS: u64 = 10;

/// Threads that may be stuck at once.
const MOST_STUCK: usize = 64;

/// What a turn is charged with before it is known what it took, so that threads that choose at the same time choose differently.
const ESTIMATE: u64 = TICK.as_nanos() as u64;

/// Ticks of the epoch in this process, by which turns are measured where a clock would cost too much.
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

/// Whether the present turn should have ended: a whole tick of it has passed.
pub(crate) fn is_turn_over() -> bool {
    TICKS.load(Ordering::Relaxed).wrapping_sub(TURN.get()) > 1
}

/// Whether this is a thread of the scheduler's, which guests may hold up.
pub(crate) fn is_guests_thread() -> bool {
    IS_GUESTS.get()
}

/// An app's share: its exchanges take turns with each other, and together with those of other apps.
#[derive(Default)]
pub(crate) struct Lane {
    kinds: [LaneOfKind; 2],
}

/// Changed under the lock of the queue only.
#[derive(Default)]
struct LaneOfKind {
    /// CPU time that it has had, in nanoseconds, as far as it counts.
    spent: AtomicU64,
    /// How many of its turns are stuck.
    stuck: AtomicU32,
}

/// Which threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Prompt,
    Computing,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Prompt, Self::Computing];

    fn name(self) -> &'static str {
        match self {
            Self::Prompt => "wasgi-guest",
            Self::Computing => "wasgi-compute",
        }
    }
}

impl Lane {
    fn of(&self, kind: Kind) -> &LaneOfKind {
        let [prompt, computing] = &self.kinds;
        match kind {
            Kind::Prompt => prompt,
            Kind::Computing => computing,
        }
    }

    fn key(self: &Arc<Self>, kind: Kind) -> Key {
        (self.of(kind).spent.load(Ordering::Relaxed), Arc::as_ptr(self) as usize)
    }
}

/// What an app has had, and which it is.
type Key = (u64, usize);

/// Guests that wait for a turn on one kind of threads.
struct Queue {
    kind: Kind,
    lanes: BTreeMap<Key, (Arc<Lane>, VecDeque<Arc<Task>>)>,
    /// Those that were stopped: they only go away, and come first.
    stopped: VecDeque<Arc<Task>>,
    /// What the app that was last chosen has had: one that comes back after a while has no claim on the time that it was away.
    floor: u64,
    sleeping: usize,
    closed: bool,
}

impl Queue {
    fn new(kind: Kind) -> Self {
        Self { kind, lanes: BTreeMap::new(), stopped: VecDeque::new(), floor: 0, sleeping: 0, closed: false }
    }

    fn push(&mut self, task: Arc<Task>) {
        let lane = &task.lane;
        if let Some((_, tasks)) = self.lanes.get_mut(&lane.key(self.kind)) {
            tasks.push_back(task);
            return;
        }
        let lane = lane.clone();
        lane.of(self.kind).spent.fetch_max(self.floor, Ordering::Relaxed);
        self.lanes.insert(lane.key(self.kind), (lane, VecDeque::from([task])));
    }

    /// The next one: of the app that has had least, the exchange that has waited longest.
    fn pop(&mut self) -> Option<Arc<Task>> {
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
    fn charge(&mut self, lane: &Arc<Lane>, took: Duration) {
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
}

/// What a guest may still compute before it counts as one that computes.
struct Credit {
    left: Duration,
    at: Instant,
    /// It has had a turn that no tick could end: it never is prompt again.
    spoilt: bool,
}

impl Credit {
    fn new(standing: Standing) -> Self {
        let left = if standing == Standing::Fresh { CREDIT } else { Duration::ZERO };
        Self { left, at: Instant::now(), spoilt: standing == Standing::Heavy }
    }

    /// Only a guest that waits earns: not in its turn, nor while it is in a queue.
    fn spend(&mut self, took: Duration, is_long: bool) {
        self.at = Instant::now();
        self.left = self.left.saturating_sub(took);
        self.spoilt |= is_long;
    }

    fn earn(&mut self) {
        let now = Instant::now();
        self.left = (self.left + now.duration_since(self.at) / EARNS).min(CREDIT);
        self.at = now;
    }

    fn kind(&self) -> Kind {
        // a little is not enough: a guest would change threads at each turn
        if self.spoilt || self.left < CREDIT / 8 { Kind::Computing } else { Kind::Prompt }
    }
}

/// A guest that comes from its caller's thread.
pub(crate) struct Newcomer<'a> {
    pub run: Run,
    pub lane: &'a Arc<Lane>,
    pub standing: Standing,
    /// To be set when one of its turns is longer than a tick lets it be.
    pub unruly: &'a Arc<AtomicBool>,
}

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing against it.
    Fresh,
    /// It has computed for as long as its caller's thread lets it, or others of its component have lately.
    Computes,
    /// Guests of its component have turns that no tick ends.
    Heavy,
}

/// It waits for a waker.
const IDLE: u8 = 0;
/// It waits for a turn.
const READY: u8 = 1;
const RUNNING: u8 = 2;
/// It was woken in its turn.
const WOKEN: u8 = 3;
const DONE: u8 = 4;

/// A guest under way.
pub(crate) struct Task {
    scheduler: &'static Scheduler,
    number: u64,
    lane: Arc<Lane>,
    unruly: Arc<AtomicBool>,
    state: AtomicU8,
    stopped: AtomicBool,
    credit: Mutex<Credit>,
    /// Until it has ended. Locked by whose turn it is.
    run: Mutex<Option<Run>>,
}

impl Task {
    fn change(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Ends it where it stands: its future is dropped on one of the scheduler's threads.
    pub fn stop(self: &Arc<Self>) {
        if self.stopped.swap(true, Ordering::SeqCst) || self.is_foreign() {
            return;
        }
        // one that has its turn finds out at its end
        if self.change(IDLE, READY) || self.state.load(Ordering::SeqCst) == READY {
            self.scheduler.push(self.clone(), true);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// Whether it is in the process that forked this one, whose threads do not exist here and may have held its locks.
    fn is_foreign(&self) -> bool {
        self.scheduler.generation != crate::engine::generation()
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

/// A thread that gives turns, as the ticker sees it.
struct Worker {
    kind: Kind,
    thread: priority::Thread,
    /// The tick in which its turn began, and one more; 0 between turns.
    since: AtomicU64,
    turn: Mutex<Option<Turn>>,
}

struct Turn {
    lane: Arc<Lane>,
    /// Of the thread, when the turn began.
    began: ThreadTime,
    /// Another thread has taken its place.
    is_stuck: bool,
}

/// The scheduler of one process.
pub(crate) struct Scheduler {
    generation: u64,
    prompt: Threads,
    computing: Threads,
    tasks: Mutex<HashMap<u64, Arc<Task>>>,
    next: AtomicU64,
    workers: Mutex<Vec<Arc<Worker>>>,
    started: AtomicBool,
    stuck: AtomicUsize,
    /// Turns on callers' threads.
    visitors: AtomicUsize,
    closed: AtomicBool,
}

/// The threads of one kind, and who waits for them.
struct Threads {
    queue: Mutex<Queue>,
    ready: Condvar,
}

impl Threads {
    fn new(kind: Kind) -> Self {
        Self { queue: Mutex::new(Queue::new(kind)), ready: Condvar::new() }
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
            queue.stopped.push_back(task);
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

impl Scheduler {
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            prompt: Threads::new(Kind::Prompt),
            computing: Threads::new(Kind::Computing),
            tasks: Mutex::default(),
            next: AtomicU64::new(0),
            workers: Mutex::default(),
            started: AtomicBool::new(false),
            stuck: AtomicUsize::new(0),
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
    pub fn visit(&'static self) -> Option<Visit> {
        self.visitors.fetch_add(1, Ordering::SeqCst);
        let visit = Visit(self);
        (!self.closed.load(Ordering::SeqCst)).then_some(visit)
    }

    /// A guest goes on here. `told` gets the task before it can run.
    pub fn spawn(
        &'static self,
        world: &'static World,
        guest: Newcomer<'_>,
        told: impl FnOnce(Weak<Task>),
    ) -> Result<(), Error> {
        self.start(world)?;
        let task = Arc::new(Task {
            scheduler: self,
            number: self.next.fetch_add(1, Ordering::Relaxed),
            lane: guest.lane.clone(),
            unruly: guest.unruly.clone(),
            state: AtomicU8::new(READY),
            stopped: AtomicBool::new(false),
            credit: Mutex::new(Credit::new(guest.standing)),
            run: Mutex::new(Some(guest.run)),
        });
        told(Arc::downgrade(&task));
        lock(&self.tasks).insert(task.number, task.clone());
        self.push(task, false);
        if self.closed.load(Ordering::SeqCst) {
            self.drop_all();
        }
        Ok(())
    }

    fn push(&self, task: Arc<Task>, is_stopped: bool) {
        let kind = lock(&task.credit).kind();
        self.threads(kind).push(task, is_stopped);
    }

    /// All threads at once, by the first caller: one that a computing thread starts would inherit its priority.
    fn start(&'static self, world: &'static World) -> Result<(), Error> {
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut workers = lock(&self.workers);
        if self.started.load(Ordering::Acquire) {
            return Ok(());
        }
        world.runtime.handle_for_guests(true)?;
        world.runtime.handle()?;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        for kind in Kind::ALL {
            // some may have been started before one could not
            for _ in workers.iter().filter(|worker| worker.kind == kind).count()..processors {
                self.start_one(world, kind, &mut workers)
                    .map_err(|error| crate::process::no_thread("guests", &error))?;
            }
        }
        self.started.store(true, Ordering::Release);
        Ok(())
    }

    fn start_one(
        &'static self,
        world: &'static World,
        kind: Kind,
        workers: &mut Vec<Arc<Worker>>,
    ) -> std::io::Result<()> {
        let worker = Arc::new(Worker {
            kind,
            thread: priority::Thread::default(),
            since: AtomicU64::new(0),
            turn: Mutex::new(None),
        });
        let own = worker.clone();
        std::thread::Builder::new().name(kind.name().into()).spawn(move || self.work(world, &own))?;
        workers.push(worker);
        Ok(())
    }

    fn work(&'static self, world: &'static World, worker: &Worker) {
        IS_GUESTS.set(true);
        crate::signals::open_here();
        worker.thread.is_here();
        if worker.kind == Kind::Computing {
            priority::lower();
        }
        let Ok(handle) = world.runtime.handle_for_guests(worker.kind == Kind::Computing) else { return };
        let _context = handle.enter();
        let threads = self.threads(worker.kind);
        while let Some(task) = threads.next() {
            if self.turn(worker, &task) {
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
        let waker = Waker::from(task.clone());
        let mut slot = lock(&task.run);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let run = DropInPanic(&mut slot);
            begin_turn();
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
        let ended = ended.unwrap_or(true);
        drop(slot);
        let (took, was_stuck) = worker.end();
        {
            let mut queue = lock(&self.threads(worker.kind).queue);
            queue.charge(&task.lane, took);
            if was_stuck {
                task.lane.of(worker.kind).stuck.fetch_sub(1, Ordering::Relaxed);
            }
        }
        if was_stuck {
            self.stuck.fetch_sub(1, Ordering::Relaxed);
            self.threads(worker.kind).ready.notify_all();
            lock(&self.workers).retain(|other| !std::ptr::eq(&**other, worker));
        }
        let is_long = was_unruly(took);
        if is_long {
            task.unruly.store(true, Ordering::Relaxed);
        }
        lock(&task.credit).spend(took, is_long);
        if ended {
            self.end(task);
        } else if !task.change(RUNNING, IDLE) {
            task.state.store(READY, Ordering::SeqCst);
            self.push(task.clone(), task.is_stopped());
        } else if task.is_stopped() && task.change(IDLE, READY) {
            self.push(task.clone(), true);
        }
        was_stuck
    }

    /// Its future is gone: nothing of it is left.
    fn end(&self, task: &Arc<Task>) {
        task.state.store(DONE, Ordering::Release);
        lock(&self.tasks).remove(&task.number);
    }

    /// The epoch has ticked: looks for threads that are stuck.
    pub fn tick(&'static self, world: &'static World) {
        let now = TICKS.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.started.load(Ordering::Acquire) || self.closed.load(Ordering::SeqCst) {
            return;
        }
        let stuck: Vec<Arc<Worker>> = {
            let workers = lock(&self.workers);
            let is_late = |worker: &&Arc<Worker>| {
                let since = worker.since.load(Ordering::Relaxed);
                since > 0 && now.saturating_sub(since) >= STUCK_TICKS
            };
            workers.iter().filter(is_late).cloned().collect()
        };
        for worker in stuck {
            self.replace_if_stuck(world, &worker);
        }
    }

    fn replace_if_stuck(&'static self, world: &'static World, worker: &Arc<Worker>) {
        if self.stuck.load(Ordering::Relaxed) >= MOST_STUCK {
            return;
        }
        let mut turn = lock(&worker.turn);
        let Some(turn) = turn.as_mut().filter(|turn| !turn.is_stuck) else { return };
        // by its own clock: it may only have waited for a processor
        if worker.thread.time().since(turn.began) <= LONG_TURN {
            return;
        }
        let queue = lock(&self.threads(worker.kind).queue);
        if self.start_one(world, worker.kind, &mut lock(&self.workers)).is_err() {
            return;
        }
        turn.is_stuck = true;
        turn.lane.of(worker.kind).stuck.fetch_add(1, Ordering::Relaxed);
        drop(queue);
        self.stuck.fetch_add(1, Ordering::Relaxed);
        worker.thread.lower_to_last();
    }

    /// How many guests there are.
    pub fn tasks(&self) -> usize {
        lock(&self.tasks).len()
    }

    /// How many threads give turns.
    pub fn workers(&self) -> usize {
        lock(&self.workers).len()
    }

    /// No more turns. Waits for those that are under way, but not longer than `bound`; then drops the guests.
    pub fn shut_down(&self, bound: Duration) {
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
            queue.lanes.clear();
            queue.stopped.clear();
        }
    }
}

/// A future that panics is dropped while the thread panics, so that what it holds can tell.
struct DropInPanic<'a>(&'a mut Option<Run>);

impl Drop for DropInPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.take();
        }
    }
}

impl Worker {
    fn begin(&self, lane: &Arc<Lane>) {
        *lock(&self.turn) = Some(Turn { lane: lane.clone(), began: ThreadTime::now(), is_stuck: false });
        self.since.store(TICKS.load(Ordering::Relaxed).max(1), Ordering::SeqCst);
    }

    /// What the turn took, and whether another thread has taken this one's place.
    fn end(&self) -> (Duration, bool) {
        self.since.store(0, Ordering::SeqCst);
        match lock(&self.turn).take() {
            Some(turn) => (ThreadTime::now().since(turn.began), turn.is_stuck),
            None => (Duration::ZERO, false),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn world() -> &'static World {
        crate::engine::world().unwrap()
    }

    fn task(lane: &Arc<Lane>, number: u64) -> Arc<Task> {
        Arc::new(Task {
            scheduler: &world().scheduler,
            number,
            lane: lane.clone(),
            unruly: Arc::default(),
            state: AtomicU8::new(READY),
            stopped: AtomicBool::new(false),
            credit: Mutex::new(Credit::new(Standing::Fresh)),
            run: Mutex::new(None),
        })
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
    fn a_guest_that_computes_is_not_prompt_until_it_has_waited() {
        let mut credit = Credit::new(Standing::Fresh);
        assert_eq!(credit.kind(), Kind::Prompt);
        credit.spend(CREDIT, false);
        assert_eq!(credit.kind(), Kind::Computing);
        credit.at -= CREDIT * EARNS;
        credit.earn();
        assert_eq!(credit.kind(), Kind::Prompt);
        credit.spend(LONG_TURN * 2, true);
        credit.at -= CREDIT * EARNS;
        credit.earn();
        assert_eq!(credit.kind(), Kind::Computing, "one that no tick can end is never prompt again");
    }

    /// Has guests run, and waits for the end of each.
    struct Guests {
        lane: Arc<Lane>,
        ended: mpsc::Receiver<()>,
        end: mpsc::Sender<()>,
    }

    /// Tells that its guest is gone, by its end or because it was dropped.
    struct Gone(mpsc::Sender<()>);

    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }

    impl Guests {
        fn new() -> Self {
            let (end, ended) = mpsc::channel();
            Self { lane: Arc::default(), ended, end }
        }

        fn run(&self, standing: Standing, run: impl Future<Output = ()> + Send + 'static) -> Arc<Task> {
            let gone = Gone(self.end.clone());
            let run: Run = Box::pin(async move {
                let _gone = gone;
                run.await;
            });
            let mut task = None;
            let guest = Newcomer { run, lane: &self.lane, standing, unruly: &Arc::default() };
            world().scheduler.spawn(world(), guest, |told| task = told.upgrade()).unwrap();
            // it may have ended already, and then nothing can stop it
            task.unwrap()
        }

        fn wait(&self) {
            self.ended.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    #[test]
    fn a_guest_that_is_woken_has_another_turn() {
        let guests = Guests::new();
        for standing in [Standing::Fresh, Standing::Computes, Standing::Heavy] {
            guests.run(standing, async {
                for _ in 0..100 {
                    tokio::time::sleep(Duration::from_micros(100)).await;
                    tokio::task::yield_now().await;
                }
            });
        }
        (0..3).for_each(|_| guests.wait());
    }

    #[test]
    fn no_wake_up_is_lost_at_the_end_of_a_turn() {
        let guests = Guests::new();
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        guests.run(Standing::Fresh, async move {
            for expected in 0..100_000 {
                assert_eq!(receiver.recv().await, Some(expected));
            }
        });
        let sends = async move {
            for number in 0..100_000 {
                sender.send(number).await.unwrap();
            }
        };
        world().runtime.handle().unwrap().spawn(sends);
        guests.wait();
    }

    #[test]
    fn a_guest_that_is_stopped_is_dropped_where_it_stands() {
        let guests = Guests::new();
        let waits = guests.run(Standing::Fresh, std::future::pending());
        let spins = guests.run(Standing::Computes, async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        waits.stop();
        spins.stop();
        (0..2).for_each(|_| guests.wait());
    }

    #[test]
    fn a_panic_ends_one_guest() {
        let guests = Guests::new();
        #[allow(clippy::panic)]
        guests.run(Standing::Fresh, async { panic!("as asked") });
        guests.wait();
        guests.run(Standing::Fresh, async {});
        guests.wait();
    }

    #[test]
    fn turns_without_an_end_keep_no_other_app_from_its_own() {
        let _ticking = world().tick().unwrap();
        let (hostile, other) = (Guests::new(), Guests::new());
        let is_done = Arc::new(AtomicBool::new(false));
        let processors = std::thread::available_parallelism().unwrap().get();
        for _ in 0..processors * 4 {
            let is_done = is_done.clone();
            hostile.run(Standing::Computes, async move {
                let deadline = Instant::now() + Duration::from_secs(60);
                while !is_done.load(Ordering::Relaxed) && Instant::now() < deadline {
                    std::hint::spin_loop();
                }
                assert!(is_done.load(Ordering::Relaxed));
            });
        }
        other.run(Standing::Computes, async {});
        other.wait();
        is_done.store(true, Ordering::Relaxed);
        (0..processors * 4).for_each(|_| hostile.wait());
    }
}
