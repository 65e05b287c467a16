//! Patterns of URLs: which requests of a guest are meant.
//!
//! A pattern is `*`, or `[scheme://]host[:port][/path]`. A host that begins with `*.` means all below it, `*` alone any.
//! Without a scheme both are meant; without a port the scheme's own, or any port if there is no scheme. A path means itself
//! and what is below it.

use std::fmt;
use std::net::IpAddr;

use url::Host;

use crate::http::canonical_url::{canonical_host, octets};
use crate::http::url::{at_port, encode, implied_port, number, octet, split};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    Any,
    /// Those below a domain: `.example.com`, with the dot.
    Below(String),
    One(Host),
}

/// See the module's documentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    scheme: Option<String>,
    hosts: Hosts,
    port: Option<u16>,
    /// Without its last slash; empty: any.
    path: Path,
}

/// What a pattern is compared with, in canonical form.
#[derive(Clone, Debug)]
pub struct Target {
    scheme: String,
    host: Host,
    port: Option<u16>,
    /// `None` if nobody can say where it leads.
    path: Option<Path>,
}

fn host_of(address: IpAddr) -> Host {
    match address {
        IpAddr::V4(address) => Host::Ipv4(address),
        IpAddr::V6(address) => Host::Ipv6(address),
    }
}

impl Target {
    pub fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    pub fn host(&self) -> &Host {
        &self.host
    }

    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The same at an address.
    pub fn at(&self, address: IpAddr) -> Self {
        Self { host: host_of(address), ..self.clone() }
    }

    /// Whether its host is written as this address.
    pub fn is_at(&self, address: IpAddr) -> bool {
        self.host == host_of(address)
    }

    /// `None` if the host or the port is none.
    pub fn of(uri: &http::Uri) -> Option<Self> {
        let scheme = uri.scheme_str().unwrap_or("https").to_ascii_lowercase();
        let (host, port) = split(uri.authority()?.as_str()).ok()?;
        Some(Self {
            host: canonical_host(host)?,
            port: port.or_else(|| implied_port(&scheme)),
            path: Path::of(uri.path()),
            scheme,
        })
    }
}

/// A path in the two forms in which paths are compared.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Path {
    /// Unreserved characters are not percent-encoded.
    plain: String,
    /// As servers may read it that take it most loosely: one slash where there are several or an encoded one, and no
    /// parameters of segments.
    loose: String,
}

impl Path {
    /// `None` if nobody can say where it leads: it has dot segments, or what some servers read as such.
    fn of(path: &str) -> Option<Self> {
        let path = encode(path.as_bytes())?;
        // some servers end a path at a control character, and what they make of an encoding that is none is theirs to say
        if path.split('%').skip(1).any(|piece| octet(piece).is_none_or(|byte| byte.is_ascii_control())) {
            return None;
        }
        let plain = octets(&path);
        let slashes = plain.replace("%2F", "/").replace("%5C", "/").replace('\\', "/");
        let mut loose = String::with_capacity(plain.len());
        for segment in slashes.split('/').map(|segment| segment.split(';').next().unwrap_or_default()) {
            match segment {
                "." | ".." => return None,
                "" => {}
                segment => {
                    loose.push('/');
                    loose.push_str(segment);
                }
            }
        }
        Some(Self { plain, loose })
    }
}

