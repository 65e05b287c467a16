//! One connection from accept to its end: what comes before HTTP, which HTTP it is, and how it is closed.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep_until, timeout};
use tracing::Level;

use crate::server::answered::{Answered, Asked};
use crate::server::certificates::Reloading;
use crate::server::client_body::{DRAINED_WITHIN, MOST_DRAINED, throw_away};
use crate::server::guarded::Guarded;
use crate::server::peer::Peer;
use crate::server::protocols::{Http1, Http2, Prefixed};
use crate::server::proxy_protocol;
use crate::server::shared::{Common, Connection};
use crate::server::timed::Timed;
use crate::server::watch::{LAST, Watch};
use crate::sync::lock;

/// What a client of HTTP/2 sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
pub(super) async fn serve(socket: Socket, asked: Peer, terms: Terms, common: Arc<Common>) {
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
            Opening { common: common.clone(), terms, accepted, before, peer, local }.begin(stream, asked).await
        }
        Socket::Unix(stream) => {
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
        peer: Peer,
    ) -> io::Result<()> {
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
        let ended = common.progress.grace_is_over();
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
            let served = Http2::new(Prefixed { read: read.freeze(), stream, watch: watch.clone() }, connection);
            return Timed::new(served, watch, peer, common).await;
        }
        let guarded = Guarded::new(stream, read, common.caps.header_bytes, watch.clone());
        let served = Http1::new(guarded, connection.clone());
        let mut served = Timed::new(served, watch, peer, common.clone());
        let ended = (&mut served).await;
        tell_unasked(&connection);
        if let Some((mut stream, may_send)) = served.served.into_inner() {
            let lingers = async {
                match ended {
                    Ok(()) => linger(&mut stream, may_send, DRAINED_WITHIN).await,
                    Err(_) => linger(&mut stream, false, LAST).await,
                }
            };
            tokio::select! {
                () = lingers => {}
                () = common.progress.grace_is_over() => {}
            }
        }
        ended
    }
}

/// What hyper has refused itself has its line in the log.
fn tell_unasked(connection: &Arc<Connection>) {
    for head in connection.watch.take_heads() {
        let status = head.refused.as_ref().map_or(400, |refusal| refusal.status);
        let mut answered = Answered::new(connection.clone(), 0, lock(&connection.common.routes).clone());
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

/// Closes a connection so that the client gets what was sent: the sending side first, and what still comes is thrown away for a bounded
/// time. Bytes that nobody has read would have the kernel reset the connection, and the answer be lost (RFC 9112, 9.6).
async fn linger(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), may_send: bool, within: Duration) {
    let rest = async {
        // TLS has a last word, which waits for a client that takes nothing
        if stream.shutdown().await.is_err() || !may_send {
            return;
        }
        let mut bytes = vec![0; 64 << 10];
        throw_away(MOST_DRAINED, |cx| {
            let mut read = ReadBuf::new(&mut bytes);
            let polled = ready!(Pin::new(&mut *stream).poll_read(cx, &mut read));
            Poll::Ready(Some(read.filled().len()).filter(|bytes| polled.is_ok() && *bytes > 0))
        })
        .await;
    };
    let _ = timeout(within, rest).await;
}
