//! Fields: pairs of bytes as `http::HeaderMap`, and how large they are.

use http::{HeaderMap, HeaderName, HeaderValue};

/// Why pairs are no fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Not a token (RFC 9110, 5.1).
    Name(Vec<u8>),
    /// The value has a control character (RFC 9110, 5.5).
    Value(HeaderName, Vec<u8>),
    /// More than a map holds.
    TooMany,
    /// More than one `host`.
    TwoHosts,
}

/// Reads pairs of names and values; those of one name keep their order.
pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Result<HeaderMap, Wrong> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name).map_err(|_| Wrong::Name(name.to_vec()))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Wrong::Value(name.clone(), value.to_vec()))?;
        map.try_append(name, value).map_err(|_| Wrong::TooMany)?;
    }
    Ok(map)
}

/// How large fields are, counted as wasmtime-wasi-http counts those that a guest makes: names and values, and for each
/// what it takes to keep it, so that empty ones count, too.
pub fn size(fields: &HeaderMap) -> u64 {
    let names: usize = fields.keys().map(|name| name.as_str().len() + size_of::<HeaderName>()).sum();
    let values: usize = fields.values().map(|value| value.len() + size_of::<HeaderValue>()).sum();
    (names + values) as u64
}

/// The length that a message announces for its body.
pub fn announced_length(fields: &HeaderMap) -> Option<u64> {
    let value = fields.get(http::header::CONTENT_LENGTH)?.to_str().ok()?;
    // digits only (RFC 9110, 8.6): `parse` would take a sign
    value.bytes().all(|byte| byte.is_ascii_digit()).then(|| value.parse().ok())?
}