impl Pattern {
    /// Reads a pattern. The error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self {
                scheme: None,
                hosts: Hosts::Any,
                port: None,
                path: Path { plain: String::new(), loose: String::new() },
            });
        }
        let (scheme, rest) = match text.split_once("://") {
            None => (None, text),
            Some((scheme, rest)) => {
                let scheme = scheme.to_ascii_lowercase();
                if implied_port(&scheme).is_none() {
                    return Err("its scheme must be http or https".into());
                }
                (Some(scheme), rest)
            }
        };
        if let Some(wrong) = rest.find(['?', '#', '@']).and_then(|at| rest.get(at..=at)) {
            return Err(format!("it has a `{wrong}`, but takes a host, a port and a path"));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match at_port(authority) {
            (host, "") => (host, None),
            (host, port) => {
                let number = number(port).filter(|port| *port != 0);
                (host, Some(number.ok_or("its port is not a number up to 65535")?))
            }
        };
        let hosts = match host.strip_prefix('*') {
            Some("") => Hosts::Any,
            Some(below) => match below.strip_prefix('.').and_then(canonical_host) {
                Some(Host::Domain(domain)) if !domain.contains('*') => Hosts::Below(format!(".{domain}")),
                _ => return Err("`*` stands for whole labels at the head of a name, as in `*.example.com`".into()),
            },
            None if host.contains('*') => {
                return Err("`*` stands for whole labels at the head of a name, as in `*.example.com`".into());
            }
            None => Hosts::One(canonical_host(host).ok_or("it has no host")?),
        };
        let path = path.strip_suffix('*').filter(|path| path.ends_with('/')).unwrap_or(path);
        if path.contains('*') {
            return Err("`*` in a path stands at its end only, as in `/v1/*`".into());
        }
        let mut path = Path::of(path).ok_or("its path has dot segments, or an invalid percent-encoding")?;
        path.plain.truncate(path.plain.trim_end_matches('/').len());
        Ok(Self { port: port.or_else(|| scheme.as_deref().and_then(implied_port)), scheme, hosts, path })
    }

    pub fn matches(&self, target: &Target) -> bool {
        self.is_of(target)
            && (self.path.plain.is_empty()
                || target.path.as_ref().is_some_and(|path| is_below(&path.plain, &self.path.plain)))
    }

    /// Whether the target could be meant, as some server reads its path: for what is forbidden.
    pub fn may_match(&self, target: &Target) -> bool {
        self.is_of(target) && target.path.as_ref().is_none_or(|path| is_below(&path.loose, &self.path.loose))
    }

    fn is_of(&self, target: &Target) -> bool {
        self.scheme.as_ref().is_none_or(|scheme| *scheme == target.scheme)
            && self.port.is_none_or(|port| Some(port) == target.port)
            && self.hosts.has(&target.host)
    }

    /// Whether it fits the target, and names its host itself.
    pub fn names(&self, target: &Target) -> bool {
        matches!(&self.hosts, Hosts::One(_)) && self.matches(target)
    }

    /// Whether it names the unspecified address, which is nobody's.
    pub fn is_unspecified(&self) -> bool {
        match &self.hosts {
            Hosts::One(Host::Ipv4(address)) => address.is_unspecified(),
            Hosts::One(Host::Ipv6(address)) => address.is_unspecified(),
            _ => false,
        }
    }

    /// Whether all that `other` means is meant by this one, too.
    pub fn covers(&self, other: &Self) -> bool {
        (self.scheme.is_none() || self.scheme == other.scheme)
            && (self.port.is_none() || self.port == other.port)
            && self.hosts.covers(&other.hosts)
            && is_below(&other.path.plain, &self.path.plain)
    }

    /// Whether something is meant by both.
    fn meets(&self, other: &Self) -> bool {
        let agree = |one: bool, other: bool, same: bool| one || other || same;
        agree(self.scheme.is_none(), other.scheme.is_none(), self.scheme == other.scheme)
            && agree(self.port.is_none(), other.port.is_none(), self.port == other.port)
            && (self.hosts.covers(&other.hosts) || other.hosts.covers(&self.hosts))
            && (is_below(&other.path.plain, &self.path.plain) || is_below(&self.path.plain, &other.path.plain))
    }
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl Hosts {
    fn has(&self, host: &Host) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::One(one), host) => one == host,
            (Self::Below(domain), Host::Domain(name)) => name.ends_with(domain.as_str()) && name.len() > domain.len(),
            (Self::Below(_), _) => false,
        }
    }

    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Any, _) => true,
            (_, Self::Any) => false,
            (hosts, Self::One(host)) => hosts.has(host),
            (Self::Below(domain), Self::Below(other)) => other.ends_with(domain.as_str()),
            (Self::One(_), Self::Below(_)) => false,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(scheme) = &self.scheme {
            write!(f, "{scheme}://")?;
        }
        match &self.hosts {
            Hosts::Any => f.write_str("*")?,
            Hosts::Below(domain) => write!(f, "*{domain}")?,
            Hosts::One(host) => write!(f, "{host}")?,
        }
        if let Some(port) = self.port.filter(|port| self.scheme.as_deref().and_then(implied_port) != Some(*port)) {
            write!(f, ":{port}")?;
        }
        f.write_str(&self.path.plain)
    }
}

/// Patterns of which the most special one that fits is meant.
#[derive(Debug)]
pub struct Table {
    /// The more special before those that cover them, with their places in what was given.
    patterns: Vec<(Pattern, usize)>,
}

