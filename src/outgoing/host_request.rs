//! A request that the host's user sends through an upstream, without a guest: middleware asks the network.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::engine::ProcessState;
use crate::error::Error;
use crate::error::reason::CodeError;
use crate::exchange::body_check::BodyRules;
use crate::exchange::guest_body::GuestBody;
use crate::exchange::handle::{ExchangeHandle, ExchangeState};
use crate::exchange::phase::Runner;
use crate::exchange::request_body::RequestBody;
use crate::exchange::stdio::Stdio;
use crate::http::error_code::ErrorCode;
use crate::http::fields::announced_length;
use crate::http::message::Side;
use crate::outgoing::in_runtime::InRuntime;
use crate::outgoing::upstream::{Timeouts, Upstream};

/// Those of a connection, which are no one's to send (RFC 9110, 7.6.1): a guest cannot, either.
const NOT_PASSED: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Dropping it gives the request up: its owner ends the task.
pub struct HostRequest {
    answer: JoinHandle<Result<Response<WasiBody>, CodeError>>,
    method: Method,
    runtime: Handle,
    owner: ExchangeHandle,
}

impl HostRequest {
    /// Sends a request to an upstream, on the runtime of the process.
    pub fn new(
        process: &'static ProcessState,
        upstream: &dyn Upstream,
        request: Request<WasiBody>,
        timeouts: Timeouts,
    ) -> Result<Self, Error> {
        let runtime = process.runtime.handle()?.clone();
        let owner = ExchangeHandle::new(ExchangeState::without_guest(process));
        let (mut parts, body) = request.into_parts();
        for name in NOT_PASSED {
            parts.headers.remove(name);
        }
        // a guest's is its host's to see to; here, what is announced must be what comes
        let announced: Vec<_> = parts.headers.get_all(CONTENT_LENGTH).iter().collect();
        let length = announced_length(&parts.headers);
        if announced.len() > 1 || length.is_none() && !announced.is_empty() {
            return Err(Error::Code(ErrorCode::plain("HTTP-protocol-error").into()));
        }
        let rules = BodyRules::of_length(Side::Request, length);
        let body = RequestBody::of_upstream(body, rules).boxed_unsync();
        let body = GuestBody::new(body, rules, owner.observe());
        let method = parts.method.clone();
        let answer = runtime.spawn(upstream.send(Request::from_parts(parts, body), timeouts, owner.stdio()));
        if let Some(late) = owner.state.hand_over(Runner::Request(answer.abort_handle())) {
            late.stop();
        }
        Ok(Self { answer, method, runtime, owner })
    }

    /// The handle on it: dropped, it gives the request up.
    pub fn owner(&self) -> &ExchangeHandle {
        &self.owner
    }

    /// What the host has to say of it.
    pub fn warnings(&self) -> &Arc<Stdio> {
        self.owner.stdio()
    }

    /// The response, when its head has come.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<GuestBody>, Error>> {
        let answered = std::task::ready!(Pin::new(&mut self.answer).poll(cx));
        self.owner.state.take_back();
        let answered = answered.unwrap_or_else(|error| {
            let why = if error.is_panic() {
                "the host failed while it sent the request"
            } else {
                "the request was cancelled"
            };
            Err(ErrorCode::internal(why).into())
        });
        let response = match (answered, self.owner.overruled()) {
            // the caller's own failure is why
            (Err(_), Some(error)) => return Poll::Ready(Err(error)),
            (Err(error), None) => return Poll::Ready(Err(Error::Code(error))),
            (Ok(response), _) => response,
        };
        let to_head = self.method == Method::HEAD;
        let rules = BodyRules::of_response(to_head, response.status(), response.headers());
        let (runtime, owner) = (self.runtime.clone(), self.owner.observe());
        Poll::Ready(Ok(response.map(|body| {
            let body = InRuntime::new(RequestBody::of_upstream(body, rules), runtime);
            let body = Told { body, owner: owner.observe() };
            // whoever asked may have what comes, body or not
            let rules = BodyRules::of_length(rules.side, rules.length.announced());
            GuestBody::new(body.boxed_unsync(), rules, owner)
        })))
    }
}

/// A body that says why it broke off.
struct Told {
    body: InRuntime<RequestBody>,
    owner: ExchangeHandle,
}

impl Body for Told {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Poll::Ready(Some(Err(error))) = &polled
            && let Some(code) = ErrorCode::from_host(error)
        {
            this.owner.state.end(Err(Error::Code(code.into())));
        }
        polled
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if self.owner.out_of_reach().is_some() {
            // in a forked child: it belongs to the parent's runtime
            std::mem::forget(self.body.take());
        }
    }
}
