//! One exchange: a request goes in, the guest runs, a response or a reason comes out.
//!
//! An exchange has one owner ([`crate::exchange::handle::ExchangeHandle`]). It first runs on the thread that asks ([`Exchange::run_here`]): a guest that
//! waits for nothing is done there. If it is not, the runtime takes it over ([`Exchange::hand_over`]), and the owner
//! keeps the handle that stops it.

pub mod admission;
pub mod history;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use crate::app::admission::{Admission, AdmissionControl, Permit};
use crate::app::history::{BRIEF, History};
use crate::component::Component;
use crate::engine::ticker::Ticking;
use crate::engine::{ProcessState, process_state};
use crate::error::{Error, chain};
use crate::exchange::guest_body::{Expected, GuestBody};
use crate::exchange::handle::{ExchangeHandle, ExchangeState, UnderWay};
use crate::exchange::refusals::Refusals;
use crate::exchange::request_body::{Bounds, RequestBody};
use crate::exchange::response_body::{ResponseBuffer, ResponseReader, ResponseSlot};
use crate::guest::grants::Grants;
use crate::guest::instance::{Instance, Reuse};
use crate::guest::instance_pool::give_back;
use crate::guest::prepared::Prepared;
use crate::http::error_code::ErrorCode;
use crate::http::fields;
use crate::http::message::{Side, is_bare};
use crate::limits::Limits;
use crate::outgoing::{Hooks, Upstream};
use crate::scheduler::thread_priority::ThreadTime;
use crate::scheduler::{Newcomer, Run};
use crate::simulation::virtual_time::Watched;
use crate::sync::lock;

/// A guest that was interrupted by a tick goes on on its caller's thread if it has had less than this of the processor; with the tick
/// that follows it stays under 2 ms.
const SLICE: Duration = Duration::from_micros(500);

/// See [`App::close`].
pub type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A component and the terms on which its guests run.
pub struct App {
    pub component: Arc<Component>,
    pub grants: Grants,
    pub limits: Limits,
    /// Whether instances have more than one exchange.
    pub reuse: Option<Reuse>,
    /// As whose its guests share with those of others what belongs to several apps.
    pub number: u64,
    refusals: Arc<Refusals>,
    /// Whether its instances can have more than one exchange, as far as is known.
    reusable: Arc<AtomicBool>,
    closed: AtomicBool,
    /// Locked by threads that have the GIL, as the one has that forks: so no child finds it locked.
    admission: Mutex<Option<Arc<AdmissionControl>>>,
}

