//! The real network, under a policy: an upstream without Python.

pub mod connect;
pub mod connection_task;
pub mod dns;
pub mod error;
pub mod no_proxy;
pub mod origin;
pub mod places;
pub mod policy;
pub mod pool;
pub mod pool_state;
pub mod proxy;
pub mod request_body;
pub mod special_addresses;
pub mod tls;
pub mod traffic;

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::guest_body::GuestBody;
use crate::exchange::refusals::Refused;
use crate::exchange::stdio::Stdio;
use crate::http::error_code::{ErrorCode, Payload};
use crate::http::fields::announced_length;
use crate::http::message::Side;
use crate::http::url::implied_port;
use crate::http::url_pattern::Target;
use crate::network::connect::{ConnectPhase, Dialer};
use crate::network::dns::System;
use crate::network::error::{Prohibited, Unread, code_of, code_of_flood, is_malformed, is_unprocessed};
use crate::network::origin::Origin;
use crate::network::places::{App, Apps};
use crate::network::policy::Policy;
use crate::network::pool::{FIELDS, Lease, Pool, Unanswered};
use crate::network::pool_state::Caps;
use crate::network::proxy::Proxies;
use crate::network::request_body::{Content, Patience, RequestBody};
use crate::network::tls::Tls;
use crate::network::traffic::Flood;
use crate::outgoing::read_ahead::ReadAhead;
use crate::outgoing::{Answer, Pause, ReadTimeout, Timeouts, Upstream};
use crate::process::fork::generation;
use crate::sync::lock;

/// How a `Network` connects, and for how long it waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name, TCP and TLS together, and the wait for a connection that is free: of all attempts.
    pub connect: Duration,
    /// From the connection to the head of the response: of all attempts.
    pub first_byte: Option<Duration>,
    /// Between two chunks of the response; and for which the peer may leave unread what is written to it.
    pub between_bytes: Option<Duration>,
    /// From the request to the end of the response.
    pub total: Option<Duration>,
    pub caps: Caps,
    /// Whether TLS offers it.
    pub http2: bool,
    /// Whether it is spoken without TLS.
    pub h2c: bool,
    /// Bytes of a response's head.
    pub head: u32,
    /// Bytes of a response's body.
    pub body: Option<u64>,
    /// After failures that may pass.
    pub retries: u32,
}

/// An upstream: requests that its policy lets pass are sent.
pub struct Network {
    policy: Arc<Policy>,
    options: Arc<Options>,
    tls: rustls::ClientConfig,
    proxies: Arc<Proxies>,
    /// Who shares its connections.
    apps: Apps,
    /// Connections belong to the runtime of one process.
    pool: OnceLock<(u64, Arc<Pool>)>,
    /// A forked child's: no thread of its parent's can have this lock.
    of_child: Mutex<Option<(u64, Arc<Pool>)>>,
}

impl Network {
    pub fn new(policy: Policy, options: Options, tls: rustls::ClientConfig, proxies: Proxies) -> Self {
        let (policy, options, proxies) = (Arc::new(policy), Arc::new(options), Arc::new(proxies));
        let (apps, pool) = (Apps::default(), OnceLock::new());
        Self { policy, options, tls, proxies, apps, pool, of_child: Mutex::new(None) }
    }

    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    fn pool(&self) -> Arc<Pool> {
        let (since, pool) = self.pool.get_or_init(|| (generation(), self.make_pool()));
        if *since == generation() {
            return pool.clone();
        }
        let mut made = lock(&self.of_child);
        match &*made {
            Some((since, pool)) if *since == generation() => pool.clone(),
            _ => {
                let pool = self.make_pool();
                // a parent's belongs to a runtime that does not exist here: not even dropped
                std::mem::forget(made.replace((generation(), pool.clone())));
                pool
            }
        }
    }

