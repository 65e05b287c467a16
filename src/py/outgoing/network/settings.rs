//! What the options of `wasgi.Network` say: policy, trust, proxies, limits.

use std::ffi::OsString;
use std::path::PathBuf;

use http::Method;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;
use rustls::ClientConfig;

use crate::http::url_pattern::Pattern;
use crate::network::Options;
use crate::network::no_proxy::{Bypass, network};
use crate::network::policy::Policy;
use crate::network::pool_state::Caps;
use crate::network::proxy::Proxies;
use crate::network::tls::Trust;
use crate::py::bytes::bytes_of;
use crate::py::options::{Setting, ToCore};
use crate::py::outgoing::network::NetworkOptions;
use crate::py::paths::without_nul;

impl Setting for Vec<String> {
    type Given<'py> = Bound<'py, PyAny>;

    fn given(name: &str, given: Self::Given<'_>) -> PyResult<Self> {
        let wrong = || PyTypeError::new_err(format!("`{name}` must be a sequence of str"));
        if given.is_instance_of::<PyString>() {
            return Err(wrong());
        }
        given.try_iter().map_err(|_| wrong())?.map(|text| text?.extract().map_err(|_| wrong())).collect()
    }
}

impl Setting for Option<Vec<String>> {
    type Given<'py> = Option<Bound<'py, PyAny>>;

    fn given(name: &str, given: Self::Given<'_>) -> PyResult<Self> {
        given.map(|given| Setting::given(name, given)).transpose()
    }
}

/// A path to a file of PEM, or PEM.
#[derive(Clone, PartialEq, IntoPyObject)]
pub enum PathOrPem {
    Path(OsString),
    Pem(Vec<u8>),
}

impl PathOrPem {
    fn read(given: Option<&Self>) -> PyResult<Option<Vec<u8>>> {
        Ok(match given {
            None => None,
            Some(Self::Pem(pem)) => Some(pem.clone()),
            Some(Self::Path(path)) => Some(std::fs::read(path)?),
        })
    }
}

impl Setting for Option<PathOrPem> {
    type Given<'py> = Option<Bound<'py, PyAny>>;

    fn given(name: &str, given: Self::Given<'_>) -> PyResult<Self> {
        let Some(given) = given else { return Ok(None) };
        if let Some(bytes) = bytes_of(&given)? {
            return Ok(Some(PathOrPem::Pem(bytes.to_vec())));
        }
        let path: PathBuf =
            given.extract().map_err(|_| PyTypeError::new_err(format!("`{name}` must be a path, or bytes of PEM")))?;
        Ok(Some(PathOrPem::Path(without_nul(name, path)?.into_os_string())))
    }
}

/// Text in the form of `NO_PROXY`, or a sequence of its entries.
#[derive(Clone, PartialEq, IntoPyObject)]
pub enum NoProxy {
    List(String),
    Entries(Vec<String>),
}

impl NoProxy {
    fn bypass(&self) -> PyResult<Bypass> {
        let mut bypass = Bypass::default();
        let mut add = |list: &str| {
            bypass
                .add(list)
                .map_err(|why| PyValueError::new_err(format!("`no_proxy` has an entry that means nothing: {why}")))
        };
        match self {
            Self::List(list) => add(list)?,
            Self::Entries(entries) => {
                for entry in entries {
                    if entry.trim().is_empty() {
                        return Err(PyValueError::new_err("`no_proxy` has an entry that is empty"));
                    }
                    add(entry)?;
                }
            }
        }
        Ok(bypass)
    }
}

impl Setting for Option<NoProxy> {
    type Given<'py> = Option<Bound<'py, PyAny>>;

    fn given(name: &str, given: Self::Given<'_>) -> PyResult<Self> {
        let Some(given) = given else { return Ok(None) };
        Ok(Some(match given.cast::<PyString>() {
            Ok(list) => NoProxy::List(list.to_str()?.to_owned()),
            Err(_) => NoProxy::Entries(Setting::given(name, given)?),
        }))
    }
}

impl NetworkOptions {
    pub fn policy(&self) -> PyResult<Policy> {
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

    pub fn tls(&self) -> PyResult<ClientConfig> {
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

    pub fn proxies(&self) -> PyResult<Proxies> {
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

    pub fn core(&self) -> PyResult<Options> {
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

fn patterns(name: &str, texts: &[String]) -> PyResult<Vec<Pattern>> {
    let parse = |text: &String| {
        Pattern::parse(text).map_err(|why| PyValueError::new_err(format!("`{name}` has no pattern: `{text}`: {why}")))
    };
    texts.iter().map(parse).collect()
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

fn method(name: &str) -> PyResult<Method> {
    let method = Method::from_bytes(name.as_bytes())
        .map_err(|_| PyValueError::new_err(format!("`methods` has no method: {name:?}")))?;
    let upper = Method::from_bytes(name.to_ascii_uppercase().as_bytes()).ok();
    match upper.filter(|upper| *upper != method && STANDARD.contains(upper)) {
        // RFC 9110, 9.1
        Some(upper) => Err(PyValueError::new_err(format!(
            "`methods` has a method that nobody uses, since they are case-sensitive: `{name}`; hint: `{upper}`"
        ))),
        None if method == Method::CONNECT => {
            Err(PyValueError::new_err("`methods` has `CONNECT`, which no guest may use: it is for proxies"))
        }
        None => Ok(method),
    }
}