impl App {
    pub fn new(component: Arc<Component>, grants: Grants, limits: Limits, reuse: Option<Reuse>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            component,
            grants,
            limits,
            reuse,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            refusals: Arc::default(),
            reusable: Arc::new(AtomicBool::new(true)),
            closed: AtomicBool::new(false),
            admission: Mutex::new(None),
        }
    }

    fn admission(&self, process: &'static ProcessState) -> Arc<AdmissionControl> {
        let mut admission = lock(&self.admission);
        match &*admission {
            Some(admission) if admission.generation == process.generation => admission.clone(),
            _ => admission
                .insert(AdmissionControl::new(process, &self.limits, &self.grants.dirs, self.reuse, &self.reusable))
                .clone(),
        }
    }

    /// A place for an exchange, now or when its turn comes.
    pub fn admit(&self, process: &'static ProcessState) -> Result<Admission, Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.admission(process).admit()
    }

    /// Admits no more exchanges. The future waits for those that are under way, and ends them after `drain`.
    pub fn close(&self, drain: Option<Duration>) -> Result<Closing, Error> {
        self.closed.store(true, Ordering::SeqCst);
        let Some(process) = crate::engine::existing() else { return Ok(Box::pin(std::future::ready(()))) };
        let admission = self.admission(process);
        let given_back = admission.close();
        let drained = admission.drained(drain)?;
        Ok(Box::pin(async move {
            drained.await;
            if let Some(given_back) = given_back {
                let _ = given_back.await;
            }
        }))
    }

    /// Makes what the first exchange of this process would have to wait for.
    pub fn warm(&self) -> Result<(), Error> {
        let process = process_state()?;
        self.component.prepared(process, self.limits.fuel.is_some())?;
        process.runtime.handle().map(drop)
    }

    /// Opens it again after [`Self::close`].
    pub fn open(&self) {
        if self.closed.swap(false, Ordering::SeqCst) {
            let admission = lock(&self.admission).take();
            drop(admission);
        }
    }

    /// How many exchanges are under way in this process.
    pub fn exchanges(&self) -> usize {
        let admission = lock(&self.admission);
        admission
            .as_ref()
            .filter(|admission| admission.generation == crate::process::fork::generation())
            .map_or(0, |admission| admission.live())
    }

    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Begins an exchange. The guest does not run yet.
    pub fn start(
        &self,
        permit: Permit,
        request: http::Request<WasiBody>,
        upstream: Option<Arc<dyn Upstream>>,
    ) -> Result<Exchange, Error> {
        let limits = &self.limits;
        check_request(request.headers(), limits)?;
        let process = process_state()?;
        // first: a ticker that sleeps sees nothing of the machine's state, which decides where instances are made
        let ticking = process.tick()?;
        let prepared = self.component.prepared(process, limits.fuel.is_some())?;
        let shared = ExchangeState::new(process, limits.timeout);
        if let Some(news) = crate::process::swap::news() {
            shared.stdio.tell_news(news);
        }
        shared.stdio.set_app(self.number, &self.refusals);
        let hooks = Hooks::new(upstream, ExchangeHandle::observer(&shared), limits);
        let admission = permit.admission.clone();
        let kept = admission.idle.as_ref().and_then(|idle| idle.take());
        let needs_set_up = kept.is_none();
        let mut room = None;
        let mut instance = match kept {
            Some(mut instance) => {
                instance.begin_anew(hooks, &shared)?;
                instance
            }
            None => {
                room = crate::guest::instance_pool::make_room(process);
                Instance::new(prepared.clone(), &self.grants, limits, hooks, &shared, &admission.share)?
            }
        };
        let scheme = match request.uri().scheme_str() {
            Some("http") | None => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => Scheme::Other(other.to_owned()),
        };
        let head_only = request.method() == http::Method::HEAD;
        let bounds = Bounds {
            side: Side::Request,
            length: fields::announced_length(request.headers()),
            limit: limits.request_body,
            fields: limits.fields,
        };
        let clock = instance.host().clock();
        let work = clock.as_ref().map(|clock| clock.work(false));
        let request = request.map(|body| Watched::by_guest(RequestBody::of_caller(body, bounds, &shared), work));
        let (sender, head) = oneshot::channel();
        let answer = ResponseSlot::default();
        let (of_answer, to, chunks) = (shared.clone(), answer.clone(), limits.chunks);
        let mut http = instance.host().http();
        let made = http.new_incoming_request(scheme, request).and_then(|request| {
            Ok((
                request,
                http.new_response_outparam_from_callback(move |answer| {
                    of_answer.answered.store(true, Ordering::Relaxed);
                    let answer = answer.map(|response| {
                        response.map(|body| {
                            let flow = ResponseBuffer::new(body, chunks, of_answer.clock.clone());
                            to.set(&flow);
                            ResponseReader(flow).boxed_unsync()
                        })
                    });
                    // nobody may be left to take it: the guest is told nothing of that
                    let _ = sender.send(answer.map_err(ErrorCode::of_guest));
                })?,
            ))
        });
        let (request, out) = made.map_err(|error| Error::Host(chain(&error)))?;
        let number = permit.number;
        let guest = Guest {
            instance: Some(instance),
            shared: shared.clone(),
            place: Some(Place { _ticking: ticking, permit, _gone: Gone(shared.clone()) }),
        };
        let run = run(guest, room, request, out);
        let run: Run = match clock {
            Some(clock) => Box::pin(clock.turns(run)),
            None => Box::pin(run),
        };
        Ok(Exchange {
            run: Some(run),
            prepared,
            needs_set_up,
            computes: false,
            head,
            answer,
            owner: ExchangeHandle::new(shared),
            process,
            admission,
            number,
            head_only,
            response_body: limits.response_body,
        })
    }
}

/// What a request says of itself must fit its limits.
fn check_request(headers: &http::HeaderMap, limits: &Limits) -> Result<(), Error> {
    let size = fields::size(headers);
    if let Some(value) = limits.fields.filter(|limit| size > *limit) {
        return Err(Error::Limited { code: Side::Request.header_size(size), limit: "fields", value });
    }
    let length = fields::announced_length(headers).unwrap_or(0);
    if let Some(value) = limits.request_body.filter(|limit| length > *limit) {
        return Err(Error::Limited { code: Side::Request.body_size(length), limit: "request_body", value });
    }
    Ok(())
}

