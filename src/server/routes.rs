//! Which app serves a request: by its host and the beginning of its path.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::app::App;
use crate::app::admission::Permit;
use crate::app::exchange::Exchange;
use crate::error::Error;
use crate::http::canonical_url::{canonical_host, octets};
use crate::http::url::{encode, implied_port, split};
use crate::server::static_files::service::StaticFiles;
use crate::sync::lock;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;

/// An app as a server has it: how its exchanges begin, and who hears of those that fail.
pub trait Hosted: Send + Sync {
    /// The app.
    fn app(&self) -> &App;

    /// What the log names it by.
    fn label(&self) -> &str;

    /// Begins an exchange: its guest has had a turn, and goes on by itself. `is_alone`: nothing else is served on this thread.
    fn begin(&self, permit: Permit, request: http::Request<WasiBody>, is_alone: bool) -> Beginning;

    /// The server answers instead of a guest.
    fn failed(&self, failure: Failure);

    /// Whether guests are told who the client is.
    fn forwarded(&self) -> bool;

    /// Whether guests see the path below their mount only.
    fn strips(&self) -> bool;

    /// Whether answers where there is no guest's have details.
    fn debug(&self) -> bool;
}

/// An exchange that begins.
pub enum Beginning {
    /// It has.
    Now(Result<Box<Begun>, Error>),
    /// Somebody else begins it: Python code takes part.
    Later(oneshot::Receiver<Result<Box<Begun>, Error>>),
}

/// An exchange that has begun.
pub struct Begun {
    /// Its guest goes on by itself.
    pub exchange: Exchange,
    /// Hears what the client gets.
    pub witness: Option<Box<dyn Witness>>,
}

/// Whoever wants to know what becomes of an exchange.
pub trait Witness: Send {
    /// The guest has responded.
    fn answered(&self, status: u16);

    /// There is no response.
    fn failed(&self, error: &Error);
}

/// Why a guest has no answer, or not all of it.
#[derive(Debug)]
pub struct Failure {
    /// Of the request.
    pub method: String,
    /// As it came.
    pub target: String,
    /// Of the answer.
    pub status: u16,
    /// Whether the answer had begun.
    pub midway: bool,
    /// What has failed.
    pub error: Error,
    /// The number of the exchange, if it has begun.
    pub exchange: Option<u64>,
}

/// The table of a server. One that another has taken the place of lives until its exchanges have ended, or its time is up.
pub struct Routes {
    rules: Vec<Rule>,
    expires: Mutex<Option<Instant>>,
}

struct Rule {
    host: Option<Host>,
    /// Of the path, without a slash at its end.
    prefix: String,
    what: Serves,
}

/// What is served at a route.
#[derive(Clone)]
pub enum Serves {
    /// An app's guests.
    App(Arc<dyn Hosted>),
    /// The files of a folder.
    Files(Arc<StaticFiles>),
}

/// A route that is none, or a folder that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// In words.
    #[error("{0}")]
    Wrong(String),
    /// The folder, and why.
    #[error("`{}` cannot be served: {}", .0.display(), .1)]
    Folder(PathBuf, #[source] std::io::Error),
}

/// Whose requests a rule is about.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    scheme: Option<String>,
    host: String,
    /// None: any.
    port: Option<u16>,
}

/// What serves a request.
pub(super) struct Found<'a> {
    pub what: &'a Serves,
    /// How many bytes of the path belong to the mount.
    pub mount: usize,
}

impl Routes {
    /// Of patterns and apps. A pattern is the beginning of a path (`/api`), or an origin with or without one (`https://shop.local/x`,
    /// `//shop.local`). The longest one that fits counts, and one with a host before one without.
    pub fn new(apps: Vec<(String, Arc<dyn Hosted>)>, folders: Vec<(String, PathBuf)>) -> Result<Arc<Self>, RouteError> {
        let mut rules = Vec::new();
        let mut add = |pattern: &str, host, prefix, what| {
            if rules.iter().any(|known: &Rule| known.host == host && known.prefix == prefix) {
                return Err(RouteError::Wrong(format!("two routes are the same: `{pattern}`")));
            }
            rules.push(Rule { host, prefix, what });
            Ok(())
        };
        for (pattern, app) in apps {
            let (host, prefix) = read(&pattern).map_err(RouteError::Wrong)?;
            add(&pattern, host, prefix, Serves::App(app))?;
        }
        for (pattern, folder) in folders {
            let (host, prefix) = read(&pattern).map_err(RouteError::Wrong)?;
            let files = StaticFiles::open(&folder, &prefix).map_err(|error| RouteError::Folder(folder, error))?;
            add(&pattern, host, prefix, Serves::Files(Arc::new(files)))?;
        }
        if rules.is_empty() {
            return Err(RouteError::Wrong("there is no route".to_owned()));
        }
        rules.sort_by_key(|rule| {
            let host = rule.host.as_ref().map(|host| (host.port.is_some(), host.scheme.is_some()));
            std::cmp::Reverse((host, rule.prefix.len()))
        });
        Ok(Arc::new(Self { rules, expires: Mutex::default() }))
    }

    /// All its apps.
    pub fn apps(&self) -> impl Iterator<Item = &Arc<dyn Hosted>> {
        self.rules.iter().filter_map(|rule| match &rule.what {
            Serves::App(app) => Some(app),
            Serves::Files(_) => None,
        })
    }

    /// Whether there is one thing only.
    pub(super) fn is_one(&self) -> bool {
        self.rules.len() == 1
    }

