//! What the server answers itself: the guest has no response, or has not been asked.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::error::Error;
use crate::http::error_code::ErrorCode;
use crate::text::json;

/// A request that no guest gets, or that one has no response to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub status: u16,
    pub why: String,
}

impl Refusal {
    pub(super) fn new(status: u16, why: &str) -> Self {
        Self { status, why: why.to_owned() }
    }

    /// The client's own mistake.
    pub(super) fn bad(why: &str) -> Self {
        Self::new(400, why)
    }
}

/// What a [`problem`] has beside its status: members of a document in JSON, each after a comma.
#[derive(Default)]
pub(super) struct Details(Vec<u8>);

impl Details {
    /// In one sentence.
    pub(super) fn of(why: &str) -> Self {
        let mut details = Self::default();
        details.name("detail");
        json(why.as_bytes(), &mut details.0);
        details
    }

    /// For whoever debugs.
    pub(super) fn of_error(error: &Error) -> Self {
        let mut details = Self::of(&error.sentence());
        if let Error::Trap(trap) = error {
            details.list("backtrace", &trap.backtrace);
            details.list("stderr", &trap.stderr);
        }
        details
    }

    fn name(&mut self, name: &str) {
        self.0.extend_from_slice(format!(r#", "{name}": "#).as_bytes());
    }

    fn list(&mut self, name: &str, lines: &[String]) {
        self.name(name);
        self.0.push(b'[');
        for (number, line) in lines.iter().enumerate() {
            if number > 0 {
                self.0.extend_from_slice(b", ");
            }
            json(line.as_bytes(), &mut self.0);
        }
        self.0.push(b']');
    }
}

/// The answer where the guest has none: a small document in JSON (RFC 9457).
pub(super) fn problem(status: u16, details: &Details) -> Response<Bytes> {
    let code = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let title = match status {
        413 => "Content Too Large", // RFC 9110, 15.5.14; `http` has the former name
        _ => code.canonical_reason().unwrap_or("Unknown"),
    };
    let mut text = format!(r#"{{"type": "about:blank", "title": "{title}", "status": {status}"#).into_bytes();
    text.extend_from_slice(&details.0);
    text.push(b'}');
    let mut response = Response::new(Bytes::from(text));
    *response.status_mut() = code;
    let fields: &mut HeaderMap = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if status == 503 {
        fields.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// The status of the answer when the guest has none.
pub fn status_of(error: &Error) -> u16 {
    match error {
        Error::Code(error) => status_of_code(error.code.name),
        Error::Limited { code: ErrorCode { name, .. }, .. } => status_of_code(name),
        Error::Timeout { .. } => 504,
        Error::Overloaded(_) | Error::Closed => 503,
        _ => 500,
    }
}

/// Of a guest's error-code: 4xx for the client's mistakes, otherwise 508, 504 or 502.
pub fn status_of_code(name: &str) -> u16 {
    match name {
        "HTTP-request-URI-invalid" | "HTTP-request-method-invalid" => 400,
        "HTTP-request-URI-too-long" => 414,
        "HTTP-request-body-size" => 413,
        "HTTP-request-length-required" => 411,
        "HTTP-request-header-section-size"
        | "HTTP-request-header-size"
        | "HTTP-request-trailer-section-size"
        | "HTTP-request-trailer-size" => 431,
        "loop-detected" => 508,
        "DNS-timeout"
        | "HTTP-response-timeout"
        | "connection-read-timeout"
        | "connection-timeout"
        | "connection-write-timeout" => 504,
        _ => 502,
    }
}
