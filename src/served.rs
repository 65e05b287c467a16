//! What a guest sees of a request that a server has read, and a server's client of a guest's answer.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::fields::Wrong;

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

/// What anybody could have written of who asks: to be believed only of the server itself.
fn is_of_proxy(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "forwarded" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-prefix" | "x-forwarded-proto"
    )
}

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
}

impl Served {
    pub fn new(trusted: bool) -> Self {
        Self { trusted, map: HeaderMap::new(), host: None, named: Vec::new(), chunked: false }
    }

    pub fn add(&mut self, name: &[u8], value: &[u8]) -> Result<(), Wrong> {
        let name = HeaderName::from_bytes(name).map_err(|_| Wrong::Name(name.to_vec()))?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Wrong::Value(name.clone(), value.to_vec()))?;
        if name == http::header::HOST {
            return match self.host.replace(value) {
                None => Ok(()),
                Some(_) => Err(Wrong::TwoHosts), // RFC 9112, 3.2
            };
        }
        if name == http::header::CONNECTION {
            let tokens = value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            self.named.extend(tokens.filter_map(|token| HeaderName::from_bytes(token).ok()));
        }
        self.chunked |= name == http::header::TRANSFER_ENCODING;
        if is_of_connection(&name) || (!self.trusted && is_of_proxy(&name)) {
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
            self.map.remove(http::header::CONTENT_LENGTH);
        }
        (self.map, self.host)
    }
}
