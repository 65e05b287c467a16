//! A store and the guest's instance in it, which has one exchange after another.

use std::future::poll_fn;
use std::mem::ManuallyDrop;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http_body_util::BodyExt;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::exchange::guest_clock::{Clock, Held};
use crate::exchange::handle::ExchangeState;
use crate::guest::app_share::AppShare;
use crate::guest::ending::why_it_ended;
use crate::guest::grants::Grants;
use crate::guest::limiter::StoreLimiter;
use crate::guest::panics::Panicked;
use crate::guest::prepared::{Pre, Prepared, Proxy};
use crate::guest::restoring::{Restoring, Watched};
use crate::guest::seat::Answered;
use crate::guest::shared::Shared;
use crate::guest::store::StoreState;
use crate::guest::turns::{Turns, Yield};
use crate::guest::{p2, p3};
use crate::http::error_code::ErrorCode;
use crate::limits::Limits;
use crate::outgoing::hooks::Hooks;

/// A request in its guest's store, as the guest's generation of WASI has it.
pub(crate) enum Call {
    P2(p2::Call),
    P3(p3::Call),
}

/// How many exchanges an instance has, and how long it waits for one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reuse {
    /// In all; `None`: as many as come.
    pub requests: Option<u64>,
    /// How many at once, of WASI 0.3.
    pub concurrent: usize,
    /// How long it is kept without any; `None`: until its app closes.
    pub idle: Option<std::time::Duration>,
    /// Each exchange finds the instance as it was before its first.
    pub isolated: bool,
    /// How many are made ahead.
    pub ready: usize,
}

/// What a guest has answered to a warm-up request.
pub(crate) enum Answer {
    Whole,
    /// Why it is not whole.
    Broken(String),
    /// It has not answered.
    None,
}

/// Handles that a handler of WASI 0.2 is called with.
const OF_HANDLER: u32 = 2;
/// So many of 0.3 does an exchange have of its own making, mostly: streams, futures, tasks, sets of them.
const OF_TASKS: u32 = 64;

/// To put back so much is the host's own affair, though it takes milliseconds where the machine is busy. More is the guest's, who has
/// written so much.
const HOSTS_OWN: usize = 16 << 20;

/// A store and, from its first exchange on, the guest's instance in it.
pub(crate) struct Instance {
    /// Dropped with it, unless something panicked in it.
    store: ManuallyDrop<Store<StoreState>>,
    has_panicked: bool,
    proxy: Option<Proxy>,
    prepared: Arc<Prepared>,
    /// Where the answer of a guest of WASI 0.3 goes, until it has answered.
    unanswered: Option<Answered>,
    /// How many exchanges it has had.
    served: u64,
    /// What puts it back to what it was before the first, if it can be.
    restoring: Option<Restoring>,
    /// Its guest is there, and no snapshot has been taken of it.
    unwarmed: Option<wasmtime::component::Instance>,
    /// How many handles a call of the host gives it at the most.
    handles_of_call: u32,
}

impl Instance {
    /// One that nothing has run in yet.
    pub(crate) fn new(
        prepared: Arc<Prepared>,
        grants: &Grants,
        limits: &Limits,
        hooks: Hooks,
        exchange: &ExchangeState,
        of_app: &AppShare,
    ) -> Result<Self, Error> {
        let limiter = StoreLimiter::new(exchange.process, limits, &of_app.memory, exchange.costs.peak.clone());
        let host = StoreState::new(grants, &exchange.stdio, limiter, hooks, &of_app.files);
        let mut store = Store::new(prepared.engine(), host);
        store.limiter(|host| &mut host.limiter);
        store.set_hostcall_fuel(limits.lifted());
        store.set_max_component_handles(limits.most_handles());
        store.epoch_deadline_callback(|store| {
            store.data().turn.interrupt();
            Ok(UpdateDeadline::Yield(1))
        });
        store.call_hook_async(Turns);
        let store = ManuallyDrop::new(store);
        let mut instance = Self {
            store,
            has_panicked: false,
            proxy: None,
            prepared,
            unanswered: None,
            served: 0,
            restoring: None,
            unwarmed: None,
            // the folders that are granted are a list
            handles_of_call: u32::try_from(grants.dirs.len()).unwrap_or(u32::MAX).max(1),
        };
        instance.refill()?;
        Ok(instance)
    }

