//! Proxies: which one a request goes through, and the tunnel through it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use http::{HeaderValue, StatusCode, Uri};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_socks::tcp::Socks5Stream;
use url::Host;

use crate::http::canonical_url::canonical_host;
use crate::http::url::{UrlError, split};
use crate::network::no_proxy::{Bypass, BypassError};
use crate::network::origin::Origin;

/// What a proxy is asked for.
#[derive(Clone, Debug)]
pub enum Goal {
    /// An address of ours, which has been checked.
    Address(SocketAddr),
    /// A name that the proxy looks up.
    Name(String, u16),
}

impl std::fmt::Display for Goal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum NoTunnel {
    /// With an answer that is none of success.
    #[error("the proxy answered {0}")]
    Refused(StatusCode),
    /// As SOCKS says it.
    #[error("the proxy: {0}")]
    Socks(#[from] tokio_socks::Error),
    /// Its connection has failed.
    #[error("the proxy: {0}")]
    Io(#[from] io::Error),
    /// Its connection has ended.
    #[error("the proxy closed the connection before it responded")]
    Ended,
    /// It speaks something else.
    #[error("the proxy's response is not HTTP")]
    NotHttp,
    /// It says too much.
    #[error("the head of the proxy's response is larger than {HEAD} bytes")]
    TooLarge,
    /// It speaks before it is asked.
    #[error("the proxy sent data before it was sent a request")]
    Early,
}

/// Bytes of a proxy's answers to one CONNECT, the interim ones with them.
const HEAD: usize = 64 << 10;

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// HTTP.
    Http,
    /// HTTP, in TLS.
    Https,
    /// SOCKS5.
    Socks,
}

/// Why a proxy cannot be used. Has nothing of its URL: there may be a password.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// `proxy:3128`.
    #[error("it is not a URL: it has no scheme; hint: put `http://` before it")]
    NoScheme,
    /// Nothing that can be read.
    #[error("it is not a URL")]
    NotUrl,
    /// What is wrong with its authority.
    #[error(transparent)]
    Authority(#[from] UrlError),
    /// 0.
    #[error("its port is not a number from 1 to 65535")]
    Port,
    /// More than an origin.
    #[error("it has a path or a query, which have no meaning there")]
    Path,
    /// By its scheme.
    #[error("proxies of the scheme `{0}` are not supported")]
    Kind(String),
    /// RFC 1929, 2.
    #[error("its user and its password must each have from 1 to 255 bytes")]
    Credentials,
    /// Nothing that can be connected to.
    #[error("it has no valid host")]
    Host,
    /// What is to be reached without it.
    #[error(transparent)]
    Bypass(#[from] BypassError),
    /// The value of a variable is not Unicode.
    #[error("it is not valid UTF-8")]
    NotText,
    /// What is wrong with a variable of the environment.
    #[error("`{name}`: {source}")]
    Variable {
        /// The variable's, as it is spelt.
        name: String,
        /// What is wrong with it.
        source: Box<ProxyError>,
    },
}

/// A proxy that a request is to go through.
#[derive(Clone)]
pub struct Proxy {
    /// What it speaks.
    pub kind: Kind,
    /// Where it is.
    pub host: Host,
    /// And at which port.
    pub port: u16,
    /// Whether it looks names up itself.
    pub resolves: bool,
    intercept: Intercept,
}

impl Proxy {
    /// Reads its URL. The error says what is wrong with it, and has nothing of it: there may be a password.
    fn parse(url: &str, resolves: bool) -> Result<Self, ProxyError> {
        if !url.contains("://") {
            return Err(ProxyError::NoScheme);
        }
        let uri: Uri = url.parse().map_err(|_| ProxyError::NotUrl)?;
        let Some(authority) = uri.authority() else { return Err(ProxyError::NotUrl) };
        // who it is asked as is in the intercept
        let (host, given) = split(authority.as_str().rsplit_once('@').map_or(authority.as_str(), |(_, host)| host))?;
        if given == Some(0) {
            return Err(ProxyError::Port);
        }
        if uri.path().len() > 1 || uri.query().is_some() {
            return Err(ProxyError::Path);
        }
        // any URL that it might be for: this reads what stands before the `@`
        let anywhere = Uri::from_static("http://proxied.invalid");
        let intercept = Matcher::builder().all(url).build().intercept(&anywhere).ok_or(ProxyError::NotUrl)?;
        let (kind, port, remote) = match intercept.uri().scheme_str() {
            Some("http") => (Kind::Http, 80, false),
            Some("https") => (Kind::Https, 443, false),
            Some("socks5") => (Kind::Socks, 1080, false),
            Some("socks5h") => (Kind::Socks, 1080, true),
            other => return Err(ProxyError::Kind(other.unwrap_or_default().to_owned())),
        };
        // RFC 1929, 2
        let is_sized = |text: &str| (1..=255).contains(&text.len());
        if intercept.raw_auth().is_some_and(|(user, password)| !is_sized(user) || !is_sized(password)) {
            return Err(ProxyError::Credentials);
        }
        let host = canonical_host(host).ok_or(ProxyError::Host)?;
        Ok(Self { kind, host, port: given.unwrap_or(port), resolves: resolves || remote, intercept })
    }

    /// What goes with a request that the proxy itself is to read.
    pub fn authorization(&self) -> Option<HeaderValue> {
        self.intercept.basic_auth().cloned()
    }

    /// Has the proxy connect to somebody else. Also gives what has come through already.
    pub async fn tunnel<S>(&self, io: S, goal: &Goal) -> Result<(S, Vec<u8>), NoTunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match self.kind {
            Kind::Http | Kind::Https => self.connect(io, goal).await,
            Kind::Socks => Ok((self.socks(io, goal).await?, Vec::new())),
        }
    }

    async fn socks<S>(&self, io: S, goal: &Goal) -> Result<S, NoTunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let target = match goal {
            Goal::Address(address) => tokio_socks::TargetAddr::Ip(*address),
            Goal::Name(name, port) => tokio_socks::TargetAddr::Domain(name.into(), *port),
        };
        let stream = match self.intercept.raw_auth() {
            None => Socks5Stream::connect_with_socket(io, target).await?,
            Some((name, password)) => {
                Socks5Stream::connect_with_password_and_socket(io, target, name, password).await?
            }
        };
        Ok(stream.into_inner())
    }

