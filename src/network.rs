//! The real network, under a policy: an upstream without Python.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::body::GuestBody;
use crate::code::{ErrorCode, Payload};
use crate::dial::{Dialer, Origin, Stage};
use crate::engine::generation;
use crate::failure::{code_of, is_refused};
use crate::flow::Side;
use crate::outgoing::{Answer, Paced, Pause, Timeouts, Upstream};
use crate::pattern::Target;
use crate::policy::Policy;
use crate::pool::{Lease, Pool};
use crate::proxy::Proxies;
use crate::refusals::Refused;
use crate::resolve::System;
use crate::sent::Sent;
use crate::stdio::Stdio;
use crate::stock::Caps;
use crate::sync::lock;
use crate::tls::Tls;
use crate::url::implied_port;

/// How a `Network` connects, and for how long it waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name, TCP and TLS together, and the wait for a connection that is free.
    pub connect: Duration,
    /// From the connection to the head of the response.
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
    /// Connections belong to the runtime of one process.
    pool: OnceLock<(u64, Arc<Pool>)>,
    /// A forked child's: no thread of its parent's can have this lock.
    of_child: Mutex<Option<(u64, Arc<Pool>)>>,
}

impl Network {
    pub fn new(policy: Policy, options: Options, tls: rustls::ClientConfig, proxies: Proxies) -> Self {
        let (policy, options, proxies) = (Arc::new(policy), Arc::new(options), Arc::new(proxies));
        Self { policy, options, tls, proxies, pool: OnceLock::new(), of_child: Mutex::new(None) }
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
        Pool::new(dialer, caps, head, http2 || h2c)
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
    fn send(&self, request: Request<GuestBody>, timeouts: Timeouts, notes: &Arc<Stdio>) -> Answer {
        let (mut parts, body) = request.into_parts();
        let target = match self.policy.check(&parts) {
            Ok(target) => target,
            Err(rule) => {
                notes.refused(&Refused {
                    uri: &parts.uri,
                    what: &format!("was denied: {rule}"),
                    by_path: true,
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
            first_byte: shorter(self.options.first_byte, timeouts.first_byte),
            between_bytes: shorter(self.options.between_bytes, timeouts.between_bytes),
            pool: self.pool(),
            options: self.options.clone(),
            notes: notes.clone(),
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

/// How many connections that have been kept may turn out dead, one after the other, before that is a failure.
const STALE: u32 = 3;
/// Before the first retry; twice as long before each next one.
const PAUSE: Duration = Duration::from_millis(50);

/// One request of a guest.
struct Ask {
    pool: Arc<Pool>,
    options: Arc<Options>,
    notes: Arc<Stdio>,
    origin: Origin,
    target: Target,
    connect: Duration,
    first_byte: Option<Duration>,
    between_bytes: Option<Duration>,
}

/// An attempt that came to nothing.
struct Failed {
    code: ErrorCode,
    why: String,
    /// What to send if it is tried again; `None` if it must not be.
    body: Option<Sent>,
    /// It was the fault of a connection that had been kept: no attempt, really.
    stale: bool,
    may_pass: bool,
}

impl Ask {
    async fn answered(self, parts: Parts, body: GuestBody) -> Result<Response<WasiBody>, ErrorCode> {
        let total = self.options.total.map(|total| Instant::now() + total);
        let asked = self.ask(parts, body);
        let (response, lease) = match total {
            Some(end) => tokio::time::timeout_at(end, asked).await.map_err(|_| late())??,
            None => asked.await?,
        };
        let (limit, between_bytes) = (self.options.body, self.between_bytes);
        Ok(response.map(|incoming| {
            let body = Received::new(incoming, lease, limit, total);
            Paced::new(body, between_bytes.map(|limit| Pause::new(limit, None)), ()).boxed_unsync()
        }))
    }

    async fn ask(&self, mut parts: Parts, body: GuestBody) -> Result<(Response<Incoming>, Lease), ErrorCode> {
        let mut body = Sent::of(&mut parts, body, self.connect).await;
        let (mut stale, mut retries, mut pause) = (STALE, self.options.retries, PAUSE);
        loop {
            let failed = match self.attempt(&parts, body).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            let (url, code, why) = (&parts.uri, failed.code, failed.why);
            body = match failed.body {
                Some(body) if failed.stale && stale > 0 => {
                    stale -= 1;
                    body
                }
                Some(body) if failed.may_pass && retries > 0 => {
                    retries -= 1;
                    self.notes.note(format!("{url} was not reached: {why}; it is tried again"));
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                    body
                }
                _ => {
                    self.notes.note(format!("{url} was not reached: {why}; the guest is told `{code}`"));
                    return Err(code);
                }
            };
        }
    }

    async fn attempt(&self, parts: &Parts, body: Sent) -> Result<(Response<Incoming>, Lease), Failed> {
        let stage = Stage::default();
        let connected = tokio::time::timeout(self.connect, self.pool.checkout(&self.origin, &self.target, &stage));
        let mut lease = match connected.await.unwrap_or_else(|_| Err(stage.late(self.connect))) {
            Ok(lease) => lease,
            Err(error) => {
                let (code, why) = code_of(&error);
                return Err(Failed { code, why, body: Some(body), stale: false, may_pass: error.may_pass() });
            }
        };
        // one that does nothing twice, and can be made again
        let repeats = parts.method.is_idempotent() && body.is_end_stream();
        let request = self.written(parts, body, &lease);
        let answered = match self.first_byte {
            Some(limit) => match tokio::time::timeout(limit, lease.send(request)).await {
                Ok(answered) => answered,
                Err(_) => {
                    let why = format!("no answer came for {limit:?}");
                    return Err(Failed { code: late(), why, body: None, stale: false, may_pass: false });
                }
            },
            None => lease.send(request).await,
        };
        match answered {
            Ok(response) => match self.refused(&response, &lease) {
                Some(code) => {
                    let why = "its response cannot be passed on".into();
                    Err(Failed { code, why, body: None, stale: false, may_pass: false })
                }
                None => Ok((response, lease)),
            },
            Err(unanswered) => {
                let (code, why) = code_of(&unanswered.error);
                let was_cut = matches!(code.name, "HTTP-response-incomplete" | "connection-terminated");
                let unsent = unanswered.request.map(Request::into_body);
                let silent = was_cut && unanswered.silent;
                let stale = lease.is_kept() && (unsent.is_some() || silent) || is_refused(&unanswered.error);
                let body = unsent.or_else(|| repeats.then_some(Sent::NOTHING));
                Err(Failed { code, why, body, stale, may_pass: was_cut })
            }
        }
    }

    /// The request as it is on the wire.
    fn written(&self, parts: &Parts, body: Sent, lease: &Lease) -> Request<Sent> {
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
struct Received {
    incoming: Incoming,
    /// Given back at the body's clean end.
    lease: Option<Lease>,
    limit: Option<u64>,
    passed: u64,
    end: Option<Pin<Box<Sleep>>>,
}

impl Received {
    fn new(incoming: Incoming, lease: Lease, limit: Option<u64>, total: Option<Instant>) -> Self {
        let end = total.map(|end| Box::pin(tokio::time::sleep_until(end)));
        let mut body = Self { incoming, lease: Some(lease), limit, passed: 0, end };
        body.settle();
        body
    }

    fn settle(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }

    fn fail(&mut self, code: ErrorCode) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        self.lease = None;
        Poll::Ready(Some(Err(code.into_host())))
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        match Pin::new(&mut this.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.passed += frame.data_ref().map_or(0, |data| data.len() as u64);
                if this.limit.is_some_and(|limit| this.passed > limit) {
                    return this.fail(Side::Response.body_size(this.passed));
                }
                this.settle();
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => this.fail(code_of(&error).0),
            Poll::Ready(None) => match this.lease.take() {
                // a stream that is reset without an error has not ended for that (RFC 9113, 8.1): trailers would have settled it
                Some(lease) if lease.is_http2() && !this.incoming.is_end_stream() => {
                    drop(lease);
                    this.fail(ErrorCode::plain("HTTP-response-incomplete"))
                }
                Some(lease) => {
                    lease.finish();
                    Poll::Ready(None)
                }
                None => Poll::Ready(None),
            },
            Poll::Pending => match this.end.as_mut().map(|end| end.as_mut().poll(cx)) {
                Some(Poll::Ready(())) => this.fail(late()),
                _ => Poll::Pending,
            },
        }
    }
}
