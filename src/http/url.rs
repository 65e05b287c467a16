//! URLs as `http::Uri`, from whoever makes a request: one grammar of hosts and ports (RFC 3986, 3.2) for all who read them.
//!
//! `http::Uri` alone does not do: it reads `host:99999` as a host without a port, `[::1]a` as an address, `:+80` as 80.

use std::borrow::Cow;
use std::net::Ipv6Addr;

use http::Uri;
use http::uri::PathAndQuery;

/// The most bytes of a path with its query that `http::Uri` holds.
const MOST: usize = (u16::MAX - 1) as usize;

/// Why a text is no URL, or no part of one.
#[derive(Debug, thiserror::Error)]
pub enum UrlError {
    /// It has no scheme.
    #[error("it must be absolute, like \"http://example.com/path\"")]
    Relative,
    /// RFC 3986, 3.1.
    #[error("its scheme must begin with a letter, and have but letters, digits, `+`, `-` and `.`")]
    Scheme,
    /// A user, or an `@`.
    #[error("it has credentials; hint: send an `authorization` header")]
    Credentials,
    /// Where only ASCII is taken.
    #[error("its host is not ASCII; hint: encode it by IDNA (\"xn--…\")")]
    NotAscii,
    /// RFC 9110, 4.2.1.
    #[error("it has no host")]
    NoHost,
    /// RFC 3986, 3.2.2.
    #[error("its host is neither a name nor an address")]
    Host,
    /// RFC 3986, 3.2.3.
    #[error("its port is not a number up to 65535")]
    Port,
    /// Than `http::Uri` holds.
    #[error("its path and query are longer than 65534 bytes")]
    TooLong,
    /// In its path or its query.
    #[error("it has a control character")]
    ControlCharacter,
    /// What `http` refuses besides.
    #[error(transparent)]
    Uri(#[from] http::Error),
}

/// Reads an absolute URL. Characters that a URL cannot hold are percent-encoded in its path and query; a fragment is left out.
/// The error says what is wrong with it.
pub fn parse(url: &str) -> Result<Uri, UrlError> {
    let (scheme, authority, target) = parts(url).ok_or(UrlError::Relative)?;
    build(scheme, authority, rooted(target.as_bytes())?)
}

/// A URL's scheme, its authority, and its path with its query. `None` if it is not absolute.
pub fn parts(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    Some((scheme, authority, without_fragment(target)))
}

/// Puts together what a guest asks for. A path that it leaves out is empty, which is `/` (RFC 9110, 4.2.3).
pub fn of_guest(scheme: &str, authority: &str, target: Option<&str>) -> Result<Uri, UrlError> {
    build(scheme, authority, rooted(without_fragment(target.unwrap_or_default()).as_bytes())?)
}

/// Puts together what a server has read: the target (a path with its query, or `*`) as it came, byte for byte, where
/// a URL can hold it.
pub fn of_server(scheme: &str, authority: &str, target: &[u8]) -> Result<Uri, UrlError> {
    let text = std::str::from_utf8(target).ok();
    // RFC 9112, 3.2.2: a target in absolute form says whose it is, whatever `Host` says. Its scheme is the server's to know.
    if let Some((named, authority, target)) = text.and_then(parts)
        && implied_port(&named.to_ascii_lowercase()).is_some()
    {
        return build(scheme, authority, rooted(target.as_bytes())?);
    }
    build(scheme, authority, as_it_came(target)?)
}

/// Puts together what a guest passes on: the target of the request that it got, or another one.
pub fn of_passed_on(scheme: &str, authority: &str, target: Option<&str>) -> Result<Uri, UrlError> {
    build(scheme, authority, as_it_came(target.unwrap_or_default().as_bytes())?)
}

/// A target byte for byte, where a URL can hold it.
fn as_it_came(target: &[u8]) -> Result<String, UrlError> {
    let text = std::str::from_utf8(target).ok();
    let as_it_is =
        text.filter(|target| target.is_ascii() && !target.contains('#') && target.parse::<PathAndQuery>().is_ok());
    match as_it_is {
        Some("*") => Ok("*".to_owned()),
        Some(target) if target.starts_with('/') => Ok(target.to_owned()),
        _ => rooted(target),
    }
}

/// The port that a scheme implies.
pub fn implied_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A server's own address as an authority, without the port that the scheme implies.
pub fn authority_of(scheme: &str, host: &str, port: Option<u16>) -> String {
    let implied = implied_port(scheme);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match port.filter(|port| Some(*port) != implied) {
        None => host,
        Some(port) => format!("{host}:{port}"),
    }
}

/// Splits an authority into its host and its port, and checks both. A port that is empty is none (RFC 3986, 3.2.3). The error
/// says what is wrong.
pub fn split(authority: &str) -> Result<(&str, Option<u16>), UrlError> {
    if authority.contains('@') {
        return Err(UrlError::Credentials);
    }
    if !authority.is_ascii() {
        return Err(UrlError::NotAscii);
    }
    let (host, port) = at_port(authority);
    if host.is_empty() {
        return Err(UrlError::NoHost); // RFC 9110, 4.2.1
    }
    if !is_host(host) {
        return Err(UrlError::Host);
    }
    match port {
        "" => Ok((host, None)),
        _ => Ok((host, Some(number(port).ok_or(UrlError::Port)?))),
    }
}

/// A port's number.
pub fn number(port: &str) -> Option<u16> {
    // `parse` would take a sign
    port.parse().ok().filter(|_| port.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether it is what RFC 3986 calls an authority, whatever HTTP makes of it: with credentials, or a port of any size.
pub fn is_authority(authority: &str) -> bool {
    let of_user = |byte: u8| is_of_name(byte) || matches!(byte, b':' | b'%');
    let (user, rest) = authority.rsplit_once('@').unwrap_or(("", authority));
    let Ok(rest) = decoded(rest) else { return false };
    let (host, port) = at_port(&rest);
    user.bytes().all(of_user) && (host.is_empty() || is_host(host)) && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether it is a scheme (RFC 3986, 3.1).
pub fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// The host, and what follows the colon that is not inside of an address of IPv6.
pub fn at_port(authority: &str) -> (&str, &str) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    }
}

/// RFC 3986, 3.2.2, without percent-encoded octets in a name.
pub fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => is_ipv6(address) || is_future(address),
        None => !host.is_empty() && host.bytes().all(is_of_name),
    }
}

