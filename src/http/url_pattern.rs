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

/// Why a text is no pattern.
#[derive(Debug, thiserror::Error)]
pub enum PatternError {
    /// One that no request of a guest's has.
    #[error("its scheme must be http or https")]
    Scheme,
    /// A query, a fragment, or credentials.
    #[error("it has a `{0}`, but takes a host, a port and a path")]
    Part(String),
    /// Or 0.
    #[error("its port is not a number up to 65535")]
    Port,
    /// `a.*`, `*a.b`, `*.1.2.3.4`.
    #[error("`*` stands for whole labels at the head of a name, as in `*.example.com`")]
    Wildcard,
    /// None, or none that is one.
    #[error("it has no host")]
    NoHost,
    /// `10.0.0.0/8`, whose path would be `/8`.
    #[error("it is a network of addresses, but takes one host; hint: `Network.addresses`")]
    Addresses,
    /// `/v*`, `/*/x`.
    #[error("`*` in a path stands at its end only, as in `/v1/*`")]
    PathWildcard,
    /// Servers may read it in different ways.
    #[error("its path has dot segments, or an invalid percent-encoding")]
    Path,
}

/// Why patterns make no table.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// One is none.
    #[error("`{text}`: {source}")]
    Pattern {
        /// As it was given.
        text: String,
        /// What is wrong with it.
        source: PatternError,
    },
    /// Two mean the same.
    #[error("`{text}` is given twice: `{other}`")]
    Twice {
        /// As it was given.
        text: String,
        /// The earlier one.
        other: String,
    },
    /// Some requests fit two, and none of the two means less than the other.
    #[error("`{one}` and `{other}` both match some requests, and neither is more specific")]
    Ambiguous {
        /// The earlier one.
        one: String,
        /// The later one.
        other: String,
    },
}

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
    /// Whether it is asked by TLS.
    pub fn is_secure(&self) -> bool {
        self.scheme == "https"
    }

    /// In canonical form.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its own, or its scheme's.
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
    pub fn parse(text: &str) -> Result<Self, PatternError> {
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
                    return Err(PatternError::Scheme);
                }
                (Some(scheme), rest)
            }
        };
        if let Some(wrong) = rest.find(['?', '#', '@']).and_then(|at| rest.get(at..=at)) {
            return Err(PatternError::Part(wrong.to_owned()));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match at_port(authority) {
            (host, "") => (host, None),
            (host, port) => {
                let number = number(port).filter(|port| *port != 0);
                (host, Some(number.ok_or(PatternError::Port)?))
            }
        };
        let hosts = match host.strip_prefix('*') {
            Some("") => Hosts::Any,
            Some(below) => match below.strip_prefix('.').and_then(canonical_host) {
                Some(Host::Domain(domain)) if !domain.contains('*') => Hosts::Below(format!(".{domain}")),
                _ => return Err(PatternError::Wildcard),
            },
            None if host.contains('*') => {
                return Err(PatternError::Wildcard);
            }
            None => Hosts::One(canonical_host(host).ok_or(PatternError::NoHost)?),
        };
        if scheme.is_none() && port.is_none() && hosts.is_network_with(path) {
            return Err(PatternError::Addresses);
        }
        let path = path.strip_suffix('*').filter(|path| path.ends_with('/')).unwrap_or(path);
        if path.contains('*') {
            return Err(PatternError::PathWildcard);
        }
        let mut path = Path::of(path).ok_or(PatternError::Path)?;
        path.plain.truncate(path.plain.trim_end_matches('/').len());
        Ok(Self { port: port.or_else(|| scheme.as_deref().and_then(implied_port)), scheme, hosts, path })
    }

    /// Whether it means this target, however its path is read.
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
    /// Whether this and a path are written as a network of addresses is.
    fn is_network_with(&self, path: &str) -> bool {
        matches!(self, Self::One(Host::Ipv4(_) | Host::Ipv6(_)))
            && path.get(1..).and_then(number).is_some_and(|bits| bits <= 128)
    }

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
        f.write_str(&self.path.plain)?;
        // it was written as one that is no network: `10.0.0.1/8/`
        let is_network = self.scheme.is_none() && self.port.is_none() && self.hosts.is_network_with(&self.path.plain);
        if is_network { f.write_str("/") } else { Ok(()) }
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
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, TableError> {
        let mut patterns: Vec<(Pattern, usize)> = Vec::new();
        for (place, text) in texts.into_iter().enumerate() {
            let pattern =
                Pattern::parse(text).map_err(|source| TableError::Pattern { text: text.to_owned(), source })?;
            for (other, _) in &patterns {
                match (other.covers(&pattern), pattern.covers(other)) {
                    (true, true) => return Err(TableError::Twice { text: text.to_owned(), other: other.to_string() }),
                    (false, false) if other.meets(&pattern) => {
                        return Err(TableError::Ambiguous { one: other.to_string(), other: pattern.to_string() });
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
mod tests;
