//! What of the network a guest may reach.

use std::net::IpAddr;

use http::Method;
use http::request::Parts;
use ipnet::IpNet;

use crate::http::canonical_url::canonical_host;
use crate::http::url::{implied_port, split};
use crate::http::url_pattern::{Pattern, Target};
use crate::network::special_addresses::{canonical, special, translated};

/// Checked for each request before anything else, and again for each address before it is connected to.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What a URL has to match one of.
    pub allow: Vec<Pattern>,
    /// What a URL may match none of.
    pub deny: Vec<Pattern>,
    /// None: all but CONNECT.
    pub methods: Option<Vec<Method>>,
    /// Whether addresses that are not the public internet's may be reached.
    pub allow_private: bool,
    /// Addresses that may be reached whatever they are for.
    pub addresses: Vec<IpNet>,
}

/// The rule that refuses a request.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Denial {
    /// Of another scheme.
    #[error("it is not an http or https URL")]
    Scheme,
    /// In its URL.
    #[error("its URL has credentials")]
    Credentials,
    /// RFC 9110, 9.3.6.
    #[error("CONNECT is for proxies")]
    Connect,
    /// RFC 9110, 7.2.
    #[error("its `host` is not its URL's")]
    HostField,
    /// Nothing that could be compared with a pattern.
    #[error("it has no valid host or port")]
    Host,
    /// [`Policy::methods`].
    #[error("its method is not in `methods`: {0}")]
    Method(Method),
    /// [`Policy::deny`].
    #[error("`{0}` in `deny` matches it")]
    Denied(String),
    /// [`Policy::allow`].
    #[error("no pattern in `allow` matches it")]
    NotAllowed,
}

impl Policy {
    /// What is asked, if it may be. The error says which rule refuses it.
    pub fn check(&self, parts: &Parts) -> Result<Target, Denial> {
        let uri = &parts.uri;
        let (Some(authority), Some("http" | "https")) = (uri.authority(), uri.scheme_str()) else {
            return Err(Denial::Scheme);
        };
        if authority.as_str().contains('@') {
            return Err(Denial::Credentials);
        }
        if parts.method == Method::CONNECT {
            return Err(Denial::Connect);
        }
        if let Some(host) = parts.headers.get(http::header::HOST)
            && !is_of(host.as_bytes(), authority.as_str(), uri.scheme_str())
        {
            return Err(Denial::HostField);
        }
        let target = Target::of(uri).ok_or(Denial::Host)?;
        if let Some(methods) = &self.methods
            && !methods.contains(&parts.method)
        {
            return Err(Denial::Method(parts.method.clone()));
        }
        if let Some(pattern) = self.deny.iter().find(|pattern| pattern.may_match(&target)) {
            return Err(Denial::Denied(pattern.to_string()));
        }
        if !self.allow.iter().any(|pattern| pattern.matches(&target)) {
            return Err(Denial::NotAllowed);
        }
        Ok(target)
    }

    /// Whether an address may be connected to for a target, which [`Self::check`] has let pass. The error says what the
    /// address is.
    pub fn check_address(&self, target: &Target, address: IpAddr) -> Result<(), &'static str> {
        let address = canonical(address);
        // systems take it for one of their own, whatever rules say of those
        if address.is_unspecified() {
            return Err("unspecified");
        }
        // an address that is denied is denied by whatever name, and by whatever way to it
        for address in [Some(address), translated(address)].into_iter().flatten().filter(|_| !self.deny.is_empty()) {
            let there = target.at(address);
            if self.deny.iter().any(|pattern| pattern.may_match(&there)) {
                return Err("in `deny`");
            }
        }
        // the URL is that of the address, and a rule names just that
        let is_named = || target.is_at(address) && self.allow.iter().any(|pattern| pattern.names(target));
        match special(address) {
            None => Ok(()),
            Some(_) if self.allow_private || self.addresses.iter().any(|network| network.contains(&address)) => Ok(()),
            Some(_) if is_named() => Ok(()),
            Some(class) => Err(class),
        }
    }
}

