//! An instance that several exchanges share, as its store sees it: who is in it, and whose turn it is.
//!
//! Each exchange has a `Seat`. What belongs to it alone (its upstreams, its output, its bodies) is its `ExchangeContext`; the store has
//! that of one of them at a time, the one whose guest calls the host. Which that is says wasmtime (`async_call_stack`): the task that the
//! host has started is the last in it. Nobody's turn has a context of its own, which leads nowhere.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use wasmtime::component::GuestTaskId;
use wasmtime_wasi_http::WasiBody;

use crate::guest::exchange_context::ExchangeContext;
use crate::guest::seat::Seat;
use crate::outgoing::hooks::Hooks;
use crate::sync::lock;

/// A request for an instance that others are in.
pub(crate) struct Newcomer {
    pub request: http::Request<WasiBody>,
    pub hooks: Hooks,
    pub seat: Arc<Seat>,
}

/// What the store and whoever drives it both know.
#[derive(Default)]
pub(crate) struct Shared {
    queue: Mutex<Queue>,
    turn: Mutex<Turn>,
    /// Whether it was woken since the driver's turn began.
    woken: AtomicBool,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Box<Newcomer>>,
    /// How many are on their way.
    reserved: usize,
    /// Nobody comes any more.
    closed: bool,
    /// Whether the guest is there, and others may come.
    open: bool,
    /// Of whoever drives the store.
    driver: Option<Waker>,
}

/// Who has the store. Seats are kept by whoever drives it and by the store: each has a waker that leads back here.
#[derive(Default)]
struct Turn {
    current: Weak<Seat>,
    since: Option<Instant>,
    /// When the driver's turn was over, if somebody kept the store.
    kept: Option<Instant>,
    /// Who had it last.
    last: Weak<Seat>,
}

impl Turn {
    fn pass_on(&mut self, to: Option<&Arc<Seat>>) {
        let next = to.map_or_else(Weak::new, Arc::downgrade);
        if self.current.ptr_eq(&next) {
            return;
        }
        let now = Instant::now();
        self.stop(now);
        let before = std::mem::replace(&mut self.current, next);
        if before.strong_count() > 0 {
            self.last = before;
        }
        self.since = Some(now);
    }

    fn stop(&mut self, now: Instant) {
        if let (Some(seat), Some(since)) = (self.current.upgrade(), self.since.take()) {
            seat.add_ran(now.saturating_duration_since(since));
        }
    }
}

impl Shared {
    /// One more will come: the store is not left meanwhile. Returns whether he may.
    pub(crate) fn reserve(&self) -> bool {
        let mut queue = lock(&self.queue);
        let may = queue.open && !queue.closed;
        queue.reserved += usize::from(may);
        may
    }

    pub(crate) fn reserved(&self) -> usize {
        lock(&self.queue).reserved
    }

    /// One who was to come does not.
    pub(crate) fn give_up(&self) {
        let driver = {
            let mut queue = lock(&self.queue);
            queue.reserved = queue.reserved.saturating_sub(1);
            queue.driver.clone()
        };
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// One for whom there was a place comes.
    pub(crate) fn join(&self, newcomer: Box<Newcomer>) {
        lock(&self.queue).waiting.push_back(newcomer);
        self.give_up();
    }

    /// The first one, for whom its guest is made.
    pub(crate) fn begin(&self, newcomer: Box<Newcomer>) {
        newcomer.seat.begin();
        lock(&self.queue).waiting.push_back(newcomer);
    }

    /// Its guest is there.
    pub(crate) fn open(&self) {
        lock(&self.queue).open = true;
    }

    pub(crate) fn is_driven_by(&self, cx: &mut Context<'_>) {
        let mut queue = lock(&self.queue);
        if !queue.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            queue.driver = Some(cx.waker().clone());
        }
    }

