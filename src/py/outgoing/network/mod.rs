//! `wasgi.Network`: the real network, under a policy.

mod call;
mod settings;

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::ClientConfig;

use crate::network::no_proxy::network;
use crate::network::policy::Policy;
use crate::network::pool_state::Caps;
use crate::network::proxy::Proxies;
use crate::network::tls::Trust;
use crate::network::{Network, Options};
use crate::py::executor::awaitable::Awaitable;
use crate::py::message::request::PyRequest;
use crate::py::options::{ToCore, not_negative, options, seconds, within};
use crate::py::outgoing::network::call::Call;
use crate::py::outgoing::network::settings::{NoProxy, PathOrPem, method, patterns};

/// Most connections, and bytes of a response's head.
const MOST: i64 = 1 << 20;

options! {
    /// The real network, natively, under a policy: an upstream for ``App(outgoing=...)`` and for routes.
    ///
    /// A request is checked before anything else; then its name is resolved, and each address is checked before it is
    /// connected to: what is not the public internet's (loopback, private, link-local, carrier-grade NAT, multicast,
    /// documentation, clouds' metadata) is blocked unless that address is allowed: by ``addresses``, by ``allow_private``,
    /// or by a pattern in ``allow`` that is the address; one with a name (``"http://localhost:8000"``) allows no such
    /// address. What the name does not pass is ``HTTP-request-denied`` for the guest, what the address does not pass
    /// ``destination-IP-prohibited``; the logger ``wasgi.outgoing`` says which rule it was, and what would allow it.
    /// Redirects are the guest's business.
    ///
    /// Connections are kept and shared by all guests of the apps that have this object: HTTP/1.1, or HTTP/2 where TLS
    /// agrees on it (ALPN). The address of a kept one is checked again for each request. The platform's certificates are
    /// trusted. Middleware in Python asks it by `wasgi.outgoing.call`.
    ///
    /// It is a value: compared by its settings, pickled with them (the keys and passwords among them, too), and changed by
    /// ``copy.replace`` (Python 3.13). Each has connections of its own; a copy is the same object.
    ///
    /// A kept connection that the peer has closed just when it was used again is replaced, if the request is one that may
    /// be sent twice (RFC 9110, 9.2.2) and has no body, or if nothing of it was sent. That is no retry. Nor is it when a
    /// peer of HTTP/2 says that it has not processed a request (GOAWAY, REFUSED_STREAM: RFC 9113, 8.7): that is sent again,
    /// whatever its method, with its body if no more than 64 KiB of it had been sent.
    ///
    /// Args:
    ///     allow: Patterns of what may be asked (see `wasgi.outgoing.route`): ``"https://api.example.com"``,
    ///         ``"http://*.internal:8080"``, ``"https://example.org/v1/*"``.
    ///     deny: Patterns of what may not, whatever ``allow`` says.
    ///     methods: The methods that may be used; None: all. They are case-sensitive: ``"GET"``.
    ///     allow_private: Whether addresses that are not the public internet's may be reached.
    ///     addresses: Addresses and networks (``"10.1.0.0/16"``) that may be reached whatever they are for. A pattern in
    ///         ``allow`` that is an address allows that one, too.
    ///     ca: Certificates of more authorities: a path, or bytes of PEM.
    ///     only_ca: Whether these are the only ones.
    ///     client_cert: A certificate chain for servers that ask for one: a path, or bytes of PEM.
    ///     client_key: Its key, likewise.
    ///     http2: Whether HTTP/2 is offered with TLS.
    ///     h2c: Whether HTTP/2 is spoken without TLS, by prior knowledge (RFC 9113, 3.3): for gRPC inside a cluster.
    ///     proxy: The URL of a proxy for all requests: ``http``, ``https``, ``socks5`` or ``socks5h``, with a user and a
    ///         password if it wants them. It is asked for tunnels to addresses that were checked. Its own address is not
    ///         checked. Where it cannot be used, nothing goes around it: ``destination-unavailable``, or
    ///         ``configuration-error`` if it is a matter of passwords.
    ///     no_proxy: What is reached without it: entries, or one str of them with commas or spaces between, as in
    ///         ``NO_PROXY``. An entry is ``"*"``, a name (``"example.com"`` and ``".example.com"`` mean it and all below
    ///         it, ``"*.example.com"`` all below it), an address or a network, each with a port or not
    ///         (``"[::1]:8080"``), for one scheme or both (``"https://example.com"``).
    ///     proxy_resolves: Whether the proxy resolves names (as ``socks5h`` always does). Then what is behind a name is
    ///         its business: only addresses in URLs are checked.
    ///     trust_env: Whether proxies are taken from the environment: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``,
    ///         ``NO_PROXY``, in lower case (which comes first) or upper. Where ``REQUEST_METHOD`` is set, as in CGI
    ///         scripts, ``HTTP_PROXY`` in upper case is passed over, since clients can set it.
    ///     connect_timeout: Seconds for name, TCP and TLS together, and for the wait for a free connection, in all
    ///         attempts: ``DNS-timeout``, ``connection-timeout``, ``connection-limit-reached``. The guest's own options can
    ///         only shorten this and the next two.
    ///     first_byte_timeout: Seconds from the connection to the head of the response, in all attempts:
    ///         ``HTTP-response-timeout``. If the guest's own option is the shorter one, ``connection-read-timeout``, as
    ///         through any upstream.
    ///     between_bytes_timeout: Seconds between two chunks of a response: ``connection-read-timeout``; and for which the
    ///         peer may leave unread what is written to it: ``connection-write-timeout``. (An upload that the flow control
    ///         of HTTP/2 holds up is under ``timeout`` alone.)
    ///     timeout: Seconds from the request to the end of its response, retries included: ``HTTP-response-timeout``.
    ///     retries: How often a request is tried again, after 50 ms and twice as long each next time, within the limits of
    ///         time: if it was not connected; or if its connection or stream was cut before the response, and the request
    ///         may be sent twice and has no body. What a rule denies, or a certificate, is not tried again; nor is what
    ///         took too long.
    ///     idle_timeout: Seconds that a connection is kept that nobody uses.
    ///     connection_lifetime: Seconds after which a connection is not used again, so that names are resolved anew; None:
    ///         as long as it works.
    ///     max_connections: Connections at once. One that is idle makes room for another host's; else a request waits for
    ///         one, for as long as for connecting. Apps that share this network take turns, and none may have all of them.
    ///     max_connections_per_host: Those to one host and port, no more than ``max_connections``; None: no other limit.
    ///     response_fields: Bytes of a response's head, in however many fields: ``HTTP-response-header-section-size``; and
    ///         of its trailers: ``HTTP-response-trailer-section-size``.
    ///     response_body: Bytes of a response's body: ``HTTP-response-body-size``; None: any number.
    ///
    /// Raises:
    ///     ValueError: A pattern, method, address, proxy (of the environment, too) or certificate is none, or would have no
    ///         effect; a number is out of range.
    ///     OSError: A file cannot be read.
    ///
    /// Example:
    ///     >>> app = wasgi.App("plugin.wasm", outgoing=wasgi.Network(["https://api.example.com/v1/"]))
    #[pyclass(name = "Network", module = "wasgi")]
    pub struct PyNetwork {
        pub network: Arc<Network>,
    } as "wasgi.Network" of NetworkOptions {
        [allow: Vec<String>],
        deny: Option<Vec<String>> = None,
        methods: Option<Vec<String>> = None,
        allow_private: bool = false,
        addresses: Option<Vec<String>> = None,
        ca: Option<PathOrPem> = None,
        only_ca: bool = false,
        client_cert: Option<PathOrPem> = None,
        client_key: Option<PathOrPem> = None,
        http2: bool = true,
        h2c: bool = false,
        proxy: Option<String> = None,
        no_proxy: Option<NoProxy> = None,
        proxy_resolves: bool = false,
        trust_env: bool = false,
        connect_timeout: f64 = 10.0 => seconds(),
        first_byte_timeout: Option<f64> = None => seconds(),
        between_bytes_timeout: Option<f64> = None => seconds(),
        timeout: Option<f64> = None => seconds(),
        retries: i64 = 0 => within(0, 16),
        idle_timeout: f64 = 30.0 => seconds(),
        connection_lifetime: Option<f64> = 300.0 => seconds(),
        max_connections: i64 = 256 => within(1, MOST),
        max_connections_per_host: Option<i64> = None => within(1, MOST),
        response_fields: i64 = 65536 => within(1, MOST),
        response_body: Option<i64> = None => not_negative("bytes"),
    }
    impl {
        /// What `wasgi.outgoing.call` awaits.
        fn _answer(&self, request: Py<PyRequest>) -> Awaitable {
            Awaitable::new(Call::New { network: self.network.clone(), request })
        }
    }
}

