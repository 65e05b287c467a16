//! `wasgi.Network`: the real network, under a policy.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString};

use crate::http::url_pattern::Pattern;
use crate::network::Network;
use crate::network::no_proxy::{Bypass, network};
use crate::network::options::Options;
use crate::network::policy::Policy;
use crate::network::pool_state::Caps;
use crate::network::proxy::Proxies;
use crate::network::tls::Trust;
use crate::outgoing::host_request::HostRequest;
use crate::py::bytes::bytes_of;
use crate::py::errors::to_py;
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::operation::Operation;
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::output::{Flushed, GuestOutput, Sinks};
use crate::py::paths::without_nul;
use crate::py::process_of;
use crate::py::values::{Count, Number, Reduced, Seconds, hash_of, plain, reduce, replaced};

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
#[pyclass(name = "Network", module = "wasgi", frozen)]
pub struct PyNetwork {
    pub network: Arc<Network>,
    /// What was given and is not the default.
    settings: Py<PyDict>,
}

/// What a setting says in a repr: nothing that is secret.
fn shown_setting(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(match (name, value.extract::<String>()) {
        ("client_key", _) => "...".to_owned(),
        ("proxy", Ok(url)) => match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) => {
                let (before, after) = (url.get(..scheme + 3).unwrap_or(""), url.get(at..).unwrap_or(""));
                PyString::new(value.py(), &format!("{before}...{after}")).repr()?.to_string()
            }
            (None, Some(_)) => "...".to_owned(),
            _ => value.repr()?.to_string(),
        },
        _ => match value.cast::<PyBytes>() {
            Ok(bytes) => format!("<{} bytes>", bytes.as_bytes().len()),
            Err(_) => value.repr()?.to_string(),
        },
    })
}

/// What a sequence of text was given as, once and for all: it may be an iterator.
fn listed<'py>(name: &str, given: Option<&Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let list = |given: &Bound<'py, PyAny>| Ok(PyList::new(given.py(), texts(name, given)?)?.into_any());
    given.map(list).transpose()
}

/// A path as text, or a copy of bytes.
fn path_or_bytes<'py>(name: &str, given: Option<&Bound<'py, PyAny>>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(given) = given else { return Ok(None) };
    let py = given.py();
    if let Some(bytes) = bytes_of(given)? {
        return Ok(Some(PyBytes::new(py, &bytes).into_any()));
    }
    let path: PathBuf =
        given.extract().map_err(|_| PyTypeError::new_err(format!("`{name}` must be a path, or bytes of PEM")))?;
    Ok(Some(without_nul(name, path)?.into_os_string().into_pyobject(py)?.into_any()))
}

