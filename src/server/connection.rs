//! One connection from accept to its end: what comes before HTTP, which HTTP it is, and its time.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep_until, timeout};
use tracing::Level;

use crate::server::answered::{Answered, Asked};
use crate::server::certificates::Reloading;
use crate::server::client_body::{DRAINED_WITHIN, throw_away};
use crate::server::guarded::Guarded;
use crate::server::head::MOST_FIELDS;
use crate::server::peer::Peer;
use crate::server::progress::Stage;
use crate::server::proxy_protocol;
use crate::server::service::{Common, Connection};
use crate::server::streams::Streams;
use crate::server::watch::{LAST, LOOK, Verdict, Watch};

/// What a client of HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How much of a request's body may come before its guest reads it, of each stream; of a connection, as much for all of them: so no
/// stream that nobody reads holds up another one.
const STREAM_WINDOW: u32 = 256 << 10;

/// How much of an answer's body waits for its client, of each stream.
const SEND_BUFFER: usize = 128 << 10;

/// For so long a connection on which nothing is under way may still send a request when the server drains.
const GRACE: Duration = Duration::from_millis(500);

/// A socket that was accepted.
pub(super) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How connections of one listener begin.
#[derive(Clone)]
pub(super) struct Terms {
    /// Of TLS; none: none.
    pub tls: Option<Arc<Reloading>>,
    /// A PROXY header comes first, from peers that are trusted.
    pub proxy_protocol: bool,
}

/// Serves one connection.
pub(super) async fn serve(socket: Socket, terms: Terms, common: Arc<Common>) {
    common.accounts.opens();
    let _open = Open(common.clone());
    let accepted = Instant::now();
    let before = match common.timeouts.header {
        Some(most) => accepted + most,
        None => accepted + Duration::from_secs(u64::from(u32::MAX)),
    };
    let served = match socket {
        Socket::Tcp(stream) => {
            let (peer, local) = (stream.peer_addr().ok(), stream.local_addr().ok());
            let _ = stream.set_nodelay(true);
            let asked = Peer::new(stream.as_fd(), terms.tls.is_none());
            Opening { common: common.clone(), terms, accepted, before, peer, local }.begin(stream, asked).await
        }
        Socket::Unix(stream) => {
            let asked = Peer::new(stream.as_fd(), false);
            Opening { common: common.clone(), terms, accepted, before, peer: None, local: None }
                .begin(stream, asked)
                .await
        }
    };
    if let Err(error) = served {
        common.accounts.journal(Level::DEBUG, format!("a connection ended: {error}"));
    }
}

struct Open(Arc<Common>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.accounts.closes();
    }
}

/// A connection before its first request.
struct Opening {
    common: Arc<Common>,
    terms: Terms,
    accepted: Instant,
    /// When the first head has to be there.
    before: Instant,
    peer: Option<SocketAddr>,
    local: Option<SocketAddr>,
}

