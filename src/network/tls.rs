//! TLS: what is trusted, who we say we are, and the handshake.

use std::io;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use url::Host;

use crate::pem::{self, NotPem};

/// What TLS has found, in the error of a stream of its.
pub(crate) fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// One configuration in two forms: what is offered by ALPN is part of it.
#[derive(Clone)]
pub(crate) struct Tls {
    /// HTTP/1.1 alone.
    plain: TlsConnector,
    /// HTTP/2 as well, if that is wanted.
    best: TlsConnector,
}

impl Tls {
    pub(crate) fn new(config: ClientConfig, http2: bool) -> Self {
        let offering = |protocols: &[&[u8]]| {
            let mut config = config.clone();
            config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
            TlsConnector::from(Arc::new(config))
        };
        let best: &[&[u8]] = if http2 { &[HTTP2, HTTP1] } else { &[HTTP1] };
        Self { plain: offering(&[HTTP1]), best: offering(best) }
    }

    /// With a proxy.
    pub(crate) async fn with_proxy<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &Host,
        io: S,
    ) -> io::Result<TlsStream<S>> {
        self.plain.connect(name_of(host)?, io).await
    }

    /// With a server. Also says whether it wants HTTP/2.
    pub(crate) async fn with_server<S>(&self, host: &Host, io: S) -> io::Result<(TlsStream<S>, bool)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let stream = self.best.connect(name_of(host)?, io).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, http2))
    }
}

fn name_of(host: &Host) -> io::Result<ServerName<'static>> {
    Ok(match host {
        Host::Domain(name) => {
            ServerName::try_from(name.clone()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
        }
        Host::Ipv4(address) => ServerName::IpAddress(std::net::IpAddr::V4(*address).into()),
        Host::Ipv6(address) => ServerName::IpAddress(std::net::IpAddr::V6(*address).into()),
    })
}

/// What TLS trusts, and who it says it is.
pub struct Trust {
    /// PEM; besides the platform's, or alone.
    pub authorities: Option<Vec<u8>>,
    /// Whether the platform's are not trusted.
    pub only_these: bool,
    /// A certificate chain and its key, PEM.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// What is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("`{name}` is not PEM: {source}")]
    NotPem {
        /// The option's.
        name: &'static str,
        /// What is wrong with it.
        source: NotPem,
    },
    /// It can be read, and has none.
    #[error("`{0}` has no certificate")]
    NoCertificate(&'static str),
    /// Likewise.
    #[error("`{0}` has no private key")]
    NoKey(&'static str),
    /// One of the authorities is none.
    #[error("`ca`: {0}")]
    Authority(#[source] rustls::Error),
    /// Those that the system trusts.
    #[error("the platform's certificates cannot be read: {0}")]
    Platform(#[source] rustls::Error),
    /// The chain and the key do not fit.
    #[error("`client_cert`: {0}")]
    Client(#[source] rustls::Error),
    /// rustls cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Trust {
    /// The error says what is wrong.
    pub fn config(&self) -> Result<ClientConfig, TrustError> {
        let certificates = |name: &'static str, pem: &[u8]| {
            let found = pem::certificates(pem).map_err(|source| TrustError::NotPem { name, source })?;
            if found.is_empty() { Err(TrustError::NoCertificate(name)) } else { Ok(found) }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let extra = match &self.authorities {
            Some(pem) => certificates("ca", pem)?,
            None => Vec::new(),
        };
        let builder = if self.only_these {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in extra {
                roots.add(certificate).map_err(TrustError::Authority)?;
            }
            builder.with_root_certificates(roots)
        } else {
            let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider)
                .map_err(TrustError::Platform)?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let Some((chain, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let key = pem::key(key).map_err(|source| TrustError::NotPem { name: "client_key", source })?;
        let key = key.ok_or(TrustError::NoKey("client_key"))?;
        builder.with_client_auth_cert(certificates("client_cert", chain)?, key).map_err(TrustError::Client)
    }
}
