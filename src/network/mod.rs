//! The real network, under a policy: an upstream without Python.

mod attempt;
pub(crate) mod connect;
mod connection;
pub(crate) mod connection_task;
pub(crate) mod dns;
pub(crate) mod error;
mod hpack;
mod kept;
pub mod no_proxy;
pub mod options;
pub(crate) mod origin;
pub mod places;
pub mod policy;
pub(crate) mod pool;
pub mod pool_state;
pub mod proxy;
pub(crate) mod request_body;
mod request_source;
mod response_body;
pub(crate) mod special_addresses;
pub(crate) mod stream;
pub mod tls;
pub(crate) mod traffic;

use std::sync::Arc;

use http::Request;
use http::header::HOST;

use crate::exchange::guest_body::GuestBody;
use crate::exchange::refusals::{Hint, Refused};
use crate::exchange::stdio::Stdio;
use crate::http::error_code::ErrorCode;
use crate::network::attempt::{Ask, FirstByte, shorter};
use crate::network::connect::Dialer;
use crate::network::dns::System;
use crate::network::options::Options;
use crate::network::origin::Origin;
use crate::network::places::Apps;
use crate::network::policy::{Denial, Policy};
use crate::network::pool::Pool;
use crate::network::proxy::Proxies;
use crate::network::tls::Tls;
use crate::outgoing::upstream::{Answer, Timeouts, Upstream};
use crate::process::fork::PerFork;

/// An upstream: requests that its policy lets pass are sent.
pub struct Network {
    policy: Arc<Policy>,
    options: Arc<Options>,
    tls: rustls::ClientConfig,
    proxies: Arc<Proxies>,
    /// Who shares its connections.
    apps: Apps,
    /// Connections belong to the runtime of one process.
    pool: PerFork<Pool>,
}

impl Network {
    /// Nothing is connected until a request is sent.
    pub fn new(policy: Policy, options: Options, tls: rustls::ClientConfig, proxies: Proxies) -> Self {
        let (policy, options, proxies) = (Arc::new(policy), Arc::new(options), Arc::new(proxies));
        Self { policy, options, tls, proxies, apps: Apps::default(), pool: PerFork::new() }
    }

    /// The apps that share its pool.
    pub fn apps(&self) -> &Apps {
        &self.apps
    }

    fn pool(&self) -> Arc<Pool> {
        self.pool.get(|| self.make_pool())
    }

    fn make_pool(&self) -> Pool {
        let Options { http2, h2c, between_bytes, caps, head, .. } = *self.options;
        let dialer = Dialer {
            policy: self.policy.clone(),
            resolver: Arc::new(System::default()),
            proxies: self.proxies.clone(),
            tls: Tls::new(self.tls.clone(), http2),
            h2c,
            unread: between_bytes,
        };
        Pool::new(dialer, caps, head, http2 || h2c, self.apps.clone())
    }
}

impl Upstream for Network {
    fn send(&self, request: Request<GuestBody>, timeouts: Timeouts, warnings: &Arc<Stdio>) -> Answer {
        let (mut parts, body) = request.into_parts();
        let target = match self.policy.check(&parts) {
            Ok(target) => target,
            Err(denial) => {
                warnings.refused(&Refused {
                    uri: &parts.uri,
                    what: &format!("was denied: {denial}"),
                    hint: &|origin| {
                        let origin = origin.filter(|_| denial == Denial::NotAllowed)?;
                        Some(Hint {
                            code: format!("`wasgi.Network(allow=[..., \"{origin}\"])`"),
                            flag: Some(format!("`--allow {origin}`")),
                        })
                    },
                });
                return Box::pin(async { Err(ErrorCode::denied().into()) });
            }
        };
        let Some(origin) = Origin::of(&target) else {
            return Box::pin(async { Err(ErrorCode::plain("HTTP-request-URI-invalid").into()) });
        };
        // the connection's business: it writes them itself
        parts.headers.remove(HOST);
        let ask = Ask {
            connect: shorter(Some(self.options.connect), timeouts.connect).unwrap_or(self.options.connect),
            first_byte: FirstByte::of(self.options.first_byte, timeouts.first_byte),
            between_bytes: shorter(self.options.between_bytes, timeouts.between_bytes),
            pool: self.pool(),
            options: self.options.clone(),
            warnings: warnings.clone(),
            app: warnings.app(),
            origin,
            target,
        };
        Box::pin(ask.answered(parts, body))
    }
}
