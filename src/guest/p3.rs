//! Guests of WASI 0.3: what is linked for them, and how they handle a request.
//!
//! A store of theirs is driven by `run_concurrent`, which polls the guest's tasks and the host's functions in turn. It cannot be entered
//! twice on a thread: whatever else runs a guest (another app as an upstream) is awaited through a channel, never polled in here.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_LENGTH;
use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::sync::oneshot;
use wasmtime::component::{Accessor, Func, GuestTaskId, Linker, Resource, TypedFuncCallConcurrent};
use wasmtime::{AsContextMut, Store, StoreContextMut};
use wasmtime_wasi_http::p3::bindings::{self, Service};
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error as HostError, FieldMap, RequestOptions, WasiBody, WasiHttpView};

use crate::exchange::body_check::BodyRules;
use crate::exchange::guest_written::Transmitted;
use crate::guest::body_streams_p3::code_of;
use crate::guest::exchange_context::ExchangeContext;
use crate::guest::interfaces::{HANDLER, interface_p3};
use crate::guest::panics::UntilItPanics;
use crate::guest::request_checks::{url_of, url_passed_on};
use crate::guest::seat::{Answered, Seat};
use crate::guest::shared::{Newcomer, Shared};
use crate::guest::store::StoreState;
use crate::http::error_code::ErrorCode;
use crate::http::message::Side;
use crate::outgoing::hooks::HookFuture;
use crate::outgoing::upstream::{Import, Timeouts};

/// What a handler of `wasi:http/handler` gets. Where its answer goes the instance has: whoever waits for one is not told that none will come
/// by that being dropped with the call, but by how the exchange ended, and the instance goes after that is known.
pub(crate) struct Call {
    pub request: Resource<Request>,
    /// The request was HEAD.
    pub head_only: bool,
}

impl Call {
    pub(crate) fn new<B>(host: &mut StoreState, request: http::Request<B>) -> wasmtime::Result<Self>
    where
        B: http_body::Body<Data = Bytes, Error = HostError> + Send + 'static,
    {
        let head_only = request.method() == http::Method::HEAD;
        let options = request.extensions().get().map(options_of);
        // what the guest thinks of the request's body is nobody's to hear
        let (mut request, _) = Request::from_http(host.http().hooks, request);
        request.options = options;
        let request = host.table().push(request)?;
        Ok(Self { request, head_only })
    }
}

fn options_of(timeouts: &Timeouts) -> Arc<RequestOptions> {
    Arc::new(RequestOptions {
        connect_timeout: timeouts.connect,
        first_byte_timeout: timeouts.first_byte,
        between_bytes_timeout: timeouts.between_bytes,
    })
}

/// Has the guest handle a request. It ends when all that the guest does has ended: it may work on after its answer.
pub(crate) async fn handle(
    store: &mut Store<StoreState>,
    service: &Service,
    call: Call,
    unanswered: &mut Option<Answered>,
) -> wasmtime::Result<()> {
    let Call { request, head_only } = call;
    let turn = store.data().turn.clone();
    let work = async |accessor: &Accessor<StoreState>| {
        turn.inside(pin!(async {
            let handler = service.wasi_http_handler().func_handle();
            let task = accessor.with(|access| handler.start_call_concurrent(access, (request,)))?;
            let (answer,) = handler.finish_call_concurrent(accessor, task).await?;
            let answer = read_answer(accessor, answer, None, head_only)?;
            if let Some(answered) = unanswered.take() {
                answered(answer);
            }
            poll_fn(|cx| {
                ready!(accessor.poll_no_interesting_tasks(cx));
                // a body that one of the host's streams makes needs no guest any more, but its store
                if accessor.with(|mut access| access.data_mut().feeds_bodies()) {
                    return Poll::Pending;
                }
                look_whether_it_holds_back(accessor, *handler.func(), cx);
                Poll::Ready(())
            })
            .await;
            Ok(())
        }))
        .await
    };
    UntilItPanics::new(async { turn.around(pin!(store.run_concurrent(work))).await }).await?
}

/// A guest that has set back-pressure, and has nothing more to do, will never lift it: nobody else is to come into its instance.
fn look_whether_it_holds_back(accessor: &Accessor<StoreState>, handler: Func, cx: &mut Context<'_>) {
    if accessor.poll_ready_for_concurrent_call(handler, cx).is_pending() {
        accessor.with(|mut access| access.data_mut().holds_back = true);
    }
}

