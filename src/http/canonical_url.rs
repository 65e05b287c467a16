//! URLs in the one form in which they are compared (RFC 3986, 6.2.2 and 6.2.3): none is sent in it.

use url::Host;

use crate::http::url::{
    at_port, decoded, encode, implied_port, is_host, is_scheme, is_unreserved, number, octet, parts,
};

/// A host in the one form in which hosts are compared: IDNA A-labels in lower case, without a trailing dot; IPv4 from any of
/// its spellings; IPv6 compressed, and as IPv4 where it maps one. `None` if it is no host.
pub fn canonical_host(host: &str) -> Option<Host> {
    match Host::parse(host).ok()? {
        Host::Ipv6(address) => Some(match address.to_ipv4_mapped() {
            Some(v4) => Host::Ipv4(v4),
            None => Host::Ipv6(address),
        }),
        Host::Domain(name) => {
            let name = name.strip_suffix('.').unwrap_or(&name);
            // each label has something in it
            (!name.contains('*') && !name.split('.').any(str::is_empty)).then(|| Host::Domain(name.to_owned()))
        }
        v4 @ Host::Ipv4(_) => Some(v4),
    }
}

/// A URL as it is compared with others. `None` if it is none.
pub fn url(text: &str) -> Option<String> {
    let (scheme, authority, target) = parts(text)?;
    if is_scheme(scheme) { joined(scheme, authority, target) } else { None }
}

/// A pattern with `*` for any of a URL's characters, so that it fits what [`url()`] makes of those that it is meant for.
pub fn glob(text: &str) -> String {
    let written = match parts(text) {
        None => encode(text.as_bytes()).map(|text| octets(&text)),
        Some((scheme, authority, target)) if authority.contains('*') => starred(scheme, authority, target),
        Some((scheme, authority, target)) => joined(scheme, authority, target),
    };
    written.unwrap_or_else(|| text.to_owned())
}

fn joined(scheme: &str, authority: &str, target: &str) -> Option<String> {
    let scheme = scheme.to_ascii_lowercase();
    let (host, port) = at_port(authority);
    let host = match canonical_host(host) {
        Some(host) => host.to_string(),
        // no name of anybody's, but one that a URL can have
        None => Some(decoded(host).ok()?.to_ascii_lowercase()).filter(|host| is_host(host))?,
    };
    let target = here(target)?;
    if port.is_empty() {
        return Some(format!("{scheme}://{host}{target}"));
    }
    let number = number(port)?;
    Some(match implied_port(&scheme) {
        Some(implied) if implied == number => format!("{scheme}://{host}{target}"),
        _ => format!("{scheme}://{host}:{number}{target}"),
    })
}

/// Of a pattern with a star in its host or port.
fn starred(scheme: &str, authority: &str, target: &str) -> Option<String> {
    let (scheme, authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
    let authority = match at_port(&authority) {
        (host, "") => host,
        (host, port) if implied_port(&scheme).is_some_and(|implied| number(port) == Some(implied)) => host,
        _ => &authority,
    };
    // what ends in any number of characters means the path, too
    let target = if target.is_empty() && authority.ends_with("**") { String::new() } else { here(target)? };
    Some(format!("{scheme}://{authority}{target}"))
}

/// A path with its query. `None` if it has a control character.
fn here(target: &str) -> Option<String> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let mut written = without_dots(&octets(&encode(path.as_bytes())?));
    if let Some(query) = query {
        written.push('?');
        written.push_str(&octets(&encode(query.as_bytes())?));
    }
    Some(written)
}

/// RFC 3986, 6.2.2.3. An empty path is `/`.
fn without_dots(path: &str) -> String {
    let (mut kept, mut is_open) = (Vec::new(), true);
    for segment in path.strip_prefix('/').unwrap_or(path).split('/') {
        is_open = matches!(segment, "." | "..");
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    let mut written: String = kept.iter().flat_map(|segment| ["/", segment]).collect();
    if is_open || written.is_empty() {
        written.push('/');
    }
    written
}

/// Percent-encoded octets in one spelling: none of an unreserved character, hexadecimal digits in capitals (RFC 3986, 6.2.2.1
/// and 6.2.2.2).
pub fn octets(text: &str) -> String {
    let mut written = String::with_capacity(text.len());
    let mut pieces = text.split('%');
    written.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        match octet(piece) {
            Some(byte) if is_unreserved(byte) => written.push(char::from(byte)),
            Some(byte) => written.push_str(&format!("%{byte:02X}")),
            // one that stands for itself
            None => {
                written.push_str("%25");
                written.push_str(piece);
                continue;
            }
        }
        written.push_str(piece.get(2..).unwrap_or_default());
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equivalent_urls_are_one() {
        for (one, others) in [
            (
                "http://example.com/",
                vec![
                    "HTTP://example.com",
                    "http://EXAMPLE.com/",
                    "http://example.com:80/",
                    "http://example.com:/",
                    "http://example.com:0080",
                    "http://ex%61mple.com/",
                    "http://example.com./",
                    "http://example.com/#top",
                    "http://example.com/a/..",
                    "http://example.com/./%2e",
                ],
            ),
            ("https://a/b~c", vec!["https://a:443/b%7Ec", "https://A/b%7ec", "https://a/x/%2E%2e/b~c"]),
            ("http://a/?q=%C3%A9", vec!["http://a?q=%c3%a9", "http://a/?q=é", "http://a:80?q=é"]),
            ("http://xn--bcher-kva.example/", vec!["http://bücher.example/", "http://b%C3%BCcher.example"]),
            ("http://[::1]:8080/", vec!["http://[0:0::1]:8080", "http://[::0001]:8080/"]),
            ("http://a/%2F%2f", vec!["http://a/%2f%2F"]),
            ("http://a/%zz%4", vec!["http://A/%zz%4"]),
            ("http://a/100%25", vec!["http://a/100%"]),
        ] {
            for other in others {
                assert_eq!(url(other), url(one), "{other} and {one}");
            }
        }
    }

    #[test]
    fn others_are_not() {
        for (one, other) in [
            ("http://a/", "https://a/"),
            ("http://a/", "http://a:443/"),
            ("http://a/b/c", "http://a/b%2Fc"),
            ("http://a/B", "http://a/b"),
            ("http://a/", "http://a/?"),
            ("http://a/?q=%26", "http://a/?q=&"),
            ("http://a/?x=1", "http://a/?X=1"),
            ("http://a//b", "http://a/b"),
            ("http://a/?q=a/../b", "http://a/?q=b"),
        ] {
            assert_ne!(url(one), url(other), "{one} and {other}");
        }
        for wrong in
            ["", "/x", "a/b", "http://", "http://:80/", "http://u@a/", "http://a:x/", "http://a:99999/", "h@://a/"]
        {
            assert_eq!(url(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_pattern_is_in_the_form_of_what_it_fits() {
        for (text, normal) in [
            ("HTTPS://API.example.com:443/v1/**", "https://api.example.com/v1/**"),
            ("https://*.Example.com:443", "https://*.example.com/"),
            ("https://*.example.com:8443/%7Ea/*", "https://*.example.com:8443/~a/*"),
            ("http://**", "http://**"),
            ("**/é/%7e", "**/%C3%A9/~"),
            ("*://A/x", "*://a/x"),
            ("http://a:*/x", "http://a:*/x"),
        ] {
            assert_eq!(glob(text), normal, "{text}");
        }
    }
}
