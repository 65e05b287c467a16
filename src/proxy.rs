//! Proxies: which one a request goes through, and the tunnel through it.

use std::net::SocketAddr;
use std::pin::pin;

use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_socks::tcp::Socks5Stream;
use url::Host;

use crate::normal::canonical_host;
use crate::url::split;

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
    #[error("the proxy answered {0}")]
    Refused(StatusCode),
    #[error("the proxy: {0}")]
    Socks(#[from] tokio_socks::Error),
    #[error("the proxy: {0}")]
    Http(#[from] hyper::Error),
    #[error("the proxy's URL is none: {0}")]
    Url(#[from] http::Error),
    #[error("the proxy said something before it was asked for anything")]
    Early,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Http,
    Https,
    Socks,
}

/// A proxy that a request is to go through.
pub struct Proxy {
    pub kind: Kind,
    pub host: Host,
    pub port: u16,
    /// Whether it looks names up itself.
    pub resolves: bool,
    intercept: Intercept,
}

impl Proxy {
    /// The error says what is wrong with it.
    fn of(intercept: Intercept, resolves: bool) -> Result<Self, String> {
        let uri = intercept.uri();
        let (kind, port, remote) = match uri.scheme_str() {
            Some("http") => (Kind::Http, 80, false),
            Some("https") => (Kind::Https, 443, false),
            Some("socks5") => (Kind::Socks, 1080, false),
            Some("socks5h") => (Kind::Socks, 1080, true),
            other => return Err(format!("there are no proxies of the kind `{}`", other.unwrap_or_default())),
        };
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        // who it is asked as is in the intercept
        let (host, given) = split(authority.rsplit_once('@').map_or(authority, |(_, address)| address))?;
        let host = canonical_host(host).ok_or("its host is none")?;
        Ok(Self { kind, host, port: given.unwrap_or(port), resolves: resolves || remote, intercept })
    }

    /// What goes with a request that the proxy itself is to read.
    pub fn authorization(&self) -> Option<HeaderValue> {
        self.intercept.basic_auth().cloned()
    }

    /// Has the proxy connect to somebody else.
    pub async fn tunnel<S>(&self, io: S, goal: &Goal) -> Result<S, NoTunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.kind {
            Kind::Http | Kind::Https => self.connect(io, goal).await,
            Kind::Socks => self.socks(io, goal).await,
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

    /// RFC 9110, 9.3.6.
    async fn connect<S>(&self, io: S, goal: &Goal) -> Result<S, NoTunnel>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        let authority = goal.to_string();
        let mut request = http::Request::builder()
            .method(Method::CONNECT)
            .uri(Uri::builder().authority(authority.as_str()).build()?)
            .header(HOST, authority.as_str());
        if let Some(authorization) = self.authorization() {
            request = request.header(PROXY_AUTHORIZATION, authorization);
        }
        let mut answer = pin!(sender.send_request(request.body(Empty::<Bytes>::new())?));
        let mut connection = pin!(connection.without_shutdown());
        let mut ended = None;
        let response = tokio::select! {
            response = &mut answer => response?,
            parts = &mut connection => {
                ended = Some(parts);
                answer.await?
            }
        };
        if !response.status().is_success() {
            return Err(NoTunnel::Refused(response.status()));
        }
        drop(response);
        let parts = match ended {
            Some(parts) => parts?,
            None => connection.await?,
        };
        if parts.read_buf.is_empty() { Ok(parts.io.into_inner()) } else { Err(NoTunnel::Early) }
    }
}

/// The rules by which a proxy is found for a request.
pub struct Proxies {
    rules: Option<Matcher>,
    resolves: bool,
}

impl Proxies {
    pub fn none() -> Self {
        Self { rules: None, resolves: false }
    }

    /// As the environment says (`HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`). The error says what is wrong: what cannot
    /// be read must not mean that there is none.
    pub fn of_environment(resolves: bool) -> Result<Self, String> {
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"]
            .into_iter()
            .flat_map(|name| [name.to_owned(), name.to_lowercase()])
        {
            match std::env::var(&name) {
                Ok(url) if !url.is_empty() => {
                    // without a scheme it means http, to all who read it
                    let url = if url.contains("://") { url } else { format!("http://{url}") };
                    Self::new(&url, &[], resolves).map_err(|why| format!("`{name}`: {why}"))?;
                }
                Err(std::env::VarError::NotUnicode(_)) => return Err(format!("`{name}`: it is no text")),
                _ => {}
            }
        }
        Ok(Self { rules: Some(Matcher::from_env()), resolves })
    }

    /// One for all, but for those in `direct`. The error says what is wrong.
    pub fn new(url: &str, direct: &[String], resolves: bool) -> Result<Self, String> {
        if !url.contains("://") {
            return Err("it is no URL".into());
        }
        let rules = Matcher::builder().all(url).no(direct.join(",")).build();
        // any that no rule is for
        let anywhere = Uri::from_static("http://proxied.invalid");
        let everywhere = Matcher::builder().all(url).build();
        let found = everywhere.intercept(&anywhere).ok_or("it is no URL")?;
        Proxy::of(found, resolves)?;
        Ok(Self { rules: Some(rules), resolves })
    }

    /// The error says what is wrong with the one that is meant.
    pub fn proxy_for(&self, uri: &Uri) -> Result<Option<Proxy>, String> {
        let Some(found) = self.rules.as_ref().and_then(|rules| rules.intercept(uri)) else { return Ok(None) };
        Proxy::of(found, self.resolves).map(Some)
    }
}
