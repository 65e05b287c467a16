//! Requests of servers: ASGI scopes and WSGI environments.

use bytes::Bytes;
use http::{HeaderValue, Method};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyTuple};

use crate::http::server_request::{Forwarded, Served, forward};
use crate::py::bytes::bytes_of;
use crate::py::message::body::PyBody;
use crate::py::message::headers::refused;
use crate::py::message::request::PyRequest;

/// A request as a server has read it: the target byte for byte, the fields as they came. Those of the connection stay out, `Host`
/// becomes the authority (or else the server's own address), and what is said of proxies is what `forwarded` makes of it:
/// None: as it came; false: nothing; true: what this server knows. An `authority` is that of a target in absolute form, which
/// outdoes `Host` (RFC 9112, 3.2.2).
#[pyfunction]
#[pyo3(signature = (
    method, scheme, server, target, headers, body, *, forwarded=None, client=None, prefix=None, authority=None,
    multiplexed=false
))]
#[allow(clippy::too_many_arguments)] // those of a scope
pub(crate) fn _request_of_server(
    py: Python<'_>,
    method: &str,
    scheme: &str,
    server: Option<&Bound<'_, PyAny>>,
    target: &[u8],
    headers: &Bound<'_, PyAny>,
    body: Option<&Bound<'_, PyAny>>,
    forwarded: Option<bool>,
    client: Option<&str>,
    prefix: Option<&[u8]>,
    authority: Option<&[u8]>,
    multiplexed: bool,
) -> PyResult<PyRequest> {
    let mut served = Served::new(forwarded.is_none()).multiplexed(multiplexed);
    for pair in headers.try_iter()? {
        let pair = pair?;
        let (name, value) = match pair.cast::<PyTuple>() {
            Ok(pair) => (pair.get_item(0)?, pair.get_item(1)?),
            Err(_) => (pair.get_item(0)?, pair.get_item(1)?),
        };
        served.add(&Octets::of(&name)?, &Octets::of(&value)?).map_err(|wrong| refused(py, wrong))?;
    }
    let (mut fields, host) = served.finish();
    if authority.is_some_and(<[u8]>::is_empty) {
        return Err(PyValueError::new_err("invalid URL: it has no host"));
    }
    let authority = match authority.or(host.as_ref().map(HeaderValue::as_bytes)) {
        Some(host) if !host.is_empty() => std::str::from_utf8(host)
            .map_err(|_| PyValueError::new_err("invalid URL: its host is not ASCII"))?
            .to_owned(),
        _ => server.and_then(|server| own_authority(scheme, server)).unwrap_or_else(|| "localhost".to_owned()),
    };
    let uri = crate::http::url::of_server(scheme, &authority, target)
        .map_err(|why| PyValueError::new_err(format!("invalid URL: {why}")))?;
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let told = (forwarded == Some(true)).then_some(Forwarded { client, scheme, host });
    forward(&mut fields, prefix, told).map_err(|wrong| refused(py, wrong))?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| PyValueError::new_err(format!("invalid method: {method:?}")))?;
    Ok(PyRequest::of_server(method, uri, fields, PyBody::given(body)?))
}

/// A server's own address as an authority: `(host, port)`. That of a Unix socket (`(path, None)`) is none. Servers differ in the
/// type of the port (granian's is text, and `"0"` of a Unix socket).
fn own_authority(scheme: &str, server: &Bound<'_, PyAny>) -> Option<String> {
    let host: PyBackedStr = server.get_item(0).ok()?.extract().ok()?;
    let port = server.get_item(1).ok()?;
    if port.is_none() || port.extract::<PyBackedStr>().is_ok_and(|port| port.is_empty()) {
        return None;
    }
    let port = port.extract::<u16>().ok().or_else(|| port.extract::<PyBackedStr>().ok()?.parse().ok());
    // the zone of an address of IPv6 is this machine's own business
    let host = if host.contains(':') { host.split('%').next()? } else { &host };
    let authority = crate::http::url::authority_of(scheme, host, port.filter(|port| *port != 0));
    crate::http::url::of_server(scheme, &authority, b"/").is_ok().then_some(authority)
}

/// Bytes, or what is like them, without a copy where there need be none.
enum Octets<'a> {
    Bytes(&'a [u8]),
    Copied(Bytes),
}

impl<'a> Octets<'a> {
    fn of(object: &'a Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.as_bytes()));
        }
        let copied =
            bytes_of(object)?.ok_or_else(|| PyTypeError::new_err("names and values of headers must be bytes"))?;
        Ok(Self::Copied(copied))
    }
}

impl std::ops::Deref for Octets<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}