    /// RFC 9110, 9.3.6: after the head of any answer of 2xx comes what the other side sends, whatever fields say of a body. (hyper
    /// takes 204 for an answer without a tunnel, and waits for the next one.)
    async fn connect<S>(&self, mut io: S, goal: &Goal) -> Result<(S, Vec<u8>), NoTunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = format!("CONNECT {goal} HTTP/1.1\r\nhost: {goal}\r\n").into_bytes();
        if let Some(authorization) = self.authorization() {
            request.extend_from_slice(b"proxy-authorization: ");
            request.extend_from_slice(authorization.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        write(&mut io, &request).await?;
        let mut received = Vec::new();
        let mut read = 0;
        loop {
            while let Some(head) = first_head(&received) {
                let status = status_of(received.get(..head).unwrap_or_default()).ok_or(NoTunnel::NotHttp)?;
                let rest = received.split_off(head);
                if status.is_success() {
                    return Ok((io, rest));
                }
                // an interim one (RFC 9110, 15.2); a change of protocol is none that was asked for
                if !status.is_informational() || status == StatusCode::SWITCHING_PROTOCOLS {
                    return Err(NoTunnel::Refused(status));
                }
                received = rest;
            }
            if read > HEAD {
                return Err(NoTunnel::TooLarge);
            }
            let mut buffer = [0; 4096];
            let mut free = ReadBuf::new(&mut buffer);
            std::future::poll_fn(|cx| Pin::new(&mut io).poll_read(cx, &mut free)).await?;
            if free.filled().is_empty() {
                return Err(if received.is_empty() { NoTunnel::Ended } else { NoTunnel::NotHttp });
            }
            read += free.filled().len();
            received.extend_from_slice(free.filled());
        }
    }
}

async fn write<S: AsyncWrite + Unpin>(io: &mut S, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::future::poll_fn(|cx| Pin::new(&mut *io).poll_write(cx, bytes)).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(written..).unwrap_or_default();
    }
    std::future::poll_fn(|cx| Pin::new(&mut *io).poll_flush(cx)).await
}

/// Where the first head of an answer ends: behind an empty line. A line may end with LF alone, and there may be empty ones before it
/// (RFC 9112, 2.2).
fn first_head(bytes: &[u8]) -> Option<usize> {
    let mut has_begun = false;
    let mut start = 0;
    for (place, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
        let is_empty = matches!(bytes.get(start..place), Some([] | [b'\r']));
        if is_empty && has_begun {
            return Some(place + 1);
        }
        has_begun |= !is_empty;
        start = place + 1;
    }
    None
}

