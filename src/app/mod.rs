//! One exchange: a request goes in, the guest runs, a response or a reason comes out.
//!
//! An exchange has one owner ([`crate::exchange::handle::ExchangeHandle`]). It first runs on the thread that asks
//! ([`Exchange::run_here`]): a guest that waits for nothing is done there. If it is not, the scheduler takes it over
//! ([`Exchange::hand_over`]), and the owner keeps the handle that stops it.

pub mod admission;
pub mod command;
mod driver;
pub mod exchange;
pub mod history;
mod incoming;
mod running;
pub(crate) mod shared;
mod slice;
pub mod warm_up;

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wasmtime_wasi_http::WasiBody;

use crate::app::admission::{Admission, AdmissionControl, Permit};
use crate::app::exchange::{Exchange, Part};
use crate::app::incoming::{Incoming, incoming, request_rules};
use crate::app::running::{Guest, Place};
use crate::app::shared::{Joining, Member, Reservation, SharedInstance, SharedInstances};
use crate::app::warm_up::WarmUps;
use crate::component::Component;
use crate::component::variant::Variant;
use crate::engine::ticker::Ticking;
use crate::engine::{ProcessState, process_state};
use crate::error::Error;
use crate::exchange::body_check::BodyRules;
use crate::exchange::handle::{ExchangeHandle, ExchangeState};
use crate::exchange::refusals::Refusals;
use crate::exchange::response_body::{ResponseSlot, in_sight};
use crate::guest::grants::Grants;
use crate::guest::instance::{Instance, Reuse};
use crate::guest::prepared::{Pre, Prepared};
use crate::guest::seat::Seat;
use crate::guest::shared::Newcomer;
use crate::http::error_code::ErrorCode;
use crate::limits::Limits;
use crate::outgoing::hooks::Hooks;
use crate::outgoing::upstream::Upstreams;
use crate::process::fork::PerFork;
use crate::scheduler::Run;
use crate::simulation::environment::Stage;
use crate::sync::lock;

/// See [`App::close`].
pub type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A component and the terms on which its guests run.
pub struct App {
    /// What its guests are instances of.
    pub component: Arc<Component>,
    /// What they may use of the host.
    pub grants: Grants,
    /// What they may use up.
    pub limits: Limits,
    /// Whether instances have more than one exchange.
    pub reuse: Option<Reuse>,
    /// What each new instance handles first, where instances are put back to what they are then.
    pub warm_ups: Option<Arc<WarmUps>>,
    /// As whose its guests share with those of others what belongs to several apps.
    pub number: u64,
    refusals: Arc<Refusals>,
    /// Whether its instances can have more than one exchange, as far as is known.
    reusable: Arc<AtomicBool>,
    closed: AtomicBool,
    /// The instances that exchanges of WASI 0.3 share.
    shared: PerFork<SharedInstances>,
    /// Locked by threads that have the GIL, as the one has that forks: so no child finds it locked.
    admission: Mutex<Option<Arc<AdmissionControl>>>,
}

impl App {
    /// Nothing runs until an exchange begins.
    pub fn new(component: Arc<Component>, grants: Grants, limits: Limits, reuse: Option<Reuse>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self {
            component,
            grants,
            limits,
            reuse,
            warm_ups: None,
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            refusals: Arc::default(),
            reusable: Arc::new(AtomicBool::new(true)),
            closed: AtomicBool::new(false),
            shared: PerFork::new(),
            admission: Mutex::new(None),
        }
    }

    /// What its guests run.
    pub fn variant(&self) -> Variant {
        Variant { fuel: self.limits.fuel.is_some(), restorable: self.reuse.is_some_and(|reuse| reuse.isolated) }
    }

    /// Where its instances are to be put back to what they were, and cannot be, each exchange gets a fresh one. Returns why, if so. To
    /// be called when its component has the machine code for that.
    pub fn isolate(&mut self) -> Option<String> {
        self.reuse.filter(|reuse| reuse.isolated)?;
        let reason = self.component.why_not_restorable().or_else(crate::guest::snapshot::why_not)?;
        self.reuse = None;
        self.warm_ups = None;
        Some(reason)
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
        self.component.info.check_handler()?;
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
        self.component.info.check_handler()?;
        self.component.prepared(process, self.variant())?;
        process.runtime.handle().map(drop)
    }

    /// Opens it again after [`Self::close`].
    pub fn open(&self) {
        if self.closed.swap(false, Ordering::SeqCst) {
            let admission = lock(&self.admission).take();
            drop(admission);
        }
    }

    /// What its guests are refused is said in the words of the command line, which has made it.
    pub fn name_flags(&self) {
        self.refusals.name_flags();
    }

    /// How many exchanges are under way in this process.
    pub fn exchanges(&self) -> usize {
        let admission = lock(&self.admission);
        admission
            .as_ref()
            .filter(|admission| admission.generation == crate::process::fork::generation())
            .map_or(0, |admission| admission.live())
    }

