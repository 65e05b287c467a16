//! A guest that runs, under its time limit, and what is given back when it has ended.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinHandle;
use tokio::time::Sleep;
use wasmtime_wasi_http::WasiBody;

use crate::app::admission::Permit;
use crate::app::warm_up::WarmUps;
use crate::engine::ProcessState;
use crate::engine::ticker::Ticking;
use crate::error::Error;
use crate::exchange::handle::{ExchangeState, Gone};
use crate::exchange::response_body::ResponseSlot;
use crate::guest::instance::Instance;
use crate::guest::instance_pool::give_back;
use crate::http::error_code::ErrorCode;
use crate::process::afterwards;
use crate::scheduler::Run;

/// A timer that is set anew each time it is asked.
#[derive(Default)]
pub(super) struct Due(Option<Pin<Box<Sleep>>>);

impl Due {
    /// Ready at this time.
    pub(super) fn poll(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.0.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at.into())));
        if due.deadline() != at.into() {
            due.as_mut().reset(at.into());
        }
        due.as_mut().poll(cx)
    }
}

/// The time of an exchange's guest is up.
pub(super) fn end_in_time(exchange: &ExchangeState) {
    let limit = exchange.clock.limit().unwrap_or_default();
    exchange.end(Err(Error::Timeout { limit: limit.as_secs_f64() }));
}

/// Drops an instance, and what goes after it: elsewhere if that takes long and this is a caller's thread, which may be an event loop's.
pub(super) fn drop_instance(process: &ProcessState, instance: Instance, after: impl Send + 'static) {
    let is_slow = instance.is_heavy() && !crate::scheduler::is_guests_thread();
    let both = (instance, after); // they go in this order
    if is_slow {
        drop(give_back(process, both));
    }
}

/// A guest on the scheduler's threads, under its time limit.
pub(super) struct Running {
    run: Option<Run>,
    /// When its time is up, unless its caller holds it up.
    due: Due,
    exchange: Arc<ExchangeState>,
    answer: ResponseSlot,
}

impl Running {
    pub(super) fn new(run: Run, exchange: Arc<ExchangeState>, answer: ResponseSlot) -> Self {
        Self { run: Some(run), due: Due::default(), exchange, answer }
    }

    fn time_is_up(&mut self) -> Poll<()> {
        end_in_time(&self.exchange);
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
        if this.exchange.clock.enter().is_some_and(|at| Instant::now() >= at) {
            return this.time_is_up();
        }
        if run.as_mut().poll(cx).is_ready() {
            this.run = None;
            return Poll::Ready(());
        }
        this.answer.look();
        let Some(at) = this.exchange.clock.leave(Some(cx.waker())) else { return Poll::Pending };
        ready!(this.due.poll(at, cx));
        this.time_is_up()
    }
}

/// An instance with a guest in it that runs. However it ends, it tells so, and its bodies that are not finished break off.
pub(super) struct Guest {
    /// Until it has ended.
    instance: Option<Instance>,
    exchange: Arc<ExchangeState>,
    answer: ResponseSlot,
    /// How its handler ended, if it did.
    outcome: Option<Result<(), Error>>,
    /// Until it is dropped.
    place: Option<Place>,
}

/// What a guest takes up beside its instance, and gives back after it.
pub(super) struct Place {
    _ticking: Ticking,
    permit: Permit,
    /// The last to go.
    _gone: Gone,
}

impl Place {
    pub(super) fn new(exchange: &Arc<ExchangeState>, ticking: Ticking, permit: Permit) -> Self {
        Self { _ticking: ticking, permit, _gone: Gone(exchange.clone()) }
    }
}

/// A request for a guest, and what takes its answer.
pub(super) type Asked<B, A> = (http::Request<B>, A);

/// Has the guest handle its request, once there is room for its instance. What takes the answer goes after the guest, however this ends:
/// whoever waits for it is to find how the exchange ended.
pub(super) async fn run<B, A>(
    asked: Asked<B, A>,
    mut guest: Guest,
    room: Option<JoinHandle<()>>,
    warm_ups: Option<Arc<WarmUps>>,
) where
    B: http_body::Body<Data = Bytes, Error = wasmtime_wasi_http::Error> + Send + 'static,
    A: FnOnce(Result<http::Response<WasiBody>, ErrorCode>) + Send + Sync + 'static,
{
    if let Some(room) = room {
        let _ = room.await;
    }
    if let Err(error) = guest.prepare(warm_ups).await {
        guest.outcome = Some(Err(error));
        return;
    }
    let Some(instance) = &mut guest.instance else { return };
    let (request, answered) = asked;
    let result = match instance.call(request, answered) {
        Ok(call) => instance.handle(call).await,
        Err(error) => {
            guest.outcome = Some(Err(instance.why_not_called(error)));
            return;
        }
    };
    if result.is_ok() {
        instance.pass_on(&guest.exchange.clock).await;
    }
    guest.outcome = Some(instance.outcome(result, &guest.exchange));
}

