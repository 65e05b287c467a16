//! One exchange: a request goes in, the guest runs, a response or a reason comes out.
//!
//! An exchange has one owner ([`crate::owner::Owner`]). It first runs on the thread that asks ([`Exchange::run_here`]): a guest that
//! waits for nothing is done there. If it is not, the runtime takes it over ([`Exchange::hand_over`]), and the owner
//! keeps the handle that stops it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::Sleep;
use wasmtime::Store;
use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::{HostOutgoingBody, StreamContext};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{WasiBody, WasiHttpView};

use crate::body::GuestBody;
use crate::code::ErrorCode;
use crate::component::{Component, Prepared};
use crate::engine::{Ticking, World, world};
use crate::error::{Error, Trap, chain};
use crate::host::{Grants, Host, Limits};
use crate::outgoing::{Hooks, Upstream};
use crate::owner::{Owner, Shared};
use crate::sync::lock;

/// A guest that was interrupted by a tick goes on here if it has had less than this; with the tick that follows it
/// stays under 2 ms.
const SLICE: Duration = Duration::from_micros(500);

/// A component and the terms on which its guests run.
pub struct App {
    pub component: Arc<Component>,
    pub grants: Grants,
    pub limits: Limits,
    live: Arc<AtomicU64>,
}

impl App {
    pub fn new(component: Arc<Component>, grants: Grants, limits: Limits) -> Self {
        Self { component, grants, limits, live: Arc::default() }
    }

    /// Begins an exchange. The guest does not run yet.
    pub fn start(
        &self,
        request: http::Request<WasiBody>,
        upstream: Option<Arc<dyn Upstream>>,
    ) -> Result<Exchange, Error> {
        let permit = Permit::take(&self.live, self.limits.concurrency)?;
        let world = world()?;
        let prepared = self.component.prepared(world)?;
        let shared = Shared::new();
        let hooks = Hooks { upstream, exchange: Owner::observer(&shared) };
        let host = Host::new(&self.grants, &self.limits, &shared.stdio, shared.peak.clone(), hooks)?;
        let mut store = Store::new(prepared.engine(), host);
        store.limiter(|host| &mut host.memory);
        store.set_epoch_deadline(1);
        store.epoch_deadline_async_yield_and_update(1);
        let mut guest = Guest {
            store,
            shared: shared.clone(),
            limits: self.limits.clone(),
            _ticking: world.tick()?,
            _permit: permit,
        };

        let scheme = match request.uri().scheme_str() {
            Some("http") | None => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => Scheme::Other(other.to_owned()),
        };
        let (sender, head) = oneshot::channel();
        let mut http = guest.store.data_mut().http();
        let made = http.new_incoming_request(scheme, request).and_then(|request| {
            Ok((
                request,
                http.new_response_outparam_from_callback(move |answer| {
                    // nobody may be left to take it: the guest is told nothing of that
                    let _ = sender.send(answer.map_err(ErrorCode::from));
                })?,
            ))
        });
        let (request, out) = made.map_err(|error| Error::Host(chain(&error)))?;
        Ok(Exchange {
            run: Some(Box::pin(run(guest, prepared.clone(), request, out))),
            prepared,
            head,
            owner: Owner::new(shared),
            world,
            timeout: self.limits.timeout,
        })
    }
}

/// A place among the exchanges of one app.
struct Permit(Arc<AtomicU64>);

