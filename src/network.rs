//! The real network, under a policy: an upstream without Python.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::Semaphore;
use wasmtime_wasi_http::Error as HostError;

use crate::body::GuestBody;
use crate::code::ErrorCode;
use crate::dial::{Dialer, Timed, code_of};
use crate::engine::generation;
use crate::outgoing::{Answer, Paced, Timeouts, Upstream};
use crate::policy::Policy;
use crate::stdio::Stdio;
use crate::sync::lock;

/// How a `Network` connects, and for how long it waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name, TCP and TLS together.
    pub connect: Duration,
    /// From the request to the head of its response.
    pub first_byte: Option<Duration>,
    pub between_bytes: Option<Duration>,
    /// Of an idle connection's life.
    pub idle: Duration,
    /// At once, idle ones counted.
    pub connections: usize,
    pub http2: bool,
    /// Bytes of a response's head.
    pub head: u32,
}

/// An upstream: requests that its policy lets pass are sent.
pub struct Network {
    policy: Arc<Policy>,
    options: Options,
    tls: rustls::ClientConfig,
    /// Connections belong to the runtime of one process.
    client: Mutex<Option<(u64, Pool)>>,
}

type Pool = Client<Timed<HttpsConnector<Dialer>>, Sent>;

impl Network {
    pub fn new(policy: Policy, options: Options, tls: rustls::ClientConfig) -> Self {
        Self { policy: Arc::new(policy), options, tls, client: Mutex::new(None) }
    }

    fn pool(&self) -> Pool {
        let mut client = lock(&self.client);
        match &*client {
            Some((made, pool)) if *made == generation() => pool.clone(),
            _ => {
                let pool = self.make_pool();
                // a parent's belongs to a runtime that does not exist here: not even dropped
                std::mem::forget(client.replace((generation(), pool.clone())));
                pool
            }
        }
    }

    fn make_pool(&self) -> Pool {
        let dialer = Dialer::new(self.policy.clone(), Arc::new(Semaphore::new(self.options.connections)));
        let builder = HttpsConnectorBuilder::new().with_tls_config(self.tls.clone()).https_or_http().enable_http1();
        let connector = match self.options.http2 {
            true => builder.enable_http2().wrap_connector(dialer),
            false => builder.wrap_connector(dialer),
        };
        Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(self.options.idle)
            .http1_max_buf_size(usize::try_from(self.options.head).unwrap_or(usize::MAX).max(8192))
            .http2_max_header_list_size(self.options.head)
            .http2_keep_alive_interval(Duration::from_secs(20))
            .http2_keep_alive_timeout(Duration::from_secs(10))
            .http2_keep_alive_while_idle(true)
            .build(Timed::new(connector, self.options.connect))
    }
}

impl Upstream for Network {
    fn send(&self, request: http::Request<GuestBody>, timeouts: Timeouts, notes: &Arc<Stdio>) -> Answer {
        let (mut parts, body) = request.into_parts();
        if let Err(rule) = self.policy.check(&parts) {
            notes.note(format!("{} {} was denied: {rule}", parts.method, parts.uri));
            return Box::pin(async { Err(ErrorCode::denied()) });
        }
        // the connection's business: it writes them itself
        parts.headers.remove(http::header::HOST);
        let (pool, notes, connect) = (self.pool(), notes.clone(), self.options.connect);
        let first_byte = shorter(self.options.first_byte, timeouts.first_byte);
        let between_bytes = shorter(self.options.between_bytes, timeouts.between_bytes);
        Box::pin(async move {
            let url = parts.uri.clone();
            let asked = async {
                let body = Sent::of(&mut parts, body, connect).await;
                pool.request(http::Request::from_parts(parts, body)).await
            };
            let answered = match first_byte {
                Some(limit) => {
                    tokio::time::timeout(limit, asked).await.map_err(|_| ErrorCode::plain("HTTP-response-timeout"))?
                }
                None => asked.await,
            };
            let response = answered.map_err(|error| {
                let (code, why) = code_of(&error);
                notes.note(format!("{url} was not reached: {why}; the guest is told `{code}`"));
                code
            })?;
            Ok(response.map(|body| {
                let body = body.map_err(|error| code_of(&error).0.into_host());
                Paced::new(body, between_bytes, ()).boxed_unsync()
            }))
        })
    }
}

fn shorter(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// The body of a guest's request on its way out.
pub struct Sent {
    first: Option<Result<Frame<Bytes>, HostError>>,
    rest: Option<GuestBody>,
}

impl Sent {
    /// A GET or its like has a body only if something comes: without, it must not be framed as one. A guest that has begun one
    /// and waits for the answer before it goes on is waited for no longer than `most`.
    async fn of(parts: &mut http::request::Parts, mut body: GuestBody, most: Duration) -> Self {
        let is_framed = parts.headers.contains_key(http::header::CONTENT_LENGTH);
        if body.is_end_stream() {
            return Self { first: None, rest: None };
        }
        if is_framed || !(parts.method.is_safe() || parts.method == http::Method::DELETE) {
            return Self { first: None, rest: Some(body) };
        }
        let first = match tokio::time::timeout(most, body.frame()).await {
            Ok(None) => return Self { first: None, rest: None },
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

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Some(first) = self.first.take() {
            return std::task::Poll::Ready(Some(first));
        }
        match &mut self.rest {
            Some(rest) => std::pin::Pin::new(rest).poll_frame(cx),
            None => std::task::Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.is_none()
    }
}

/// What TLS trusts, and who it says it is.
pub struct Trust {
    /// PEM; besides the platform's, or alone.
    pub authorities: Option<Vec<u8>>,
    pub only_these: bool,
    /// A certificate chain and its key, PEM.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Trust {
    /// The error says what is wrong.
    pub fn config(&self) -> Result<rustls::ClientConfig, String> {
        use rustls::pki_types::pem::PemObject;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let certificates = |name: &str, pem: &[u8]| {
            let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            let found = found.map_err(|error| format!("`{name}` is no PEM: {error}"))?;
            if found.is_empty() { Err(format!("`{name}` has no certificate")) } else { Ok(found) }
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let extra = match &self.authorities {
            Some(pem) => certificates("ca", pem)?,
            None => Vec::new(),
        };
        let builder = if self.only_these {
            let mut roots = rustls::RootCertStore::empty();
            for certificate in extra {
                roots.add(certificate).map_err(|error| format!("`ca`: {error}"))?;
            }
            builder.with_root_certificates(roots)
        } else {
            let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(extra, provider)
                .map_err(|error| format!("the platform's certificates cannot be read: {error}"))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        };
        let Some((chain, key)) = &self.client else { return Ok(builder.with_no_client_auth()) };
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("`client_key` is no PEM: {error}"))?;
        builder
            .with_client_auth_cert(certificates("client_cert", chain)?, key)
            .map_err(|error| format!("`client_cert`: {error}"))
    }
}