    pub(super) fn find(&self, scheme: &str, authority: &str, path: &str) -> Option<Found<'_>> {
        if let [Rule { host: None, prefix, what }] = &self.rules[..]
            && prefix.is_empty()
        {
            return Some(Found { what, mount: 0 });
        }
        let asked = host_of(authority).map(|(host, port)| (host, port.or_else(|| implied_port(scheme))));
        self.rules.iter().find_map(|rule| {
            if let Some(wanted) = &rule.host {
                let (host, port) = asked.as_ref()?;
                let is_other = wanted.host != *host
                    || wanted.port.is_some_and(|wanted| Some(wanted) != *port)
                    || wanted.scheme.as_deref().is_some_and(|wanted| wanted != scheme);
                if is_other {
                    return None;
                }
            }
            below(&rule.prefix, path).map(|mount| Found { what: &rule.what, mount })
        })
    }

    /// Others have taken its place: what is under way may take so long.
    pub(super) fn expire(&self, within: Duration) {
        *lock(&self.expires) = Some(Instant::now() + within);
    }

    pub(super) fn have_expired(&self, now: Instant) -> bool {
        lock(&self.expires).is_some_and(|at| now >= at)
    }
}

/// A pattern's host and prefix.
fn read(pattern: &str) -> Result<(Option<Host>, String), String> {
    let no_route = |why: &str| format!("`{pattern}` is no route: {why}");
    let wrong = |why| Err(no_route(why));
    let (scheme, rest) = match pattern.split_once("//") {
        Some(("", rest)) => (None, Some(rest)),
        Some(("http:", rest)) => (Some("http"), Some(rest)),
        Some(("https:", rest)) => (Some("https"), Some(rest)),
        _ => (None, None),
    };
    let Some(rest) = rest else {
        if !pattern.starts_with('/') {
            return wrong("it must begin with `/`, `//`, `http://` or `https://`");
        }
        return Ok((None, prefix(pattern).map_err(|why| no_route(&why))?));
    };
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let Some((host, port)) = host_of(authority) else { return wrong("its host is not one") };
    let port = port.or_else(|| implied_port(scheme?));
    let host = Host { scheme: scheme.map(str::to_owned), host, port };
    Ok((Some(host), prefix(path).map_err(|why| no_route(&why))?))
}

/// A path in the one spelling that all of its spellings have, without slashes at its end. The error says why it is that of no request.
fn prefix(path: &str) -> Result<String, String> {
    if path.contains(['?', '#']) {
        return Err("its path has no `?` and no `#`".to_owned());
    }
    let is_sent = path.bytes().all(|byte| byte.is_ascii_graphic())
        && (path.is_empty() || http::uri::PathAndQuery::try_from(path).is_ok());
    match encode(path.as_bytes()) {
        _ if is_sent => Ok(octets(path.trim_end_matches('/'))),
        Some(sent) => Err(format!("no request has such a path; hint: `{sent}`")),
        None => Err("its path has a control character".to_owned()),
    }
}

/// The host in the one spelling that all of its spellings have (RFC 3986, 3.2.2), and the port if one is named.
fn host_of(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = split(authority).ok()?;
    let host = canonical_host(host.strip_suffix('.').unwrap_or(host))?.to_string();
    Some((host, port))
}

/// How much of a path is the mount's, if it is below that: whole segments, in any spelling of the same octets; an encoded slash is none.
fn below(prefix: &str, path: &str) -> Option<usize> {
    if prefix.is_empty() {
        return Some(0);
    }
    let segments = prefix.matches('/').count();
    let end = path.match_indices('/').nth(segments).map_or(path.len(), |(at, _)| at);
    let mount = path.get(..end)?;
    (mount == prefix || octets(mount) == *prefix).then_some(end)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_a_path_or_an_origin() {
        let host = |scheme: Option<&str>, host: &str, port| {
            Some(Host { scheme: scheme.map(str::to_owned), host: host.to_owned(), port })
        };
        for (pattern, expected) in [
            ("/", (None, "")),
            ("/api/", (None, "/api")),
            ("/%61pi", (None, "/api")),
            ("//Shop.Local", (host(None, "shop.local", None), "")),
            ("//shop.local.:8000/x", (host(None, "shop.local", Some(8000)), "/x")),
            ("https://shop.local", (host(Some("https"), "shop.local", Some(443)), "")),
            ("http://[::1]:80/", (host(Some("http"), "[::1]", Some(80)), "")),
        ] {
            assert_eq!(read(pattern).unwrap(), (expected.0, expected.1.to_owned()), "{pattern}");
        }
        for pattern in ["", "api", "ftp://a", "http://", "//", "/a?b", "https://a/#b", "http://a:b"] {
            assert!(read(pattern).is_err(), "{pattern}");
        }
        for (pattern, hint) in [("/ü", "/%C3%BC"), ("/a b", "/a%20b"), ("//a/<b>", "/%3Cb%3E"), ("/a\u{7f}", "control")]
        {
            assert!(read(pattern).unwrap_err().contains(hint), "{pattern}");
        }
    }

    #[test]
    fn a_mount_is_whole_segments() {
        for (prefix, path, mount) in [
            ("", "/x", Some(0)),
            ("/api", "/api", Some(4)),
            ("/api", "/api/x", Some(4)),
            ("/api", "/%61pi/x", Some(6)),
            ("/api", "/apix", None),
            ("/api", "/api%2Fx", None),
            ("/a/b", "/a/b/c", Some(4)),
            ("/a/b", "/a", None),
            ("/a/b", "/a%2fb", None),
        ] {
            assert_eq!(below(prefix, path), mount, "{prefix} {path}");
        }
    }
}