/// An exchange until its response begins.
pub struct Exchange {
    run: Option<Run>,
    head: oneshot::Receiver<Result<http::Response<WasiBody>, ErrorCode>>,
    answer: ResponseSlot,
    owner: ExchangeHandle,
    process: &'static ProcessState,
    prepared: Arc<Prepared>,
    /// Whether its instance is still to be made.
    needs_set_up: bool,
    /// It has had what it may on its caller's thread, or guests of its component have lately.
    computes: bool,
    admission: Arc<AdmissionControl>,
    number: u64,
    /// No body follows, whatever its length is said to be (RFC 9110, 9.3.2).
    head_only: bool,
    response_body: Option<u64>,
}

impl Exchange {
    pub fn owner(&self) -> &ExchangeHandle {
        &self.owner
    }

    /// Decides, once an exchange, whether its guest starts off its caller's event loop: guests of this component are slow to
    /// instantiate, or compute. Uses up one of the starts that the last guest to compute for too long keeps off event loops.
    pub fn decide_off_loop(&mut self) -> bool {
        let (keeps_off, computes) = self.admission.history.decide_off_loop(&self.prepared, self.needs_set_up);
        self.computes = computes;
        keeps_off
    }

    /// Runs the guest on this thread until it ends, waits, or has had its slice. Returns whether it ended.
    pub fn run_here(&mut self) -> Result<bool, Error> {
        let Some(run) = &mut self.run else { return Ok(true) };
        let shared = &self.owner.shared;
        if self.admission.history.is_unruly(&self.prepared, self.needs_set_up) {
            return Ok(false);
        }
        // none: the process ends
        let Some(_visit) = self.process.scheduler.visit() else { return Ok(false) };
        let _entered = self.process.runtime.handle()?.enter();
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let mut time = Slice::begin(&self.admission.history, shared.begun);
        loop {
            shared.clock.enter();
            let _open = crate::process::signals::reclaim();
            crate::scheduler::begin_turn();
            let ended = run.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let is_over = time.is_over();
            if ended {
                self.run = None;
                return Ok(true);
            }
            self.answer.look();
            shared.clock.leave(None);
            if is_over {
                self.computes = true;
                return Ok(false);
            }
            if !flag.0.swap(false, Ordering::Relaxed) {
                return Ok(false); // it waits
            }
        }
    }

    /// Gives the guest, if it has not ended, to the scheduler's threads.
    pub fn hand_over(&mut self) -> Result<(), Error> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let shared = self.owner.shared.clone();
        // before it runs: one that ends at once must find itself there to be taken off
        self.admission.enroll(self.number, &shared);
        let computes = self.computes || self.admission.history.is_unruly(&self.prepared, self.needs_set_up);
        let run = Running { run: Some(run), due: None, shared: shared.clone(), answer: self.answer.clone() };
        let told = |task| *lock(&shared.task) = Some(UnderWay::Guest(task));
        let guest = Newcomer {
            run: Box::pin(run),
            lane: &self.admission.lane,
            computes,
            unruly: self.admission.history.unruly(),
        };
        self.process.scheduler.spawn(&self.process.runtime, guest, told)?;
        if shared.stopped.load(Ordering::SeqCst) {
            shared.stop(Error::Cancelled);
        }
        Ok(())
    }

    /// The head of the response, as soon as the guest has set it; its body follows.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<GuestBody>, Error>> {
        Poll::Ready(match ready!(Pin::new(&mut self.head).poll(cx)) {
            // the guest may have answered in the moment in which its caller failed: the caller's exception comes first
            Ok(_) if let Some(error) = self.owner.overruled() => Err(error),
            Ok(Ok(response)) => {
                let observer = self.owner.observe();
                let owner = std::mem::replace(&mut self.owner, observer);
                let (parts, body) = response.into_parts();
                let length = fields::announced_length(&parts.headers);
                let is_bare = is_bare(self.head_only, parts.status);
                let limit = self.response_body;
                if let (Some(size), Some(value), false) = (length, limit, is_bare)
                    && size > value
                {
                    let error = Error::Limited { code: Side::Response.body_size(size), limit: "response_body", value };
                    owner.stop_because(error.clone());
                    return Poll::Ready(Err(error));
                }
                let expected = match is_bare {
                    true => Expected::Nothing { limit },
                    false => Expected::Body { side: Side::Response, length, limit },
                };
                Ok(http::Response::from_parts(parts, GuestBody::new(body, expected, owner)))
            }
            Ok(Err(code)) => Err(Error::Code(code)),
            Err(_) => Err(match self.owner.fate() {
                Some(Err(error)) => error.clone(),
                Some(Ok(())) => Error::NoResponse("the guest returned without setting a response".into()),
                None => {
                    Error::NoResponse("the guest dropped its `response-outparam` without setting a response".into())
                }
            }),
        })
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a guest has had of its caller's thread.
struct Slice<'a> {
    history: &'a History,
    begun: Instant,
    tick: u64,
    of_thread: Option<ThreadTime>,
}

