//! An instance that several exchanges share, as its store sees it: who is in it, and whose turn it is.
//!
//! Each exchange has a [`Seat`]. What belongs to it alone (its upstreams, its output, its bodies) is its [`ExchangeContext`]; the store has
//! that of one of them at a time, the one whose guest calls the host. Which that is says wasmtime (`async_call_stack`): the task that the
//! host has started is the last in it. Nobody's turn has a context of its own, which leads nowhere.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use wasmtime::component::GuestTaskId;
use wasmtime::{CallHook, StoreContextMut};
use wasmtime_wasi_http::WasiBody;

use crate::exchange::cut_body::Over;
use crate::exchange::guest_written::WrittenBodies;
use crate::exchange::handle::ExchangeState;
use crate::guest::p3::Answered;
use crate::guest::store::{ExchangeContext, StoreState};
use crate::outgoing::hooks::Hooks;
use crate::sync::lock;

/// The place of one exchange in an instance that it shares.
pub(crate) struct Seat {
    pub exchange: Arc<ExchangeState>,
    /// What its guest writes.
    pub written: WrittenBodies,
    /// Where its answer goes, until it has answered or has ended.
    unanswered: Mutex<Option<Answered>>,
    /// Its guest's task, when its handler was called.
    task: OnceLock<GuestTaskId>,
    /// Whether its time counts: its guest is being made, or its handler was called.
    has_begun: AtomicBool,
    /// Whether its guest has run: an instance may hold back who comes.
    has_run: AtomicBool,
    /// Its handler has returned.
    has_returned: AtomicBool,
    /// Host functions that it waits for.
    waits: AtomicUsize,
    /// Whether the exchange is over, whatever its guest's tasks still do.
    pub over: Arc<Over>,
    /// Nanoseconds that its guest had the store in this turn, and that it had it since it was over.
    ran: AtomicU64,
    ran_on: AtomicU64,
    /// What is left of its fuel, where that is limited.
    fuel: AtomicU64,
    most_fuel: Option<u64>,
}

impl Seat {
    /// `driver`: of whoever drives its instance.
    pub(crate) fn new(exchange: Arc<ExchangeState>, fuel: Option<u64>, answered: Answered, driver: Waker) -> Arc<Self> {
        Arc::new(Self {
            exchange,
            written: WrittenBodies::told_to(driver),
            unanswered: Mutex::new(Some(answered)),
            task: OnceLock::new(),
            has_begun: AtomicBool::new(false),
            has_run: AtomicBool::new(false),
            has_returned: AtomicBool::new(false),
            waits: AtomicUsize::new(0),
            over: Arc::default(),
            ran: AtomicU64::new(0),
            ran_on: AtomicU64::new(0),
            fuel: AtomicU64::new(fuel.unwrap_or(u64::MAX)),
            most_fuel: fuel,
        })
    }

    /// Its handler has returned: whoever waits for an answer is told, if there is somebody.
    pub(crate) fn take_unanswered(&self) -> Option<Answered> {
        lock(&self.unanswered).take()
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_over()
    }

    /// The exchange is over: what its guest still does is nobody's, and whatever it waits for ends.
    pub(crate) fn leave(&self) {
        self.over.end();
        drop(self.take_unanswered());
    }

    pub(crate) fn task(&self) -> Option<GuestTaskId> {
        self.task.get().copied()
    }

    /// Its time counts from now on.
    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.has_begun.load(Ordering::Relaxed)
    }

    /// Whether its handler was called.
    pub(crate) fn is_called(&self) -> bool {
        self.task.get().is_some()
    }

    /// Whether it was called and the instance holds it back.
    pub(crate) fn is_held_back(&self) -> bool {
        self.is_called() && !self.has_run.load(Ordering::Relaxed)
    }

    pub(crate) fn has_returned(&self) {
        self.has_returned.store(true, Ordering::Relaxed);
    }

    /// Whether nothing is known that its guest still does for it: its handler has returned, its bodies have ended, and it waits for no host
    /// function. wasmtime tells of the tasks of a whole store only.
    pub(crate) fn seems_done(&self) -> bool {
        self.has_returned.load(Ordering::Relaxed) && self.waits.load(Ordering::Relaxed) == 0 && !self.written.are_read()
    }

    /// To be held while a host function of its guest's is under way.
    pub(crate) fn waits(self: &Arc<Self>) -> Waits {
        self.waits.fetch_add(1, Ordering::Relaxed);
        Waits(self.clone())
    }

    fn add_ran(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.ran.fetch_add(nanos, Ordering::Relaxed);
    }

    /// How long its guest had the store in the turn that is over.
    pub(crate) fn take_ran(&self) -> Duration {
        let ran = self.ran.swap(0, Ordering::Relaxed);
        if self.is_over() {
            self.ran_on.fetch_add(ran, Ordering::Relaxed);
        }
        Duration::from_nanos(ran)
    }

    /// How long it had it since its exchange was over.
    pub(crate) fn ran_on(&self) -> Duration {
        Duration::from_nanos(self.ran_on.load(Ordering::Relaxed))
    }

    fn fuel_left(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    /// How much it has used, if it is limited.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        self.most_fuel.map(|most| most.saturating_sub(self.fuel_left()))
    }
}