impl PyNetwork {
    fn made(options: NetworkOptions) -> PyResult<Self> {
        let network = Network::new(options.policy()?, options.core()?, options.tls()?, options.proxies()?);
        Ok(Self { network: Arc::new(network), options })
    }
}

/// By its settings; connections are each one's own.
impl PartialEq for PyNetwork {
    fn eq(&self, other: &Self) -> bool {
        self.options == other.options
    }
}

impl NetworkOptions {
    fn policy(&self) -> PyResult<Policy> {
        let allow = patterns("allow", &self.allow)?;
        if let Some(never) = allow.iter().find(|pattern| pattern.is_unspecified()) {
            return Err(PyValueError::new_err(format!("`allow` has an address that is never connected to: `{never}`")));
        }
        let deny = patterns("deny", self.deny.as_deref().unwrap_or_default())?;
        let methods = self.methods.as_ref().map(|names| names.iter().map(|name| method(name)).collect());
        let addresses = self.addresses.iter().flatten().map(|text| {
            let network = network(text).ok_or_else(|| {
                PyValueError::new_err(format!("`addresses` has neither an address nor a network: {text:?}"))
            })?;
            if network.prefix_len() == network.max_prefix_len() && network.addr().is_unspecified() {
                let why = format!("`addresses` has one that is never connected to: {text:?}");
                return Err(PyValueError::new_err(why));
            }
            Ok(network)
        });
        Ok(Policy {
            allow,
            deny,
            methods: methods.transpose()?,
            allow_private: self.allow_private,
            addresses: addresses.collect::<PyResult<_>>()?,
        })
    }

