//! Connecting: names resolved, each address checked before it is used, under one limit of time; and what failures are.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tower_service::Service;
use url::Host;

use crate::code::{ErrorCode, Payload};
use crate::pattern::{Target, canonical_host};
use crate::policy::Policy;
use crate::url::implied_port;

/// How long one address is tried alone before the next one is tried as well (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Undialled {
    #[error("all {0} connections that this `Network` may have are taken (`max_connections`)")]
    Full(usize),
    #[error("its name was not resolved: {0}")]
    Name(#[source] io::Error),
    #[error("its name has no address")]
    NoAddress,
    #[error("its address is prohibited: {0} is {1}")]
    Prohibited(SocketAddr, &'static str),
    #[error("connecting took longer than {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Tcp(#[source] io::Error),
}

type Boxed = Box<dyn StdError + Send + Sync>;
type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, Boxed>> + Send>>;

/// Makes TCP connections to addresses that the policy lets pass.
#[derive(Clone)]
pub struct Dialer {
    policy: Arc<Policy>,
    permits: Arc<Semaphore>,
    most: usize,
}

impl Dialer {
    pub fn new(policy: Arc<Policy>, permits: Arc<Semaphore>) -> Self {
        let most = permits.available_permits();
        Self { policy, permits, most }
    }

    async fn dial(self, uri: Uri) -> Result<Dialled, Undialled> {
        let permit = self.permits.try_acquire_owned().map_err(|_| Undialled::Full(self.most))?;
        let port = uri.port_u16().or_else(|| uri.scheme_str().and_then(implied_port)).unwrap_or(443);
        let found: Vec<SocketAddr> = match uri.host().and_then(canonical_host).ok_or(Undialled::NoAddress)? {
            Host::Ipv4(address) => vec![(address, port).into()],
            Host::Ipv6(address) => vec![(address, port).into()],
            Host::Domain(name) => tokio::net::lookup_host((name, port)).await.map_err(Undialled::Name)?.collect(),
        };
        // what is checked here is what is connected to: nothing is resolved a second time
        let target = Target::of(&uri).ok_or(Undialled::NoAddress)?;
        let mut refused = Undialled::NoAddress;
        let mut allowed = Vec::new();
        for address in found {
            match self.policy.check_address(&target, address.ip()) {
                Ok(()) => allowed.push(address),
                Err(class) => refused = Undialled::Prohibited(address, class),
            }
        }
        if allowed.is_empty() {
            return Err(refused);
        }
        let stream = race(allowed).await.map_err(Undialled::Tcp)?;
        let _ = stream.set_nodelay(true);
        Ok(Dialled { io: TokioIo::new(stream), _permit: permit })
    }
}

/// The first of these that answers; each is tried when the one before has failed, or has had its time alone.
async fn race(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut left = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    if let Some(first) = left.next() {
        attempts.spawn(TcpStream::connect(first));
    }
    while !attempts.is_empty() {
        match tokio::time::timeout(STAGGER, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return Ok(stream),
            Ok(Some(Ok(Err(error)))) => failure = error,
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
        if let Some(next) = left.next() {
            attempts.spawn(TcpStream::connect(next));
        }
    }
    Err(failure)
}

impl Service<Uri> for Dialer {
    type Response = Dialled;
    type Error = Boxed;
    type Future = Dialling<Dialled>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Boxed>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial(uri).await.map_err(Into::into) })
    }
}

/// A connection, and its place among those that may be.
pub struct Dialled {
    io: TokioIo<TcpStream>,
    _permit: OwnedSemaphorePermit,
}

impl Connection for Dialled {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Dialled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Dialled {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connector under a limit of time, TLS included.
#[derive(Clone)]
pub struct Timed<C> {
    connector: C,
    limit: Duration,
}

impl<C> Timed<C> {
    pub fn new(connector: C, limit: Duration) -> Self {
        Self { connector, limit }
    }
}

impl<C> Service<Uri> for Timed<C>
where
    C: Service<Uri, Error = Boxed>,
    C::Future: Send + 'static,
    C::Response: 'static,
{
    type Response = C::Response;
    type Error = Boxed;
    type Future = Dialling<C::Response>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Boxed>> {
        self.connector.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connecting, limit) = (self.connector.call(uri), self.limit);
        Box::pin(async move {
            match tokio::time::timeout(limit, connecting).await {
                Ok(connected) => connected,
                Err(_) => Err(Undialled::Late(limit).into()),
            }
        })
    }
}

/// The error-code that a failure is to a guest, and what it was.
pub fn code_of(error: &(dyn StdError + 'static)) -> (ErrorCode, String) {
    let mut said = error.to_string();
    let mut code = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        // the innermost that says something says it best
        if let Some(found) = code_of_one(cause) {
            code = Some(found);
            said = cause.to_string();
        }
        next = cause.source().or_else(|| inner(cause));
    }
    let code = code.unwrap_or_else(|| ErrorCode::plain("HTTP-protocol-error"));
    // one that ends while it is being made has no response to be incomplete
    let connecting = error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect());
    if connecting && code.name == "HTTP-response-incomplete" {
        (ErrorCode::plain("connection-terminated"), said)
    } else {
        (code, said)
    }
}

/// An `io::Error` does not give what it was made of as its source.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(inner)
}

fn code_of_one(error: &(dyn StdError + 'static)) -> Option<ErrorCode> {
    if let Some(undialled) = error.downcast_ref::<Undialled>() {
        return Some(match undialled {
            Undialled::Full(_) => ErrorCode::plain("connection-limit-reached"),
            Undialled::Name(_) | Undialled::NoAddress => {
                ErrorCode { name: "DNS-error", payload: Payload::Dns { rcode: None, info_code: None } }
            }
            Undialled::Prohibited(..) => ErrorCode::plain("destination-IP-prohibited"),
            Undialled::Late(_) => ErrorCode::plain("connection-timeout"),
            Undialled::Tcp(error) => code_of_tcp(error.kind()),
        });
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(match error {
            rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
                ErrorCode::plain("TLS-certificate-error")
            }
            rustls::Error::AlertReceived(alert) => {
                let (alert_id, alert_message) = (Some(u8::from(*alert)), Some(format!("{alert:?}")));
                ErrorCode { name: "TLS-alert-received", payload: Payload::Tls { alert_id, alert_message } }
            }
            _ => ErrorCode::plain("TLS-protocol-error"),
        });
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return if error.is_parse_too_large() {
            let payload = Payload::Size(None);
            Some(ErrorCode { name: "HTTP-response-header-section-size", payload })
        } else if error.is_incomplete_message() || error.is_closed() {
            Some(ErrorCode::plain("HTTP-response-incomplete"))
        } else if error.is_timeout() {
            Some(ErrorCode::plain("HTTP-response-timeout"))
        } else if error.is_parse() {
            Some(ErrorCode::plain("HTTP-protocol-error"))
        } else {
            None
        };
    }
    let error = error.downcast_ref::<io::Error>()?;
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Some(ErrorCode::plain("connection-terminated"))
        }
        io::ErrorKind::UnexpectedEof => Some(ErrorCode::plain("HTTP-response-incomplete")),
        io::ErrorKind::TimedOut => Some(ErrorCode::plain("connection-read-timeout")),
        _ => None,
    }
}

fn code_of_tcp(kind: io::ErrorKind) -> ErrorCode {
    ErrorCode::plain(match kind {
        io::ErrorKind::ConnectionRefused => "connection-refused",
        io::ErrorKind::TimedOut => "connection-timeout",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "destination-IP-unroutable",
        // no local port is left
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => "connection-limit-reached",
        _ => "destination-unavailable",
    })
}