    /// Nobody comes any more. Returns those who wait.
    pub(crate) fn close(&self) -> VecDeque<Box<Newcomer>> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        std::mem::take(&mut queue.waiting)
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.queue).closed
    }

    /// The same as [`Self::close`], unless somebody waits. Returns whether nobody does.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.closed |= queue.waiting.is_empty() && queue.reserved == 0;
        queue.closed
    }

    /// The same, unless somebody is on the way: of whoever waits all have left. Returns whether nobody comes any more.
    pub(crate) fn close_if_unreserved(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.closed |= queue.reserved == 0;
        queue.closed
    }

    /// The next one whose exchange is not over already.
    pub(crate) fn next(&self) -> Option<Box<Newcomer>> {
        let mut over = Vec::new();
        let mut queue = lock(&self.queue);
        let next = loop {
            match queue.waiting.pop_front() {
                Some(newcomer) if newcomer.seat.is_over() => over.push(newcomer),
                next => break next,
            }
        };
        drop(queue);
        drop(over); // without the lock: a body of the caller's goes with it
        next
    }

    /// The driver's turn begins: whoever had the store when the last one was over has it still. Returns for how long it had kept it.
    pub(crate) fn begin_turn(&self, now: Instant) -> Duration {
        self.woken.store(false, Ordering::Release);
        let mut turn = lock(&self.turn);
        let kept = turn.kept.take().map_or(Duration::ZERO, |kept| now.saturating_duration_since(kept));
        if let Some(seat) = turn.current.upgrade() {
            seat.add_ran(kept);
        }
        turn.since = Some(now);
        kept
    }

    /// It is over. Returns who holds the store, so that none of the others can go on.
    pub(crate) fn end_turn(&self, now: Instant) -> Option<Arc<Seat>> {
        let mut turn = lock(&self.turn);
        turn.stop(now);
        let holder = turn.current.upgrade();
        turn.kept = holder.is_some().then_some(now);
        holder
    }

    /// Whether there is nothing more to do in the store, until somebody from outside has done his part.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.woken.load(Ordering::Acquire)
    }

    /// Who has run last: what has ended the instance was its doing.
    pub(crate) fn culprit(&self) -> Option<Arc<Seat>> {
        let turn = lock(&self.turn);
        turn.current.upgrade().or_else(|| turn.last.upgrade())
    }
}

/// Whoever drives the store is to have another turn: something in it can go on, or an exchange has ended.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Release);
        let driver = lock(&self.queue).driver.clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// Those who share a store, as its state has them.
pub(crate) struct Siblings {
    shared: Arc<Shared>,
    seats: Vec<Seated>,
    current: Option<GuestTaskId>,
    /// Whether what anybody left is not to be met by the next.
    unclean: bool,
}

struct Seated {
    task: GuestTaskId,
    seat: Arc<Seat>,
    /// Its own; nobody's while the store has that.
    context: Box<ExchangeContext>,
}

impl Siblings {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, seats: Vec::new(), current: None, unclean: false }
    }

    fn find(&mut self, task: GuestTaskId) -> Option<&mut Seated> {
        self.seats.iter_mut().find(|seated| seated.task == task)
    }

    /// Whose context the store has.
    pub(crate) fn seat(&self) -> Option<&Arc<Seat>> {
        let task = self.current?;
        self.seats.iter().find(|seated| seated.task == task).map(|seated| &seated.seat)
    }

    /// The guest of this task has the turn, or none. The store has its context from now on: nobody's, when its exchange is over. Returns
    /// whether it had another before.
    pub(crate) fn lead(&mut self, to: Option<GuestTaskId>, context: &mut Box<ExchangeContext>) -> bool {
        // most calls of the host are made and return in the turn of one guest
        if to.is_some() && to == self.current && self.seat().is_some_and(|seat| !seat.is_over()) {
            return false;
        }
        let seat = to.and_then(|task| self.find(task)).map(|seated| seated.seat.clone());
        lock(&self.shared.turn).pass_on(seat.as_ref());
        let to = to.filter(|_| seat.as_ref().is_some_and(|seat| !seat.is_over()));
        if to == self.current {
            return false;
        }
        for task in [self.current, to].into_iter().flatten() {
            if let Some(seated) = self.find(task) {
                std::mem::swap(&mut seated.context, context);
            }
        }
        self.current = to;
        if let Some(seat) = seat {
            seat.runs();
        }
        true
    }

    /// One more, whose handler was called. wasmtime gives the number of a task that has gone to another: what it was before is nobody's. To
    /// be called in nobody's turn.
    pub(crate) fn sit_down(&mut self, task: GuestTaskId, seat: Arc<Seat>, context: Box<ExchangeContext>) {
        seat.is_called_as(task);
        let unclean = &mut self.unclean;
        self.seats.retain(|seated| {
            let stays = seated.task != task && !seated.seat.is_over();
            *unclean |= !stays && seated.context.is_busy();
            stays
        });
        self.seats.push(Seated { task, seat, context });
    }

    /// Whether one who was called has not run yet: the next one waits, or wasmtime would choose among them by their numbers.
    pub(crate) fn hold_back(&self) -> bool {
        self.seats.iter().any(|seated| seated.seat.is_held_back() && !seated.seat.is_over())
    }

    /// Whether a body that one of them has passed on is under way.
    pub(crate) fn pass_on(&self) -> bool {
        self.seats.iter().any(|seated| !seated.seat.is_over() && seated.seat.written.are_passed_on())
    }

    /// All have left. Returns whether nothing is left that somebody else takes part in.
    pub(crate) fn is_clean(&self) -> bool {
        !self.unclean && !self.seats.iter().any(|seated| seated.context.is_busy())
    }
}
