//! What a guest sees of a request that a server has read, and a server's client of a guest's answer.

use http::header::{CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::http::fields::Wrong;

/// Of one connection, not of the message (RFC 9110, 7.6.1; RFC 9113, 8.2.2). `te` is: `trailers` may be asked for.
pub fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "http2-settings"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// What `Connection` names is of the connection, too.
pub fn named_by_connection(fields: &HeaderMap) -> Vec<HeaderName> {
    let tokens = fields.get_all(CONNECTION).iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    tokens.filter_map(|token| HeaderName::from_bytes(token.trim_ascii()).ok()).collect()
}

/// What trailers may be: none of a connection's, and none that frames or routes the message (RFC 9110, 6.5.1; RFC 9113, 8.2.2).
pub fn trailers(mut given: HeaderMap) -> HeaderMap {
    let wrong = |name: &&HeaderName| is_of_connection(name) || matches!(**name, CONTENT_LENGTH | HOST);
    let wrong: Vec<_> = given.keys().filter(wrong).cloned().collect();
    for name in wrong {
        given.remove(name);
    }
    given
}

/// Which fields of a response are those of a connection, and not meant for a server's client.
pub fn left_out(fields: &HeaderMap) -> impl Fn(&HeaderName) -> bool + use<> {
    let named = named_by_connection(fields);
    // framed otherwise, by whoever has made it: then it says nothing (RFC 9112, 6.3)
    let is_chunked = fields.contains_key(TRANSFER_ENCODING);
    move |name| is_of_connection(name) || named.contains(name) || (is_chunked && name == CONTENT_LENGTH)
}

/// What a server knows of a request that its fields do not say.
pub struct Forwarded<'a> {
    /// The address of whoever asks.
    pub client: Option<&'a str>,
    /// By which the client has asked.
    pub scheme: &'a str,
    /// Whom it has asked.
    pub host: &'a str,
}

/// Tells a guest where it is mounted, and who asks.
pub fn forward(fields: &mut HeaderMap, prefix: Option<&[u8]>, forwarded: Option<Forwarded<'_>>) -> Result<(), Wrong> {
    let mut add = |name: &'static str, value: &[u8]| {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_bytes(value).map_err(|_| Wrong::Value(name.clone(), value.to_vec()))?;
        fields.try_append(name, value).map(drop).map_err(|_| Wrong::TooMany)
    };
    if let Some(prefix) = prefix {
        add("x-forwarded-prefix", prefix)?;
    }
    if let Some(Forwarded { client, scheme, host }) = forwarded {
        if let Some(client) = client {
            add("x-forwarded-for", client.as_bytes())?;
        }
        add("x-forwarded-proto", scheme.as_bytes())?;
        add("x-forwarded-host", host.as_bytes())?;
    }
    Ok(())
}

/// What anybody could have written of who asks: to be believed only of the server itself, or of a proxy that it trusts.
pub const OF_PROXIES: [HeaderName; 5] = [
    FORWARDED,
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-proto"),
];

/// The fields of a request as a server has read it, on their way to a guest.
#[derive(Debug)]
pub struct Served {
    map: HeaderMap,
    host: Option<HeaderValue>,
    /// What `Connection` names.
    named: Vec<HeaderName>,
    /// Whether what is said of proxies passes.
    trusted: bool,
    /// Framed by `transfer-encoding`: then `content-length` says nothing (RFC 9112, 6.3).
    chunked: bool,
    /// Came by HTTP/2 or later.
    multiplexed: bool,
}

impl Served {
    /// `trusted`: the server has checked the fields itself.
    pub fn new(trusted: bool) -> Self {
        Self { trusted, map: HeaderMap::new(), host: None, named: Vec::new(), chunked: false, multiplexed: false }
    }

    /// It came by HTTP/2 or later: `:authority`, which servers tell as `host`, may stand beside a `host` that says the same
    /// (RFC 9113, 8.3.1).
    pub fn multiplexed(mut self, multiplexed: bool) -> Self {
        self.multiplexed = multiplexed;
        self
    }

    /// One more field, as the server has read it.
    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let name = HeaderName::from_bytes(name).map_err(|_| Wrong::Name(name.to_vec()))?;
        let value =
            HeaderValue::from_bytes(without_space(value)).map_err(|_| Wrong::Value(name.clone(), value.to_vec()))?;
        if name == HOST {
            return match &self.host {
                None => {
                    self.host = Some(value);
                    Ok(())
                }
                Some(host) if self.multiplexed && host.as_bytes().eq_ignore_ascii_case(value.as_bytes()) => Ok(()),
                Some(_) => Err(Wrong::TwoHosts), // RFC 9112, 3.2
            };
        }
        if name == CONNECTION {
            let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.named.extend(tokens.filter_map(|token| HeaderName::from_bytes(token).ok()));
        }
        self.chunked |= name == TRANSFER_ENCODING;
        if is_of_connection(&name) || (!self.trusted && OF_PROXIES.contains(&name)) {
            return Ok(());
        }
        self.map.try_append(name, value).map(drop).map_err(|_| Wrong::TooMany)
    }

    /// The fields that are meant for the guest, and what `Host` said.
    pub fn finish(mut self) -> (HeaderMap, Option<HeaderValue>) {
        for name in self.named {
            self.map.remove(name);
        }
        if self.chunked {
            self.map.remove(CONTENT_LENGTH);
        }
        join_cookies(&mut self.map);
        (self.map, self.host)
    }
}

/// A value as HTTP/1 would have it. What stands around one is no part of it (RFC 9110, 5.5); with HTTP/2 it would make the message
/// malformed (RFC 9113, 8.2.1), but not every server minds.
fn without_space(value: &[u8]) -> &[u8] {
    let is_not_space = |byte: &u8| !matches!(byte, b' ' | b'\t');
    let Some(start) = value.iter().position(is_not_space) else { return &[] };
    let end = value.iter().rposition(is_not_space).map_or(start, |last| last + 1);
    value.get(start..end).unwrap_or(value)
}

/// HTTP/2 may split `cookie` into several fields, which are one again for whoever does not speak it (RFC 9113, 8.2.3).
fn join_cookies(fields: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = fields.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if crumbs.len() > 1
        && let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..]))
    {
        fields.insert(COOKIE, whole);
    }
}