    /// The next exchange of one that was kept. `hooks`: its own, unless it shares it with others.
    pub(crate) fn reset(
        &mut self,
        hooks: Option<Hooks>,
        exchange: &ExchangeState,
        grants: &Grants,
    ) -> Result<(), Error> {
        if self.restoring.is_some() {
            self.host().renew(grants);
        }
        exchange.costs.earlier.store(self.served, Ordering::Relaxed);
        self.host().reset(hooks, &exchange.stdio, exchange.costs.peak.clone());
        self.refill()
    }

    /// A whole turn, and all the fuel that an exchange may use.
    fn refill(&mut self) -> Result<(), Error> {
        self.store.set_epoch_deadline(1);
        match self.store.data().fuel() {
            Some(fuel) => self.store.set_fuel(fuel).map_err(|error| Error::Host(Reason::new(chain(&error), error))),
            None => Ok(()),
        }
    }

    pub(crate) fn host(&mut self) -> &mut StoreState {
        self.store.data_mut()
    }

    /// A request for its guest, whose answer `answered` takes.
    pub(crate) fn call<B>(
        &mut self,
        request: http::Request<B>,
        answered: impl FnOnce(Result<http::Response<WasiBody>, ErrorCode>) + Send + Sync + 'static,
    ) -> wasmtime::Result<Call>
    where
        B: http_body::Body<Data = Bytes, Error = HostError> + Send + 'static,
    {
        let host = self.store.data_mut();
        match self.prepared.pre() {
            Pre::P2(..) => p2::Call::new(host, request, answered).map(Call::P2),
            Pre::P3(..) => {
                self.unanswered = Some(Box::new(answered));
                p3::Call::new(host, request).map(Call::P3)
            }
            Pre::Command(..) => Err(wasmtime::Error::msg("a request for a command")),
        }
    }

    /// The guest, made for its first exchange.
    async fn proxy(&mut self) -> wasmtime::Result<Proxy> {
        if let Some(proxy) = self.proxy.take() {
            return Ok(proxy);
        }
        if self.prepared.is_retired() {
            return Err(crate::process::pagemap::SwitchedOn.into());
        }
        if !self.store.data_mut().limiter.takes_instance(self.prepared.host_memory()) {
            return Err(wasmtime::Error::msg("instantiating it would exceed its memory limit"));
        }
        self.store.data_mut().open_folders().await?;
        let begun = Instant::now();
        let made = self.prepared.pre().instantiate(&mut self.store).await;
        self.looks_at(&made);
        let (instance, proxy) = made?;
        if self.prepared.restoring().is_some() {
            self.unwarmed = Some(instance);
        }
        let (took_long, was_expected) = self.prepared.set_up_took(begun.elapsed());
        if took_long {
            if was_expected {
                crate::scheduler::excuse_turn();
            }
            Yield::default().await?; // the guest's own turn begins after it
        }
        Ok(proxy)
    }

    /// Makes the guest, unless it is there, as it is to be before each exchange.
    pub(crate) async fn prepare(&mut self) -> wasmtime::Result<()> {
        let proxy = self.proxy().await?;
        self.proxy = Some(proxy);
        self.take_snapshot()
    }

    /// What the guest is now is what it is put back to, if it can be.
    fn take_snapshot(&mut self) -> wasmtime::Result<()> {
        if let (Some(instance), Some(exports)) = (self.unwarmed.take(), self.prepared.restoring()) {
            let most = most_handles(&mut self.store, &self.prepared, self.handles_of_call, self.served);
            self.restoring = Restoring::new(&mut self.store, &instance, exports, most)?;
            self.refill().map_err(wasmtime::Error::new)?;
        }
        Ok(())
    }

    /// Whether its guest is still to be made.
    pub(crate) fn is_new(&self) -> bool {
        self.proxy.is_none()
    }