/// Makes an instance that waits for its first exchange then.
pub(super) async fn make_ready(mut guest: Guest, room: Option<JoinHandle<()>>, warm_ups: Option<Arc<WarmUps>>) {
    if let Some(room) = room {
        let _ = room.await;
    }
    let prepared = guest.prepare(warm_ups).await;
    guest.outcome = Some(prepared);
}

/// What is said when an instance had answered before, and then returned without an answer.
const NOT_REUSABLE: &str = "`reuse` has no effect on this app any more: an instance that had answered before returned without \
                            an answer (`NoResponseError`), as guests of some toolchains do at their second request; each \
                            request gets a fresh instance from now on";

/// An exchange has ended well. Says so once if its guest has not answered, and had answered another one before.
pub(super) fn tell_not_reusable(place: &Place, exchange: &ExchangeState) {
    if let Some(idle) = &place.permit.admission.idle
        && exchange.costs.earlier.load(Ordering::Relaxed) > 0
        && idle.stop_reusing()
    {
        exchange.stdio.tell(NOT_REUSABLE);
    }
}

/// Why an exchange ends, if nobody has said so: whoever wants it ended says so, but for one who drops what has not begun.
pub(super) fn why_dropped(exchange: &ExchangeState) -> Error {
    if std::thread::panicking() {
        Error::Host("the host failed while the guest ran".into())
    } else if exchange.process.runtime.is_shut_down() {
        Error::Host("the process is exiting".into())
    } else {
        Error::Cancelled
    }
}

impl Guest {
    pub(super) fn new(instance: Instance, exchange: &Arc<ExchangeState>, answer: ResponseSlot, place: Place) -> Self {
        Self { instance: Some(instance), exchange: exchange.clone(), answer, outcome: None, place: Some(place) }
    }

    /// Makes it, if it is not there, as it is to be before each exchange.
    async fn prepare(&mut self, warm_ups: Option<Arc<WarmUps>>) -> Result<(), Error> {
        let Some(instance) = &mut self.instance else { return Ok(()) };
        if let (Some(warm_ups), true) = (warm_ups, instance.is_new()) {
            return Box::pin(warm_ups.run(instance, &self.exchange)).await;
        }
        match instance.prepare().await {
            Ok(()) => Ok(()),
            failed => instance.outcome(failed, &self.exchange),
        }
    }

    /// It ends, as its handler did or as it was dropped. Returns whether it has ended well.
    fn end(&mut self) -> bool {
        if let Some(used) = self.instance.as_ref().and_then(Instance::fuel_used) {
            let _ = self.exchange.costs.fuel.set(used);
        }
        let outcome = self.outcome.take().unwrap_or_else(|| Err(why_dropped(&self.exchange)));
        self.exchange.end(outcome)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let ended_well = self.end();
        let answered = self.answer.is_answered();
        let Some(place) = self.place.take() else { return };
        let idle = place.permit.admission.idle.clone();
        if ended_well && !answered {
            tell_not_reusable(&place, &self.exchange);
        }
        self.exchange.stdio.finish();
        let Some(mut instance) = self.instance.take() else { return };
        let broke_off = instance.host().abort_bodies(ended_well);
        // before the place is free: whoever waits for that came later
        crate::scheduler::wake_now();
        // before its place is free: whoever takes that finds it
        let over = match &idle {
            Some(idle) if ended_well && answered && !broke_off => idle.keep(instance),
            _ => Some(instance),
        };
        let Some(instance) = over else { return };
        if !instance.is_heavy() && afterwards::is_answering() && place.permit.admission.has_room() {
            let process = self.exchange.process;
            return afterwards::put_off(move || {
                let _visit = process.scheduler.visit();
                let _entered = process.runtime.handle().map(|handle| handle.enter());
                drop((instance, place));
            });
        }
        drop_instance(self.exchange.process, instance, place);
    }
}