/// What a guest's handler has returned.
fn read_answer(
    accessor: &Accessor<StoreState>,
    answer: Result<Resource<Response>, bindings::http::types::ErrorCode>,
    task: Option<GuestTaskId>,
    head_only: bool,
) -> wasmtime::Result<Result<http::Response<WasiBody>, ErrorCode>> {
    Ok(match answer {
        Ok(response) => Ok(as_of(accessor, task, |store| answer_of(store, response, head_only))?),
        Err(code) => Err(ErrorCode::of_guest(code)),
    })
}

/// Does something for the exchange whose task this is: outside of its guest's calls, when the store is nobody's.
fn as_of<R>(
    accessor: &Accessor<StoreState>,
    task: Option<GuestTaskId>,
    does: impl FnOnce(StoreContextMut<'_, StoreState>) -> wasmtime::Result<R>,
) -> wasmtime::Result<R> {
    accessor.with(|mut access| {
        access.data_mut().lead(task);
        let done = does(access.as_context_mut())?; // what fails is its exchange's doing
        access.data_mut().lead(None);
        Ok(done)
    })
}

/// Has the guests of one store handle the requests of those who share it, until nobody is in it and nobody waits.
pub(crate) async fn share(store: &mut Store<StoreState>, service: &Service, shared: &Shared) -> wasmtime::Result<()> {
    let turn = store.data().turn.clone();
    let work = async |accessor: &Accessor<StoreState>| {
        let handler = service.wasi_http_handler().func_handle();
        let mut calls = FuturesUnordered::new();
        shared.open();
        turn.inside(pin!(poll_fn(|cx| {
            loop {
                // whoever polls this has the store: no guest's call holds it
                accessor.with(|mut access| access.data_mut().lead(None));
                while let Poll::Ready(Some(done)) = calls.poll_next_unpin(cx) {
                    if let Err(error) = done {
                        return Poll::Ready(Err(error));
                    }
                }
                let holds_back =
                    accessor.with(|mut access| access.data_mut().siblings().is_some_and(|all| all.hold_back()));
                if !holds_back
                    && accessor.poll_ready_for_concurrent_call(*handler.func(), cx).is_ready()
                    && let Some(newcomer) = shared.next()
                {
                    match accessor.with(|mut access| start(access.as_context_mut(), service, newcomer)) {
                        Ok(called) => calls.push(finish(accessor, service, called)),
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                    continue;
                }
                let is_quiet = calls.is_empty()
                    && accessor.poll_no_interesting_tasks(cx).is_ready()
                    && !accessor.with(|mut access| {
                        let host = access.data_mut();
                        host.feeds_bodies() || host.siblings().is_some_and(|all| all.pass_on())
                    });
                if !is_quiet || !shared.close_if_empty() {
                    return Poll::Pending;
                }
                look_whether_it_holds_back(accessor, *handler.func(), cx);
                return Poll::Ready(Ok(()));
            }
        })))
        .await
    };
    UntilItPanics::new(async { turn.around(pin!(store.run_concurrent(work))).await }).await?
}

type Calling = TypedFuncCallConcurrent<
    StoreState,
    (Resource<Request>,),
    (Result<Resource<Response>, bindings::http::types::ErrorCode>,),
>;

/// A handler that was called.
struct Called {
    call: Calling,
    seat: Arc<Seat>,
    head_only: bool,
}

fn start(
    mut store: StoreContextMut<'_, StoreState>,
    service: &Service,
    newcomer: Box<Newcomer>,
) -> wasmtime::Result<Called> {
    let Newcomer { request, hooks, seat } = *newcomer;
    let Call { request, head_only } = Call::new(store.data_mut(), request)?;
    let handler = service.wasi_http_handler().func_handle();
    let call = handler.start_call_concurrent(store.as_context_mut(), (request,))?;
    let context = Box::new(ExchangeContext::new(hooks, seat.written.clone()));
    if let Some(siblings) = store.data_mut().siblings() {
        siblings.sit_down(call.task(), seat.clone(), context);
    }
    Ok(Called { call, seat, head_only })
}

async fn finish(accessor: &Accessor<StoreState>, service: &Service, called: Called) -> wasmtime::Result<()> {
    let Called { call, seat, head_only } = called;
    let task = Some(call.task());
    let handler = service.wasi_http_handler().func_handle();
    let (answer,) = handler.finish_call_concurrent(accessor, call).await?;
    // taken out of the store though nobody may wait for it: else the guest that writes its body would wait for ever
    let answer = read_answer(accessor, answer, task, head_only)?;
    seat.has_returned();
    if let Some(answered) = seat.take_unanswered() {
        answered(answer);
    }
    Ok(())
}

/// The lengths that a message announces are taken out of it before wasmtime-wasi-http sees them, and put back after: it would check them
/// against the body, but not where there is none, and not as an answer to HEAD has it.
struct Lengths(Vec<http::HeaderValue>);

impl Lengths {
    fn take(store: &mut StoreContextMut<'_, StoreState>, fields: &mut FieldMap) -> Self {
        if !fields.contains_key(CONTENT_LENGTH) {
            return Self(Vec::new());
        }
        let mut map: http::HeaderMap = std::mem::replace(fields, FieldMap::new_mutable(0)).into();
        let lengths = match map.entry(CONTENT_LENGTH) {
            http::header::Entry::Occupied(entry) => entry.remove_entry_mult().1.collect(),
            http::header::Entry::Vacant(_) => Vec::new(),
        };
        *fields = FieldMap::new_immutable(store.data_mut().http().hooks, map);
        Self(lengths)
    }

    fn put_back(self, fields: &mut http::HeaderMap) {
        for length in self.0 {
            fields.append(CONTENT_LENGTH, length);
        }
    }
}

/// What becomes of a message, as wasmtime-wasi-http wants to be told: how its body went, and of a request what `failed`, if it was not
/// answered. Of a body that nobody has read nothing is amiss.
async fn transmission(
    told: oneshot::Receiver<Transmitted>,
    failed: Option<oneshot::Receiver<ErrorCode>>,
) -> Result<(), HostError> {
    told.await.unwrap_or(Ok(())).map_err(ErrorCode::into_host)?;
    match failed {
        Some(failed) => failed.await.map_or(Ok(()), |code| Err(code.into_host())),
        None => Ok(()),
    }
}

/// Tells why a request was not answered: it was called off, unless something else is said.
struct Unanswered(Option<oneshot::Sender<ErrorCode>>);

impl Unanswered {
    fn tell(&mut self, code: ErrorCode) {
        if let Some(tell) = self.0.take() {
            let _ = tell.send(code);
        }
    }
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        self.tell(ErrorCode::plain("connection-terminated"));
    }
}

fn answer_of(
    mut store: StoreContextMut<'_, StoreState>,
    response: Resource<Response>,
    head_only: bool,
) -> wasmtime::Result<http::Response<WasiBody>> {
    store.data_mut().unsent.send(response.rep());
    let mut response = store.data_mut().table().delete(response)?;
    let lengths = Lengths::take(&mut store, &mut response.headers);
    let (tell, told) = oneshot::channel();
    let response = response.into_http_with_getter(&mut store, transmission(told, None), StoreState::http)?;
    let (mut parts, body) = response.into_parts();
    lengths.put_back(&mut parts.headers);
    let rules = BodyRules::of_response(head_only, parts.status, &parts.headers);
    let body = store.data().written().add(body, rules, tell);
    Ok(http::Response::from_parts(parts, body))
}

/// All of WASI 0.3, beside that of 0.2.
pub(crate) fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p3::add_to_linker(linker)?;
    wasmtime_wasi_http::p3::add_to_linker(linker)?;
    linker.allow_shadowing(true);
    for (interface, function, import) in
        [("wasi:http/client", "send", Import::Client), (HANDLER, "handle", Import::Handler)]
    {
        interface_p3(linker, interface)?.func_wrap_concurrent(
            function,
            move |accessor: &Accessor<StoreState>, (request,): (Resource<Request>,)| {
                Box::pin(async move {
                    Ok((match ask(accessor, import, request).await? {
                        Ok(response) => Ok(response),
                        Err(code) => Err(code.into_p3()),
                    },))
                })
            },
        )?;
    }
    linker.allow_shadowing(false);
    crate::guest::request_checks::bound_requests_p3(linker)?;
    crate::guest::body_functions_p3::make_bodies(linker)?;
    crate::guest::http_functions::p3::weigh_fields(linker)?;
    crate::guest::file_functions_p3::bound_files_p3(linker)?;
    crate::guest::timers::stage_timers_p3(linker)
}

