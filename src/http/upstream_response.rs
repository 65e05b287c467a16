//! What an upstream's answer is when it reaches the guest. The host plays the server and the wire in between: whoever answers, in
//! process or from afar, the guest sees what a server of HTTP would have let through.

use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body;
use wasmtime_wasi_http::WasiBody;

use crate::http::error_code::ErrorCode;
use crate::http::message::{empty, is_bare};
use crate::http::server_request::named_by_connection;

/// Of one connection, which an answer in process has not (RFC 9110, 7.6.1).
const OF_CONNECTION: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// The answer to a request of this method as its client gets it; or the error-code, if it can be none.
pub fn served(method: &Method, answer: Response<WasiBody>) -> Result<Response<WasiBody>, ErrorCode> {
    let (mut parts, body) = answer.into_parts();
    if parts.status.is_informational() {
        // no exchange ends with it (RFC 9110, 15.2)
        return Err(ErrorCode::plain("HTTP-protocol-error"));
    }
    let is_chunked = parts.headers.contains_key(TRANSFER_ENCODING);
    drop_connections(&mut parts.headers);
    if is_chunked {
        parts.headers.remove(CONTENT_LENGTH); // it says nothing then (RFC 9112, 6.3)
    }
    settle_length(&mut parts.headers)?;
    let is_bare = is_bare(method == Method::HEAD, parts.status);
    match parts.status {
        // RFC 9110, 8.6: not with it
        StatusCode::NO_CONTENT => drop(parts.headers.remove(CONTENT_LENGTH)),
        // RFC 9110, 15.3.6
        StatusCode::RESET_CONTENT => drop(parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(0))),
        _ if is_bare || parts.headers.contains_key(CONTENT_LENGTH) => {}
        _ => {
            if let Some(length) = length_of(&body) {
                parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
    }
    // whoever makes a body that nobody may have is told by its being let go
    let body = if is_withheld(method, parts.status) { empty() } else { body };
    Ok(Response::from_parts(parts, body))
}

/// Whether none of an answer's body may come to the guest (RFC 9110, 6.4.1 and 15.3.6).
fn is_withheld(method: &Method, status: StatusCode) -> bool {
    is_bare(method == Method::HEAD, status) || status == StatusCode::RESET_CONTENT
}

/// Whether anything of an answer's body is to come to the guest.
pub fn has_body(method: &Method, answer: &Response<WasiBody>) -> bool {
    !is_withheld(method, answer.status()) && !answer.body().is_end_stream()
}

/// The length of a body, if it is known before it is read.
fn length_of(body: &WasiBody) -> Option<u64> {
    if body.is_end_stream() { Some(0) } else { body.size_hint().exact() }
}

/// Leaves out what is of a connection, and what `Connection` names.
fn drop_connections(fields: &mut HeaderMap) {
    let named = named_by_connection(fields);
    for name in OF_CONNECTION.into_iter().chain(named) {
        fields.remove(name);
    }
}

/// One length, told once: the same one told several times is that one, several are an error (RFC 9112, 6.3).
fn settle_length(fields: &mut HeaderMap) -> Result<(), ErrorCode> {
    let mut told = None;
    let values = fields.get_all(CONTENT_LENGTH).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    for value in values.map(<[u8]>::trim_ascii) {
        let digits = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let length = digits.and_then(|digits| digits.parse::<u64>().ok());
        let length = length.ok_or_else(|| ErrorCode::plain("HTTP-protocol-error"))?;
        if told.is_some_and(|told| told != length) {
            return Err(ErrorCode::plain("HTTP-protocol-error"));
        }
        told = Some(length);
    }
    if let Some(length) = told {
        fields.insert(CONTENT_LENGTH, HeaderValue::from(length));
    }
    Ok(())
}
