//! What is reached without a proxy: the entries of `NO_PROXY`, in the forms that curl, Python and Go read.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use url::Host;

use crate::http::canonical_url::canonical_host;
use crate::network::origin::Origin;

/// An entry that is none.
#[derive(Debug, thiserror::Error)]
#[error("`{entry}`: {source}")]
pub struct BypassError {
    /// As it was given.
    entry: String,
    source: EntryError,
}

#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error("its scheme must be http or https")]
    Scheme,
    #[error("its port is not a number from 1 to 65535")]
    Port,
    #[error("an address has no subdomains")]
    BelowAddress,
    #[error("it is neither a host nor a network; hint: `*.example.com` is all below a domain")]
    Host,
}

/// Origins that are asked without a proxy.
#[derive(Clone, Debug, Default)]
pub struct Bypass(Vec<Entry>);

/// `*`, a name, an address or a network; for one scheme and one port, if it has them.
#[derive(Clone, Debug)]
struct Entry {
    secure: Option<bool>,
    hosts: Hosts,
    port: Option<u16>,
}

#[derive(Clone, Debug)]
enum Hosts {
    Any,
    /// A domain, and all below it: `example.com`, and `.example.com`, which means the same to curl and Python.
    With(String),
    /// Those below a domain: `*.example.com`.
    Below(String),
    Addresses(IpNet),
}

impl Bypass {
    /// Reads entries with commas or spaces between them. The error has the one that is wrong, and says why.
    pub fn add(&mut self, list: &str) -> Result<(), BypassError> {
        for text in list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|text| !text.is_empty()) {
            self.0.push(Entry::parse(text).map_err(|source| BypassError { entry: text.to_owned(), source })?);
        }
        Ok(())
    }

    /// Whether this is one of them.
    pub fn has(&self, origin: &Origin) -> bool {
        self.0.iter().any(|entry| entry.matches(origin))
    }
}

impl Entry {
    fn parse(text: &str) -> Result<Self, EntryError> {
        let (secure, text) = match text.split_once("://") {
            None => (None, text),
            Some((scheme, rest)) => {
                let secure = match scheme.to_ascii_lowercase().as_str() {
                    "all" => None,
                    "http" => Some(false),
                    "https" => Some(true),
                    _ => return Err(EntryError::Scheme),
                };
                (secure, rest.strip_suffix('/').unwrap_or(rest))
            }
        };
        // before a port is looked for: IPv6 has colons of its own
        if let Some(network) = network(text) {
            return Ok(Self { secure, hosts: Hosts::Addresses(network), port: None });
        }
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port: &u16| is_number && *port > 0);
                (host, Some(port.ok_or(EntryError::Port)?))
            }
            _ => (text, None),
        };
        Ok(Self { secure, hosts: Hosts::parse(host)?, port })
    }

    fn matches(&self, origin: &Origin) -> bool {
        self.secure.is_none_or(|secure| secure == origin.secure)
            && self.port.is_none_or(|port| port == origin.port)
            && self.hosts.has(&origin.host)
    }
}

impl Hosts {
    fn parse(text: &str) -> Result<Self, EntryError> {
        if text == "*" {
            return Ok(Self::Any);
        }
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(network) = network(bracketed.unwrap_or(text)) {
            return Ok(Self::Addresses(network));
        }
        let (domain, is_below) = match text.strip_prefix("*.") {
            Some(domain) => (domain, true),
            None => (text.strip_prefix('.').unwrap_or(text), false),
        };
        match canonical_host(domain) {
            Some(Host::Domain(name)) if is_below => Ok(Self::Below(name)),
            Some(Host::Domain(name)) => Ok(Self::With(name)),
            Some(_) if domain.len() < text.len() => Err(EntryError::BelowAddress),
            Some(Host::Ipv4(address)) => Ok(Self::Addresses(IpAddr::V4(address).into())),
            Some(Host::Ipv6(address)) => Ok(Self::Addresses(IpAddr::V6(address).into())),
            None => Err(EntryError::Host),
        }
    }