    fn make_pool(&self) -> Arc<Pool> {
        let Options { http2, h2c, between_bytes, caps, head, .. } = *self.options;
        let dialer = Dialer {
            policy: self.policy.clone(),
            resolver: Arc::new(System::new()),
            proxies: self.proxies.clone(),
            tls: Tls::new(self.tls.clone(), http2),
            h2c,
            unread: between_bytes,
        };
        Pool::new(dialer, caps, head, http2 || h2c, self.apps.clone())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for made in [self.pool.take(), lock(&self.of_child).take()].into_iter().flatten() {
            if made.0 != generation() {
                std::mem::forget(made);
            }
        }
    }
}

impl Upstream for Network {
    fn send(&self, request: Request<GuestBody>, timeouts: Timeouts, warnings: &Arc<Stdio>) -> Answer {
        let (mut parts, body) = request.into_parts();
        let target = match self.policy.check(&parts) {
            Ok(target) => target,
            Err(rule) => {
                warnings.refused(&Refused {
                    uri: &parts.uri,
                    what: &format!("was denied: {rule}"),
                    hint: &|origin| {
                        rule.contains("`allow`").then(|| format!("`wasgi.Network(allow=[..., \"{origin}\"])`"))
                    },
                });
                return Box::pin(async { Err(ErrorCode::denied()) });
            }
        };
        let Some(origin) = Origin::of(&target) else {
            return Box::pin(async { Err(ErrorCode::plain("HTTP-request-URI-invalid")) });
        };
        // the connection's business: it writes them itself
        parts.headers.remove(HOST);
        let ask = Ask {
            connect: shorter(Some(self.options.connect), timeouts.connect).unwrap_or(self.options.connect),
            first_byte: FirstByte::of(self.options.first_byte, timeouts.first_byte),
            between_bytes: shorter(self.options.between_bytes, timeouts.between_bytes),
            pool: self.pool(),
            options: self.options.clone(),
            warnings: warnings.clone(),
            app: warnings.app(),
            origin,
            target,
        };
        Box::pin(ask.answered(parts, body))
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How long the head of a response may take, and what it is told as if it takes longer.
#[derive(Clone, Copy)]
struct FirstByte {
    limit: Duration,
    code: &'static str,
}

impl FirstByte {
    /// A guest is told of its own limit as through any upstream, of the host's as of the host's.
    fn of(ours: Option<Duration>, guests: Option<Duration>) -> Option<Self> {
        let limit = shorter(ours, guests)?;
        let is_guests = guests.is_some_and(|guests| guests == limit);
        Some(Self { limit, code: if is_guests { "connection-read-timeout" } else { "HTTP-response-timeout" } })
    }
}

/// How many connections that have been kept may turn out dead, one after the other, before that is a failure; and how often a
/// peer may say that it has not processed a request.
const STALE: u32 = 3;
/// Before the first retry; twice as long before each next one.
const PAUSE: Duration = Duration::from_millis(50);

/// One request of a guest.
struct Ask {
    pool: Arc<Pool>,
    options: Arc<Options>,
    warnings: Arc<Stdio>,
    app: App,
    origin: Origin,
    target: Target,
    connect: Duration,
    first_byte: Option<FirstByte>,
    between_bytes: Option<Duration>,
}

/// What a request may still take of its limits, which are for all attempts together: else retries would multiply what a guest, or
/// the host's user, has allowed.
struct Budget {
    connect: Duration,
    first_byte: Option<Duration>,
}

impl Budget {
    /// Takes the pause before another attempt from the time for connecting. Returns whether there was as much left.
    fn pauses(&mut self, pause: Duration) -> bool {
        let left = self.connect.checked_sub(pause).filter(|left| !left.is_zero());
        left.map(|left| self.connect = left).is_some()
    }
}

/// A URL in the log. What follows the path may hold secrets.
fn shown(uri: &http::Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or("http"), uri.path())
}

/// An attempt that came to nothing.
struct Failed {
    code: ErrorCode,
    why: String,
    again: Again,
    /// The address that is not to be reached.
    prohibited: Option<Prohibited>,
}

impl Failed {
    fn of(code: ErrorCode, why: String, again: Again) -> Self {
        Self { code, why, again, prohibited: None }
    }
}

/// Whether a request may be sent again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Again {
    Never,
    /// If its user wants that (`retries`).
    IfWanted,
    /// It was the fault of a connection that had been kept, or the peer has not processed it: no attempt, really.
    Now,
}