    fn tls(&self) -> PyResult<ClientConfig> {
        let client = match (PathOrPem::read(self.client_cert.as_ref())?, PathOrPem::read(self.client_key.as_ref())?) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("`client_cert` and `client_key` go together")),
        };
        let trust = Trust { authorities: PathOrPem::read(self.ca.as_ref())?, only_these: self.only_ca, client };
        if self.only_ca && trust.authorities.is_none() {
            return Err(PyValueError::new_err("`only_ca` needs `ca`"));
        }
        trust.config().map_err(PyValueError::new_err)
    }

    fn proxies(&self) -> PyResult<Proxies> {
        match (&self.proxy, self.trust_env) {
            (Some(_), true) => Err(PyValueError::new_err("`proxy` and `trust_env` exclude each other")),
            (Some(url), false) => {
                let bypass = self.no_proxy.as_ref().map(NoProxy::bypass).transpose()?.unwrap_or_default();
                let proxies = Proxies::new(url, bypass, self.proxy_resolves);
                // not the URL itself: it may have a password
                proxies.map_err(|why| PyValueError::new_err(format!("`proxy` cannot be used: {why}")))
            }
            (None, _) if self.no_proxy.is_some() => Err(PyValueError::new_err("`no_proxy` needs `proxy`")),
            (None, true) => Proxies::of_environment(self.proxy_resolves)
                .map_err(|why| PyValueError::new_err(format!("`trust_env`: the proxy cannot be used: {why}"))),
            (None, false) if self.proxy_resolves => {
                Err(PyValueError::new_err("`proxy_resolves` needs `proxy` or `trust_env`"))
            }
            (None, false) => Ok(Proxies::none()),
        }
    }

    fn core(&self) -> PyResult<Options> {
        let (max_connections, per_host) = (self.max_connections, self.max_connections_per_host);
        if let Some(given) = per_host.filter(|given| *given > max_connections) {
            return Err(PyValueError::new_err(format!(
                "`max_connections_per_host` must not be above `max_connections`, which is {max_connections}: {given}"
            )));
        }
        let caps = Caps {
            total: max_connections.to_core(),
            per_origin: per_host.unwrap_or(max_connections).to_core(),
            idle: self.idle_timeout.to_core(),
            lifetime: self.connection_lifetime.to_core(),
        };
        Ok(Options {
            connect: self.connect_timeout.to_core(),
            first_byte: self.first_byte_timeout.to_core(),
            between_bytes: self.between_bytes_timeout.to_core(),
            total: self.timeout.to_core(),
            caps,
            http2: self.http2,
            h2c: self.h2c,
            head: self.response_fields.to_core(),
            body: self.response_body.to_core(),
            retries: self.retries.to_core(),
        })
    }
}
