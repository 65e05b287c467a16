//! The guest's way out: policy first, then whoever answers.
//!
//! wasmtime's hook trait changes with its releases; it stays behind [`Upstream`], and only this file knows it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error as HostError, RequestOptions, WasiBody, WasiHttpHooks};

use crate::body::GuestBody;
use crate::code::{ErrorCode, Payload};
use crate::owner::Owner;

/// What an upstream gives back, some time.
pub type Answer = Pin<Box<dyn Future<Output = Result<http::Response<WasiBody>, ErrorCode>> + Send>>;

/// Whoever answers the requests that a guest sends out. Called while the guest runs, on its stack: `send` must not
/// block, and must not run anything but its own bookkeeping; the work belongs in the future. Dropping the future, or
/// the body that it gave, means that nobody waits any more.
pub trait Upstream: Send + Sync + 'static {
    fn send(&self, request: http::Request<GuestBody>, timeouts: Timeouts) -> Answer;
}

/// The guest's `request-options`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
}

/// The hooks of one exchange.
pub(crate) struct Hooks {
    pub upstream: Option<Arc<dyn Upstream>>,
    pub exchange: Owner,
}

type HookFuture = Box<
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

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), HostError>> + Send>,
    ) -> HookFuture {
        let Some(upstream) = &self.upstream else {
            return Box::new(async { Err(HostError::HttpRequestDenied) });
        };
        self.exchange.count_outgoing();
        let timeouts = options.map_or_else(Timeouts::default, |options| Timeouts {
            connect: options.connect_timeout,
            first_byte: options.first_byte_timeout,
            between_bytes: options.between_bytes_timeout,
        });
        let (parts, body) = request.into_parts();
        let body = GuestBody::new(body, &parts.headers, self.exchange.observe());
        let answer = upstream.send(http::Request::from_parts(parts, body), timeouts);
        Box::new(async move {
            let response = within(timeouts, answer).await.map_err(ErrorCode::into_host)?;
            let response = match timeouts.between_bytes {
                Some(limit) => response.map(|body| Paced { body, limit, pause: None }.boxed_unsync()),
                None => response,
            };
            Ok((response, Box::new(async { Ok(()) }) as _))
        })
    }
}

/// Waits for the head of a response no longer than the guest's options allow.
///
/// An upstream that is a function has no connecting of its own to be timed, so the two limits before the first byte
/// count together, and a `connect-timeout` alone limits nothing here.
async fn within(timeouts: Timeouts, answer: Answer) -> Result<http::Response<WasiBody>, ErrorCode> {
    let Some(first_byte) = timeouts.first_byte else {
        return answer.await;
    };
    let limit = first_byte.saturating_add(timeouts.connect.unwrap_or_default());
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(read_timeout()),
    }
}

fn read_timeout() -> ErrorCode {
    ErrorCode { name: "connection-read-timeout", payload: Payload::None }
}

/// A response body under the guest's `between-bytes-timeout`.
struct Paced {
    body: WasiBody,
    limit: Duration,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            this.pause = None;
            return Poll::Ready(frame);
        }
        let limit = this.limit;
        let pause = this.pause.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(pause.as_mut().poll(cx));
        Poll::Ready(Some(Err(read_timeout().into_host())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