/// Dropped where there is no response: the guest may finish its body, and see why. Whoever has begun to send it may not look for long.
struct Stops<'a>(&'a Content);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Ask {
    async fn answered(self, parts: Parts, body: GuestBody) -> Result<Response<WasiBody>, ErrorCode> {
        let total = self.options.total.map(|total| Instant::now() + total);
        let asked = self.ask(parts, body, total);
        let (response, lease, content) = match total {
            Some(end) => tokio::time::timeout_at(end, asked).await.map_err(|_| late())??,
            None => asked.await?,
        };
        let between_bytes = self.between_bytes.map(|limit| Pause::new(limit, None));
        let (status, length) = (response.status(), announced_length(response.headers()));
        Ok(response.map(|incoming| {
            let is_over = content.is_over();
            let body = ResponseBody::new((incoming, status, length), lease, content, &self.options, total);
            let body = ReadTimeout::new(body.boxed_unsync(), between_bytes, ());
            if is_over {
                return body.boxed_unsync();
            }
            // its guest may write all of the request before it reads; and no time is to stand still until it does
            ReadAhead::new(body.boxed_unsync(), Some(&tokio::runtime::Handle::current()), || ()).boxed_unsync()
        }))
    }

    async fn ask(
        &self,
        mut parts: Parts,
        body: GuestBody,
        end: Option<Instant>,
    ) -> Result<(Response<Incoming>, Lease, Content), ErrorCode> {
        let patience = Patience { end, unread: self.options.between_bytes };
        let content = Content::of(&mut parts, body, self.connect, patience).await;
        let stops = Stops(&content);
        let (response, lease) = self.attempts(&parts, &content).await?;
        std::mem::forget(stops);
        Ok((response, lease, content))
    }

