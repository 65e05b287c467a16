//! One request of a guest's over the network: its attempts, and what they may take together.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::Instant;
use wasmtime_wasi_http::WasiBody;

use crate::error::reason::CodeError;
use crate::exchange::guest_body::GuestBody;
use crate::exchange::refusals::Refused;
use crate::exchange::stdio::Stdio;
use crate::http::error_code::{ErrorCode, Payload};
use crate::http::fields::announced_length;
use crate::http::message::Side;
use crate::http::url::implied_port;
use crate::http::url_pattern::Target;
use crate::network::connect::ConnectPhase;
use crate::network::error::{Prohibited, Unread, code_of, code_of_flood, code_of_tls, is_malformed, is_unprocessed};
use crate::network::options::Options;
use crate::network::origin::Origin;
use crate::network::places::App;
use crate::network::pool::{FIELDS, Lease, Pool, Unanswered};
use crate::network::request_body::{Content, Patience, RequestBody};
use crate::network::response_body::{ResponseBody, late, list_size};
use crate::network::traffic::Flood;
use crate::outgoing::read_ahead::ReadAhead;
use crate::outgoing::timeouts::{Pause, ReadTimeout};

/// The one that there is, or the shorter of two.
pub(super) fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// How long the head of a response may take, and what it is told as if it takes longer.
#[derive(Clone, Copy)]
pub(super) struct FirstByte {
    limit: Duration,
    code: &'static str,
}

impl FirstByte {
    /// A guest is told of its own limit as through any upstream, of the host's as of the host's.
    pub(super) fn of(ours: Option<Duration>, guests: Option<Duration>) -> Option<Self> {
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
pub(super) struct Ask {
    pub pool: Arc<Pool>,
    pub options: Arc<Options>,
    pub warnings: Arc<Stdio>,
    pub app: App,
    pub origin: Origin,
    pub target: Target,
    pub connect: Duration,
    pub first_byte: Option<FirstByte>,
    pub between_bytes: Option<Duration>,
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
    error: CodeError,
    why: String,
    again: Again,
    /// The address that is not to be reached.
    prohibited: Option<Prohibited>,
}

impl Failed {
    fn of(error: impl Into<CodeError>, why: String, again: Again) -> Self {
        Self { error: error.into(), why, again, prohibited: None }
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
    pub(super) async fn answered(self, parts: Parts, body: GuestBody) -> Result<Response<WasiBody>, CodeError> {
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
    ) -> Result<(Response<Incoming>, Lease, Content), CodeError> {
        let patience = Patience { end, unread: self.options.between_bytes };
        let content = Content::of(&mut parts, body, self.connect, patience).await;
        let stops = Stops(&content);
        let (response, lease) = self.attempts(&parts, &content).await?;
        std::mem::forget(stops);
        Ok((response, lease, content))
    }

    async fn attempts(&self, parts: &Parts, content: &Content) -> Result<(Response<Incoming>, Lease), CodeError> {
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
                return Err(failed.error);
            }
            let (url, error, why) = (shown(&parts.uri), failed.error, failed.why);
            match failed.again {
                Again::Now if free > 0 => free -= 1,
                Again::Now | Again::IfWanted if retries > 0 && budget.pauses(pause) => {
                    retries -= 1;
                    self.warnings.warn(format!("a request to {url} failed: {why}; retrying"));
                    tokio::time::sleep(pause).await;
                    pause = pause.saturating_mul(2);
                }
                _ => {
                    self.warnings.warn(format!("a request to {url} failed: {why}; the guest is told `{error}`"));
                    return Err(error);
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
                let prohibited = error.prohibited();
                return Err(Failed { prohibited, ..Failed::of(CodeError::new(code, error), why, again) });
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
                Err(_) => Err((code, format!("timed out after {limit:?} without a response"))),
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
                Err(Failed::of(CodeError::new(code, unanswered.error), why, again))
            }
        }
    }

    /// What no response is to the guest.
    fn told(&self, unanswered: &Unanswered, lease: &Lease) -> (ErrorCode, String) {
        let error = &unanswered.error;
        let (code, why) = code_of(error);
        if let Some(tls) = lease.tls() {
            return (code_of_tls(&tls), tls.to_string());
        }
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