impl<'a> Slice<'a> {
    /// `begun`: the exchange, a moment ago. A look at the clock is saved.
    fn begin(history: &'a History, begun: Instant) -> Self {
        let of_thread = history.take_timed_turn().then(ThreadTime::now);
        Self { history, begun, tick: crate::scheduler::tick(), of_thread }
    }

    /// Whether it is used up; to be asked after each turn. The wall's clock says so first. Where the processor is shared it may be wrong,
    /// so it is the thread's own that counts against a component.
    fn is_over(&mut self) -> bool {
        // within a tick there is no need to ask a clock
        let tick = crate::scheduler::tick();
        if self.tick == tick {
            return false;
        }
        let elapsed = self.begun.elapsed();
        if elapsed <= SLICE {
            if elapsed >= BRIEF {
                self.history.met_tick(tick);
            }
            return false;
        }
        let Some(begun) = self.of_thread else {
            self.history.seemed_long();
            return true;
        };
        let took = ThreadTime::now().since(begun);
        if crate::scheduler::was_unruly(took) {
            self.history.unruly().store(true, Ordering::Relaxed);
        }
        if took > SLICE {
            self.history.was_long();
        } else if took >= BRIEF {
            self.history.met_tick(tick);
        }
        took > SLICE
    }
}

/// A guest on the scheduler's threads, under its time limit.
struct Running {
    run: Option<Run>,
    /// When its time is up, unless its caller holds it up.
    due: Option<Pin<Box<Sleep>>>,
    shared: Arc<ExchangeState>,
    answer: ResponseSlot,
}

impl Running {
    fn time_is_up(&mut self) -> Poll<()> {
        let limit = self.shared.clock.limit().unwrap_or_default();
        self.shared.settle(Err(Error::Timeout { limit: limit.as_secs_f64() }));
        self.run = None;
        Poll::Ready(())
    }
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(run) = &mut this.run else { return Poll::Ready(()) };
        // the clock is asked as well as the timer below: a guest that is woken all the time need not wait for its turn's timer
        if this.shared.clock.enter().is_some_and(|at| Instant::now() >= at) {
            return this.time_is_up();
        }
        let _open = crate::process::signals::reclaim();
        if run.as_mut().poll(cx).is_ready() {
            this.run = None;
            return Poll::Ready(());
        }
        this.answer.look();
        let Some(at) = this.shared.clock.leave(Some(cx.waker())) else { return Poll::Pending };
        let due = this.due.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if due.deadline() != at.into() {
            due.as_mut().reset(at.into());
        }
        ready!(due.as_mut().poll(cx));
        this.time_is_up()
    }
}

/// An instance with a guest in it that runs. However it ends, it tells so, and its bodies that are not finished break off.
struct Guest {
    /// Until it has ended.
    instance: Option<Instance>,
    shared: Arc<ExchangeState>,
    /// Until it is dropped.
    place: Option<Place>,
}

/// What a guest takes up beside its instance, and gives back after it.
struct Place {
    _ticking: Ticking,
    permit: Permit,
    /// The last to go.
    _gone: Gone,
}

/// Tells, when it is dropped, that nothing is left of the guest.
struct Gone(Arc<ExchangeState>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.finished.set(());
    }
}

async fn run(
    mut guest: Guest,
    room: Option<JoinHandle<()>>,
    request: Resource<HostIncomingRequest>,
    out: Resource<HostResponseOutparam>,
) {
    if let Some(room) = room {
        let _ = room.await;
    }
    let Some(instance) = &mut guest.instance else { return };
    let result = instance.handle(request, out).await;
    let fate = instance.fate(result, &guest.shared);
    guest.settle(fate);
}

