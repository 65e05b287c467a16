//! hyper's side of a connection: HTTP/1 and HTTP/2, as this server sets them up.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::process::afterwards::Undone;
use crate::server::answer_body::AnswerBody;
use crate::server::guarded::Guarded;
use crate::server::head::MOST_FIELDS;
use crate::server::shared::Connection;
use crate::server::streams::Streams;
use crate::server::watch::Watch;

/// How much of a request's body may come before its guest reads it, of each stream; of a connection, as much for all of them: so no
/// stream that nobody reads holds up another one.
const STREAM_WINDOW: u32 = 256 << 10;

/// How much of an answer's body waits for its client, of each stream.
const SEND_BUFFER: usize = 128 << 10;

/// What was read of a connection already, and the rest.
pub(super) struct Prefixed<S> {
    pub read: Bytes,
    pub stream: S,
    pub watch: Arc<Watch>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
            if polled.is_ready() {
                self.watch.hears();
            }
            return polled;
        }
        let most = self.read.len().min(buf.remaining());
        let part = self.read.split_to(most);
        buf.put_slice(&part);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Prefixed<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// hyper's side of a connection.
pub(super) trait Served {
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// No new requests; it ends with those that are under way.
    fn end(&mut self);
}

type Answering = Pin<Box<dyn Future<Output = Result<http::Response<AnswerBody>, std::convert::Infallible>> + Send>>;

/// What hyper asks.
#[derive(Clone)]
struct Asks(Arc<Connection>);

impl hyper::service::Service<http::Request<hyper::body::Incoming>> for Asks {
    type Response = http::Response<AnswerBody>;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<hyper::body::Incoming>) -> Answering {
        Box::pin(self.0.clone().answer(request))
    }
}

pub(super) struct Http1<S>(Option<hyper::server::conn::http1::Connection<TokioIo<Guarded<S>>, Asks>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http1<S> {
    pub(super) fn new(stream: Guarded<S>, connection: Arc<Connection>) -> Self {
        let mut builder = hyper::server::conn::http1::Builder::new();
        // heads are timed and bounded before hyper sees them; a client may shut its sending side down and wait for the answer
        builder.half_close(true).header_read_timeout(None).max_headers(MOST_FIELDS).timer(TokioTimer::new());
        builder.max_buf_size((connection.common.caps.header_bytes + (8 << 10)).max(64 << 10));
        Self(Some(builder.serve_connection(TokioIo::new(stream), Asks(connection))))
    }

    pub(super) fn into_inner(self) -> Option<(S, bool)> {
        Some(self.0?.into_parts().io.into_inner().into_inner())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Served for Http1<S> {
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper writes an answer that is there in the poll that has asked for it
        let _undone = Undone::begin();
        match &mut self.0 {
            Some(connection) => connection.poll_without_shutdown(cx).map_err(io::Error::other),
            None => Poll::Ready(Ok(())),
        }
    }

    fn end(&mut self) {
        if let Some(connection) = &mut self.0 {
            Pin::new(connection).graceful_shutdown();
        }
    }
}

pub(super) struct Http2<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection: hyper::server::conn::http2::Connection<TokioIo<Prefixed<S>>, Asks, Streams>,
    streams: Streams,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http2<S> {
    pub(super) fn new(stream: Prefixed<S>, connection: Arc<Connection>) -> Self {
        let caps = connection.common.caps;
        let streams = Streams::new(connection.common.timeouts.body);
        let mut builder = hyper::server::conn::http2::Builder::new(streams.clone());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(caps.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(
                STREAM_WINDOW.saturating_mul(caps.streams.saturating_add(1)).min(i32::MAX as u32),
            )
            .max_send_buf_size(SEND_BUFFER)
            // what is larger is refused by the service, which the log hears of
            .max_header_list_size(u32::try_from(caps.header_bytes.saturating_mul(4)).unwrap_or(u32::MAX))
            .keep_alive_interval(connection.common.timeouts.body)
            .keep_alive_timeout(Duration::from_secs(20));
        let connection = builder.serve_connection(TokioIo::new(stream), Asks(connection));
        Self { connection, streams }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Served for Http2<S> {
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll(cx).map_err(io::Error::other)
    }

    fn end(&mut self) {
        Pin::new(&mut self.connection).graceful_shutdown();
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Drop for Http2<S> {
    fn drop(&mut self) {
        self.streams.abort();
    }
}
