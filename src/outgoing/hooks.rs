//! The guest's way out: policy first, then whoever answers.
//!
//! wasmtime's hook trait changes with its releases; only this file knows it, and upstreams stand behind [`Upstream`].

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use http_body_util::BodyExt;
use tokio::runtime::Handle;
use wasmtime_wasi_http::{Error as HostError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::engine::ProcessState;
use crate::exchange::body_check::BodyRules;
use crate::exchange::guest_body::GuestBody;
use crate::exchange::handle::{ExchangeHandle, ExchangeState, Gone};
use crate::exchange::refusals::{Hint, Refused};
use crate::exchange::request_body::RequestBody;
use crate::exchange::response_body::in_channel;
use crate::exchange::stdio::Stdio;
use crate::http::error_code::ErrorCode;
use crate::http::fields;
use crate::http::message::Side;
use crate::limits::Limits;
use crate::outgoing::in_runtime::InRuntime;
use crate::outgoing::timeouts::{Pause, ReadTimeout};
use crate::outgoing::upstream::{Import, Timeouts, Upstream, Upstreams};
use crate::simulation::environment::Scene;
use crate::simulation::virtual_time::{Clock, Work};
use crate::simulation::watched_body::Watched;

/// The most that one write of a guest's into a body takes. Two of them may lie in each body that it has begun and that nobody
/// reads, so with its handles this bounds what it can have its host keep.
pub(crate) const WRITE: usize = 16 << 10;

/// The hooks of one exchange.
pub(crate) struct Hooks {
    upstreams: Upstreams,
    exchange: ExchangeHandle,
    pub limits: Limits,
    /// The URL of the exchange's own request: one that is passed on has of it what its guest leaves out.
    pub url: Option<http::Uri>,
    /// What the exchange finds, if its time is not the machine's.
    pub scene: Option<Scene>,
}

impl Hooks {
    pub(crate) fn new(upstreams: Upstreams, exchange: ExchangeHandle, limits: &Limits) -> Self {
        Self { upstreams, exchange, limits: *limits, url: None, scene: None }
    }

    /// For what its guest does before the exchange, until the second is dropped.
    pub(crate) fn before(&self) -> (Self, Gone) {
        let before = self.exchange.state.before();
        (Self::new(self.upstreams.clone(), ExchangeHandle::observer(&before), &self.limits), Gone(before))
    }

    /// When nothing is left of what its guest does.
    #[cfg(test)]
    pub(crate) fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.exchange.ended()
    }

    /// For what ends with the exchange, and does not keep it.
    pub(crate) fn exchange(&self) -> Weak<ExchangeState> {
        Arc::downgrade(&self.exchange.state)
    }

    /// Whether anything of the exchange's is left that somebody else takes part in.
    pub(crate) fn is_busy(&self) -> bool {
        let asks = |count: &AtomicU64| count.load(Ordering::Acquire) > 0;
        asks(&self.exchange.state.sent) || asks(&self.exchange.state.passed_on) || self.exchange.has_reader()
    }

    /// If the guest's time is not the machine's.
    fn clock(&self) -> Option<Clock> {
        self.scene.as_ref().map(|scene| scene.clock().clone())
    }

    /// Whether they are this exchange's.
    pub(crate) fn is_of(&self, exchange: &Arc<ExchangeState>) -> bool {
        Arc::ptr_eq(&self.exchange.state, exchange)
    }

    pub(crate) fn process(&self) -> &'static ProcessState {
        self.exchange.process()
    }

    /// The output of its exchange.
    pub(crate) fn stdio(&self) -> &Arc<Stdio> {
        self.exchange.stdio()
    }

    /// A line of the host's own about this guest.
    pub(crate) fn warn(&self, text: String) {
        self.exchange.stdio().warn(text);
    }

    /// See [`crate::exchange::stdio::Stdio::tell`].
    pub(crate) fn tell(&self, text: &str) {
        self.exchange.stdio().tell(text);
    }

    /// Whoever answers a request that is sent out, which counts.
    fn outgoing(&self, uri: &http::Uri) -> Result<(&dyn Upstream, UnderWay), HostError> {
        let Some(upstream) = &self.upstreams.outgoing else {
            self.exchange.stdio().refused(&Refused {
                uri,
                what: "was denied: its app has no upstream",
                hint: &|origin| {
                    let origin = origin?;
                    let network = format!("wasgi.Network(allow=[\"{origin}\"])");
                    let code = format!("`App(..., outgoing={network})`, or a function that answers it");
                    Some(Hint { code, flag: Some(format!("`--allow {origin}`")) })
                },
            });
            return Err(HostError::HttpRequestDenied);
        };
        Ok((&**upstream, self.count()?))
    }

    /// Whoever answers a request that is passed on. It leaves for nowhere, so no limit of outgoing requests applies.
    fn handler(&self) -> Result<(&dyn Upstream, UnderWay), HostError> {
        let Some(handler) = &self.upstreams.handler else {
            self.warn("a request was not passed on: its app has no handler for it".to_owned());
            return Err(HostError::ConfigurationError);
        };
        Ok((&**handler, UnderWay::passed_on(&self.exchange.state)))
    }

    /// Counts one more request, if it may be sent.
    fn count(&self) -> Result<UnderWay, HostError> {
        let before = self.exchange.count_outgoing();
        if let Some(most) = self.limits.outgoing.filter(|most| before >= *most) {
            self.exchange.stdio().warn(format!(
                "an outgoing request was denied: this exchange has sent {most} already (`Limits.outgoing`)"
            ));
            return Err(HostError::HttpRequestDenied);
        }
        let under_way = UnderWay::sent(&self.exchange.state);
        if let Some(most) = self.limits.outgoing_concurrency.filter(|most| under_way.before >= *most) {
            self.exchange.stdio().warn(format!(
                "an outgoing request was refused: this exchange has {most} under way (`Limits.outgoing_concurrency`)"
            ));
            return Err(HostError::ConnectionLimitReached);
        }
        Ok(under_way)
    }
}