    fn has(&self, host: &Host) -> bool {
        let is_below = |name: &str, domain: &str| name.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match (self, host) {
            (Self::Any, _) => true,
            (Self::With(domain), Host::Domain(name)) => name == domain || is_below(name, domain),
            (Self::Below(domain), Host::Domain(name)) => is_below(name, domain),
            (Self::Addresses(network), Host::Ipv4(address)) => network.contains(&IpAddr::V4(*address)),
            (Self::Addresses(network), Host::Ipv6(address)) => network.contains(&IpAddr::V6(*address)),
            _ => false,
        }
    }
}

/// A network, or an address; one of IPv6 that maps IPv4 is that, as all addresses are that are compared with it.
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).ok()?;
    match network {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.addr().to_ipv4_mapped() {
            Some(v4) => Ipv4Net::new(v4, v6.prefix_len() - 96).ok().map(IpNet::V4),
            None => Some(network),
        },
        _ => Some(network),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::http::url_pattern::Target;

    fn has(list: &str, url: &str) -> bool {
        let mut bypass = Bypass::default();
        bypass.add(list).unwrap();
        bypass.has(&Origin::of(&Target::of(&url.parse().unwrap()).unwrap()).unwrap())
    }

    #[test]
    fn what_an_entry_means() {
        for (list, urls, others) in [
            ("*", &["http://a/", "https://127.0.0.1/", "http://[::1]:8080/"][..], &[][..]),
            (
                "example.com",
                &["http://example.com/", "https://EXAMPLE.com.:444/", "http://a.b.example.com/"],
                &["http://notexample.com/", "http://example.com.evil/", "http://com/"],
            ),
            (".example.com", &["http://example.com/", "http://a.example.com/"], &["http://aexample.com/"]),
            ("*.example.com", &["http://a.example.com/"], &["http://example.com/", "http://aexample.com/"]),
            ("Example.COM.", &["http://example.com/", "http://a.example.com/"], &[]),
            ("bücher.example", &["http://xn--bcher-kva.example/"], &[]),
            (
                "example.com:8080",
                &["http://example.com:8080/", "https://a.example.com:8080/"],
                &["http://example.com/", "http://example.com:80/"],
            ),
            ("example.com:443", &["https://example.com/"], &["http://example.com/"]),
            ("http://example.com", &["http://example.com/", "http://a.example.com:81/"], &["https://example.com/"]),
            ("https://example.com:8443/", &["https://example.com:8443/"], &["https://example.com/"]),
            ("all://example.com", &["http://example.com/", "https://example.com/"], &["http://a/"]),
            (
                "127.0.0.1",
                &["http://127.0.0.1/", "http://0x7f.1:8080/", "http://[::ffff:127.0.0.1]/"],
                &["http://127.0.0.2/"],
            ),
            ("127.1", &["http://127.0.0.1/"], &[]),
            ("127.0.0.1:80", &["http://127.0.0.1/"], &["http://127.0.0.1:81/"]),
            ("10.0.0.0/8", &["http://10.1.2.3/"], &["http://11.0.0.1/", "http://a/"]),
            ("10.1.2.3/8", &["http://10.9.9.9/"], &[]),
            ("::1", &["http://[::1]/", "http://[0:0::1]:81/"], &["http://[::2]/"]),
            ("[::1]", &["http://[::1]/"], &["http://[::2]/"]),
            ("[::1]:80", &["http://[::1]/"], &["http://[::1]:81/"]),
            ("fd00::/8", &["http://[fd12::1]/"], &["http://[fe80::1]/"]),
            ("::ffff:10.0.0.0/104", &["http://10.1.2.3/"], &["http://11.0.0.1/"]),
            ("a, b\tc  ,,d,", &["http://a/", "http://b/", "http://c/", "http://d/"], &["http://e/"]),
            (" , ", &[], &["http://a/"]),
        ] {
            for url in urls {
                assert!(has(list, url), "{list} and {url}");
            }
            for url in others {
                assert!(!has(list, url), "{list} and {url}");
            }
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for text in [
            "<local>",
            "192.168.*",
            "*.*.com",
            "a*",
            "*.",
            ".",
            "ftp://a",
            "a:0",
            "a:99999",
            "a:http",
            "a:+80",
            "a:",
            "a/b",
            "10.0.0.0/33",
            "http://a/b",
            "user@a",
            "*.127.0.0.1",
            "[::1",
            "a?",
            "::1%eth0",
        ] {
            let error = Bypass::default().add(&format!("x,{text}")).unwrap_err();
            assert_eq!(error.entry, text, "{error}");
        }
    }
}