/// What is said when an instance had answered before, and then returned without an answer.
const NOT_REUSABLE: &str = "`reuse` has no effect on this app any more: an instance that had answered before returned without \
                            an answer (`NoResponseError`), as guests of some toolchains do at their second request; each \
                            request gets a fresh instance from now on";

impl Guest {
    /// Why it ends, if nobody has said so: whoever wants it ended says so, but for one who drops what has not begun.
    fn why_dropped(&self) -> Error {
        if std::thread::panicking() {
            Error::Host("the host failed while the guest ran".into())
        } else if self.shared.process.runtime.is_shut_down() {
            Error::Host("the process ends".into())
        } else {
            Error::Cancelled
        }
    }

    fn settle(&self, fate: Result<(), Error>) {
        if let Some(used) = self.instance.as_ref().and_then(Instance::fuel_used) {
            let _ = self.shared.fuel.set(used);
        }
        self.shared.settle(fate);
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.settle(Err(self.why_dropped()));
        let ended_well = matches!(self.shared.fate.get(), Some(Ok(())));
        let answered = self.shared.answered.load(Ordering::Relaxed);
        let Some(place) = self.place.take() else { return };
        let idle = place.permit.admission.idle.clone();
        if let Some(idle) = &idle
            && ended_well
            && !answered
            && self.shared.earlier.load(Ordering::Relaxed) > 0
            && idle.stop_reusing()
        {
            self.shared.stdio.tell(NOT_REUSABLE);
        }
        self.shared.stdio.finish();
        let Some(mut instance) = self.instance.take() else { return };
        let broke_off = instance.host().abort_bodies();
        // before its place is free: whoever takes that finds it
        let over = match &idle {
            Some(idle) if ended_well && answered && !broke_off => idle.keep(instance),
            _ => Some(instance),
        };
        // a caller's thread may be an event loop's
        if let Some(instance) = over
            && instance.is_heavy()
            && !crate::scheduler::is_guests_thread()
        {
            drop(give_back(self.shared.process, (instance, place)));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::component::limits::ComponentLimits;
    use crate::component::loading::Order;

    fn prepared() -> Arc<Prepared> {
        let order = Order::new(false, ComponentLimits::NONE, None);
        let component = Component::new(&std::fs::read("tests/guests/components/hello.wasm").unwrap(), &order).unwrap();
        component.prepared(process_state().unwrap(), false).unwrap()
    }

    #[test]
    fn a_turn_that_waited_for_a_processor_is_not_held_against_its_app() {
        let _ticking = process_state().unwrap().tick().unwrap();
        let prepared = prepared();
        let history = History::default();
        history.seemed_long();
        let mut slice = Slice::begin(&history, Instant::now());
        crate::scheduler::begin_turn();
        std::thread::sleep(SLICE * 4);
        assert!(!slice.is_over());
        assert_eq!(history.decide_off_loop(&prepared, false), (false, false));
    }

    #[test]
    fn guests_that_hold_a_thread_together_are_kept_off_it() {
        let _ticking = process_state().unwrap().tick().unwrap();
        let prepared = prepared();
        let keeps_off = |history: &History| history.decide_off_loop(&prepared, false);
        let history = History::default();
        // a quarter of the thread's time
        for tick in (1..400).step_by(4) {
            history.met_tick(tick);
            assert_eq!(keeps_off(&history), (false, false));
        }
        // all of it
        for tick in 400..408 {
            assert_eq!(keeps_off(&history), (false, false));
            history.met_tick(tick);
            history.met_tick(tick);
        }
        // they do not compute for long: so they may have a prompt thread
        for _ in 0..256 {
            assert_eq!(keeps_off(&history), (true, false));
        }
        assert_eq!(keeps_off(&history), (false, false));
    }

    #[test]
    fn a_turn_that_computed_is() {
        let _ticking = process_state().unwrap().tick().unwrap();
        let prepared = prepared();
        let history = History::default();
        history.seemed_long();
        let mut slice = Slice::begin(&history, Instant::now());
        crate::scheduler::begin_turn();
        let (begun, tick) = (ThreadTime::now(), crate::scheduler::tick());
        while ThreadTime::now().since(begun) < SLICE * 2 || crate::scheduler::tick() == tick {}
        assert!(slice.is_over());
        assert_eq!(history.decide_off_loop(&prepared, false), (true, true));
    }
}