    /// Whether nothing begins in it any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Begins an exchange. The guest does not run yet.
    pub fn start(
        &self,
        permit: Permit,
        request: http::Request<WasiBody>,
        upstreams: Upstreams,
    ) -> Result<Exchange, Error> {
        self.start_at(None, permit, request, upstreams)
    }

    /// The same at a place that was reserved for it, if there is one.
    pub(crate) fn start_at(
        &self,
        place: Option<Reservation>,
        permit: Permit,
        request: http::Request<WasiBody>,
        upstreams: Upstreams,
    ) -> Result<Exchange, Error> {
        let limits = &self.limits;
        let rules = request_rules(request.headers(), limits)?;
        let passes_on = upstreams.handler.is_some();
        let (number, admission) = (permit.number, permit.admission.clone());
        let Ground { process, ticking, prepared, exchange, mut hooks } = self.ground(Some(number), upstreams)?;
        hooks.url = passes_on.then(|| request.uri().clone());
        let head_only = request.method() == http::Method::HEAD;
        let owner = ExchangeHandle::new(exchange.clone());
        let asked = Asked { request, rules, hooks, exchange, ticking, permit };
        let Begun { part, head, answer, needs_set_up } = match self.reuse.filter(|reuse| reuse.concurrent > 1) {
            None => self.begin_alone(&admission, &prepared, asked)?,
            Some(reuse) => self.begin_in_company(&admission, &prepared, reuse, asked, place)?,
        };
        let response_body = limits.response_body;
        let computes = false;
        Ok(Exchange {
            part,
            head,
            answer,
            owner,
            process,
            prepared,
            needs_set_up,
            computes,
            admission,
            number,
            head_only,
            response_body,
        })
    }

    /// Begins to make an instance that waits for its first exchange then, if instances are kept. No head comes of it.
    pub fn make_ready(&self, permit: Permit, upstreams: Upstreams) -> Result<Exchange, Error> {
        let (number, admission) = (permit.number, permit.admission.clone());
        let Ground { process, ticking, prepared, exchange, hooks } = self.ground(None, upstreams)?;
        let owner = ExchangeHandle::new(exchange.clone());
        let Obtained { instance, room, needs_set_up } = self.new_instance(&admission, &prepared, hooks, &exchange)?;
        let answer = ResponseSlot::default();
        answer.set(None); // an instance that has not answered is not kept
        let guest = Guest::new(instance, &exchange, answer.clone(), Place::new(&exchange, ticking, permit));
        let run = Box::pin(running::make_ready(guest, room, self.warm_ups.clone()));
        let (_, head) = oneshot::channel();
        Ok(Exchange {
            part: Part::Alone(Some(run)),
            head,
            answer,
            owner,
            process,
            prepared,
            needs_set_up,
            computes: false,
            admission,
            number,
            head_only: false,
            response_body: None,
        })
    }

    /// In an instance of its own.
    fn begin_alone(
        &self,
        admission: &AdmissionControl,
        prepared: &Arc<Prepared>,
        asked: Asked,
    ) -> Result<Begun, Error> {
        let Asked { request, rules, hooks, exchange, ticking, permit } = asked;
        let Obtained { mut instance, room, needs_set_up } =
            self.instance(admission, prepared, Some(hooks), &exchange)?;
        let stage = instance.host().staged().map(|staged| staged.stage().clone());
        let clock = instance.host().scene().map(|scene| scene.clock().clone());
        let chunks = self.limits.chunks;
        let in_sight = if matches!(prepared.pre(), Pre::P2(..)) { in_sight(chunks) } else { chunks };
        let incoming = incoming(request, rules, &exchange, in_sight, clock);
        let Incoming { request, answered, head, answer } = incoming;
        let guest = Guest::new(instance, &exchange, answer.clone(), Place::new(&exchange, ticking, permit));
        let run = running::run((request, answered), guest, room, self.warm_ups.clone());
        let run: Run = match stage {
            Some(stage) => Box::pin(stage.turns(run)),
            None => Box::pin(run),
        };
        Ok(Begun { part: Part::Alone(Some(run)), head, answer, needs_set_up })
    }