fn texts(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Vec<String>> {
    let wrong = || PyTypeError::new_err(format!("`{name}` must be a sequence of str"));
    if given.is_instance_of::<PyString>() {
        return Err(wrong());
    }
    given.try_iter().map_err(|_| wrong())?.map(|text| text?.extract().map_err(|_| wrong())).collect()
}

fn patterns(name: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Vec<Pattern>> {
    let Some(given) = given else { return Ok(Vec::new()) };
    let parse = |text: String| {
        Pattern::parse(&text)
            .map_err(|why| PyValueError::new_err(format!("`{name}` has an invalid pattern: `{text}`: {why}")))
    };
    texts(name, given)?.into_iter().map(parse).collect()
}

/// As text in the form of `NO_PROXY`, or a sequence of its entries.
fn bypass(given: &Bound<'_, PyAny>) -> PyResult<Bypass> {
    let mut bypass = Bypass::default();
    let mut add = |list: &str| {
        bypass.add(list).map_err(|why| PyValueError::new_err(format!("`no_proxy` has an invalid entry: {why}")))
    };
    match given.extract::<String>() {
        Ok(list) => add(&list)?,
        Err(_) => {
            for list in texts("no_proxy", given)? {
                if list.trim().is_empty() {
                    return Err(PyValueError::new_err("`no_proxy` has an empty entry"));
                }
                add(&list)?;
            }
        }
    }
    Ok(bypass)
}

/// PEM: bytes, or a path to a file of it.
fn pem(name: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Vec<u8>>> {
    let Some(given) = given else { return Ok(None) };
    if let Some(bytes) = bytes_of(given)? {
        return Ok(Some(bytes.to_vec()));
    }
    let path: PathBuf =
        given.extract().map_err(|_| PyTypeError::new_err(format!("`{name}` must be a path, or bytes of PEM")))?;
    Ok(Some(std::fs::read(path)?))
}

/// Some thirty years: what is added to a moment must be one still.
const LONGEST: Duration = Duration::from_secs(1_000_000_000);

fn seconds(name: &str, given: Option<f64>) -> PyResult<Option<Duration>> {
    given
        .map(|seconds| {
            let duration = Duration::try_from_secs_f64(seconds).ok();
            duration.filter(|duration| !duration.is_zero() && *duration <= LONGEST).ok_or_else(|| {
                PyValueError::new_err(format!(
                    "`{name}` must be a number of seconds above 0 and up to {}, or None: {seconds}",
                    LONGEST.as_secs()
                ))
            })
        })
        .transpose()
}

/// What a method is taken for that is one of these but for its case.
const STANDARD: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
    Method::TRACE,
    Method::CONNECT,
];

fn positive(name: &str, given: i64) -> PyResult<usize> {
    usize::try_from(given)
        .ok()
        .filter(|given| (1..=1 << 20).contains(given))
        .ok_or_else(|| PyValueError::new_err(format!("`{name}` must be from 1 to {}: {given}", 1 << 20)))
}

#[pymethods]
impl PyNetwork {
    #[new]
    #[pyo3(
        signature = (allow, *, deny=None, methods=None, allow_private=false, addresses=None, ca=None, only_ca=false,
        client_cert=None, client_key=None, http2=true, h2c=false, proxy=None, no_proxy=None, proxy_resolves=false,
        trust_env=false, connect_timeout=Number(10.0), first_byte_timeout=None, between_bytes_timeout=None, timeout=None,
        retries=Number(0), idle_timeout=Number(30.0), connection_lifetime=Some(Number(300.0)),
        max_connections=Number(256), max_connections_per_host=None, response_fields=Number(65536), response_body=None),
        text_signature = "(allow, *, deny=None, methods=None, allow_private=False, addresses=None, ca=None, only_ca=False, \
            client_cert=None, client_key=None, http2=True, h2c=False, proxy=None, no_proxy=None, \
            proxy_resolves=False, trust_env=False, connect_timeout=10.0, first_byte_timeout=None, \
            between_bytes_timeout=None, timeout=None, retries=0, idle_timeout=30.0, \
            connection_lifetime=300.0, max_connections=256, max_connections_per_host=None, \
            response_fields=65536, response_body=None)"
    )]
    #[allow(clippy::too_many_arguments)]
    fn new(
        allow: &Bound<'_, PyAny>,
        deny: Option<&Bound<'_, PyAny>>,
        methods: Option<&Bound<'_, PyAny>>,
        allow_private: bool,
        addresses: Option<&Bound<'_, PyAny>>,
        ca: Option<&Bound<'_, PyAny>>,
        only_ca: bool,
        client_cert: Option<&Bound<'_, PyAny>>,
        client_key: Option<&Bound<'_, PyAny>>,
        http2: bool,
        h2c: bool,
        proxy: Option<&str>,
        no_proxy: Option<&Bound<'_, PyAny>>,
        proxy_resolves: bool,
        trust_env: bool,
        connect_timeout: Seconds,
        first_byte_timeout: Option<Seconds>,
        between_bytes_timeout: Option<Seconds>,
        timeout: Option<Seconds>,
        retries: Count,
        idle_timeout: Seconds,
        connection_lifetime: Option<Seconds>,
        max_connections: Count,
        max_connections_per_host: Option<Count>,
        response_fields: Count,
        response_body: Option<Count>,
    ) -> PyResult<Self> {
        let py = allow.py();
        let settings = PyDict::new(py);
        let allow = &PyList::new(py, texts("allow", allow)?)?.into_any();
        settings.set_item("allow", allow)?;
        let (deny, methods, addresses) =
            (listed("deny", deny)?, listed("methods", methods)?, listed("addresses", addresses)?);
        let no_proxy = match no_proxy {
            Some(text) if text.is_instance_of::<PyString>() => Some(text.clone()),
            given => listed("no_proxy", given)?,
        };
        let (ca, client_cert, client_key) = (
            path_or_bytes("ca", ca)?,
            path_or_bytes("client_cert", client_cert)?,
            path_or_bytes("client_key", client_key)?,
        );
        let (deny, methods, addresses, no_proxy) =
            (deny.as_ref(), methods.as_ref(), addresses.as_ref(), no_proxy.as_ref());
        let (ca, client_cert, client_key) = (ca.as_ref(), client_cert.as_ref(), client_key.as_ref());
        let objects = [
            ("deny", deny),
            ("methods", methods),
            ("addresses", addresses),
            ("ca", ca),
            ("client_cert", client_cert),
            ("client_key", client_key),
            ("no_proxy", no_proxy),
        ];
        for (name, given) in objects {
            if let Some(given) = given {
                settings.set_item(name, given)?;
            }
        }
        let flags = [
            ("allow_private", allow_private, false),
            ("only_ca", only_ca, false),
            ("http2", http2, true),
            ("h2c", h2c, false),
            ("proxy_resolves", proxy_resolves, false),
            ("trust_env", trust_env, false),
        ];
        for (name, given, _) in flags.into_iter().filter(|(_, given, default)| given != default) {
            settings.set_item(name, given)?;
        }
        if let Some(proxy) = proxy {
            settings.set_item("proxy", proxy)?;
        }
        let times = [
            ("connect_timeout", Some(connect_timeout), Some(10.0)),
            ("first_byte_timeout", first_byte_timeout, None),
            ("between_bytes_timeout", between_bytes_timeout, None),
            ("timeout", timeout, None),
            ("idle_timeout", Some(idle_timeout), Some(30.0)),
            ("connection_lifetime", connection_lifetime, Some(300.0)),
        ];
        for (name, given, default) in times {
            let given = plain(given);
            if given != default {
                settings.set_item(name, given)?;
            }
        }
        let counts = [
            ("retries", Some(retries), Some(0)),
            ("max_connections", Some(max_connections), Some(256)),
            ("max_connections_per_host", max_connections_per_host, None),
            ("response_fields", Some(response_fields), Some(65536)),
            ("response_body", response_body, None),
        ];
        for (name, given, default) in counts {
            let given = plain(given);
            if given != default {
                settings.set_item(name, given)?;
            }
        }
        let (Number(connect_timeout), Number(idle_timeout)) = (connect_timeout, idle_timeout);
        let (first_byte_timeout, between_bytes_timeout, timeout) =
            (plain(first_byte_timeout), plain(between_bytes_timeout), plain(timeout));
        let connection_lifetime = plain(connection_lifetime);
        let (Number(retries), Number(max_connections), Number(response_fields)) =
            (retries, max_connections, response_fields);
        let (max_connections_per_host, response_body) = (plain(max_connections_per_host), plain(response_body));
        let methods = methods
            .map(|given| {
                let parse = |name: String| {
                    let method = Method::from_bytes(name.as_bytes())
                        .map_err(|_| PyValueError::new_err(format!("`methods` has an invalid method: {name:?}")))?;
                    let upper = Method::from_bytes(name.to_ascii_uppercase().as_bytes()).ok();
                    match upper.filter(|upper| *upper != method && STANDARD.contains(upper)) {
                        // RFC 9110, 9.1
                        Some(upper) => Err(PyValueError::new_err(format!(
                            "methods are case-sensitive, and `methods` has `{name}`; \
                             hint: `{upper}`"
                        ))),
                        None if method == Method::CONNECT => Err(PyValueError::new_err(
                            "`methods` has `CONNECT`, which no guest may use: it is for proxies",
                        )),
                        None => Ok(method),
                    }
                };
                texts("methods", given)?.into_iter().map(parse).collect::<PyResult<Vec<_>>>()
            })
            .transpose()?;
        let addresses = match addresses {
            None => Vec::new(),
            Some(given) => {
                let parse = |text: String| {
                    let network = network(&text).ok_or_else(|| {
                        PyValueError::new_err(format!("`addresses` has neither an address nor a network: {text:?}"))
                    })?;
                    if network.prefix_len() == network.max_prefix_len() && network.addr().is_unspecified() {
                        let why = format!("`addresses` has an address that is never connected to: {text:?}");
                        return Err(PyValueError::new_err(why));
                    }
                    Ok(network)
                };
                texts("addresses", given)?.into_iter().map(parse).collect::<PyResult<Vec<_>>>()?
            }
        };
        let allow = patterns("allow", Some(allow))?;
        if let Some(never) = allow.iter().find(|pattern| pattern.is_unspecified()) {
            return Err(PyValueError::new_err(format!("`allow` has an address that is never connected to: `{never}`")));
        }
        let policy = Policy { allow, deny: patterns("deny", deny)?, methods, allow_private, addresses };
        let client = match (pem("client_cert", client_cert)?, pem("client_key", client_key)?) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            _ => return Err(PyValueError::new_err("`client_cert` and `client_key` go together")),
        };
        let trust = Trust { authorities: pem("ca", ca)?, only_these: only_ca, client };
        if only_ca && trust.authorities.is_none() {
            return Err(PyValueError::new_err("`only_ca` needs `ca`"));
        }
        let proxies = match (proxy, trust_env) {
            (Some(_), true) => return Err(PyValueError::new_err("`proxy` and `trust_env` exclude each other")),
            (Some(url), false) => {
                let bypass = no_proxy.map(bypass).transpose()?.unwrap_or_default();
                let proxies = Proxies::new(url, bypass, proxy_resolves);
                // not the URL itself: it may have a password
                proxies.map_err(|why| PyValueError::new_err(format!("`proxy` cannot be used: {why}")))?
            }
            (None, _) if no_proxy.is_some() => return Err(PyValueError::new_err("`no_proxy` needs `proxy`")),
            (None, true) => Proxies::of_environment(proxy_resolves)
                .map_err(|why| PyValueError::new_err(format!("`trust_env`: the proxy cannot be used: {why}")))?,
            (None, false) if proxy_resolves => {
                return Err(PyValueError::new_err("`proxy_resolves` needs `proxy` or `trust_env`"));
            }
            (None, false) => Proxies::none(),
        };
        let total = positive("max_connections", max_connections)?;
        if let Some(given) = max_connections_per_host.filter(|given| *given > max_connections) {
            return Err(PyValueError::new_err(format!(
                "`max_connections_per_host` must not be above `max_connections`, which is {max_connections}: {given}"
            )));
        }
        let caps = Caps {
            total,
            per_origin: max_connections_per_host
                .map_or(Ok(total), |given| positive("max_connections_per_host", given))?,
            idle: seconds("idle_timeout", Some(idle_timeout))?.unwrap_or_default(),
            lifetime: seconds("connection_lifetime", connection_lifetime)?,
        };
        let retries = u32::try_from(retries).ok().filter(|retries| *retries <= 16);
        let body = response_body.map(|given| {
            u64::try_from(given)
                .map_err(|_| PyValueError::new_err(format!("`response_body` must not be below 0: {given}")))
        });
        let options = Options {
            connect: seconds("connect_timeout", Some(connect_timeout))?.unwrap_or_default(),
            first_byte: seconds("first_byte_timeout", first_byte_timeout)?,
            between_bytes: seconds("between_bytes_timeout", between_bytes_timeout)?,
            total: seconds("timeout", timeout)?,
            caps,
            http2,
            h2c,
            head: u32::try_from(positive("response_fields", response_fields)?).unwrap_or(u32::MAX),
            body: body.transpose()?,
            retries: retries.ok_or_else(|| PyValueError::new_err("`retries` must be from 0 to 16"))?,
        };
        let tls = trust.config().map_err(|why| PyValueError::new_err(why.to_string()))?;
        Ok(Self { network: Arc::new(Network::new(policy, options, tls, proxies)), settings: settings.unbind() })
    }

    /// What `wasgi.outgoing.call` awaits.
    fn _answer(slf: Py<Self>, request: Py<PyRequest>) -> Awaitable {
        Awaitable::new(Asking::New { network: slf, request })
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut parts = Vec::new();
        for (name, value) in self.settings.bind(py).iter() {
            let name: String = name.extract()?;
            parts.push(format!("{name}={}", shown_setting(&name, &value)?));
        }
        Ok(format!("wasgi.Network({})", parts.join(", ")))
    }

    /// By its settings; connections are each one's own.
    fn __eq__(&self, py: Python<'_>, other: &Bound<'_, Self>) -> PyResult<bool> {
        self.settings.bind(py).eq(other.get().settings.bind(py))
    }

    fn __hash__(&self, py: Python<'_>) -> PyResult<u64> {
        let settings = self.settings.bind(py);
        Ok(hash_of(&format!("{:?} {}", settings.get_item("allow")?, settings.len())))
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        reduce(&slf.get_type(), slf.get().settings.bind(slf.py()))
    }

    #[pyo3(signature = (**changes))]
    fn __replace__<'py>(slf: &Bound<'py, Self>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        replaced(&slf.get_type(), &slf.get().settings.bind(slf.py()).copy()?, changes)
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }
}