    async fn attempts(&self, parts: &Parts, content: &Content) -> Result<(Response<Incoming>, Lease), ErrorCode> {
        let (mut free, mut retries, mut pause) = (STALE, self.options.retries, PAUSE);
        let mut budget =
            Budget { connect: self.connect, first_byte: self.first_byte.map(|first_byte| first_byte.limit) };
        loop {
            let failed = match self.attempt(parts, content, &mut budget).await {
                Ok((response, lease)) => {
                    content.is_answered();
                    return Ok((response, lease));
                }
                Err(failed) => failed,
            };
            if let Some(prohibited) = &failed.prohibited {
                self.warnings.refused(&Refused {
                    uri: &parts.uri,
                    what: &format!("was blocked: {prohibited}"),
                    hint: &|_| prohibited.hint(),
                });
                return Err(failed.code);
            }
            let (url, code, why) = (shown(&parts.uri), failed.code, failed.why);
            match failed.again {
                Again::Now if free > 0 => free -= 1,
                Again::Now | Again::IfWanted if retries > 0 && budget.pauses(pause) => {
                    retries -= 1;
                    self.warnings.note(format!("{url} was not reached: {why}; it is tried again"));
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                _ => {
                    self.warnings.note(format!("{url} was not reached: {why}; the guest is told `{code}`"));
                    return Err(code);
                }
            }
        }
    }

    async fn attempt(
        &self,
        parts: &Parts,
        content: &Content,
        budget: &mut Budget,
    ) -> Result<(Response<Incoming>, Lease), Failed> {
        let (stage, begun) = (ConnectPhase::default(), Instant::now());
        let checkout = self.pool.checkout(&self.origin, &self.target, &stage, self.app);
        let connected = tokio::time::timeout(budget.connect, checkout).await;
        budget.connect = budget.connect.saturating_sub(begun.elapsed());
        let mut lease = match connected.unwrap_or_else(|_| Err(stage.late(self.connect))) {
            Ok(lease) => lease,
            Err(error) => {
                let (code, why) = code_of(&error);
                let again = if error.may_pass() { Again::IfWanted } else { Again::Never };
                return Err(Failed { prohibited: error.prohibited(), ..Failed::of(code, why, again) });
            }
        };
        let begins = lease.begin(!content.is_empty());
        let request = self.written(parts, content.send(begins), &lease);
        let traffic = lease.is_http2().then(|| lease.traffic());
        let answered = async {
            tokio::select! {
                biased;
                answered = lease.send(request) => Ok(answered),
                limit = content.unread(traffic) => Err(("connection-write-timeout", format!("{}", Unread(limit)))),
            }
        };
        let begun = Instant::now();
        let answered = match (self.first_byte, budget.first_byte) {
            (Some(FirstByte { limit, code }), Some(left)) => match tokio::time::timeout(left, answered).await {
                Ok(answered) => answered,
                Err(_) => Err((code, format!("no answer came for {limit:?}"))),
            },
            _ => answered.await,
        };
        budget.first_byte = budget.first_byte.map(|left| left.saturating_sub(begun.elapsed()));
        let answered = answered.map_err(|(code, why)| Failed::of(ErrorCode::plain(code), why, Again::Never))?;
        match answered {
            Ok(mut response) => {
                tidy(&mut response, &mut lease);
                match self.refused(&response, &lease) {
                    Some(code) => {
                        let why = "its response cannot be passed on".into();
                        Err(Failed::of(code, why, Again::Never))
                    }
                    None => Ok((response, lease)),
                }
            }
            Err(unanswered) => {
                let (code, why) = self.told(&unanswered, &lease);
                let was_cut = matches!(code.name, "HTTP-response-incomplete" | "connection-terminated");
                // one that does nothing twice, and can be made again
                let repeats = parts.method.is_idempotent() && content.is_empty();
                let is_stale = lease.is_kept() && was_cut && unanswered.received == 0;
                let again = match () {
                    () if is_unprocessed(&unanswered.error) && content.is_whole() => Again::Now,
                    () if unanswered.unsent && content.is_whole() && lease.is_kept() => Again::Now,
                    () if unanswered.unsent && content.is_whole() && was_cut => Again::IfWanted,
                    () if repeats && is_stale => Again::Now,
                    () if repeats && was_cut => Again::IfWanted,
                    () => Again::Never,
                };
                Err(Failed::of(code, why, again))
            }
        }
    }

    /// What no response is to the guest.
    fn told(&self, unanswered: &Unanswered, lease: &Lease) -> (ErrorCode, String) {
        let error = &unanswered.error;
        let (code, why) = code_of(error);
        // h2 tells neither why it has lost its connection, nor why it has reset a stream; hyper not what it was reading
        let flood = lease.flood();
        let is_oversized = is_malformed(error) && unanswered.oversized;
        // a length that is more than anybody can send is as "too large" to hyper as a head, which would have to have come
        let most = FIELDS.saturating_mul(3).min(usize::try_from(self.options.head).unwrap_or(usize::MAX));
        let is_length = error.is_parse_too_large() && unanswered.received < most as u64;
        match flood {
            Some(Flood::Heads | Flood::Nothing) => (code_of_flood(Flood::Heads), Flood::Heads.to_string()),
            Some(Flood::Frames) => (code_of_flood(Flood::Frames), Flood::Frames.to_string()),
            // another stream's
            Some(Flood::Trailers) => (ErrorCode::plain("connection-terminated"), why),
            None if is_oversized => (code_of_flood(Flood::Heads), "the head of its response is too large".into()),
            None if is_malformed(error) && unanswered.bodiless => {
                (Side::Response.body_size(0), "its `content-length` announces a body that does not come".into())
            }
            None if is_length => (ErrorCode::plain("HTTP-protocol-error"), "its `content-length` is too large".into()),
            None => (code, why),
        }
    }

    /// The request as it is on the wire.
    fn written(&self, parts: &Parts, body: RequestBody, lease: &Lease) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = parts.method.clone();
        *request.headers_mut() = parts.headers.clone();
        *request.uri_mut() = parts.uri.clone();
        if lease.is_http2() {
            return request;
        }
        if let Some(host) = host_of(&parts.uri) {
            request.headers_mut().insert(HOST, host);
        }
        if parts.headers.contains_key(TE) {
            // RFC 9110, 10.1.4
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("te"));
        }
        match lease.relay() {
            Some(relay) => {
                if let Some(authorization) = &relay.authorization {
                    request.headers_mut().insert(PROXY_AUTHORIZATION, authorization.clone());
                }
            }
            None => *request.uri_mut() = origin_form(&parts.uri),
        }
        request
    }

    /// A response that no guest can take.
    fn refused(&self, response: &Response<Incoming>, lease: &Lease) -> Option<ErrorCode> {
        // HTTP/1.1 has counted its bytes itself
        let size = if lease.is_http2() { list_size(response.headers()) } else { 0 };
        if size > u64::from(self.options.head) {
            return Some(Side::Response.header_size(size));
        }
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Some(ErrorCode::plain("HTTP-upgrade-failed"));
        }
        // it is meant for us, and not what the guest has asked for
        if lease.relay().is_some() && response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
            return Some(ErrorCode::plain("configuration-error"));
        }
        if lease.is_http2() {
            return None;
        }
        let codings: Vec<_> = response.headers().get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes).collect();
        match codings.as_slice() {
            [] => None,
            [one] if one.eq_ignore_ascii_case(b"chunked") => None,
            several => {
                let payload = Payload::Text(Some(String::from_utf8_lossy(&several.join(&b", "[..])).into_owned()));
                Some(ErrorCode { name: "HTTP-response-transfer-coding", payload })
            }
        }
    }
}

