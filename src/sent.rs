//! The body of a guest's request on its way out.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use wasmtime_wasi_http::Error as HostError;

use crate::body::GuestBody;

pub struct Sent {
    first: Option<Result<Frame<Bytes>, HostError>>,
    rest: Option<GuestBody>,
}

impl Sent {
    pub const NOTHING: Self = Self { first: None, rest: None };

    /// A GET or its like has a body only if something comes: without, it must not be framed as one. A guest that has begun one
    /// and waits for the answer before it goes on is waited for no longer than `most`.
    pub async fn of(parts: &mut http::request::Parts, mut body: GuestBody, most: Duration) -> Self {
        let is_framed = parts.headers.contains_key(http::header::CONTENT_LENGTH);
        if body.is_end_stream() {
            return Self::NOTHING;
        }
        if is_framed || !(parts.method.is_safe() || parts.method == http::Method::DELETE) {
            return Self { first: None, rest: Some(body) };
        }
        let first = match tokio::time::timeout(most, body.frame()).await {
            Ok(None) => return Self::NOTHING,
            Ok(first) => first,
            Err(_) => None,
        };
        // else hyper would send none with a GET; with HTTP/2 it leaves this out
        parts.headers.insert(http::header::TRANSFER_ENCODING, http::HeaderValue::from_static("chunked"));
        Self { first, rest: Some(body) }
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        match &mut self.rest {
            Some(rest) => Pin::new(rest).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }
}