/// With a zone, too (RFC 6874): one's own, of which no policy says anything, so that a `Network` reaches none.
fn is_ipv6(address: &str) -> bool {
    let (address, zone) = address.split_once("%25").map_or((address, None), |(address, zone)| (address, Some(zone)));
    let is_zone = |zone: &str| !zone.is_empty() && octets(zone).is_some() && zone.bytes().all(of_zone);
    address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_zone)
}

fn of_zone(byte: u8) -> bool {
    is_unreserved(byte) || byte == b'%'
}

/// `IPvFuture`.
fn is_future(address: &str) -> bool {
    let rest = address.strip_prefix(['v', 'V']).and_then(|rest| rest.split_once('.'));
    rest.is_some_and(|(version, address)| {
        !version.is_empty()
            && version.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !address.is_empty()
            && address.bytes().all(|byte| is_of_name(byte) || byte == b':')
    })
}

/// Unreserved, or a delimiter inside of a part.
fn is_of_name(byte: u8) -> bool {
    is_unreserved(byte) || b"!$&'()*+,;=".contains(&byte)
}

/// RFC 3986, 2.3.
pub fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// An authority without percent-encoded octets in its host. `http::Uri` holds none, and need not: a name that is encoded is the
/// same name (RFC 3986, 6.2.2.2), and one that is not ASCII is resolved by IDNA (3.2.2).
pub fn decoded(authority: &str) -> Result<Cow<'_, str>, UrlError> {
    let (host, port) = at_port(authority);
    // that of a zone stays
    if !host.contains('%') || host.starts_with('[') || authority.contains('@') {
        return Ok(Cow::Borrowed(authority));
    }
    let bytes = octets(host).ok_or(UrlError::Host)?;
    let plain = String::from_utf8(bytes).map_err(|_| UrlError::Host)?;
    if !plain.bytes().all(|byte| is_of_name(byte) || !byte.is_ascii()) {
        return Err(UrlError::Host);
    }
    let plain = match ::url::Host::parse(&plain) {
        _ if plain.is_ascii() => plain,
        Ok(::url::Host::Domain(name)) => name,
        _ => return Err(UrlError::Host),
    };
    let colon = if host.len() < authority.len() { ":" } else { "" };
    Ok(Cow::Owned(format!("{plain}{colon}{port}")))
}

/// A percent-encoded text's bytes.
pub fn octets(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        bytes.push(octet(piece)?);
        bytes.extend_from_slice(piece.get(2..)?.as_bytes());
    }
    Some(bytes)
}

/// The octet that is written at the head of what follows a `%`.
pub fn octet(piece: &str) -> Option<u8> {
    let digits = piece.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u8::from_str_radix(digits, 16).ok()
}

fn build(scheme: &str, authority: &str, target: String) -> Result<Uri, UrlError> {
    if !is_scheme(scheme) {
        return Err(UrlError::Scheme);
    }
    let authority = decoded(authority)?;
    split(&authority)?;
    if target.len() > MOST {
        return Err(UrlError::TooLong);
    }
    let uri = Uri::builder()
        .scheme(scheme.to_ascii_lowercase().as_str()) // RFC 3986, 3.1: the same in capitals
        .authority(&*authority)
        .path_and_query(target);
    Ok(uri.build()?)
}

fn without_fragment(target: &str) -> &str {
    target.split_once('#').map_or(target, |(before, _)| before)
}

