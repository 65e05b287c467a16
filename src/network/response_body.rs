//! Bodies of responses that come over connections.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use wasmtime_wasi_http::Error as HostError;

use crate::http::error_code::ErrorCode;
use crate::http::message::{Side, with_trailers};
use crate::network::error::{code_of, code_of_flood, code_of_tls, is_malformed};
use crate::network::options::Options;
use crate::network::pool::Lease;
use crate::network::request_body::Content;
use crate::network::traffic::Flood;

/// RFC 9113, 6.5.2.
pub(super) fn list_size(fields: &HeaderMap) -> u64 {
    fields.iter().map(|(name, value)| (name.as_str().len() + value.len() + 32) as u64).sum()
}

/// The response has taken longer than its host lets it.
pub(super) fn late() -> ErrorCode {
    ErrorCode::plain("HTTP-response-timeout")
}

/// The body of a response, and the connection that it comes on.
pub(super) struct ResponseBody {
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
    /// Ends when a peer of HTTP/2 has let nothing of the request be sent for too long, whatever it sends itself.
    unread: Option<Pin<Box<dyn Future<Output = Duration> + Send>>>,
}

impl ResponseBody {
    pub(super) fn new(
        response: (Incoming, StatusCode, Option<u64>),
        lease: Lease,
        content: Content,
        options: &Options,
        total: Option<Instant>,
    ) -> Self {
        let (incoming, status, length) = response;
        let is_refusal = status.is_client_error() || status.is_server_error();
        let (limit, fields, end) = (options.body, u64::from(options.head), total.map(|end| (end, None)));
        let mut body = Self {
            incoming,
            lease: Some(lease),
            content,
            is_refusal,
            length,
            limit,
            fields,
            passed: 0,
            end,
            unread: None,
        };
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

    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_http2() && !self.content.is_over()) else {
            return Poll::Pending;
        };
        let unread = self.unread.get_or_insert_with(|| {
            let (content, traffic) = (self.content.clone(), lease.traffic());
            Box::pin(async move { content.unread(Some(traffic)).await })
        });
        unread.as_mut().poll(cx)
    }

    /// What it is to the guest that the body has broken off.
    fn told(&self, error: &hyper::Error) -> ErrorCode {
        let code = code_of(error).0;
        let Some(lease) = &self.lease else { return code };
        if lease.write_timed_out() {
            return ErrorCode::plain("connection-write-timeout");
        }
        if !lease.is_http2() {
            return code;
        }
        if let Some(tls) = lease.tls() {
            return code_of_tls(&tls);
        }
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
                Poll::Ready(Some(Ok(with_trailers(frame))))
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
            Poll::Pending if this.poll_unread(cx).is_ready() => this.fail(ErrorCode::plain("connection-write-timeout")),
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
