//! What a request is about, and whose it is: worked out once, for the route, the log and the guest.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::HOST;
use http::{Method, Request};
use hyper::body::Incoming;

use crate::http::{fields, url};
use crate::server::forwarded;
use crate::server::head::{Head, MOST_FIELDS};
use crate::server::refusal::Refusal;
use crate::server::shared::Connection;

/// A request as it is understood.
pub(super) struct Understood {
    pub scheme: &'static str,
    pub authority: String,
    pub client: forwarded::Client,
    /// The path with its query.
    pub target: Bytes,
}

impl Connection {
    /// The other end: the client, or a proxy before it.
    pub(super) fn client(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip().to_canonical())
    }

    pub(super) fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Whose a request is, and for what: worked out once, for the route, the log and the guest.
    pub(super) fn understand(&self, request: &Request<Incoming>, head: Option<&Head>) -> Result<Understood, Refusal> {
        if let Some(refusal) = head.and_then(|head| head.refused.clone()) {
            return Err(refusal);
        }
        let fields = request.headers();
        if fields.len() > MOST_FIELDS {
            return Err(Refusal::new(431, "the request has too many fields"));
        }
        if head.is_none() && fields::size(fields) > self.common.caps.header_bytes as u64 {
            return Err(Refusal::new(431, "the head of the request is too large"));
        }
        if request.method() == Method::CONNECT {
            return Err(Refusal::new(501, "a component cannot open a tunnel"));
        }
        let client = forwarded::resolve(&self.common.trusted, self.peer, fields);
        let scheme = match &client.scheme {
            Some(scheme) if *scheme == http::uri::Scheme::HTTPS => "https",
            Some(_) => "http",
            None => self.scheme(),
        };
        let host = match fields.get(HOST).map(|host| host.to_str().map(str::trim)) {
            Some(Ok(host)) => Some(host),
            Some(Err(_)) => return Err(Refusal::bad("`host` is no host")),
            None => None,
        };
        let raw = match head {
            Some(head) => std::str::from_utf8(head.target()).map_err(|_| Refusal::bad("the target is not ASCII"))?,
            None => "",
        };
        let uri = request.uri();
        // a query may have a URL in it: `/login?next=https://shop.local`
        let absolute = if raw.starts_with('/') { None } else { url::parts(raw) };
        let (named, authority, target) = match (head, absolute) {
            // RFC 9112, 3.2.2
            (Some(_), Some((named, authority, target))) => (Some(named), Some(authority), target),
            (Some(_), None) => (None, None, raw),
            // RFC 9113, 8.3.1
            (None, _) => {
                let target = uri.path_and_query().map_or("/", |target| target.as_str());
                (uri.scheme_str(), uri.authority().map(|authority| authority.as_str()), target)
            }
        };
        if let Some(named) = named
            && !named.eq_ignore_ascii_case(self.scheme())
            && !named.eq_ignore_ascii_case(scheme)
        {
            // RFC 9110, 7.4: nobody has secured it
            return Err(Refusal::new(421, "the scheme of the request is not that of its connection"));
        }
        if let (None, Some(authority), Some(host)) = (head, authority, host)
            && !authority.eq_ignore_ascii_case(host)
        {
            return Err(Refusal::bad("`host` and `:authority` are not the same"));
        }
        let authority = authority.or(host).unwrap_or_default();
        if authority.contains('@') || (!authority.is_empty() && !url::is_authority(authority)) {
            return Err(Refusal::bad("`host` is no host"));
        }
        let authority = match &client.host {
            Some(host) => host.clone(),
            None if authority.is_empty() => self.own_authority(),
            None => authority.to_owned(),
        };
        // the guest would see another name than the one that the route and the log go by
        if authority.contains('%') {
            return Err(Refusal::bad("the host has percent-encoded octets"));
        }
        if target == "*" {
            let status = if request.method() == Method::OPTIONS { 204 } else { 400 };
            return Err(Refusal::new(status, "`*` is a target of OPTIONS alone")); // RFC 9112, 3.2.4
        }
        if !target.starts_with('/') && !target.starts_with('?') && !target.is_empty() {
            return Err(Refusal::bad("the target is no path"));
        }
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Understood { scheme, authority, client, target: Bytes::from(target) })
    }

    fn own_authority(&self) -> String {
        match self.local {
            Some(local) => url::authority_of(self.scheme(), &local.ip().to_canonical().to_string(), Some(local.port())),
            None => "localhost".to_owned(),
        }
    }
}
