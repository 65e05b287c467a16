//! `wasgi.Network`: the real network, under a policy.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use super::body::bytes_of;
use crate::network::{Network, Options, Trust};
use crate::pattern::Pattern;
use crate::policy::Policy;

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

fn seconds(name: &str, given: Option<f64>) -> PyResult<Option<Duration>> {
    given
        .map(|seconds| {
            let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| !duration.is_zero());
            duration.ok_or_else(|| {
                PyValueError::new_err(format!("`{name}` must be a number of seconds above 0, or None: {seconds}"))
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
    #[pyo3(signature = (allow, *, deny=None, methods=None, allow_private=false, addresses=None, ca=None, only_ca=false,
        client_cert=None, client_key=None, http2=true, connect_timeout=10.0, first_byte_timeout=None,
        between_bytes_timeout=None, idle_timeout=30.0, max_connections=256, response_fields=65536))]
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
        connect_timeout: f64,
        first_byte_timeout: Option<f64>,
        between_bytes_timeout: Option<f64>,
        idle_timeout: f64,
        max_connections: i64,
        response_fields: i64,
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
        let options = Options {
            connect: seconds("connect_timeout", Some(connect_timeout))?.unwrap_or_default(),
            first_byte: seconds("first_byte_timeout", first_byte_timeout)?,
            between_bytes: seconds("between_bytes_timeout", between_bytes_timeout)?,
            idle: seconds("idle_timeout", Some(idle_timeout))?.unwrap_or_default(),
            connections: positive("max_connections", max_connections)?,
            http2,
            head: u32::try_from(positive("response_fields", response_fields)?).unwrap_or(u32::MAX),
        };
        let tls = trust.config().map_err(PyValueError::new_err)?;
        Ok(Self { network: Arc::new(Network::new(policy, options, tls)), shown })
    }

    fn __repr__(&self) -> &str {
        &self.shown
    }
}