/// A path with its query, encoded where it has to be.
fn rooted(target: &[u8]) -> Result<String, UrlError> {
    let slash = if target.starts_with(b"/") { "" } else { "/" };
    Ok(format!("{slash}{}", encode(target).ok_or(UrlError::ControlCharacter)?))
}

/// Percent-encodes what a path or a query cannot hold, as UTF-8, and nothing else. `None` if it has a control character.
pub fn encode(target: &[u8]) -> Option<String> {
    let mut encoded = String::with_capacity(target.len() + 1);
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' | b' ' => {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            _ if byte.is_ascii_graphic() => encoded.push(char::from(byte)),
            _ if byte.is_ascii_control() => return None,
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Some(encoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_authority_is_a_host_and_a_port_or_refused() {
        for (authority, host, port) in [
            ("a", "a", None),
            ("a:", "a", None),
            ("a:0", "a", Some(0)),
            ("a:00080", "a", Some(80)),
            ("a:65535", "a", Some(65535)),
            ("[::1]:1", "[::1]", Some(1)),
            ("[::ffff:1.2.3.4]", "[::ffff:1.2.3.4]", None),
            ("[vF.x:y]", "[vF.x:y]", None),
            ("[fe80::1%25eth0]:80", "[fe80::1%25eth0]", Some(80)),
            ("999.999.999.999", "999.999.999.999", None),
            ("a_b.-~!$&'()*+,;=", "a_b.-~!$&'()*+,;=", None),
        ] {
            assert_eq!(split(authority).unwrap(), (host, port), "{authority}");
            assert!(is_authority(authority), "{authority}");
            let uri = of_guest("http", authority, None).unwrap();
            assert_eq!((uri.host().unwrap(), uri.port_u16()), (host, port), "as `http::Uri` reads it: {authority}");
        }
        for authority in [
            "",
            ":",
            ":80",
            "a:65536",
            "a:+80",
            "a:-1",
            "a:8x",
            "a: 80",
            "a:80:",
            "a:b:80",
            "::1",
            "[::1",
            "::1]",
            "[::1]a",
            "a[::1]",
            "[]",
            "[a]",
            "[1.2.3.4]",
            "[::1%25]",
            "[::1%lo]",
            "[::1%25a%]",
            "[::1%25a:b]",
            "[v.a]",
            "[v1.]",
            "[vg.a]",
            "u@a",
            "@a",
            "a@",
            "a b",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "a|b",
            "a%",
            "ü",
            "a\0",
        ] {
            assert!(split(authority).is_err(), "{authority}");
            assert!(of_guest("http", authority, None).is_err(), "{authority}");
        }
        for (authority, is_one) in [("u:p%40@a:99999", true), (":80", true), ("a%20b", false), ("a:x", false)] {
            assert_eq!(is_authority(authority), is_one, "{authority}");
        }
    }

    #[test]
    fn a_name_that_is_encoded_is_the_same_name() {
        for (authority, plain) in [
            ("ex%61mple.com:80", "example.com:80"),
            ("%61", "a"),
            ("a%2c:", "a,:"),
            ("b%c3%bccher", "xn--bcher-kva"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(decoded(authority).unwrap(), plain, "{authority}");
        }
        for authority in
            ["a%", "a%4", "a%zz", "a%00", "a%20b", "a%2Fb", "a%3A80", "a%40b", "a%2541", "%ff", "%5B::1%5D"]
        {
            assert!(decoded(authority).is_err(), "{authority}");
        }
    }

    #[test]
    fn what_is_passed_on_keeps_its_target() {
        for (target, url) in [
            (None, "http://[::1]:8/"),
            (Some(""), "http://[::1]:8/"),
            (Some("*"), "http://[::1]:8*"),
            (Some("/{a}?b=c|d"), "http://[::1]:8/{a}?b=c|d"),
            // `http` takes no quotation mark in a query
            (Some("/{a}?b=\"c\""), "http://[::1]:8/%7Ba%7D?b=%22c%22"),
            (Some("http://other/"), "http://[::1]:8/http://other/"),
            (Some("a b"), "http://[::1]:8/a%20b"),
        ] {
            assert_eq!(of_passed_on("http", "[::1]:8", target).unwrap().to_string(), url);
        }
        assert!(of_passed_on("http", "a:99999", None).is_err());
    }

    #[test]
    fn a_target_in_absolute_form_has_its_authority() {
        for (target, url) in [
            (&b"http://real/x?y"[..], "http://real/x?y"),
            (b"HTTPS://real", "http://real/"),
            (b"/x?u=http://y", "http://fake/x?u=http://y"),
            (b"x?u=http://y", "http://fake/x?u=http://y"),
            (b"ftp://x/y", "http://fake/ftp://x/y"),
            (b"*", "http://fake*"),
        ] {
            assert_eq!(of_server("http", "fake", target).unwrap().to_string(), url);
        }
        assert!(of_server("http", "fake", b"http://a:99999/").is_err());
    }
}