/// `wasi:http/client.send`, in place of wasmtime-wasi-http's, which knows nothing of whose request it is; and
/// `wasi:http/handler.handle`, which it does not have.
async fn ask(
    accessor: &Accessor<StoreState>,
    import: Import,
    request: Resource<Request>,
) -> wasmtime::Result<Result<Resource<Response>, ErrorCode>> {
    let (begun, seat) = accessor.with(|mut access| {
        let begun = begin(access.as_context_mut(), import, request)?;
        wasmtime::error::Ok((begun, access.data_mut().seat().cloned()))
    })?;
    let (answer, mut unanswered) = match begun {
        Ok((answer, unanswered)) => (Box::into_pin(answer), unanswered),
        Err(code) => return Ok(Err(code)),
    };
    let answer = match &seat {
        None => answer.await,
        // the store may outlive its exchange, whose requests end with that
        Some(seat) => {
            let _waits = seat.waits();
            tokio::select! {
                answer = answer => answer.map(|(response, rest)| (response.map(|body| seat.over.cuts(body)), rest)),
                () = seat.over.wait() => Err(HostError::ConnectionTerminated),
            }
        }
    };
    match answer {
        Ok((response, rest)) => {
            unanswered.0 = None;
            // of a simulation, which waits until the guest has read the answer
            let mut rest = Box::into_pin(rest);
            if rest.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
                tokio::spawn(rest);
            }
            let task = seat.as_ref().and_then(|seat| seat.task());
            as_of(accessor, task, |mut store| {
                let host = store.data_mut();
                let (response, _) = Response::from_http(host.http().hooks, response);
                Ok(Ok(host.table().push(response)?))
            })
        }
        Err(error) => {
            let code = code_of(&error);
            unanswered.tell(code.clone());
            Ok(Err(code))
        }
    }
}

