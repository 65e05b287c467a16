//! Who asks, behind proxies that are trusted: `forwarded` (RFC 7239) and the `x-forwarded-*` fields.
//!
//! A proxy adds what it knows at the right end. So the fields are read from the right, for as long as whoever has added a part is trusted:
//! what stands further left may be the client's own invention.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::http::url;
use crate::network::no_proxy::network;
use crate::network::special_addresses::canonical;

const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Peers whose word counts.
#[derive(Clone, Debug, Default)]
pub struct Trusted {
    networks: Vec<IpNet>,
    all: bool,
    unix: bool,
}

/// An entry that names nobody.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not an address or a network; hint: `127.0.0.1`, `10.0.0.0/8`, `::1`, `unix` or `*`")]
pub struct TrustedError(String);

impl Trusted {
    /// Reads addresses and networks, `unix` for whoever comes by a socket file, `*` for everybody; each entry may be several with commas
    /// between them.
    pub fn parse<T: AsRef<str>>(entries: impl IntoIterator<Item = T>) -> Result<Self, TrustedError> {
        let mut trusted = Self::default();
        for entries in entries {
            for entry in entries.as_ref().split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
                match entry {
                    "*" => trusted.all = true,
                    "unix" => trusted.unix = true,
                    _ => trusted.networks.push(network(entry).ok_or_else(|| TrustedError(entry.to_owned()))?),
                }
            }
        }
        Ok(trusted)
    }

    /// Whether this peer is one of them; `None` is one that has come by a socket file.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer.map(canonical) {
            _ if self.all => true,
            None => self.unix,
            Some(peer) => self.networks.iter().any(|network| network.contains(&peer)),
        }
    }
}

/// Who asks, and for what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// `None` if it has come by a socket file, and nobody says more.
    pub ip: Option<IpAddr>,
    /// The client's own, where somebody says it.
    pub port: Option<u16>,
    /// `http` or `https`, where a proxy says it; else it is the connection's.
    pub scheme: Option<Scheme>,
    /// The host, maybe with a port, that the client has asked for, where a proxy says it; else it is the request's.
    pub host: Option<String>,
}

/// Works out who asks. `peer` is the connection's (`None`: a Unix socket), or what the PROXY protocol says of it. Of a peer that is not
/// trusted nothing is believed.
///
/// Where a request has both kinds of fields, `x-forwarded-*` counts: most proxies set that, and hand on a `forwarded` that the client has
/// written.
pub fn resolve(trusted: &Trusted, peer: Option<SocketAddr>, headers: &HeaderMap) -> Client {
    let ip = peer.map(|peer| canonical(peer.ip()));
    let mut client = Client { ip, port: peer.map(|peer| peer.port()), ..Client::default() };
    if !trusted.trusts(ip) {
        return client;
    }
    if headers.contains_key(FOR) || !headers.contains_key(FORWARDED) {
        for hop in from_the_right(headers, &FOR) {
            if !client.step(trusted, hop) {
                break;
            }
        }
        // A proxy sets it, or adds to its right end; which hops have done so, nobody can tell. The rightmost is never the client's.
        client.scheme = from_the_right(headers, &PROTO).next().and_then(scheme);
        client.host = from_the_right(headers, &HOST).next().and_then(host);
        return client;
    }
    for element in from_the_right(headers, &FORWARDED) {
        // whoever has written it is trusted, or the walk would have ended: so is what it says besides
        let element = Element::parse(element);
        client.scheme = element.proto.as_deref().and_then(|proto| scheme(proto.as_bytes()));
        client.host = element.host.as_deref().and_then(|name| host(name.as_bytes()));
        if !client.step(trusted, element.of.as_deref().unwrap_or_default().as_bytes()) {
            break;
        }
    }
    client
}

impl Client {
    /// One hop further from here, if it can be told; also says whether to go on. What cannot be read (`unknown`, a name, rubbish) ends the
    /// walk at the last address that a trusted peer has vouched for.
    fn step(&mut self, trusted: &Trusted, hop: &[u8]) -> bool {
        let Some((ip, port)) = std::str::from_utf8(hop).ok().and_then(address) else { return false };
        (self.ip, self.port) = (Some(ip), port);
        trusted.trusts(Some(ip))
    }
}