/// A request of Python's own. It is sent when it is awaited.
enum Asking {
    New {
        network: Py<PyNetwork>,
        request: Py<PyRequest>,
    },
    Sent(HostRequest, Arc<GuestOutput>),
    /// What the log is told of it is on its way.
    Answered(Flushed<Answered>),
    Done,
}

impl Asking {
    fn begin(py: Python<'_>, network: &PyNetwork, request: &PyRequest) -> PyResult<Self> {
        let event_loop = LoopCore::of(&LoopCore::running_loop(py)?)?;
        let context = match request.body().is_python() {
            true => py.import(intern!(py, "contextvars"))?.call_method0(intern!(py, "copy_context"))?,
            false => py.None().into_bound(py),
        };
        let timeouts = request.limits();
        let (request, feed) = request.to_guest(py, Some(&event_loop), &context)?;
        let asked = HostRequest::new(process_of(py)?, &*network.network, request, timeouts)
            .map_err(|error| to_py(py, &error))?;
        if let Some(feed) = feed {
            feed.belongs_to(asked.owner().abort_handle());
        }
        let output = GuestOutput::new(Sinks::of_no_app(py)?, asked.warnings().clone(), 0);
        Ok(Self::Sent(asked, output))
    }
}

impl Operation for Asking {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Self::New { network, request } = self {
            *self = match Self::begin(py, network.get(), request.get()) {
                Ok(sent) => sent,
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        if let Self::Sent(asked, output) = self {
            let answered = match std::task::ready!(asked.poll(cx)) {
                Ok(response) => Py::new(py, PyResponse::from_upstream(response)).map(Py::into_any),
                Err(error) => Err(to_py(py, &error)),
            };
            let output = output.clone();
            *self = Self::Answered(Flushed::new(Answered(Some(answered)), Some(output)));
        }
        let Self::Answered(answered) = self else { return Poll::Pending };
        let answered = std::task::ready!(answered.poll(py, cx));
        *self = Self::Done;
        Poll::Ready(answered)
    }
}

/// What is known already.
struct Answered(Option<PyResult<Py<PyAny>>>);

impl Operation for Answered {
    fn poll(&mut self, py: Python<'_>, _: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        Poll::Ready(self.0.take().unwrap_or_else(|| Ok(py.None())))
    }
}