/// Whether a `host` field is of an authority: however both are spelt.
fn is_of(field: &[u8], authority: &str, scheme: Option<&str>) -> bool {
    let address = |authority| {
        let (host, port) = split(authority).ok()?;
        Some((canonical_host(host)?, port.or_else(|| scheme.and_then(implied_port))))
    };
    field == authority.as_bytes()
        || std::str::from_utf8(field).ok().and_then(address).is_some_and(|one| Some(one) == address(authority))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        let allow = allow.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        Policy { allow, deny: Vec::new(), methods: None, allow_private: false, addresses: Vec::new() }
    }

    fn check(policy: &Policy, method: &str, url: &str, host: Option<&str>) -> Result<(), Denial> {
        let mut request = http::Request::builder().method(method).uri(url);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        policy.check(&request.body(()).unwrap().into_parts().0).map(drop)
    }

    #[test]
    fn what_is_not_allowed_is_denied_and_said_why() {
        let mut rules = policy(&["https://a.b", "*.c"]);
        rules.deny.push(Pattern::parse("secret.c").unwrap());
        rules.deny.push(Pattern::parse("y.c/secret").unwrap());
        rules.methods = Some(vec![Method::GET]);
        for (method, url, host, why) in [
            ("GET", "https://a.b/x", None, None),
            ("GET", "https://a.b/x", Some("a.b"), None),
            ("GET", "https://a.b/x", Some("A.B.:443"), None),
            ("GET", "https://a.b:/x", Some("a.b"), None),
            ("GET", "https://a.b/x", Some("a.b:80"), Some("`host`")),
            ("GET", "https://a.b/x", Some("a.b:+443"), Some("`host`")),
            ("GET", "https://a.b:99999/", None, Some("port")),
            ("GET", "https://a.b:65979/", None, Some("port")),
            ("GET", "http://x.c:81/", None, None),
            ("GET", "http://a.b/", None, Some("no pattern in `allow`")),
            ("GET", "https://secret.c/", None, Some("`secret.c` in `deny`")),
            ("GET", "https://SECRET.c./", None, Some("`secret.c` in `deny`")),
            ("POST", "https://a.b/", None, Some("`methods`: POST")),
            ("CONNECT", "https://a.b/", None, Some("CONNECT")),
            ("GET", "http://y.c/secret", None, Some("`y.c/secret` in `deny`")),
            ("GET", "http://y.c/x/../secret", None, Some("`y.c/secret` in `deny`")),
            ("GET", "http://y.c//secret;a=b/x", None, Some("`y.c/secret` in `deny`")),
            ("GET", "http://y.c/%2fsecret", None, Some("`y.c/secret` in `deny`")),
            ("GET", "http://y.c/secret%00", None, Some("`y.c/secret` in `deny`")),
            ("GET", "http://y.c/secrets", None, None),
            ("GET", "https://user@a.b/", None, Some("credentials")),
            ("GET", "https://a.b/", Some("x.c"), Some("`host`")),
            ("GET", "ftp://x.c/", None, Some("not an http")),
        ] {
            let checked = check(&rules, method, url, host);
            match why {
                None => assert_eq!(checked, Ok(()), "{method} {url}"),
                Some(why) => {
                    assert!(
                        checked.as_ref().is_err_and(|told| told.to_string().contains(why)),
                        "{method} {url}: {checked:?}"
                    )
                }
            }
        }
    }

    #[test]
    fn an_address_is_reached_only_if_it_is_public_or_named() {
        let reaches = |policy: &Policy, url: &str, address: &str| {
            policy.check_address(&Target::of(&url.parse().unwrap()).unwrap(), address.parse().unwrap()).is_ok()
        };
        let mut rules = policy(&["*", "http://127.0.0.1:8080", "[fd00::1]"]);
        assert!(reaches(&rules, "http://a/", "8.8.8.8"));
        assert!(!reaches(&rules, "http://a/", "127.0.0.1"), "a name that leads there");
        assert!(!reaches(&rules, "http://127.0.0.1/", "127.0.0.1"), "another port");
        assert!(!reaches(&rules, "http://127.0.0.1:8080/", "127.0.0.2"));
        assert!(reaches(&rules, "http://127.0.0.1:8080/", "127.0.0.1"));
        assert!(reaches(&rules, "http://0x7f.1:8080/", "::ffff:127.0.0.1"));
        assert!(reaches(&rules, "https://[fd00:0::1]/", "fd00::1"));
        rules.addresses.push("10.1.0.0/16".parse().unwrap());
        assert!(reaches(&rules, "http://a/", "10.1.2.3") && !reaches(&rules, "http://a/", "10.2.0.1"));
        rules.allow_private = true;
        assert!(reaches(&rules, "http://a/", "127.0.0.1"));
        rules.deny.push(Pattern::parse("127.0.0.1:81").unwrap());
        assert!(!reaches(&rules, "http://a:81/", "127.0.0.1"), "by another name");
        assert!(!reaches(&rules, "http://a:81/", "::ffff:127.0.0.1"));
        assert!(reaches(&rules, "http://a/", "127.0.0.1") && reaches(&rules, "http://a:81/", "127.0.0.2"));
    }
}
