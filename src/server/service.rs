//! One request: what it is about, which app has it, and the answer.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Poll, ready};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use wasmtime_wasi_http::WasiBody;

use crate::app::admission::Admission;
use crate::error::Error;
use crate::exchange::guest_body::{GuestBody, Next};
use crate::http::error_code::ErrorCode;
use crate::http::fields::Wrong;
use crate::http::message::{empty, is_bare};
use crate::http::server_request::{Forwarded, Served, forward, left_out};
use crate::http::{fields, url};
use crate::server::accounts::Accounts;
use crate::server::answer_body::{AnswerBody, Content};
use crate::server::answered::{Answered, Asked};
use crate::server::client_body::{BodyState, ClientBody, throw_away};
use crate::server::forwarded::{self, Trusted};
use crate::server::head::{Head, MOST_FIELDS};
use crate::server::progress::{Progress, Stage};
use crate::server::refusal::{Details, Refusal, problem, status_of};
use crate::server::request_id::Ids;
use crate::server::routes::{Beginning, Begun, Routes, Serves};
use crate::server::settings::{Caps, Timeouts};
use crate::server::watch::Watch;
use crate::sync::lock;

/// What all connections of a server share.
pub(super) struct Common {
    /// The table that new requests go by.
    pub routes: std::sync::Mutex<Arc<Routes>>,
    pub timeouts: Timeouts,
    pub caps: Caps,
    pub trusted: Trusted,
    pub accounts: Arc<Accounts>,
    /// Makes the ids of requests that have none.
    pub ids: Option<Ids>,
    /// When it drains, every answer says that its connection ends.
    pub progress: Progress,
}

/// What the requests of one connection share.
pub(super) struct Connection {
    pub common: Arc<Common>,
    pub watch: Arc<Watch>,
    /// Of the client, or of the proxy before it. None: a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Of this end.
    pub local: Option<SocketAddr>,
    pub is_tls: bool,
}

/// Why there is no answer of a guest's.
enum Instead {
    Refused(Refusal),
    Failed(Error),
}

