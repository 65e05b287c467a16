//! `wasgi.Network`: the real network, under a policy.

use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Method;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::awaitable::{Awaitable, Operation};
use super::body::bytes_of;
use super::errors::to_py;
use super::loops::LoopCore;
use super::request::PyRequest;
use super::response::PyResponse;
use super::stdio::{Flushed, GuestOutput, Sinks};
use crate::asked::Asked;
use crate::network::{Network, Options};
use crate::pattern::Pattern;
use crate::policy::Policy;
use crate::proxy::Proxies;
use crate::stock::Caps;
use crate::tls::Trust;

#[pyclass(name = "Network", module = "wasgi", frozen)]
pub struct PyNetwork {
    pub network: Arc<Network>,
    shown: String,
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
        Pattern::parse(&text).map_err(|why| PyValueError::new_err(format!("`{name}` has no pattern: `{text}`: {why}")))
    };
    texts(name, given)?.into_iter().map(parse).collect()
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
        trust_env=false, connect_timeout=10.0, first_byte_timeout=None, between_bytes_timeout=None, timeout=None,
        retries=0, idle_timeout=30.0, connection_lifetime=Some(300.0), max_connections=256,
        max_connections_per_host=None, response_fields=65536, response_body=None),
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
        connect_timeout: f64,
        first_byte_timeout: Option<f64>,
        between_bytes_timeout: Option<f64>,
        timeout: Option<f64>,
        retries: i64,
        idle_timeout: f64,
        connection_lifetime: Option<f64>,
        max_connections: i64,
        max_connections_per_host: Option<i64>,
        response_fields: i64,
        response_body: Option<i64>,
    ) -> PyResult<Self> {
        let methods = methods
            .map(|given| {
                let parse = |name: String| {
                    Method::from_bytes(name.as_bytes())
                        .map_err(|_| PyValueError::new_err(format!("`methods` has no method: {name:?}")))
                };
                texts("methods", given)?.into_iter().map(parse).collect::<PyResult<Vec<_>>>()
            })
            .transpose()?;
        let addresses = match addresses {
            None => Vec::new(),
            Some(given) => {
                let parse = |text: String| {
                    let network = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(Into::into));
                    network.map_err(|_| {
                        PyValueError::new_err(format!("`addresses` has neither an address nor a network: {text:?}"))
                    })
                };
                texts("addresses", given)?.into_iter().map(parse).collect::<PyResult<Vec<_>>>()?
            }
        };
        let shown = format!("wasgi.Network(allow={})", allow.repr()?);
        let policy = Policy {
            allow: patterns("allow", Some(allow))?,
            deny: patterns("deny", deny)?,
            methods,
            allow_private,
            addresses,
        };
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
                let direct = no_proxy.map(|given| texts("no_proxy", given)).transpose()?.unwrap_or_default();
                let proxies = Proxies::new(url, &direct, proxy_resolves);
                // not the URL itself: it may have a password
                proxies.map_err(|why| PyValueError::new_err(format!("`proxy` cannot be used: {why}")))?
            }
            (None, _) if no_proxy.is_some() => return Err(PyValueError::new_err("`no_proxy` needs `proxy`")),
            (None, true) => Proxies::of_environment(proxy_resolves)
                .map_err(|why| PyValueError::new_err(format!("`trust_env`: the proxy cannot be used: {why}")))?,
            (None, false) => Proxies::none(),
        };
        let total = positive("max_connections", max_connections)?;
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
        let tls = trust.config().map_err(PyValueError::new_err)?;
        Ok(Self { network: Arc::new(Network::new(policy, options, tls, proxies)), shown })
    }

    /// What `wasgi.outgoing.call` awaits.
    fn _answer(slf: Py<Self>, request: Py<PyRequest>) -> Awaitable {
        Awaitable::new(Asking::New { network: slf, request })
    }

    fn __repr__(&self) -> &str {
        &self.shown
    }
}

/// A request of Python's own. It is sent when it is awaited.
enum Asking {
    New {
        network: Py<PyNetwork>,
        request: Py<PyRequest>,
    },
    Sent(Asked, Arc<GuestOutput>),
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
        let asked = Asked::new(&*network.network, request, timeouts).map_err(|error| to_py(py, &error))?;
        if let Some(feed) = feed {
            feed.belongs_to(asked.owner().stopper());
        }
        let output = GuestOutput::new(Sinks::of_no_app(py)?, asked.notes().clone(), 0);
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
