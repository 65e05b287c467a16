//! Options of `wasgi.Network` that are not numbers: patterns, methods, PEM, what a proxy is not for.

use std::path::PathBuf;

use http::Method;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::http::url_pattern::Pattern;
use crate::network::no_proxy::Bypass;
use crate::py::bytes::bytes_of;
use crate::py::errors::of_file;
use crate::py::held::attach;
use crate::py::options::Setting;
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
pub(crate) enum PathOrPem {
    Path(PathBuf),
    Pem(Vec<u8>),
}

impl PathOrPem {
    pub(crate) fn read(given: Option<&Self>) -> PyResult<Option<Vec<u8>>> {
        Ok(match given {
            None => None,
            Some(Self::Pem(pem)) => Some(pem.clone()),
            Some(Self::Path(path)) => {
                Some(std::fs::read(path).map_err(|error| attach(|py| of_file(py, path, &error)))?)
            }
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
        Ok(Some(PathOrPem::Path(without_nul(name, path)?)))
    }
}

/// Text in the form of `NO_PROXY`, or a sequence of its entries.
#[derive(Clone, PartialEq, IntoPyObject)]
pub(crate) enum NoProxy {
    List(String),
    Entries(Vec<String>),
}

impl NoProxy {
    pub(crate) fn bypass(&self) -> PyResult<Bypass> {
        let mut bypass = Bypass::default();
        let mut add = |list: &str| {
            bypass.add(list).map_err(|why| PyValueError::new_err(format!("`no_proxy` has an invalid entry: {why}")))
        };
        match self {
            Self::List(list) => add(list)?,
            Self::Entries(entries) => {
                for entry in entries {
                    if entry.trim().is_empty() {
                        return Err(PyValueError::new_err("`no_proxy` has an empty entry"));
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

pub(super) fn patterns(name: &str, texts: &[String]) -> PyResult<Vec<Pattern>> {
    let parse = |text: &String| {
        Pattern::parse(text)
            .map_err(|why| PyValueError::new_err(format!("`{name}` has an invalid pattern: `{text}`: {why}")))
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

pub(super) fn method(name: &str) -> PyResult<Method> {
    let method = Method::from_bytes(name.as_bytes())
        .map_err(|_| PyValueError::new_err(format!("`methods` has an invalid method: {name:?}")))?;
    let upper = Method::from_bytes(name.to_ascii_uppercase().as_bytes()).ok();
    match upper.filter(|upper| *upper != method && STANDARD.contains(upper)) {
        // RFC 9110, 9.1
        Some(upper) => Err(PyValueError::new_err(format!(
            "methods are case-sensitive, and `methods` has `{name}`; hint: `{upper}`"
        ))),
        None if method == Method::CONNECT => {
            Err(PyValueError::new_err("`methods` has `CONNECT`, which no guest may use: it is for proxies"))
        }
        None => Ok(method),
    }
}