/// Counted until its response has been read, or nobody wants it any more.
struct UnderWay {
    before: u64,
    exchange: Arc<ExchangeState>,
    /// It is one of the outgoing requests of the process.
    is_sent: bool,
}

impl UnderWay {
    fn sent(exchange: &Arc<ExchangeState>) -> Self {
        exchange.process.counters.outgoing.fetch_add(1, Ordering::Relaxed);
        Self { before: exchange.sent.fetch_add(1, Ordering::AcqRel), exchange: exchange.clone(), is_sent: true }
    }

    fn passed_on(exchange: &Arc<ExchangeState>) -> Self {
        Self { before: exchange.passed_on.fetch_add(1, Ordering::AcqRel), exchange: exchange.clone(), is_sent: false }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let ExchangeState { sent, passed_on, process, .. } = &*self.exchange;
        if self.is_sent {
            sent.fetch_sub(1, Ordering::AcqRel);
            process.counters.outgoing.fetch_sub(1, Ordering::Relaxed);
        } else {
            passed_on.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

pub(crate) type HookFuture = Box<
    dyn Future<
            Output = Result<
                (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), HostError>> + Send>),
                HostError,
            >,
        > + Send,
>;

impl WasiHttpHooks for Hooks {
    /// The request reaches the upstream as the guest made it: its URL names the host.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        in_channel(self.limits.chunks)
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        WRITE
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HostError>> + Send>,
    ) -> HookFuture {
        self.ask(Import::Client, request, options)
    }
}

impl Hooks {
    /// Has a guest's request answered, sent out or passed on.
    pub(crate) fn ask(
        &self,
        import: Import,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> HookFuture {
        let Some(clock) = self.clock() else { return self.send(import, request, options, None) };
        let work = clock.work(true);
        let request = request.map(|body| Watched::by_others(body, work.clock()).boxed_unsync());
        let answer = self.send(import, request, options, Some(&work));
        Box::new(async move {
            match Pin::from(answer).await {
                // what is given with a response is spawned with it
                Ok((response, _)) => Ok((
                    response,
                    Box::new(async {
                        work.answered().await;
                        Ok(())
                    }) as _,
                )),
                Err(error) => {
                    tokio::spawn(work.answered());
                    Err(error)
                }
            }
        })
    }

    /// Has the upstream answer. `work`: in a simulation, whose time is not the machine's.
    fn send(
        &self,
        import: Import,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        work: Option<&Arc<Work>>,
    ) -> HookFuture {
        // first: whatever becomes of the request, its guest is to finish its body
        let length = fields::announced_length(request.headers());
        let request = request.map(|body| GuestBody::of_request(body, length, self.exchange.observe()));
        let answers = match import {
            Import::Client => self.outgoing(request.uri()),
            Import::Handler => self.handler(),
        };
        let (upstream, under_way) = match answers {
            Ok(answers) => answers,
            Err(refused) => return Box::new(async { Err(refused) }),
        };
        let timeouts = options.map_or_else(Timeouts::default, |options| Timeouts {
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
        });
        let fields = self.limits.fields;
        let method = request.method().clone();
        let mut request = request;
        if let Some(work) = work {
            request.extensions_mut().insert(work.clock().clone());
        }
        let (clock, work) = (self.clock(), work.cloned());
        let answer = upstream.send(request, timeouts, self.exchange.stdio());
        Box::new(async move {
            let answer = answer.await.map_err(|error| error.code.into_host())?;
            let response = crate::http::upstream_response::served(&method, answer).map_err(ErrorCode::into_host)?;
            let size = fields::size(response.headers());
            if fields.is_some_and(|most| size > most) {
                return Err(Side::Response.header_size(size).into_host());
            }
            let to_head = method == http::Method::HEAD;
            let rules = BodyRules::of_response(to_head, response.status(), response.headers());
            let rules = BodyRules { trailers: fields, ..rules };
            let response = response.map(|body| {
                let body = RequestBody::of_upstream(body, rules);
                let body = Watched::by_guest(body, work);
                let body =
                    ReadTimeout::new(body, timeouts.between_bytes.map(|limit| Pause::new(limit, clock)), under_way);
                InRuntime::new(body, Handle::current()).boxed_unsync()
            });
            Ok((response, Box::new(async { Ok(()) }) as _))
        })
    }
}