/// The status of a head (RFC 9112, 4), with a reason or without.
fn status_of(head: &[u8]) -> Option<StatusCode> {
    let line = head.trim_ascii_start().split(|byte| *byte == b'\n').next()?.trim_ascii_end();
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let (minor, rest) = rest.split_first()?;
    let code = rest.trim_ascii_start();
    let is_status = minor.is_ascii_digit() && code.len() < rest.len() && code.get(3).is_none_or(|next| *next == b' ');
    is_status.then(|| StatusCode::from_bytes(code.get(..3)?).ok())?
}

fn of_variable(name: &str, source: ProxyError) -> ProxyError {
    ProxyError::Variable { name: name.to_owned(), source: Box::new(source) }
}

/// The rules by which a proxy is found for a request.
pub struct Proxies {
    /// Without TLS, and with it.
    http: Option<Proxy>,
    https: Option<Proxy>,
    bypass: Bypass,
}

impl Proxies {
    /// No request goes through one.
    pub fn none() -> Self {
        Self { http: None, https: None, bypass: Bypass::default() }
    }

    /// As the environment says (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`); in lower case they come first, as with curl
    /// and Python. The error says what is wrong: what cannot be read must not mean that there is none.
    pub fn of_environment(resolves: bool) -> Result<Self, ProxyError> {
        let proxy = |name: &str| {
            Self::variable(name, |url| {
                // without a scheme it means http, to all who read it
                let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
                Proxy::parse(&url, resolves)
            })
        };
        let all = proxy("ALL_PROXY")?;
        let http = proxy("HTTP_PROXY")?;
        let https = proxy("HTTPS_PROXY")?;
        let bypass = Self::variable("NO_PROXY", |list| {
            let mut bypass = Bypass::default();
            bypass.add(list)?;
            Ok(bypass)
        })?;
        Ok(Self { http: http.or_else(|| all.clone()), https: https.or(all), bypass: bypass.unwrap_or_default() })
    }

    /// Both spellings are read, so that neither is wrong unseen.
    fn variable<T>(name: &str, parse: impl Fn(&str) -> Result<T, ProxyError>) -> Result<Option<T>, ProxyError> {
        let mut first = None;
        for name in [name.to_lowercase(), name.to_owned()] {
            // in a CGI script this is what a client has sent as `Proxy` (CVE-2016-5385)
            if name == "HTTP_PROXY" && std::env::var_os("REQUEST_METHOD").is_some() {
                continue;
            }
            match std::env::var(&name) {
                Ok(text) if !text.trim().is_empty() => {
                    let parsed = parse(text.trim()).map_err(|source| of_variable(&name, source))?;
                    first.get_or_insert(parsed);
                }
                Err(std::env::VarError::NotUnicode(_)) => return Err(of_variable(&name, ProxyError::NotText)),
                _ => {}
            }
        }
        Ok(first)
    }

    /// One for all, but for some. The error says what is wrong.
    pub fn new(url: &str, bypass: Bypass, resolves: bool) -> Result<Self, ProxyError> {
        let proxy = Proxy::parse(url, resolves)?;
        Ok(Self { http: Some(proxy.clone()), https: Some(proxy), bypass })
    }

    /// The one for requests to an origin.
    pub fn proxy_for(&self, origin: &Origin) -> Option<&Proxy> {
        let proxy = if origin.secure { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !self.bypass.has(origin))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_head_does() {
        for (bytes, head, status) in [
            (&b"HTTP/1.1 200 OK\r\n\r\nrest"[..], Some(19), Some(200)),
            (b"HTTP/1.0 204\r\nx: y\r\n\r\n", Some(22), Some(204)),
            (b"\r\n\nHTTP/1.1 299 \nx: y\n\nrest", Some(23), Some(299)),
            (b"HTTP/1.1  200  OK\n\n", Some(19), Some(200)),
            (b"HTTP/1.1 200 OK\r\nx: y\r\n", None, Some(200)),
            (b"HTTP/2 200 OK\r\n\r\n", Some(17), None),
            (b"HTTP/1.1 2000\r\n\r\n", Some(17), None),
            (b"HTTP/1.1 20\r\n\r\n", Some(15), None),
            (b"HTTP/1.1200\r\n\r\n", Some(15), None),
            (b"SSH-2.0-x\r\n\r\n", Some(13), None),
            (b"", None, None),
        ] {
            assert_eq!(first_head(bytes), head, "{bytes:?}");
            assert_eq!(status_of(bytes).map(|status| status.as_u16()), status, "{bytes:?}");
        }
    }
}
