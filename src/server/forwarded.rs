//! Who asks, behind proxies that are trusted: `forwarded` (RFC 7239) and the `x-forwarded-*` fields.
//!
//! A proxy adds what it knows at the right end. So the fields are read from the right, for as long as whoever has added a part is trusted:
//! what stands further left may be the client's own invention.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::header::FORWARDED;
use http::uri::Scheme;
use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::http::server_request::OF_PROXIES;
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

/// Removes what is said of proxies: before a guest sees the request of a peer that is not trusted.
pub fn strip(headers: &mut HeaderMap) {
    for name in OF_PROXIES {
        headers.remove(name);
    }
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
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        fields
    }

    fn client(trusted: &str, peer: &str, lines: &[(&'static str, &str)]) -> Client {
        let peer = (peer != "unix").then(|| peer.parse().unwrap());
        resolve(&Trusted::parse([trusted]).unwrap(), peer, &fields(lines))
    }

    /// Who asks, with the port; behind one trusted proxy.
    fn who(lines: &[(&'static str, &str)]) -> String {
        let client = client("10.0.0.0/8", "10.0.0.1:1", lines);
        let port = client.port.map_or_else(String::new, |port| format!(" {port}"));
        format!("{}{port}", client.ip.unwrap())
    }

    #[test]
    fn one_address_in_its_spellings_is_one_peer() {
        let trusted = Trusted::parse(["10.0.0.0/8, ::1", "2001:db8::/32", "::ffff:192.168.0.0/112"]).unwrap();
        let trusts = |text: &str| trusted.trusts(Some(text.parse().unwrap()));
        let peers =
            ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:a00:1", "::1", "2001:db8::7", "192.168.3.4", "::ffff:192.168.3.4"];
        for peer in peers {
            assert!(trusts(peer), "{peer}");
        }
        for peer in ["11.0.0.1", "::ffff:11.0.0.1", "::2", "192.169.0.1", "127.0.0.1", "::10.0.0.1"] {
            assert!(!trusts(peer), "{peer}");
        }
        assert!(!trusted.trusts(None));
    }

    #[test]
    fn unix_peers_have_a_rule_of_their_own() {
        assert!(Trusted::parse(["unix"]).unwrap().trusts(None));
        assert!(!Trusted::parse(["unix"]).unwrap().trusts(Some(Ipv6Addr::LOCALHOST.into())));
        assert!(!Trusted::parse(["127.0.0.1", "0.0.0.0/0", "::/0"]).unwrap().trusts(None));
        let all = Trusted::parse(["*"]).unwrap();
        assert!(all.trusts(None) && all.trusts(Some(Ipv6Addr::LOCALHOST.into())));
        assert!(!Trusted::default().trusts(None));
    }

    #[test]
    fn what_names_nobody_is_refused() {
        for entry in ["localhost", "10.0.0.0/33", "10.0.0", "[::1]", "10.0.0.1:80", "none"] {
            let error = Trusted::parse([entry]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{entry}`")) && error.contains("hint"), "{error}");
        }
        assert!(!Trusted::parse([" , "]).unwrap().trusts(None));
    }

    #[test]
    fn of_an_untrusted_peer_nothing_is_believed() {
        let lines = [
            ("x-forwarded-for", "1.2.3.4"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.local"),
            ("forwarded", "for=1.2.3.4;proto=https;host=shop.local"),
        ];
        let peer = Client { ip: Some("11.0.0.1".parse().unwrap()), port: Some(7), ..Client::default() };
        assert_eq!(client("10.0.0.0/8", "11.0.0.1:7", &lines), peer);
        assert_eq!(client("10.0.0.0/8", "[::ffff:11.0.0.1]:7", &lines), peer);
        assert_eq!(client("10.0.0.0/8", "unix", &lines), Client::default());
        assert_eq!(client("", "11.0.0.1:7", &lines), peer);
        let mut fields = fields(&lines);
        fields.append("x-forwarded-prefix", HeaderValue::from_static("/admin"));
        fields.append("accept", HeaderValue::from_static("*/*"));
        strip(&mut fields);
        assert_eq!(fields.keys().collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn lines_are_joined_and_read_from_the_right() {
        for (values, wanted) in [
            (&["203.0.113.1"][..], "203.0.113.1"),
            (&["1.1.1.1, 203.0.113.1"], "203.0.113.1"),
            (&["1.1.1.1", "203.0.113.1"], "203.0.113.1"),
            (&["1.1.1.1,203.0.113.1", "10.0.0.2,, 10.0.0.3 ,"], "203.0.113.1"),
            (&["::ffff:203.0.113.1, ::ffff:10.0.0.2"], "203.0.113.1"),
            // all are trusted: the leftmost
            (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
            (&["10.0.0.9", "10.0.0.2"], "10.0.0.9"),
            // ports and brackets; trust is not lost by them
            (&["203.0.113.1:4711"], "203.0.113.1 4711"),
            (&["203.0.113.1:4711, 10.0.0.2:80"], "203.0.113.1 4711"),
            (&["[2001:db8::1]:4711, [::ffff:10.0.0.2]:80"], "2001:db8::1 4711"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["\"[2001:db8::1]:4711\""], "2001:db8::1 4711"),
            // rubbish ends the walk
            (&["203.0.113.1, unknown"], "10.0.0.1 1"),
            (&["203.0.113.1, unknown, 10.0.0.2"], "10.0.0.2"),
            (&["203.0.113.1, 10.0.0.2:port"], "10.0.0.1 1"),
            (&["203.0.113.1, 10.0.0.2:99999"], "10.0.0.1 1"),
            (&["203.0.113.1, 10.0.0.256"], "10.0.0.1 1"),
            (&["203.0.113.1, [::1"], "10.0.0.1 1"),
            (&["203.0.113.1, [10.0.0.2]"], "10.0.0.1 1"),
            (&["203.0.113.1, \u{e9}"], "10.0.0.1 1"),
            (&["1.1.1.1, \", 203.0.113.1"], "203.0.113.1"),
            (&[""], "10.0.0.1 1"),
            (&[], "10.0.0.1 1"),
        ] {
            let lines: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            assert_eq!(who(&lines), wanted, "{values:?}");
        }
    }

    #[test]
    fn rfc_7239() {
        for (values, wanted) in [
            (&["for=203.0.113.1"][..], "203.0.113.1"),
            (&["For=\"203.0.113.1:4711\";by=10.0.0.1 ; proto=https"], "203.0.113.1 4711"),
            (&["for=\"[2001:db8::1]:4711\", for=10.0.0.2"], "2001:db8::1 4711"),
            (&["for=1.1.1.1, for=\"203.0.113.1\"", "by=x;for=\"10.0.0.2:80\""], "203.0.113.1"),
            (&["for=10.0.0.9, for=10.0.0.2"], "10.0.0.9"),
            (&["for=1.1.1.1;x=\"a,b;c=\\\"\", for=10.0.0.2"], "1.1.1.1"),
            // what the client has left open swallows nothing
            (&["for=\"1.1.1.1, for=203.0.113.1"], "203.0.113.1"),
            (&["for=\"1.1.1.1", "for=\"[2001:db8::1]\""], "2001:db8::1"),
            (&["for=1.1.1.1, for=\"\\\", for=203.0.113.1"], "203.0.113.1"),
            // rubbish ends the walk
            (&["for=203.0.113.1, for=unknown"], "10.0.0.1 1"),
            (&["for=203.0.113.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
            (&["for=203.0.113.1, proto=https"], "10.0.0.1 1"),
            (&["for=203.0.113.1, for=10.0.0.2;for=10.0.0.3"], "10.0.0.1 1"),
            (&["for=203.0.113.1, for"], "10.0.0.1 1"),
            (&["for=203.0.113.1, for=10.0.0.2;\""], "10.0.0.1 1"),
        ] {
            let lines: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
            assert_eq!(who(&lines), wanted, "{values:?}");
        }
    }

    #[test]
    fn scheme_and_host_are_of_the_same_hop() {
        let said = |lines: &[(&'static str, &str)]| {
            let client = client("10.0.0.0/8, unix", "unix", lines);
            (client.scheme.map(|scheme| scheme.to_string()).unwrap_or_default(), client.host.unwrap_or_default())
        };
        let pair = |scheme: &str, host: &str| (scheme.to_owned(), host.to_owned());
        for (proto, host, wanted) in [
            ("https", "shop.local", pair("https", "shop.local")),
            ("http, HTTPS", "evil.local, shop.local:8443", pair("https", "shop.local:8443")),
            ("wss", "[::1]:80", pair("https", "[::1]:80")),
            ("ws", "", pair("http", "")),
            ("ftp", "a b", pair("", "")),
            ("https, ftp", "shop.local, user@shop.local", pair("", "")),
            ("https://", "shop.local:99999", pair("", "")),
        ] {
            assert_eq!(said(&[("x-forwarded-proto", proto), ("x-forwarded-host", host)]), wanted);
            let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", proto), ("x-forwarded-host", host)];
            assert_eq!(said(&lines), wanted);
        }
        let far = "for=6.6.6.6;proto=https;host=evil.local, for=203.0.113.1;proto=https;host=\"shop.local:8443\"";
        assert_eq!(said(&[("forwarded", far)]), pair("https", "shop.local:8443"));
        let near = [("forwarded", far), ("forwarded", "for=10.0.0.2;proto=http;host=internal")];
        assert_eq!(said(&near), pair("https", "shop.local:8443"));
        assert_eq!(said(&[near[1]]), pair("http", "internal"));
        assert_eq!(said(&[("forwarded", "for=unknown;proto=https")]), pair("https", ""));
        // the client's own, which a proxy of the other kind has handed on
        let lines = [("forwarded", "for=6.6.6.6;proto=https;host=evil.local"), ("x-forwarded-for", "203.0.113.1")];
        assert_eq!(said(&lines), pair("", ""));
        assert_eq!(who(&lines), "203.0.113.1");
    }

    proptest! {
        /// Whatever a client writes, what the trusted proxy has added behind it counts, on the same line or on one of its own.
        #[test]
        fn nothing_that_a_client_writes_moves_it(of_client in "[ -~]{0,30}", same_line in any::<bool>()) {
            for (name, added) in [("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=\"203.0.113.1\";proto=http")] {
                let one = format!("{of_client}, {added}");
                let lines = if same_line { vec![(name, &*one)] } else { vec![(name, &*of_client), (name, added)] };
                prop_assert_eq!(who(&lines), "203.0.113.1");
            }
        }
    }
}