    /// Has the guest handle a request before its first exchange, and reads its answer.
    pub(crate) async fn warm_up(&mut self, request: &http::Request<Bytes>) -> wasmtime::Result<Answer> {
        let proxy = self.proxy().await?;
        self.proxy = Some(proxy);
        let (exchange, _warm_up) = self.host().begin_warm_up();
        let (sender, answer) = tokio::sync::oneshot::channel();
        let request = request.clone().map(|body| http_body_util::Full::new(body).map_err(|never| match never {}));
        let call = self.call(request, move |answer| drop(sender.send(answer)))?;
        let answer = async {
            match answer.await {
                Ok(Ok(response)) => match response.into_body().collect().await {
                    Ok(_) => Answer::Whole,
                    Err(error) => Answer::Broken(error.to_string()),
                },
                Ok(Err(code)) => Answer::Broken(code.to_string()),
                Err(_) => Answer::None,
            }
        };
        let mut answer = Box::pin(answer);
        // the answer is read while the guest writes it, and the rest of it when the guest has returned
        let (ended, read) = match select(Box::pin(self.handle(call)), &mut answer).await {
            Either::Left((ended, _)) => (ended, None),
            Either::Right((answer, run)) => (run.await, Some(answer)),
        };
        ended?;
        let broke_off = self.host().abort_bodies(true);
        let kept = self.kept();
        let is_done = self.host().prepare_for_reuse(kept);
        self.host().replace_context(exchange);
        self.refill().map_err(wasmtime::Error::new)?;
        let answer = match read {
            Some(answer) => answer,
            None => answer.await,
        };
        match answer {
            Answer::Whole if broke_off || !is_done => Ok(Answer::Broken("the guest has left something begun".into())),
            answer => Ok(answer),
        }
    }

    /// It is warm: that is what each exchange begins with.
    pub(crate) fn begin_warm(&mut self) -> wasmtime::Result<bool> {
        self.take_snapshot()?;
        self.served = 0;
        let is_as_before = !self.goes_on() && self.restore();
        self.refill().map_err(wasmtime::Error::new)?;
        Ok(is_as_before)
    }

    /// Has the guest handle the requests of those who share it, until none is left.
    pub(crate) async fn share(&mut self, shared: &Arc<Shared>) -> wasmtime::Result<()> {
        self.host().share(shared);
        let Proxy::P3(service) = self.proxy().await? else {
            return Err(wasmtime::Error::msg("guests of WASI 0.2 share no instance"));
        };
        let ended = p3::share(&mut self.store, &service, shared).await;
        self.looks_at(&ended);
        ended?;
        self.proxy = Some(Proxy::P3(service)); // one that failed cannot be entered again
        Ok(())
    }

    /// All who shared it have left; it has had so many exchanges. Returns whether nothing of theirs is that somebody else takes part in.
    pub(crate) fn stop_sharing(&mut self, served: u64) -> bool {
        self.served = served;
        self.host().stop_sharing() && !self.goes_on()
    }

    /// How many exchanges it has had.
    pub(crate) fn served(&self) -> u64 {
        self.served
    }

    /// Has the guest handle a request.
    pub(crate) async fn handle(&mut self, call: Call) -> wasmtime::Result<()> {
        let proxy = self.proxy().await?;
        match (&proxy, call) {
            (Proxy::P2(proxy), Call::P2(call)) => {
                let run = pin!(p2::handle(&mut self.store, proxy, call));
                Watched::new(run, self.restoring.as_mut()).await?;
            }
            (Proxy::P3(service), Call::P3(call)) => {
                let ended = {
                    let run = pin!(p3::handle(&mut self.store, service, call, &mut self.unanswered));
                    Watched::new(run, self.restoring.as_mut()).await
                };
                self.looks_at(&ended);
                ended?;
            }
            _ => return Err(wasmtime::Error::msg("a request of one generation of WASI for a guest of the other")),
        }
        self.served += 1;
        self.proxy = Some(proxy); // one that failed cannot be entered again
        Ok(())
    }

    /// What its guest has passed on is on its way still: its exchange goes on with that, at nobody's expense, for the guest has done its
    /// part.
    pub(crate) async fn pass_on(&mut self, clock: &Arc<Clock>) {
        let written = self.store.data().written().clone();
        if written.are_passed_on() {
            let _held = Held::of(clock);
            poll_fn(|cx| written.poll_passed_on(cx)).await;
        }
    }

    /// Has the guest run, if it is a command. Returns whether it says that it has done what it should.
    pub(crate) async fn run(&mut self) -> wasmtime::Result<bool> {
        let Proxy::Command(command) = self.proxy().await? else {
            return Err(wasmtime::Error::msg("the guest is no command"));
        };
        let ended = command.run(&mut self.store).await;
        self.looks_at(&ended);
        ended
    }

    /// What came of something that its store did.
    fn looks_at<T>(&mut self, ended: &wasmtime::Result<T>) {
        self.has_panicked |= ended.as_ref().is_err_and(|error| error.is::<Panicked>());
    }

