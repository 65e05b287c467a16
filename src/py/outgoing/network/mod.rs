//! `wasgi.Network`: the real network, under a policy.

mod call;
mod settings;

use std::sync::Arc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rustls::ClientConfig;

use crate::network::Network;
use crate::network::no_proxy::network;
use crate::network::options::Caps;
use crate::network::options::Options;
use crate::network::policy::Policy;
use crate::network::proxy::Proxies;
use crate::network::tls::Trust;
use crate::py::executor::awaitable::Awaitable;
use crate::py::message::request::PyRequest;
use crate::py::options::{ToCore, not_negative, options, seconds, within};
use crate::py::outgoing::network::call::Call;
use crate::py::outgoing::network::settings::{NoProxy, PathOrPem, method, patterns};

/// Most connections, and bytes of a response's head.
const MOST: i64 = 1 << 20;

options! {
    /// The real network, under a policy, with a connection pool: an upstream for ``App(outgoing=...)`` and for routes.
    ///
    /// A request is checked against the rules first. Then its name is resolved, and each address is checked before the
    /// connection. Addresses that are not public (loopback, private, link-local, carrier-grade NAT, multicast,
    /// documentation, cloud metadata) are blocked, unless the address is allowed: by ``addresses``, by ``allow_private``,
    /// or by a pattern in ``allow`` that is the address; a pattern with a name (``"http://localhost:8000"``) allows no such
    /// address. URLs that no rule allows fail with ``HTTP-request-denied``, blocked addresses with
    /// ``destination-IP-prohibited``. The logger ``wasgi.outgoing`` names the rule and what would allow the request.
    /// Redirects are not followed.
    ///
    /// Connections are pooled and shared by all guests of the apps that have this object: HTTP/1.1, or HTTP/2 where TLS
    /// negotiates it (ALPN). The address of a pooled connection is checked again for each request. The platform's
    /// certificates are trusted. Middleware in Python calls it by `wasgi.outgoing.call`.
    ///
    /// It is a value: compared by its settings, pickled with them (keys and passwords included), and changed by
    /// ``copy.replace`` (Python 3.13). Each object has its own connection pool; a copy is the same object.
    ///
    /// If the peer closes a pooled connection just when it is used again, the request is sent on another connection: if it
    /// is idempotent (RFC 9110, 9.2.2) and has no body, or if nothing of it was sent. That does not count as a retry. Nor
    /// does a request that a peer of HTTP/2 reports as not processed (GOAWAY, REFUSED_STREAM: RFC 9113, 8.7): it is sent
    /// again, whatever its method, with its body if at most 64 KiB of it had been sent.
    ///
    /// Args:
    ///     allow: Patterns of the allowed URLs (see `wasgi.outgoing.route`): ``"https://api.example.com"``,
    ///         ``"http://*.internal:8080"``, ``"https://example.org/v1/*"``.
    ///     deny: Patterns of the denied URLs; they take precedence over ``allow``.
    ///     methods: The allowed methods; None: all. They are case-sensitive: ``"GET"``.
    ///     allow_private: Whether addresses that are not public are allowed.
    ///     addresses: Addresses and networks (``"10.1.0.0/16"``) that are allowed, public or not. A pattern in ``allow``
    ///         that is an address allows that one, too.
    ///     ca: Certificates of additional authorities: a path, or bytes of PEM.
    ///     only_ca: Whether only these are trusted.
    ///     client_cert: A certificate chain for servers that request one: a path, or bytes of PEM.
    ///     client_key: Its key, likewise.
    ///     http2: Whether HTTP/2 is offered with TLS.
    ///     h2c: Whether HTTP/2 is spoken without TLS, by prior knowledge (RFC 9113, 3.3): for gRPC inside a cluster.
    ///     proxy: The URL of a proxy for all requests: ``http``, ``https``, ``socks5`` or ``socks5h``, with a user and a
    ///         password if it needs them. It opens tunnels to addresses that were checked. Its own address is not checked.
    ///         If it cannot be used, requests fail: ``destination-unavailable``, or ``configuration-error`` if it rejects
    ///         the password. They never bypass it.
    ///     no_proxy: Hosts that are reached without it: entries, or one str of them, separated by commas or spaces, as in
    ///         ``NO_PROXY``. An entry is ``"*"``, a name (``"example.com"`` and ``".example.com"`` mean it and its
    ///         subdomains, ``"*.example.com"`` its subdomains), an address or a network, each with or without a port
    ///         (``"[::1]:8080"``), for one scheme or both (``"https://example.com"``).
    ///     proxy_resolves: Whether the proxy resolves names (as ``socks5h`` always does). Then addresses behind names are
    ///         not checked, only addresses in URLs.
    ///     trust_env: Whether proxies are taken from the environment: ``HTTP_PROXY``, ``HTTPS_PROXY``, ``ALL_PROXY``,
    ///         ``NO_PROXY``, in lower case (which takes precedence) or upper. Where ``REQUEST_METHOD`` is set, as in CGI
    ///         scripts, ``HTTP_PROXY`` in upper case is ignored, because clients can set it.
    ///     connect_timeout: Seconds for name resolution, TCP and TLS together, and for the wait for a free connection, in
    ///         all attempts: ``DNS-timeout``, ``connection-timeout``, ``connection-limit-reached``. The guest's own
    ///         timeouts can only shorten this and the next two.
    ///     first_byte_timeout: Seconds from the connection to the head of the response, in all attempts:
    ///         ``HTTP-response-timeout``. If the guest's own timeout is shorter, ``connection-read-timeout``, as with any
    ///         upstream.
    ///     between_bytes_timeout: Seconds between two chunks of a response: ``connection-read-timeout``; and seconds in
    ///         which the peer reads nothing of what is written to it: ``connection-write-timeout``. (For an upload that
    ///         waits for the flow control of HTTP/2, only ``timeout`` counts.)
    ///     timeout: Seconds from the request to the end of its response, retries included: ``HTTP-response-timeout``.
    ///     retries: The number of retries of a request, after 50 ms and twice as long each next time, within the timeouts:
    ///         if it was not connected; or if its connection or stream was cut before the response, and the request is
    ///         idempotent and has no body. Denied requests, certificate errors and timeouts are not retried.
    ///     idle_timeout: Seconds that an idle connection is kept.
    ///     connection_lifetime: Seconds after which a connection is not used again, so that its name is resolved again;
    ///         None: no limit.
    ///     max_connections: The size of the connection pool. An idle connection makes room for another host's; otherwise a
    ///         request waits for a connection, within ``connect_timeout``. Apps that share this network take turns, and
    ///         none may have all connections.
    ///     max_connections_per_host: Connections to one host and port, at most ``max_connections``; None: no other limit.
    ///     response_fields: Bytes of a response's head, in however many fields: ``HTTP-response-header-section-size``; and
    ///         of its trailers: ``HTTP-response-trailer-section-size``.
    ///     response_body: Bytes of a response's body: ``HTTP-response-body-size``; None: no limit.
    ///
    /// Raises:
    ///     ValueError: A pattern, method, address, proxy (also of the environment) or certificate is invalid, or would have
    ///         no effect; a number is out of range.
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
            Awaitable::new(Call::New { network: self.network.clone(), request: request.into() })
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
                let why = format!("`addresses` has an address that is never connected to: {text:?}");
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
        trust.config().map_err(|why| PyValueError::new_err(why.to_string()))
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