impl From<Error> for Instead {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Refusal> for Instead {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// A request as it is understood.
struct Understood {
    scheme: &'static str,
    authority: String,
    client: forwarded::Client,
    /// The path with its query.
    target: Bytes,
}

impl Connection {
    /// Answers one request.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let routes = lock(&self.common.routes).clone();
        let (number, head) = self.watch.begins(&routes);
        let accounts = self.common.accounts.clone();
        accounts.counts();
        let mut answered = Answered::new(self.watch.clone(), number, accounts);
        let is_http1 = request.version() < Version::HTTP_2;
        let to_head = request.method() == Method::HEAD && head.as_ref().is_none_or(|head| head.refused.is_none());
        let mut body: Option<Arc<BodyState>> = None;
        let mut is_over = head.as_ref().is_some_and(|head| head.refused.is_some());
        let answer = self.respond(request, head, &routes, number, &mut answered, &mut body).await;
        let answer = match (answer, &body) {
            (Ok(_), Some(body)) if let Some((status, why)) = body.fault() => Err(Refusal::new(status, why).into()),
            (answer, Some(body)) => {
                body.ask().await;
                answer
            }
            (answer, None) => answer,
        };
        let mut response = match answer {
            Ok(response) => self.pass(response, to_head, answered),
            Err(instead) => {
                is_over |= body.as_ref().is_some_and(|body| body.fault().is_some()) || self.watch.missing() > MOST_KEPT;
                self.instead(instead, body.as_deref(), to_head, answered)
            }
        };
        // whoever waits for `100 Continue` may send nothing now
        is_over |= body.as_ref().is_some_and(|body| body.is_awaited());
        if is_http1 && (is_over || self.common.progress.has_reached(Stage::Drains)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    /// The response of a guest.
    async fn respond(
        &self,
        request: Request<Incoming>,
        head: Option<Head>,
        routes: &Arc<Routes>,
        number: u64,
        answered: &mut Answered,
        state: &mut Option<Arc<BodyState>>,
    ) -> Result<Response<Content>, Instead> {
        let understood = self.understand(&request, head.as_ref());
        answered.asked(self.asked(&request, head.as_ref(), understood.as_ref().ok()));
        let understood = understood?;
        let (path, query) = match understood.target.iter().position(|byte| *byte == b'?') {
            Some(at) => understood.target.split_at(at),
            None => (&understood.target[..], &b""[..]),
        };
        let path = std::str::from_utf8(path).map_err(|_| Refusal::bad("the target is not ASCII"))?;
        let found = routes.find(understood.scheme, &understood.authority, path);
        let Some(found) = found else { return Err(Refusal::new(404, "no component is served there").into()) };
        let app = match found.what {
            Serves::App(app) => app,
            Serves::Files(files) => {
                let target = std::str::from_utf8(&understood.target).unwrap_or_default();
                return Ok(files.answer(request.method(), target, request.headers()).await.map(Content::File));
            }
        };
        answered.is_of(app);
        let (mount, below) = path.split_at_checked(found.mount).unwrap_or(("", path));
        let is_below = app.strips() && !mount.is_empty();
        let mut target = match (is_below, below.starts_with('/')) {
            (false, _) => path.as_bytes().to_vec(),
            (true, true) => below.as_bytes().to_vec(),
            (true, false) => [b"/", below.as_bytes()].concat(),
        };
        target.extend_from_slice(query);
        let uri = url::of_server(understood.scheme, &understood.authority, &target)
            .map_err(|why| Refusal { status: 400, why: format!("invalid URL: {why}") })?;
        let prefix = is_below.then_some(mount);
        let (parts, incoming) = request.into_parts();
        let fields = self.fields(parts.headers, parts.version, app.forwarded(), &understood, prefix)?;
        answered.is_named(&fields);
        let body: WasiBody = if !http_body::Body::is_end_stream(&incoming) {
            let expects = head.as_ref().is_some_and(|head| head.expects);
            let body = ClientBody::new(incoming, self.common.timeouts.body, expects, self.watch.clone());
            *state = Some(body.state().clone());
            body.boxed_unsync()
        } else {
            empty()
        };
        let mut asked = Request::new(body);
        *asked.method_mut() = parts.method;
        *asked.uri_mut() = uri;
        *asked.headers_mut() = fields;
        let permit = match app.app().admit(crate::engine::process_state()?)? {
            Admission::Permit(permit) => permit,
            Admission::Queued(mut queued) => std::future::poll_fn(|cx| queued.poll(cx)).await?,
        };
        answered.is_exchange(permit.number);
        let begun = match app.begin(permit, asked) {
            Beginning::Now(begun) => begun,
            Beginning::Later(begun) => {
                begun.await.unwrap_or_else(|_| Err(Error::Host("the exchange did not begin".into())))
            }
        };
        let Begun { mut exchange, witness } = *begun?;
        self.watch.is_stopped_by(number, exchange.owner().abort_handle());
        let response = std::future::poll_fn(|cx| exchange.poll_head(cx)).await;
        if let Some(witness) = witness {
            match &response {
                Ok(response) => witness.answered(response.status().as_u16()),
                Err(error) => witness.failed(error),
            }
        }
        let response = response?;
        if !(200..600).contains(&response.status().as_u16()) {
            // an interim response (RFC 9110, 15.2), or no status at all: those are the server's
            return Err(Error::Code(ErrorCode::plain("HTTP-protocol-error").into()).into());
        }
        Ok(response.map(|body| Content::Guest(Box::new(body))))
    }

    /// What the access log tells of a request.
    fn asked(&self, request: &Request<Incoming>, head: Option<&Head>, understood: Option<&Understood>) -> Asked {
        let line = head.map_or_else(
            || {
                let copied = |text: &str| Bytes::copy_from_slice(text.as_bytes());
                let target = request.uri().path_and_query().map_or("", |target| target.as_str());
                (copied(request.method().as_str()), copied(target), request.version())
            },
            Head::first_line,
        );
        let mut asked = Asked::new(line, self.scheme(), self.client());
        if let Some(understood) = understood {
            asked.scheme = understood.scheme;
            asked.host = understood.authority.clone();
            asked.client = understood.client.ip;
        }
        asked.fields = self.common.accounts.of_request(request.headers());
        asked
    }

    /// The other end: the client, or a proxy before it.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip())
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Whose a request is, and for what: worked out once, for the route, the log and the guest.
    fn understand(&self, request: &Request<Incoming>, head: Option<&Head>) -> Result<Understood, Refusal> {
        if let Some(refusal) = head.and_then(|head| head.refused.clone()) {
            return Err(refusal);
        }
        let fields = request.headers();
        if fields.len() > MOST_FIELDS {
            return Err(Refusal::new(431, "the request has too many fields"));
        }
        if head.is_none() && fields::size(fields) > self.common.caps.header_bytes as u64 {
            return Err(Refusal::new(431, "the head of the request is too large"));
        }
        if request.method() == Method::CONNECT {
            return Err(Refusal::new(501, "a component cannot open a tunnel"));
        }
        let client = forwarded::resolve(&self.common.trusted, self.peer, fields);
        let scheme = match &client.scheme {
            Some(scheme) if *scheme == http::uri::Scheme::HTTPS => "https",
            Some(_) => "http",
            None => self.scheme(),
        };
        let host = match fields.get(HOST).map(|host| host.to_str().map(str::trim)) {
            Some(Ok(host)) => Some(host),
            Some(Err(_)) => return Err(Refusal::bad("`host` is no host")),
            None => None,
        };
        let raw = match head {
            Some(head) => std::str::from_utf8(head.target()).map_err(|_| Refusal::bad("the target is not ASCII"))?,
            None => "",
        };
        let uri = request.uri();
        // a query may have a URL in it: `/login?next=https://shop.local`
        let absolute = if raw.starts_with('/') { None } else { url::parts(raw) };
        let (named, authority, target) = match (head, absolute) {
            // RFC 9112, 3.2.2
            (Some(_), Some((named, authority, target))) => (Some(named), Some(authority), target),
            (Some(_), None) => (None, None, raw),
            // RFC 9113, 8.3.1
            (None, _) => {
                let target = uri.path_and_query().map_or("/", |target| target.as_str());
                (uri.scheme_str(), uri.authority().map(|authority| authority.as_str()), target)
            }
        };
        if let Some(named) = named
            && !named.eq_ignore_ascii_case(self.scheme())
            && !named.eq_ignore_ascii_case(scheme)
        {
            // RFC 9110, 7.4: nobody has secured it
            return Err(Refusal::new(421, "the scheme of the request is not that of its connection"));
        }
        if let (None, Some(authority), Some(host)) = (head, authority, host)
            && !authority.eq_ignore_ascii_case(host)
        {
            return Err(Refusal::bad("`host` and `:authority` are not the same"));
        }
        let authority = authority.or(host).unwrap_or_default();
        if authority.contains('@') || (!authority.is_empty() && !url::is_authority(authority)) {
            return Err(Refusal::bad("`host` is no host"));
        }
        let authority = match &client.host {
            Some(host) => host.clone(),
            None if authority.is_empty() => self.own_authority(),
            None => authority.to_owned(),
        };
        if target == "*" {
            let status = if request.method() == Method::OPTIONS { 204 } else { 400 };
            return Err(Refusal::new(status, "`*` is a target of OPTIONS alone")); // RFC 9112, 3.2.4
        }
        if !target.starts_with('/') && !target.starts_with('?') && !target.is_empty() {
            return Err(Refusal::bad("the target is no path"));
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Understood { scheme, authority, client, target: Bytes::from(target) })
    }

    fn own_authority(&self) -> String {
        match self.local {
            Some(local) => url::authority_of(self.scheme(), &local.ip().to_canonical().to_string(), Some(local.port())),
            None => "localhost".to_owned(),
        }
    }

    /// The fields that are meant for the guest.
    fn fields(
        &self,
        given: HeaderMap,
        version: Version,
        forwarded: bool,
        understood: &Understood,
        prefix: Option<&str>,
    ) -> Result<HeaderMap, Refusal> {
        let wrong = |wrong| match wrong {
            Wrong::TooMany => Refusal::new(431, "the request has too many fields"),
            _ => Refusal::bad("a field has a name or a value that no field has"),
        };
        let mut served = Served::new(false).multiplexed(version >= Version::HTTP_2);
        for (name, value) in &given {
            served.add(name.as_str().as_bytes(), value.as_bytes()).map_err(wrong)?;
        }
        let (mut fields, _) = served.finish();
        if let Some(ids) = &self.common.ids {
            ids.add(&mut fields);
        }
        let client = understood.client.ip.map(|ip| ip.to_string());
        let forwarded = forwarded.then_some(Forwarded {
            client: client.as_deref(),
            scheme: understood.scheme,
            host: &understood.authority,
        });
        forward(&mut fields, prefix.map(str::as_bytes), forwarded).map_err(wrong)?;
        Ok(fields)
    }

    /// A guest's response as the client gets it.
    fn pass(&self, response: Response<Content>, to_head: bool, mut answered: Answered) -> Response<AnswerBody> {
        let (mut parts, body) = response.into_parts();
        let left_out = left_out(&parts.headers);
        // `trailer` announces what comes: hyper sends no others (RFC 9110, 6.6.2)
        let is_left_out = |name: &&HeaderName| left_out(name) && *name != http::header::TRAILER;
        let names: Vec<HeaderName> = parts.headers.keys().filter(is_left_out).cloned().collect();
        for name in names {
            parts.headers.remove(name);
        }
        let status = parts.status;
        if matches!(status.as_u16(), 204 | 205 | 304) {
            parts.headers.remove(CONTENT_LENGTH); // RFC 9110, 8.6
        }
        if status == StatusCode::RESET_CONTENT {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0")); // RFC 9110, 15.3.6
        }
        answered.answers(status.as_u16(), &parts.headers);
        let body = if is_bare(to_head, status) || status == StatusCode::RESET_CONTENT {
            if let Content::Guest(body) = body
                && !http_body::Body::is_end_stream(&*body)
            {
                drop(tokio::spawn(let_end(*body)));
            }
            AnswerBody::new(Content::Nothing, answered)
        } else {
            AnswerBody::new(body, answered)
        };
        Response::from_parts(parts, body)
    }

    /// The answer where there is no guest's.
    fn instead(
        &self,
        instead: Instead,
        body: Option<&BodyState>,
        to_head: bool,
        mut answered: Answered,
    ) -> Response<AnswerBody> {
        let fault = body.and_then(BodyState::fault);
        let (status, details) = match (instead, fault) {
            (Instead::Refused(refusal), _) => (refusal.status, Details::of(&refusal.why)),
            (Instead::Failed(_), Some((status, why))) => (status, Details::of(why)),
            (Instead::Failed(error), None) => {
                let status = status_of(&error);
                let details = if answered.debugs() { Details::of_error(&error) } else { Details::default() };
                answered.failed(status, error);
                (status, details)
            }
        };
        let (mut parts, bytes) = problem(status, &details).into_parts();
        if status == 204 {
            parts.headers.remove(http::header::CONTENT_TYPE);
            parts
                .headers
                .insert(http::header::ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        } else {
            parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes.len()));
        }
        answered.answers(status, &parts.headers);
        let is_bare = is_bare(to_head, parts.status);
        let body = AnswerBody::new(if is_bare { Content::Nothing } else { Content::Whole(bytes) }, answered);
        Response::from_parts(parts, body)
    }
}

/// A body of which more than this has to come is not waited for: the connection ends after the answer, and the client is told so.
const MOST_KEPT: u64 = 64 << 10;

/// A body that no client gets is read for a bounded time, so that its guest can end it. One that has no end is dropped, which ends its guest.
async fn let_end(mut body: GuestBody) {
    throw_away(|cx| {
        Poll::Ready(match ready!(body.poll_next(cx)) {
            Ok(Next::Chunk(chunk)) => Some(chunk.len()),
            _ => None,
        })
    })
    .await;
}