    /// What the end of its handler means.
    pub(crate) fn outcome(&mut self, result: wasmtime::Result<()>, exchange: &ExchangeState) -> Result<(), Error> {
        self.host().weigh_last();
        let Err(error) = result else { return Ok(()) };
        let has_offsets = self.prepared.restoring().is_none();
        Err(why_it_ended(&error, &exchange.stdio, &self.store.data().limiter, has_offsets))
    }

    /// Why its guest was not called at all: what it was to be given was past a limit.
    pub(crate) fn why_not_called(&self, error: wasmtime::Error) -> Error {
        let limit = self.store.data().limiter.explain(&error, &Arc::default());
        limit.unwrap_or_else(|| Error::Host(Reason::new(chain(&error), error)))
    }

    /// The fuel that this exchange has used, if it is limited.
    pub(crate) fn fuel_used(&self) -> Option<u64> {
        // asked only where it is counted: elsewhere the answer is an error
        let limit = self.store.data().fuel()?;
        self.store.get_fuel().ok().map(|left| limit.saturating_sub(left))
    }

    /// Whether dropping it takes long.
    pub(crate) fn is_heavy(&self) -> bool {
        self.prepared.is_heavy()
    }

    /// Its exchange is over; all that belongs to it ends. Returns whether it may have another.
    pub(crate) fn prepare_for_reuse(&mut self, reuse: &Reuse) -> bool {
        if self.proxy.is_none() || reuse.requests.is_some_and(|most| self.served >= most) {
            return false;
        }
        let kept = self.kept();
        self.host().prepare_for_reuse(kept) && !self.goes_on() && (!reuse.isolated || self.restore())
    }

    /// Whether the host does something for its guest still, and would in the next exchange.
    fn goes_on(&mut self) -> bool {
        matches!(self.prepared.pre(), Pre::P3(..)) && self.host().streams_files()
    }

    /// What is kept of its guest besides the handles that the host knows.
    fn kept(&mut self) -> u64 {
        match self.prepared.pre() {
            Pre::P2(..) | Pre::Command(..) => 0, // its store has none, or is not kept
            Pre::P3(..) => u64::try_from(self.store.concurrent_state_table_size()).unwrap_or(u64::MAX),
        }
    }

    /// Puts it back to what it was before its first exchange. Returns whether it is.
    fn restore(&mut self) -> bool {
        // pages that were swapped out are not where they are looked for
        if crate::process::swap::seen() {
            return false;
        }
        let Some(restoring) = &mut self.restoring else { return false };
        let most = most_handles(&mut self.store, &self.prepared, self.handles_of_call, 0);
        let store = &mut self.store;
        let is_bounded = restoring.bytes() <= HOSTS_OWN;
        let mut restore = || restoring.restore(store, most).unwrap_or(false);
        let is_restored = if is_bounded { crate::scheduler::for_host(restore) } else { restore() };
        self.store.data_mut().limiter.forget_calls();
        is_restored
    }
}

/// How many handles a guest can have had since it was put back last, or since it was made, with so many warm-ups. No more than there is room
/// for besides those that it has.
fn most_handles(store: &mut Store<StoreState>, prepared: &Prepared, of_call: u32, warm_ups: u64) -> u32 {
    let host = store.data_mut();
    let calls = host.limiter.calls();
    let exchanges = u32::try_from(warm_ups).unwrap_or(u32::MAX).saturating_add(1);
    let made = match prepared.pre() {
        Pre::P2(..) | Pre::Command(..) => {
            calls.saturating_mul(of_call).saturating_add(exchanges.saturating_mul(OF_HANDLER))
        }
        // a call that goes on has a handle besides that of its result, and some are made without the host
        Pre::P3(..) => {
            calls.saturating_mul(of_call.saturating_add(1)).saturating_add(exchanges.saturating_mul(OF_TASKS))
        }
    };
    let there = host.table().iter_mut().count();
    let room = host.limits().most_handles().saturating_sub(there);
    made.min(u32::try_from(room).unwrap_or(u32::MAX))
}

impl Drop for Instance {
    fn drop(&mut self) {
        if self.has_panicked {
            self.store.data().limiter.process().lose_slot();
        } else {
            // SAFETY: it is dropped once, here, and nobody sees it after.
            unsafe { ManuallyDrop::drop(&mut self.store) };
        }
    }
}