impl Opening {
    async fn begin<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        mut self,
        mut stream: S,
        peer: io::Result<Peer>,
    ) -> io::Result<()> {
        let peer = peer?;
        let (common, before) = (self.common.clone(), self.before);
        let opened = async {
            if self.terms.proxy_protocol
                && let Err(error) = self.read_proxy_header(&mut stream).await
            {
                if error.kind() == io::ErrorKind::InvalidData && self.terms.tls.is_none() {
                    stream.write_all(REFUSED).await?;
                    linger(&mut stream, true, DRAINED_WITHIN).await;
                }
                return Err(error);
            }
            match self.terms.tls.take() {
                None => {
                    let (is_http2, read) = detect(&mut stream).await?;
                    Ok::<_, io::Error>((Transport::Plain(stream), is_http2, read))
                }
                Some(config) => {
                    let stream = tokio_rustls::TlsAcceptor::from(config.current()).accept(stream).await?;
                    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                    Ok((Transport::Tls(Box::new(stream)), is_http2, BytesMut::new()))
                }
            }
        };
        // the server's end ends it, too: nothing has been asked
        let ended = async {
            common.progress.reached(Stage::Drains).await;
            tokio::time::sleep(GRACE).await;
        };
        let opened = tokio::select! {
            opened = opened => opened?,
            () = sleep_until(before.into()) => return Err(io::Error::other("no request came in time")),
            () = ended => return Ok(()),
        };
        match opened {
            (Transport::Plain(stream), is_http2, read) => self.go_on(stream, is_http2, read, peer, false).await,
            (Transport::Tls(stream), is_http2, read) => self.go_on(*stream, is_http2, read, peer, true).await,
        }
    }

    async fn read_proxy_header(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
        if !self.common.trusted.trusts(self.peer.map(|peer| peer.ip())) {
            return Err(refused("a peer that is not trusted must not send a PROXY header"));
        }
        if let Some(addresses) = proxy_protocol::read(stream).await.map_err(refused)? {
            self.peer = Some(addresses.source);
            self.local = Some(addresses.destination);
        }
        Ok(())
    }

    async fn go_on<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
        self,
        stream: S,
        is_http2: bool,
        read: BytesMut,
        mut peer: Peer,
        is_tls: bool,
    ) -> io::Result<()> {
        let Self { common, accepted, peer: address, local, .. } = self;
        let watch = Watch::new(common.timeouts, accepted);
        let connection =
            Arc::new(Connection { common: common.clone(), watch: watch.clone(), peer: address, local, is_tls });
        if is_http2 {
            peer.takes_no_probe();
            let served = Http2::new(Prefixed { read: read.freeze(), stream }, connection);
            return Timed::new(served, watch, peer, common).await;
        }
        let guarded = Guarded::new(stream, read, common.caps.header_bytes, watch.clone());
        let served = Http1::new(guarded, connection.clone());
        let mut served = Timed::new(served, watch, peer, common);
        let ended = (&mut served).await;
        tell_unasked(&connection);
        if let Some((mut stream, may_send)) = served.served.into_inner() {
            match ended {
                Ok(()) => linger(&mut stream, may_send, DRAINED_WITHIN).await,
                Err(_) => linger(&mut stream, false, LAST).await,
            }
        }
        ended
    }
}

/// What hyper has refused itself has its line in the log.
fn tell_unasked(connection: &Arc<Connection>) {
    for head in connection.watch.take_heads() {
        let accounts = connection.common.accounts.clone();
        let status = head.refused.as_ref().map_or(400, |refusal| refusal.status);
        let mut answered = Answered::new(connection.watch.clone(), 0, accounts);
        answered.asked(Asked::new(head.first_line(), connection.scheme(), connection.client()));
        answered.answers(status, &http::HeaderMap::new());
        answered.is_whole();
    }
}

/// What comes before HTTP is wrong.
fn refused(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// What whoever sends no PROXY header, or a wrong one, is told.
const REFUSED: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

enum Transport<S> {
    Plain(S),
    Tls(Box<tokio_rustls::server::TlsStream<S>>),
}

/// Whether a client begins as one of HTTP/2 does that knows that this server speaks it, and what was read.
async fn detect(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(bool, BytesMut)> {
    let mut read = BytesMut::with_capacity(8 << 10);
    loop {
        let known = read.len().min(PREFACE.len());
        if read.get(..known) != PREFACE.get(..known) {
            return Ok((false, read));
        }
        if known == PREFACE.len() {
            return Ok((true, read));
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok((false, read));
        }
    }
}

/// What was read of a connection already, and the rest.
struct Prefixed<S> {
    read: Bytes,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Prefixed<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
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

/// Closes a connection so that the client gets what was sent: the sending side first, and what still comes is thrown away for a bounded
/// time. Bytes that nobody has read would have the kernel reset the connection, and the answer be lost (RFC 9112, 9.6).
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), may_send: bool, within: Duration) {
    let rest = async {
        // TLS has a last word, which waits for a client that takes nothing
        if stream.shutdown().await.is_err() || !may_send {
            return;
        }
        let mut bytes = vec![0; 64 << 10];
        throw_away(|cx| {
            let mut read = ReadBuf::new(&mut bytes);
            let polled = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read));
            Poll::Ready(Some(read.filled().len()).filter(|bytes| polled.is_ok() && *bytes > 0))
        })
        .await;
    };
    let _ = timeout(within, rest).await;
}

/// hyper's side of a connection.
trait Served {
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// No new requests; it ends with those that are under way.
    fn end(&mut self);
}

type Answering = Pin<
    Box<dyn Future<Output = Result<http::Response<super::answer_body::AnswerBody>, std::convert::Infallible>> + Send>,