impl Table {
    /// Refuses two patterns that mean the same, or of which some request could mean either. The error names both.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let mut patterns: Vec<(Pattern, usize)> = Vec::new();
        for (place, text) in texts.into_iter().enumerate() {
            let pattern = Pattern::parse(text).map_err(|why| format!("`{text}`: {why}"))?;
            for (other, _) in &patterns {
                match (other.covers(&pattern), pattern.covers(other)) {
                    (true, true) => return Err(format!("`{text}` is given twice: `{other}`")),
                    (false, false) if other.meets(&pattern) => {
                        return Err(format!(
                            "`{other}` and `{pattern}` both match some requests, and neither is more specific"
                        ));
                    }
                    _ => {}
                }
            }
            let at = patterns.iter().position(|(other, _)| other.covers(&pattern)).unwrap_or(patterns.len());
            patterns.insert(at, (pattern, place));
        }
        Ok(Self { patterns })
    }

    /// The place of the pattern that is meant. None also if a more special one could be, as some server reads the path.
    pub fn find(&self, uri: &http::Uri) -> Option<usize> {
        let target = Target::of(uri)?;
        let (pattern, place) = self.patterns.iter().find(|(pattern, _)| pattern.may_match(&target))?;
        pattern.matches(&target).then_some(*place)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    fn matches(pattern: &str, url: &str) -> bool {
        let target = Target::of(&url.parse().unwrap()).unwrap();
        Pattern::parse(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}")).matches(&target)
    }

    #[test]
    fn patterns_mean_what_they_say() {
        for (pattern, fitting, others) in [
            ("*", vec!["http://a/", "https://[::1]:8/x"], vec![]),
            ("api.local", vec!["http://api.local/", "https://API.local.:99/x"], vec!["http://x.api.local/"]),
            ("api.local:8080", vec!["http://api.local:8080/"], vec!["http://api.local/", "https://api.local/"]),
            ("https://a", vec!["https://a/", "https://a:443/"], vec!["http://a/", "https://a:444/", "http://a:443/"]),
            ("*.a.b", vec!["http://x.a.b/", "http://x.y.a.b/"], vec!["http://a.b/", "http://xa.b/", "http://a.b.c/"]),
            ("http://*:80", vec!["http://a/", "http://1.2.3.4/"], vec!["http://a:81/", "https://a:80/"]),
            ("a/v1/", vec!["http://a/v1", "http://a/v1/x", "http://a/v1?q"], vec!["http://a/v10", "http://a/"]),
            ("a/v1/*", vec!["http://a/v1/x", "http://a/%761/x"], vec!["http://a/v2"]),
            ("127.0.0.1", vec!["http://127.0.0.1/", "http://0x7f.1/", "http://2130706433/"], vec!["http://127.0.0.2/"]),
            ("127.0.0.1", vec!["http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"], vec!["http://[::1]/"]),
            ("[2001:DB8::0:1]:81", vec!["http://[2001:db8::1]:81/"], vec!["http://[2001:db8::1]/"]),
            ("bücher.example", vec!["http://xn--bcher-kva.example/"], vec!["http://bucher.example/"]),
            ("a/é/{x}", vec!["http://a/%C3%A9/%7Bx%7D", "http://a/%c3%a9/%7bx%7d"], vec!["http://a/e/%7Bx%7D"]),
            ("http://a:", vec!["http://a/", "http://a:/", "http://a:0080/"], vec!["http://a:81/"]),
            ("b%C3%BCcher.%65xample", vec!["http://xn--bcher-kva.example/"], vec![]),
        ] {
            for url in fitting {
                assert!(matches(pattern, url), "{pattern} and {url}");
            }
            for url in others {
                assert!(!matches(pattern, url), "{pattern} and {url}");
            }
        }
    }

    #[test]
    fn no_path_leads_out_of_a_pattern() {
        for path in [
            "/v1/../x",
            "/v1/..",
            "/v1/%2e%2e/x",
            "/v1/.%2E/x",
            "/v1/..%2fx",
            "/v1/..%5cx",
            "/v1/./x",
            "/v1/..;a=b/x",
            "/v1/%2e",
            "/v1/%zz",
            "/v1/%2",
        ] {
            assert_eq!(Path::of(path), None, "{path}");
            if let Ok(url) = format!("http://a{path}").parse() {
                let target = Target::of(&url).unwrap();
                assert!(!Pattern::parse("a/v1").unwrap().matches(&target), "{path}");
                assert!(Pattern::parse("a").unwrap().matches(&target), "the whole host is meant, whatever the path");
            }
        }
        for path in ["/v1/../x", "//v1", "/v1;a=b/x", "/%2fv1", "/v1%00", "/x/..%2fv1", "\\\\v1/", "/v1//x"] {
            if let Ok(url) = format!("http://a{path}").parse() {
                let target = Target::of(&url).unwrap();
                assert!(Pattern::parse("a/v1").unwrap().may_match(&target), "{path} may be below /v1");
                assert!(!Pattern::parse("b/v1").unwrap().may_match(&target));
            }
        }
        for path in ["/v2", "/", "/v10", "/x/v1"] {
            let target = Target::of(&format!("http://a{path}").parse().unwrap()).unwrap();
            assert!(!Pattern::parse("a/v1").unwrap().may_match(&target), "{path}");
        }
        assert_eq!(Path::of("/v1/%41%2fb%20c").map(|path| path.plain).as_deref(), Some("/v1/A%2Fb%20c"));
    }

    #[test]
    fn what_is_no_port_is_no_target() {
        for authority in ["a:99999", "a:65616", "a:+80", "a:abc", "[::1]a:80", "[::1%25lo]"] {
            // `http::Uri` takes them
            let uri = format!("http://{authority}/").parse().unwrap();
            assert!(Target::of(&uri).is_none(), "{authority}");
            assert_eq!(Table::new(["*"]).unwrap().find(&uri), None, "{authority}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("", "no host"),
            ("http://", "no host"),
            ("ftp://a", "http or https"),
            ("a?q", "`?`"),
            ("user@a", "`@`"),
            ("a:0", "port"),
            ("a:+80", "port"),
            ("a:99999", "port"),
            ("a.*", "whole labels"),
            ("*a.b", "whole labels"),
            ("*.1.2.3.4", "whole labels"),
            ("a/*/b", "at its end"),
            ("a/v*", "at its end"),
            ("a/..", "dot segments"),
            ("a b", "no host"),
            ("a..", "no host"),
            ("a.\u{3002}", "no host"),
            ("a.\u{ff0a}", "no host"),
            ("[::1%25eth0]", "no host"),
        ] {
            let Err(error) = Pattern::parse(text) else { panic!("{text:?} is one") };
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn the_most_special_pattern_is_meant() {
        let texts = ["*", "a.b", "https://a.b/v1/", "*.b", "https://a.b", "https://a.b/v1/deep", "http://c:81"];
        let table = Table::new(texts).unwrap();
        for (url, text) in [
            ("http://x/", "*"),
            ("http://a.b/", "a.b"),
            ("https://a.b/", "https://a.b"),
            ("https://a.b/v1/x", "https://a.b/v1/"),
            ("https://a.b/v1/deep/er", "https://a.b/v1/deep"),
            ("https://a.b/v1/deeper", "https://a.b/v1/"),
            ("https://a.b:444/v1/x", "a.b"),
            ("http://z.b/", "*.b"),
            ("http://c:81/", "http://c:81"),
            ("http://c/", "*"),
        ] {
            let found = table.find(&url.parse().unwrap()).and_then(|place| texts.get(place));
            assert_eq!(found, Some(&text), "{url}");
        }
        assert_eq!(Table::new(["a"]).unwrap().find(&"http://b/".parse().unwrap()), None);
    }

    #[test]
    fn what_could_mean_either_is_refused() {
        for (one, other) in [
            ("a", "A."),
            ("http://a", "http://a:80/"),
            ("127.0.0.1", "0x7f.0.0.1"),
            ("http://*.b", "a.b"),
            ("a:80", "http://*:80"),
            ("a/v1", "https://a"),
            ("*/x", "a"),
        ] {
            let error = Table::new([one, other]).map(drop).unwrap_err();
            assert!(error.contains("twice") || error.contains("neither"), "{one}, {other}: {error}");
        }
        for (one, other) in [("http://a", "https://a"), ("a/v1", "a/v2"), ("*.a", "a"), ("a:1", "a:2")] {
            assert!(Table::new([one, other]).is_ok(), "{one}, {other}");
        }
    }
}
