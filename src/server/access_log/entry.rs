//! What is known of a request when it is over.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Version};

/// A request that was answered, or broken off.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// `None`: by a socket file.
    pub client: Option<IpAddr>,
    /// Who the client says it is, where somebody has checked that.
    pub user: Option<&'a str>,
    /// When its head had come.
    pub started: SystemTime,
    /// Until its response was sent, or it was broken off.
    pub duration: Duration,
    /// Empty if no request could be read.
    pub method: &'a str,
    /// As it came, never decoded: what could be read of it.
    pub target: &'a [u8],
    /// `None` if none could be read.
    pub version: Option<Version>,
    /// `http` or `https`.
    pub scheme: Option<&'a str>,
    /// The authority that the request was routed by.
    pub host: Option<&'a str>,
    /// What the client was sent; 499 if it had left before.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub sent: u64,
    /// The `x-request-id`, passed on or made.
    pub request_id: Option<&'a str>,
    /// Passed on or made.
    pub traceparent: Option<&'a str>,
    /// The component's label.
    pub component: Option<&'a str>,
    /// The exchange's number, which stands in the guest's lines, too.
    pub exchange: Option<u64>,
    /// How the guest ended.
    pub outcome: Option<&'a str>,
    /// The request's fields, or those of them that the format asks for ([`super::format::Format::of_request`]).
    pub request: &'a HeaderMap,
    /// The same of the response's.
    pub response: &'a HeaderMap,
}

impl<'a> Entry<'a> {
    /// The target without its query, and the query.
    pub(super) fn path_and_query(&self) -> (&'a [u8], &'a [u8]) {
        let mut parts = self.target.splitn(2, |byte| *byte == b'?');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }
}

/// The lines of a field, joined. `None` if there is none.
pub(super) fn joined(fields: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let lines: Vec<&[u8]> = fields.get_all(name).iter().map(|value| value.as_bytes()).collect();
    (!lines.is_empty()).then(|| lines.join(&b", "[..]))
}

#[cfg(test)]
impl<'a> Entry<'a> {
    /// Of a request of which nothing is known.
    pub(super) fn unread(nothing: &'a HeaderMap) -> Self {
        Self {
            client: None,
            user: None,
            started: SystemTime::UNIX_EPOCH,
            duration: Duration::ZERO,
            method: "",
            target: b"",
            version: None,
            scheme: None,
            host: None,
            status: 400,
            sent: 0,
            request_id: None,
            traceparent: None,
            component: None,
            exchange: None,
            outcome: None,
            request: nothing,
            response: nothing,
        }
    }
}