>;

/// What hyper asks.
#[derive(Clone)]
struct Asks(Arc<Connection>);

impl hyper::service::Service<http::Request<hyper::body::Incoming>> for Asks {
    type Response = http::Response<super::answer_body::AnswerBody>;
    type Error = std::convert::Infallible;
    type Future = Answering;

    fn call(&self, request: http::Request<hyper::body::Incoming>) -> Answering {
        Box::pin(self.0.clone().answer(request))
    }
}

struct Http1<S>(Option<hyper::server::conn::http1::Connection<TokioIo<Guarded<S>>, Asks>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static;

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http1<S> {
    fn new(stream: Guarded<S>, connection: Arc<Connection>) -> Self {
        let mut builder = hyper::server::conn::http1::Builder::new();
        // heads are timed and bounded before hyper sees them; a client may shut its sending side down and wait for the answer
        builder.half_close(true).header_read_timeout(None).max_headers(MOST_FIELDS).timer(TokioTimer::new());
        builder.max_buf_size((connection.common.caps.header_bytes + (8 << 10)).max(64 << 10));
        Self(Some(builder.serve_connection(TokioIo::new(stream), Asks(connection))))
    }

    fn into_inner(self) -> Option<(S, bool)> {
        Some(self.0?.into_parts().io.into_inner().into_inner())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Served for Http1<S> {
    fn poll_served(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
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

struct Http2<S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    connection: hyper::server::conn::http2::Connection<TokioIo<Prefixed<S>>, Asks, Streams>,
    streams: Streams,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Http2<S> {
    fn new(stream: Prefixed<S>, connection: Arc<Connection>) -> Self {
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

/// A connection under its times, and the server's end.
struct Timed<T> {
    served: T,
    watch: Arc<Watch>,
    peer: Peer,
    /// The one timer. It is set anew when it has fired, and when the first exchange begins.
    timer: Pin<Box<Sleep>>,
    /// Whether it is set for the next look at the client.
    is_near: bool,
    common: Arc<Common>,
    /// Ready when the server drains. It is polled once to be told, and again when that is so.
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_told: bool,
    /// When a connection on which nothing is under way is closed.
    grace: Option<Instant>,
}

impl<T: Served + Unpin> Timed<T> {
    fn new(served: T, watch: Arc<Watch>, peer: Peer, common: Arc<Common>) -> Self {
        let drains = common.clone();
        let draining = Box::pin(async move { drains.progress.reached(Stage::Drains).await });
        let timer = Box::pin(sleep_until(Instant::now().into()));
        Self { served, watch, peer, timer, is_near: true, common, draining, is_told: false, grace: None }
    }

    fn set(&mut self, now: Instant, until: Instant) {
        self.timer.as_mut().reset(until.into());
        self.is_near = until <= now + LOOK;
    }

    /// The server drains: whoever has sent nothing yet has a moment.
    fn look_at_end(&mut self, cx: &mut Context<'_>) {
        if self.is_told && !self.common.progress.has_reached(Stage::Drains) {
            return;
        }
        if self.grace.is_none() && self.draining.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.grace = Some(now + GRACE);
            self.set(now, now + GRACE);
        }
        self.is_told = true;
    }
}

impl<T: Served + Unpin> Future for Timed<T> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.look_at_end(cx);
            if let Poll::Ready(ended) = this.served.poll_served(cx) {
                return Poll::Ready(ended);
            }
            if !this.is_near && this.watch.is_busy() {
                let now = Instant::now();
                this.set(now, now + LOOK);
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if this.peer.has_left(&this.watch.awaits()) {
                return Poll::Ready(Err(io::Error::other("the client has left")));
            }
            let mut until = match this.watch.look(now) {
                Verdict::Wait(until) => until,
                Verdict::End => {
                    this.served.end();
                    continue;
                }
                Verdict::Close(why) => return Poll::Ready(Err(io::Error::other(why))),
            };
            if let Some(grace) = this.grace {
                if now >= grace && !this.watch.is_in_a_head() {
                    this.served.end();
                    this.grace = Some(now + Duration::from_secs(3600));
                    continue;
                }
                until = until.min(grace.max(now + LOOK));
            }
            this.set(now, until);
        }
    }
}