/// A host function of one exchange's guest that is under way.
pub(crate) struct Waits(Arc<Seat>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waits.fetch_sub(1, Ordering::Relaxed);
    }
}

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
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Newcomer>,
    /// How many are on their way.
    reserved: usize,
    /// Nobody comes any more.
    closed: bool,
    /// Whether the guest is there, and others may come.
    open: bool,
    /// Of whoever drives the store.
    driver: Option<Waker>,
}

/// Who has the store.
#[derive(Default)]
struct Turn {
    current: Option<Arc<Seat>>,
    since: Option<Instant>,
    /// When the driver's turn was over, if somebody kept the store.
    kept: Option<Instant>,
    /// Who had it last.
    last: Option<Arc<Seat>>,
}

impl Turn {
    fn pass_on(&mut self, to: Option<&Arc<Seat>>) {
        if self.current.as_ref().map(Arc::as_ptr) == to.map(Arc::as_ptr) {
            return;
        }
        let now = Instant::now();
        self.stop(now);
        if let Some(seat) = std::mem::replace(&mut self.current, to.cloned()) {
            self.last = Some(seat);
        }
        self.since = Some(now);
    }

    fn stop(&mut self, now: Instant) {
        if let (Some(seat), Some(since)) = (&self.current, self.since.take()) {
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
    pub(crate) fn join(&self, newcomer: Newcomer) {
        lock(&self.queue).waiting.push_back(newcomer);
        self.give_up();
    }

    /// The first one, for whom its guest is made.
    pub(crate) fn begin(&self, newcomer: Newcomer) {
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
    pub(crate) fn close(&self) -> VecDeque<Newcomer> {
        let mut queue = lock(&self.queue);
        queue.closed = true;
        std::mem::take(&mut queue.waiting)
    }

    /// The same, unless somebody waits. Returns whether nobody does.
    pub(crate) fn close_if_empty(&self) -> bool {
        let mut queue = lock(&self.queue);
        queue.closed |= queue.waiting.is_empty() && queue.reserved == 0;
        queue.closed
    }

    /// The next one whose exchange is not over already.
    pub(crate) fn next(&self) -> Option<Newcomer> {
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
        let mut turn = lock(&self.turn);
        let kept = turn.kept.take().map_or(Duration::ZERO, |kept| now.saturating_duration_since(kept));
        if let Some(seat) = &turn.current {
            seat.add_ran(kept);
        }
        turn.since = Some(now);
        kept
    }

    /// It is over. Returns who holds the store, so that none of the others can go on.
    pub(crate) fn end_turn(&self, now: Instant) -> Option<Arc<Seat>> {
        let mut turn = lock(&self.turn);
        turn.stop(now);
        turn.kept = turn.current.is_some().then_some(now);
        turn.current.clone()
    }

    /// Who has run last: what has ended the instance was its doing.
    pub(crate) fn culprit(&self) -> Option<Arc<Seat>> {
        let turn = lock(&self.turn);
        turn.current.clone().or_else(|| turn.last.clone())
    }
}

/// Somebody is to look who has ended.
impl Wake for Shared {
    fn wake(self: Arc<Self>) {
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
    context: ExchangeContext,
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
    pub(crate) fn lead(&mut self, to: Option<GuestTaskId>, context: &mut ExchangeContext) -> bool {
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
            seat.has_run.store(true, Ordering::Relaxed);
        }
        true
    }

    /// One more, whose handler was called. wasmtime gives the number of a task that has gone to another: what it was before is nobody's. To
    /// be called in nobody's turn.
    pub(crate) fn sit_down(&mut self, task: GuestTaskId, seat: Arc<Seat>, context: ExchangeContext) {
        let _ = seat.task.set(task);
        seat.begin();
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

    /// All have left. Returns whether nothing is left that somebody else takes part in.
    pub(crate) fn is_clean(&self) -> bool {
        !self.unclean && !self.seats.iter().any(|seated| seated.context.is_busy())
    }
}

/// A guest of a store that several exchanges share calls the host, or goes on: it does so in its own exchange.
pub(crate) fn attribute(store: &mut StoreContextMut<'_, StoreState>, event: CallHook) -> wasmtime::Result<()> {
    let task = match event {
        CallHook::ReturningFromWasm => None,
        CallHook::CallingWasm | CallHook::CallingHost | CallHook::ReturningFromHost => store.async_call_stack()?.last(),
    };
    let is_metered = store.data().fuel().is_some();
    let before = store.data().seat().cloned();
    if !store.data_mut().lead(task) || !is_metered {
        return Ok(());
    }
    if let Some(before) = before {
        before.fuel.store(store.get_fuel()?, Ordering::Relaxed);
    }
    if let Some(seat) = store.data().seat() {
        let fuel = seat.fuel_left();
        store.set_fuel(fuel)?;
    }
    Ok(())
}
