//! One request: which app has it, and the answer.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use wasmtime_wasi_http::WasiBody;

use crate::app::admission::Admission;
use crate::error::Error;
use crate::http::error_code::ErrorCode;
use crate::http::fields::Wrong;
use crate::http::message::{empty, is_bare};
use crate::http::server_request::{Forwarded, Served, forward, left_out};
use crate::http::url;
use crate::server::answer_body::{AnswerBody, Content, let_end};
use crate::server::answered::{Answered, Asked};
use crate::server::client_body::{BodyState, ClientBody};
use crate::server::head::Head;
use crate::server::progress::Stage;
use crate::server::refusal::{Details, Refusal, problem, status_of};
use crate::server::routes::{Beginning, Begun, Routes, Serves};
use crate::server::shared::Connection;
use crate::server::understood::Understood;
use crate::sync::lock;

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

impl Connection {
    /// Answers one request.
    pub(super) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<AnswerBody>, Infallible> {
        let routes = lock(&self.common.routes).clone();
        let (number, head) = self.watch.begins(&routes);
        self.common.accounts.counts();
        let mut answered = Answered::new(self.clone(), number, routes.clone());
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
                let below = understood.target.get(found.mount..).unwrap_or_default();
                let below = std::str::from_utf8(below).unwrap_or_default();
                return Ok(files.answer(request.method(), below, request.headers()).await.map(Content::File));
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
            answered.has_body(body.state());
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
        let begun = match app.begin(permit, asked, routes.is_one()) {
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
                let uri = request.uri();
                // of CONNECT (RFC 9113, 8.5)
                let authority = || uri.authority().map_or("", |authority| authority.as_str());
                let target = uri.path_and_query().map_or_else(authority, |target| target.as_str());
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
        // what stands in for a head that is refused has none of its fields
        if head.is_none_or(|head| head.refused.is_none()) {
            asked.fields = self.common.accounts.of_request(request.headers());
        }
        asked
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
                drop(tokio::spawn(let_end(*body, answered.routes().clone())));
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