/// Makes of a response what its peer means: a field that was folded may have spaces around its value, which are no part of it (RFC
/// 9112, 5.2), and chunks outrank a length (6.3), which is not passed on.
fn tidy(response: &mut Response<Incoming>, lease: &mut Lease) {
    if lease.is_http2() {
        return;
    }
    let fields = response.headers_mut();
    for value in fields.values_mut() {
        let trimmed = value.as_bytes().trim_ascii();
        if trimmed.len() < value.len()
            && let Ok(trimmed) = HeaderValue::from_bytes(trimmed)
        {
            *value = trimmed;
        }
    }
    if fields.contains_key(TRANSFER_ENCODING) && fields.remove(CONTENT_LENGTH).is_some() {
        // somebody before us may have read it otherwise
        lease.is_last();
    }
}

/// RFC 9113, 6.5.2.
fn list_size(fields: &HeaderMap) -> u64 {
    fields.iter().map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64).sum()
}

fn late() -> ErrorCode {
    ErrorCode::plain("HTTP-response-timeout")
}

/// RFC 9110, 7.2: the port only if there is one that is not the scheme's own.
fn host_of(uri: &Uri) -> Option<HeaderValue> {
    let (authority, host) = (uri.authority()?, uri.host()?);
    let is_implied = uri.port_u16().is_none_or(|port| uri.scheme_str().and_then(implied_port) == Some(port));
    HeaderValue::from_str(if is_implied { host } else { authority.as_str() }).ok()
}

/// RFC 9112, 3.2.1.
fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let rooted = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Uri::try_from(rooted).unwrap_or_else(|_| Uri::from_static("/"))
}