impl Permit {
    fn take(live: &Arc<AtomicU64>, most: Option<usize>) -> Result<Self, Error> {
        let before = live.fetch_add(1, Ordering::AcqRel);
        let permit = Self(live.clone());
        match most {
            Some(most) if before >= most as u64 => Err(Error::Overloaded(format!(
                "all {most} exchanges that this app may have at once are taken (`Limits.concurrency`)"
            ))),
            _ => Ok(permit),
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An exchange until its response begins.
pub struct Exchange {
    run: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    head: oneshot::Receiver<Result<http::Response<WasiBody>, ErrorCode>>,
    owner: Owner,
    world: &'static World,
    timeout: Option<Duration>,
    prepared: Arc<Prepared>,
}

impl Exchange {
    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Whether an event loop's thread should not begin it: guests of this component take long to set up, or compute. To be
    /// asked once an exchange: the answer counts.
    pub fn keep_off_loop(&self) -> bool {
        self.prepared.keep_off_loop()
    }

    /// Runs the guest on this thread until it ends, waits, or has had its slice. Returns whether it ended.
    pub fn run_here(&mut self) -> Result<bool, Error> {
        let Some(run) = &mut self.run else { return Ok(true) };
        let _entered = self.world.runtime.handle()?.enter();
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let begun = Instant::now();
        loop {
            if run.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
                self.run = None;
                return Ok(true);
            }
            if !flag.0.swap(false, Ordering::Relaxed) {
                return Ok(false); // it waits
            }
            if begun.elapsed() > SLICE {
                self.prepared.was_interrupted();
                return Ok(false);
            }
        }
    }

    /// Gives the guest, if it has not ended, to the runtime.
    pub fn hand_over(&mut self) -> Result<(), Error> {
        let Some(run) = self.run.take() else { return Ok(()) };
        let shared = self.owner.shared.clone();
        let handle = self.world.runtime.handle()?;
        let deadline = self.timeout.and_then(|timeout| Some((shared.begun.checked_add(timeout)?, timeout)));
        let _entered = handle.enter();
        let task = handle.spawn(Running {
            run: Some(run),
            deadline: deadline.map(|(at, limit)| (at, limit, Box::pin(tokio::time::sleep_until(at.into())))),
            shared: shared.clone(),
        });
        let abort = task.abort_handle();
        *lock(&shared.task) = Some(abort.clone());
        if shared.stopped.load(Ordering::SeqCst) {
            abort.abort();
        }
        Ok(())
    }

    /// The head of the response, as soon as the guest has set it; its body follows.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<GuestBody>, Error>> {
        Poll::Ready(match ready!(Pin::new(&mut self.head).poll(cx)) {
            // the guest may have answered in the moment in which its caller failed: the caller's exception comes first
            Ok(_) if let Some(error) = self.owner.callers_failure() => Err(error),
            Ok(Ok(response)) => {
                let observer = self.owner.observe();
                let owner = std::mem::replace(&mut self.owner, observer);
                let (parts, body) = response.into_parts();
                let body = GuestBody::new(body, &parts.headers, owner);
                Ok(http::Response::from_parts(parts, body))
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

/// A guest on the runtime, under its time limit.
struct Running {
    run: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    deadline: Option<(Instant, Duration, Pin<Box<Sleep>>)>,
    shared: Arc<Shared>,
}

impl Future for Running {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(run) = &mut this.run else { return Poll::Ready(()) };
        if let Some((at, limit, sleep)) = &mut this.deadline {
            // The clock is asked as well as the timer: where every worker is busy with a spinning guest,
            // tokio looks at its timers only every 61 turns.
            if Instant::now() >= *at || sleep.as_mut().poll(cx).is_ready() {
                this.shared.settle(Err(Error::Timeout { limit: limit.as_secs_f64() }));
                this.run = None;
                return Poll::Ready(());
            }
        }
        ready!(run.as_mut().poll(cx));
        this.run = None;
        Poll::Ready(())
    }
}

/// A store with a guest in it. However it ends, it tells so, and its bodies that are not finished break off.
struct Guest {
    store: Store<Host>,
    shared: Arc<Shared>,
    limits: Limits,
    _ticking: Ticking,
    _permit: Permit,
}

async fn run(
    mut guest: Guest,
    prepared: Arc<Prepared>,
    request: Resource<HostIncomingRequest>,
    out: Resource<HostResponseOutparam>,
) {
    let begun = Instant::now();
    let result = match prepared.pre().instantiate_async(&mut guest.store).await {
        Ok(proxy) => {
            prepared.set_up_took(begun.elapsed());
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut guest.store, request, out).await
        }
        Err(error) => Err(error),
    };
    let fate = guest.read(result);
    guest.shared.settle(fate);
}

impl Guest {
    fn read(&self, result: wasmtime::Result<()>) -> Result<(), Error> {
        let Err(error) = result else { return Ok(()) };
        if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            return Err(Error::GuestExit { code: exit.0 });
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Err(Error::Overloaded(
                "all instance slots of this process are taken; hint: set `Limits.concurrency` lower".into(),
            ));
        }
        let trapped = error.is::<wasmtime::WasmBacktrace>() || error.is::<wasmtime::Trap>();
        let trap = Arc::new(Trap::read(&error, self.shared.stdio.last_words()));
        match self.limits.memory {
            Some(limit) if self.store.data().memory.refused => {
                Err(Error::MemoryLimit { limit, trap: trapped.then_some(trap) })
            }
            _ => Err(Error::Trap(trap)),
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.settle(Err(Error::Cancelled));
        self.shared.stdio.finish();
        // A body whose guest is gone would look complete to its reader: wasmtime-wasi-http takes a dropped sender
        // for the end. Saying "abort" while the store still lives is what makes it look broken.
        for entry in self.store.data_mut().table().iter_mut() {
            if let Some(body) = entry.downcast_mut::<HostOutgoingBody>() {
                let (empty, _) = HostOutgoingBody::new(StreamContext::Response, None, 1, 1);
                std::mem::replace(body, empty).abort();
            }
        }
    }
}