    /// In an instance that others are in, or may come into.
    fn begin_in_company(
        &self,
        admission: &AdmissionControl,
        prepared: &Arc<Prepared>,
        reuse: Reuse,
        asked: Asked,
        place: Option<Reservation>,
    ) -> Result<Begun, Error> {
        let Asked { request, rules, mut hooks, exchange, ticking, permit } = asked;
        let others = self.shared.get(SharedInstances::default);
        let (sharing, joins) = match place.or_else(|| others.reserve()) {
            Some(reservation) => (reservation.sharing().clone(), Ok(reservation)),
            None => {
                let mut made = self.instance(admission, prepared, None, &exchange)?;
                (SharedInstance::new(reuse, &mut made.instance, &exchange), Err(made))
            }
        };
        hooks.scene = sharing.stage.as_ref().map(Stage::begin);
        let clock = hooks.scene.as_ref().map(|scene| scene.clock().clone());
        let incoming = incoming(request, rules, &exchange, self.limits.chunks, clock);
        let Incoming { request, answered, head, answer } = incoming;
        let seat = Seat::new(exchange.clone(), self.limits.fuel, Box::new(answered), sharing.waker());
        let request = request.map(|body| seat.over.cuts(body.boxed_unsync()));
        let place = Place::new(&exchange, ticking, permit);
        let member = Member { seat: seat.clone(), answer: answer.clone(), place };
        let newcomer = Box::new(Newcomer { request, hooks, seat });
        let Obtained { instance, room, needs_set_up } = match joins {
            Err(made) => made,
            Ok(reservation) => {
                let part = Part::Joining(Box::new(Joining::new(reservation, member, newcomer)));
                return Ok(Begun { part, head, answer, needs_set_up: false });
            }
        };
        sharing.begin(member, newcomer);
        let run = driver::drive(sharing.clone(), instance, room, admission.idle.clone());
        let run: Run = match &sharing.stage {
            Some(stage) => Box::pin(stage.turns(run)),
            None => Box::pin(run),
        };
        Ok(Begun { part: Part::First { run: Some(run), sharing, others }, head, answer, needs_set_up })
    }

    /// What each guest runs on, whatever it runs for: a request of this number, or none yet.
    fn ground(&self, number: Option<u64>, upstreams: Upstreams) -> Result<Ground, Error> {
        let process = process_state()?;
        // first: a ticker that sleeps sees nothing of the machine's state, which decides where instances are made
        let ticking = process.tick()?;
        let prepared = self.component.prepared(process, self.variant())?;
        let exchange = self.exchange_state(process, number);
        let hooks = Hooks::new(upstreams, ExchangeHandle::observer(&exchange), &self.limits);
        Ok(Ground { process, ticking, prepared, exchange, hooks })
    }

    fn exchange_state(&self, process: &'static ProcessState, number: Option<u64>) -> Arc<ExchangeState> {
        let timeout = self.limits.timeout;
        let exchange = match number {
            Some(number) => ExchangeState::new(process, number, timeout),
            None => ExchangeState::ahead(process, timeout),
        };
        if let Some(news) = crate::process::pagemap::news() {
            exchange.stdio.tell_news(news);
        }
        exchange.stdio.set_app(self.number, &self.refusals);
        exchange
    }

    /// One that was kept, or a new one. `hooks`: the exchange's own, unless it shares it with others.
    fn instance(
        &self,
        admission: &AdmissionControl,
        prepared: &Arc<Prepared>,
        hooks: Option<Hooks>,
        exchange: &Arc<ExchangeState>,
    ) -> Result<Obtained, Error> {
        if let Some(mut instance) = admission.idle.as_ref().and_then(|idle| idle.take()) {
            instance.reset(hooks, exchange, &self.grants)?;
            return Ok(Obtained { instance, room: None, needs_set_up: false });
        }
        let nobodys = || Hooks::new(Upstreams::default(), ExchangeHandle::observer(exchange), &self.limits);
        self.new_instance(admission, prepared, hooks.unwrap_or_else(nobodys), exchange)
    }

    fn new_instance(
        &self,
        admission: &AdmissionControl,
        prepared: &Arc<Prepared>,
        hooks: Hooks,
        exchange: &ExchangeState,
    ) -> Result<Obtained, Error> {
        let room = crate::guest::instance_pool::make_room(exchange.process);
        let instance = Instance::new(prepared.clone(), &self.grants, &self.limits, hooks, exchange, &admission.share)?;
        Ok(Obtained { instance, room, needs_set_up: true })
    }
}

/// See [`App::ground`].
struct Ground {
    process: &'static ProcessState,
    ticking: Ticking,
    prepared: Arc<Prepared>,
    exchange: Arc<ExchangeState>,
    hooks: Hooks,
}

/// What an exchange begins with.
struct Asked {
    request: http::Request<WasiBody>,
    rules: BodyRules,
    hooks: Hooks,
    exchange: Arc<ExchangeState>,
    ticking: Ticking,
    permit: Permit,
}

/// An exchange that has begun.
struct Begun {
    part: Part,
    head: oneshot::Receiver<Result<http::Response<WasiBody>, ErrorCode>>,
    answer: ResponseSlot,
    needs_set_up: bool,
}

/// An instance for an exchange.
struct Obtained {
    instance: Instance,
    /// Ends when there is a slot for it: an idle one of some app has to go.
    room: Option<JoinHandle<()>>,
    /// The guest in it is still to be instantiated.
    needs_set_up: bool,
}