/// The body of a response, and the connection that it comes on.
struct ResponseBody {
    incoming: Incoming,
    /// Given back at the body's clean end.
    lease: Option<Lease>,
    /// Of the request.
    content: Content,
    /// A peer that has refused a request before it came to its end need not be sent the rest (RFC 9112, 9.5).
    is_refusal: bool,
    /// What was announced.
    length: Option<u64>,
    limit: Option<u64>,
    /// Bytes of trailers.
    fields: u64,
    passed: u64,
    end: Option<(Instant, Option<Pin<Box<Sleep>>>)>,
}

impl ResponseBody {
    fn new(
        response: (Incoming, StatusCode, Option<u64>),
        lease: Lease,
        content: Content,
        options: &Options,
        total: Option<Instant>,
    ) -> Self {
        let (incoming, status, length) = response;
        let is_refusal = status.is_client_error() || status.is_server_error();
        let (limit, fields, end) = (options.body, u64::from(options.head), total.map(|end| (end, None)));
        let mut body =
            Self { incoming, lease: Some(lease), content, is_refusal, length, limit, fields, passed: 0, end };
        body.settle();
        body
    }

    fn settle(&mut self) {
        if self.incoming.is_end_stream() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        if self.is_refusal && !self.content.is_over() {
            self.content.stop();
            drop(lease);
        } else {
            lease.finish(Some(&self.content));
        }
    }

    fn fail(&mut self, code: ErrorCode) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        self.lease = None;
        self.content.stop();
        Poll::Ready(Some(Err(code.into_host())))
    }

    fn check(&mut self, frame: &Frame<Bytes>) -> Result<(), ErrorCode> {
        if self.end.as_ref().is_some_and(|(end, _)| Instant::now() >= *end) {
            return Err(late());
        }
        self.passed += frame.data_ref().map_or(0, |data| data.len() as u64);
        if self.limit.is_some_and(|limit| self.passed > limit) {
            return Err(Side::Response.body_size(self.passed));
        }
        let Some(lease) = &self.lease else { return Ok(()) };
        if frame.data_ref().is_none_or(|data| !data.is_empty()) {
            lease.is_of_use();
        }
        // HTTP/1.1 has counted their bytes itself
        if let Some(trailers) = frame.trailers_ref().filter(|_| lease.is_http2())
            && list_size(trailers) > self.fields
        {
            return Err(Side::Response.trailer_size(list_size(trailers)));
        }
        Ok(())
    }

    /// What it is to the guest that the body has broken off.
    fn told(&self, error: &hyper::Error) -> ErrorCode {
        let code = code_of(error).0;
        let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_http2()) else { return code };
        match lease.flood() {
            Some(flood @ (Flood::Trailers | Flood::Frames)) => code_of_flood(flood),
            // another stream's
            Some(_) => ErrorCode::plain("connection-terminated"),
            // h2 counts as well, and does not say so
            None if is_malformed(error) && self.length.is_some_and(|length| length != self.passed) => {
                Side::Response.body_size(self.passed)
            }
            None if code.name == "HTTP-response-header-section-size" => code_of_flood(Flood::Trailers),
            None => code,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Err(code) = this.check(&frame) {
                    return this.fail(code);
                }
                this.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let code = this.told(&error);
                this.fail(code)
            }
            Poll::Ready(None) => match this.lease.take() {
                // a stream that is reset without an error has not ended for that (RFC 9113, 8.1): trailers would have settled it
                Some(lease) if lease.is_http2() && !this.incoming.is_end_stream() => {
                    drop(lease);
                    this.fail(ErrorCode::plain("HTTP-response-incomplete"))
                }
                Some(lease) => {
                    this.lease = Some(lease);
                    this.finish();
                    Poll::Ready(None)
                }
                None => Poll::Ready(None),
            },
            Poll::Pending => {
                let Some((end, sleep)) = &mut this.end else { return Poll::Pending };
                let sleep = sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(*end)));
                match sleep.as_mut().poll(cx) {
                    Poll::Ready(()) => this.fail(late()),
                    Poll::Pending => Poll::Pending,
                }
            }
        }
    }
}
