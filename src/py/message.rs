//! What `wasgi.Request` and `wasgi.Response` have in common.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use pyo3::prelude::*;

use super::body::PyBody;
use super::headers::Fields;

/// The fields after the body: given beforehand, or known when a guest's body has ended.
pub fn trailers(py: Python<'_>, given: Option<&Fields>, body: &PyBody) -> PyResult<Option<Py<PyAny>>> {
    match (given, body.trailers()) {
        (Some(given), _) => given.object(py).map(Some),
        (None, Some(map)) => Fields::native(map).object(py).map(Some),
        (None, None) => Ok(None),
    }
}

pub fn text(py: Python<'_>, fields: &Fields, body: &Arc<PyBody>) -> PyResult<Py<PyAny>> {
    let whole = body.whole(py)?;
    let bridge = py.import("wasgi._bridge")?;
    Ok(bridge.call_method1("decode", (pyo3::types::PyBytes::new(py, &whole), fields.object(py)?))?.unbind())
}

pub fn json(py: Python<'_>, body: &Arc<PyBody>) -> PyResult<Py<PyAny>> {
    let whole = body.whole(py)?;
    Ok(py.import("json")?.call_method1("loads", (pyo3::types::PyBytes::new(py, &whole),))?.unbind())
}

/// Says how long the body is where that is known and not said, as a server or a client on the wire would.
pub fn with_length(mut headers: HeaderMap, body: &PyBody) -> HeaderMap {
    if let Some(length) = body.length().filter(|length| *length > 0)
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(TRANSFER_ENCODING)
    {
        headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    headers
}