/// Hands a request over to whoever answers it.
fn begin(
    mut store: StoreContextMut<'_, StoreState>,
    import: Import,
    request: Resource<Request>,
) -> wasmtime::Result<Result<(HookFuture, Unanswered), ErrorCode>> {
    let host = store.data_mut();
    host.grows(0)?;
    host.unsent.send(request.rep());
    let mut request = host.table().delete(request)?;
    let url = match import {
        Import::Client => url_of(&request),
        Import::Handler => url_passed_on(&request, host.own_url()),
    };
    // it is put in below: not every one of ours would pass
    request.scheme = Some(Scheme::HTTP);
    request.authority = Some(Authority::from_static("localhost"));
    request.path_with_query = Some(PathAndQuery::from_static("/"));
    let lengths = Lengths::take(&mut store, &mut request.headers);
    let (tell, told) = oneshot::channel();
    let (unanswered, failed) = oneshot::channel();
    let mut unanswered = Unanswered(Some(unanswered));
    let how = transmission(told, Some(failed));
    let (request, options) = match request.into_http_with_getter(&mut store, how, StoreState::http) {
        Ok(made) => made,
        Err(error) => return Ok(Err(ErrorCode::from(error.downcast()?))),
    };
    let host = store.data_mut();
    let (mut parts, body) = request.into_parts();
    lengths.put_back(&mut parts.headers);
    let rules = BodyRules::of_length(Side::Request, crate::http::fields::announced_length(&parts.headers));
    let body = host.written().add(body, rules, tell);
    // only now: its body is let go of as one that was sent
    parts.uri = match url {
        Ok(url) => url,
        Err((code, why)) => {
            let which = match import {
                Import::Client => "an outgoing request",
                Import::Handler => "a request that is passed on",
            };
            host.warn(format!("{which} was refused: {why}; the guest is told `{}`", code.name));
            unanswered.tell(code.clone());
            return Ok(Err(code));
        }
    };
    let request = http::Request::from_parts(parts, body);
    Ok(Ok((host.ask(import, request, options.as_deref().copied()), unanswered)))
}