/// An address as proxies write it: with a port or without, one of IPv6 in brackets or (without a port) plain, in quotes or not.
fn address(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let text = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if let Some(rest) = text.strip_prefix('[') {
        let (inner, port) = rest.split_once(']')?;
        let ip = canonical(inner.parse::<Ipv6Addr>().ok()?.into());
        return match port {
            "" => Some((ip, None)),
            _ => Some((ip, Some(url::number(port.strip_prefix(':')?)?))),
        };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some((canonical(ip), None));
    }
    let (ip, port) = text.rsplit_once(':')?;
    Some((IpAddr::V4(ip.parse().ok()?), Some(url::number(port)?)))
}

fn scheme(text: &[u8]) -> Option<Scheme> {
    // some proxies say so of a WebSocket's first request
    if text.eq_ignore_ascii_case(b"https") || text.eq_ignore_ascii_case(b"wss") {
        Some(Scheme::HTTPS)
    } else if text.eq_ignore_ascii_case(b"http") || text.eq_ignore_ascii_case(b"ws") {
        Some(Scheme::HTTP)
    } else {
        None
    }
}

fn host(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    url::split(text).ok().map(|_| text.to_owned())
}

/// The elements of a list, from the last one of the last line to the first one of the first. Empty ones are left out (RFC 9110, 5.6.1).
fn from_the_right<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    let parts = lines.into_iter().rev().flat_map(|line| PartsFromTheRight { rest: Some(line), separator: b',' });
    parts.filter(|part| !part.is_empty())
}

/// Splits where the separator does not stand in quotes. From the right, so that a quote which the client has left open (`for="`) swallows
/// nothing of what a proxy has added behind it.
struct PartsFromTheRight<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Iterator for PartsFromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        for (place, byte) in rest.iter().enumerate().rev() {
            if *byte == b'"' {
                let before = rest.get(..place).unwrap_or_default();
                let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
                // in quotes, one that is escaped does not begin them
                if !is_quoted || backslashes % 2 == 0 {
                    is_quoted = !is_quoted;
                }
            } else if *byte == self.separator && !is_quoted {
                self.rest = rest.get(..place);
                return rest.get(place + 1..).map(<[u8]>::trim_ascii);
            }
        }
        Some(rest.trim_ascii())
    }
}

/// One hop of `forwarded`.
#[derive(Default)]
struct Element {
    of: Option<String>,
    proto: Option<String>,
    host: Option<String>,
}

impl Element {
    /// Of one that is ill-formed nothing is known.
    fn parse(element: &[u8]) -> Self {
        Self::read(element).unwrap_or_default()
    }

    fn read(element: &[u8]) -> Option<Self> {
        let mut found = Self::default();
        for pair in (PartsFromTheRight { rest: Some(element), separator: b';' }) {
            if pair.is_empty() {
                continue;
            }
            let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            let value = unquoted(value)?;
            let known = match name.to_ascii_lowercase().as_str() {
                "for" => &mut found.of,
                "proto" => &mut found.proto,
                "host" => &mut found.host,
                _ => continue,
            };
            // RFC 7239, 4: each parameter at most once
            if known.replace(value).is_some() {
                return None;
            }
        }
        Some(found)
    }
}

/// A token, or the content of a quoted string. Not every proxy quotes what has a colon.
fn unquoted(text: &str) -> Option<String> {
    let Some(rest) = text.strip_prefix('"') else {
        return (!text.contains(['"', '\\', ' '])).then(|| text.to_owned());
    };
    let mut plain = String::new();
    let mut characters = rest.chars();
    loop {
        match characters.next()? {
            '"' => return characters.next().is_none().then_some(plain),
            '\\' => plain.push(characters.next()?),
            other => plain.push(other),
        }
    }
}

#[cfg(test)]
mod tests;
