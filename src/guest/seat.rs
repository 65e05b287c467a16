//! The place of one exchange in an instance that it shares with others: what both the store and whoever drives it know of it.

use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Poll, Waker};
use std::time::Duration;

use wasmtime::component::GuestTaskId;
use wasmtime_wasi_http::WasiBody;

use crate::exchange::cut_body::Over;
use crate::exchange::guest_clock::Held;
use crate::exchange::guest_written::WrittenBodies;
use crate::exchange::handle::ExchangeState;
use crate::http::error_code::ErrorCode;
use crate::sync::lock;

/// Takes what a guest answers.
pub(crate) type Answered = Box<dyn FnOnce(Result<http::Response<WasiBody>, ErrorCode>) + Send>;

/// The stages of a guest: it waits for its turn to be called; its time counts, for it is being made or was called; it has run, and the
/// instance does not hold it back; its handler has returned.
const COMING: u8 = 0;
const BEGUN: u8 = 1;
const RUNS: u8 = 2;
const RETURNED: u8 = 3;

/// The place of one exchange in an instance that it shares.
pub(crate) struct Seat {
    pub exchange: Arc<ExchangeState>,
    /// What its guest writes.
    pub written: WrittenBodies,
    /// Where its answer goes, until it has answered or has ended.
    unanswered: Mutex<Option<Answered>>,
    /// Its guest's task, when its handler was called.
    task: OnceLock<GuestTaskId>,
    /// How far its guest is.
    stage: AtomicU8,
    /// Host functions that it waits for.
    waits: AtomicUsize,
    /// Its clock stands still for what it passes on.
    passes_on: Mutex<Option<Held>>,
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
            stage: AtomicU8::new(COMING),
            waits: AtomicUsize::new(0),
            passes_on: Mutex::default(),
            over: Arc::default(),
            ran: AtomicU64::new(0),
            ran_on: AtomicU64::new(0),
            fuel: AtomicU64::new(fuel.unwrap_or(u64::MAX)),
            most_fuel: fuel,
        })
    }

    fn reaches(&self, stage: u8) {
        self.stage.fetch_max(stage, Ordering::Relaxed);
    }

    fn has_reached(&self, stage: u8) -> bool {
        self.stage.load(Ordering::Relaxed) >= stage
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

    /// Its handler was called.
    pub(crate) fn is_called_as(&self, task: GuestTaskId) {
        let _ = self.task.set(task);
        self.begin();
    }

    /// Its guest runs.
    pub(crate) fn runs(&self) {
        self.reaches(RUNS);
    }

    pub(crate) fn task(&self) -> Option<GuestTaskId> {
        self.task.get().copied()
    }

    /// Its time counts from now on.
    pub(crate) fn begin(&self) {
        self.reaches(BEGUN);
    }

    pub(crate) fn is_begun(&self) -> bool {
        self.has_reached(BEGUN)
    }

    /// Whether its handler was called.
    pub(crate) fn is_called(&self) -> bool {
        self.task.get().is_some()
    }

    /// Whether it was called and the instance holds it back.
    pub(crate) fn is_held_back(&self) -> bool {
        self.is_called() && !self.has_reached(RUNS)
    }

    pub(crate) fn has_run(&self) -> bool {
        self.has_reached(RUNS)
    }

    pub(crate) fn has_returned(&self) {
        self.reaches(RETURNED);
    }

    /// Whether nothing is known that its guest still does for it: its handler has returned, its bodies have ended, and it waits for no host
    /// function. wasmtime tells of the tasks of a whole store only.
    pub(crate) fn seems_done(&self) -> bool {
        self.has_done_its_part() && !self.written.are_read()
    }

    fn has_done_its_part(&self) -> bool {
        self.has_reached(RETURNED) && self.waits.load(Ordering::Relaxed) == 0
    }

    /// While all that is known to be under way for it are bodies that its guest has passed on, none of its time passes. To be called where
    /// no lock is held: it may have to look at a body that somebody else makes.
    pub(crate) fn look_whether_it_passes_on(&self) {
        let passes_on = self.has_done_its_part() && self.written.are_passed_on();
        let mut held = lock(&self.passes_on);
        let before = held.take();
        *held = passes_on.then(|| before.unwrap_or_else(|| Held::of(&self.exchange.clock)));
    }

    /// To be held while a host function of its guest's is under way.
    pub(crate) fn waits(self: &Arc<Self>) -> Waits {
        self.waits.fetch_add(1, Ordering::Relaxed);
        Waits(self.clone())
    }

    pub(crate) fn add_ran(&self, time: Duration) {
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

    pub(crate) fn fuel_left(&self) -> u64 {
        self.fuel.load(Ordering::Relaxed)
    }

    pub(crate) fn set_fuel_left(&self, left: u64) {
        self.fuel.store(left, Ordering::Relaxed);
    }

    /// How much it has used, if it is limited.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        self.most_fuel.map(|most| most.saturating_sub(self.fuel_left()))
    }
}

/// What a guest waits for while it reads of a stream or a future of the host's, in an instance that exchanges share.
#[derive(Default)]
pub(crate) struct Read {
    seat: Option<Arc<Seat>>,
    waits: Option<Waits>,
}

impl Read {
    /// By the guest that has this place, if its instance is shared.
    pub(crate) fn by(seat: Option<&Arc<Seat>>) -> Self {
        Self { seat: seat.cloned(), waits: None }
    }

    /// What came of a look; `finish`: the guest calls its read off if nothing is there.
    pub(crate) fn polled<T>(&mut self, polled: Poll<T>, finish: bool) -> Poll<T> {
        if let Some(seat) = &self.seat {
            match (polled.is_pending() && !finish, self.waits.is_some()) {
                (true, false) => self.waits = Some(seat.waits()),
                (false, _) => self.waits = None,
                (true, true) => {}
            }
        }
        polled
    }
}

/// A host function of one exchange's guest that is under way.
pub(crate) struct Waits(Arc<Seat>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.waits.fetch_sub(1, Ordering::Relaxed);
    }
}
