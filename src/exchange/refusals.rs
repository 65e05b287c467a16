//! What is said of outgoing requests that were refused: where to, why, and what would allow it; the same not twice in a minute.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv6Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::Uri;

use crate::http::url::at_port;
use crate::http::url_pattern::Pattern;
use crate::sync::lock;

/// How long nothing is said of what was said.
const QUIET: Duration = Duration::from_secs(60);
/// How many different ones an app remembers. Of a guest that asks for ever new names so many are shown a minute, and that
/// there are more.
const MOST: usize = 32;
/// Of an origin in a log line.
const LONGEST: usize = 300;

/// Of one app.
#[derive(Default)]
pub(crate) struct Refusals {
    known: Mutex<Known>,
    /// Whether hints are for users of the command line, not for those who write code.
    names_flags: AtomicBool,
}

#[derive(Default)]
struct Known {
    told: HashMap<u64, Told>,
    /// When it was last said that more are not shown.
    full: Option<Instant>,
}

/// A request that was refused.
pub(crate) struct Refused<'a> {
    pub uri: &'a Uri,
    /// Why.
    pub what: &'a str,
    /// What would allow it, for an origin; `None`: for one that no pattern should name.
    pub hint: &'a dyn Fn(Option<&str>) -> Option<Hint>,
}

/// What would allow a request.
#[derive(Debug)]
pub(crate) struct Hint {
    /// In Python code that makes the app.
    pub code: String,
    /// On the command line, if it can be said there.
    pub flag: Option<String>,
}

struct Told {
    at: Instant,
    /// How often since then.
    again: u64,
}

impl Refusals {
    /// The app was made by the command line: what it lacks is a flag.
    pub(crate) fn name_flags(&self) {
        self.names_flags.store(true, Ordering::Relaxed);
    }

    /// The line to log, unless the like of it was logged lately.
    pub(crate) fn told(&self, refused: &Refused<'_>) -> Option<String> {
        let key = refused.key();
        let mut known = lock(&self.known);
        let now = Instant::now();
        let again = match known.told.get_mut(&key) {
            Some(told) if now.duration_since(told.at) < QUIET => {
                told.again += 1;
                return None;
            }
            Some(told) => told.again,
            None => 0,
        };
        if known.told.len() >= MOST {
            known.told.retain(|_, told| now.duration_since(told.at) < QUIET);
            if known.told.len() >= MOST {
                if known.full.is_some_and(|at| now.duration_since(at) < QUIET) {
                    return None;
                }
                known.full = Some(now);
                return Some(format!(
                    "further messages about refused outgoing requests suppressed: at most {MOST} different ones a minute"
                ));
            }
        }
        known.told.insert(key, Told { at: now, again: 0 });
        let more = if again > 0 { format!("; {again} more since the last message") } else { String::new() };
        Some(refused.sentence(&more, self.names_flags.load(Ordering::Relaxed)))
    }
}

impl Refused<'_> {
    /// Of what is said of it: what would allow it follows from that.
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (origin(self.uri), self.what).hash(&mut hasher);
        hasher.finish()
    }

    pub(crate) fn sentence(&self, more: &str, names_flags: bool) -> String {
        let origin = origin(self.uri);
        let what: String = self.what.chars().take(LONGEST).collect();
        let hint = (self.hint)(Some(&*origin).filter(|origin| is_plain(origin)))
            .and_then(|hint| if names_flags { hint.flag } else { Some(hint.code) });
        let hint = hint.map_or_else(String::new, |hint| format!("; hint: {hint}"));
        format!("an outgoing request to `{origin}` {what}{more}{hint}")
    }
}

/// Scheme, host and port: paths, queries and credentials hold secrets. It is a guest's text, so it is escaped and cut.
fn origin(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let host = authority.rsplit('@').next().unwrap_or_default();
    let text = match uri.scheme_str() {
        Some(scheme) => format!("{scheme}://{host}"),
        None => host.to_owned(),
    };
    text.escape_debug().take(LONGEST).collect()
}

/// Whether an origin may stand in a hint, which is pasted into code or a shell: with a host that means itself (`*` would be all of them),
/// and without a character that either would read.
fn is_plain(origin: &str) -> bool {
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let (host, _) = at_port(authority);
    let is_name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host),
    };
    is_host && origin.len() < LONGEST && Pattern::parse(origin).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(refusals: &Refusals, url: &str) -> Option<String> {
        told_of(refusals, url, "was denied")
    }

    fn told_of(refusals: &Refusals, url: &str, what: &str) -> Option<String> {
        let flag = (what == "was denied").then(|| "`--allow`".to_owned());
        let hint = |origin: Option<&str>| Some(Hint { code: format!("allow `{}`", origin?), flag: flag.clone() });
        refusals.told(&Refused { uri: &url.parse().unwrap(), what, hint: &hint })
    }

    #[test]
    fn an_origin_is_told_once_and_without_secrets() {
        let refusals = Refusals::default();
        let line = told(&refusals, "https://user:secret@a.b:81/x?key=secret").unwrap();
        assert_eq!(line, "an outgoing request to `https://a.b:81` was denied; hint: allow `https://a.b:81`");
        assert_eq!(told(&refusals, "https://a.b:81/other"), None);
        assert!(told(&refusals, "https://a.b/").is_some(), "another one");
        assert!(told_of(&refusals, "https://a.b:81/x", "is too late").is_some(), "for another reason");
    }

    #[test]
    fn a_hint_names_no_more_than_one_host_and_nothing_that_a_shell_reads() {
        for plain in ["https://a.b", "http://a_b-c.d:81", "http://127.0.0.1:1", "http://[::1]:80", "https://a."] {
            assert!(is_plain(plain), "{plain}");
        }
        let long = format!("https://{}", "a.".repeat(LONGEST));
        for other in [
            "http://*",
            "http://*.a",
            "http://$(id)",
            "http://a&id",
            "http://a'b",
            "http://a;b",
            "http://a!b",
            "http://a%26b",
            "http://[v1.a&b]",
            "http://[a-z]",
            "http://",
            "http://a:$(id)",
            "ftp://a",
            "a",
            "",
            &long,
        ] {
            assert!(!is_plain(other), "{other}");
        }
        let line = told(&Refusals::default(), "http://*/").unwrap();
        assert_eq!(line, "an outgoing request to `http://*` was denied");
    }

    #[test]
    fn a_user_of_the_command_line_is_told_of_flags_alone() {
        let refusals = Refusals::default();
        refusals.name_flags();
        let line = told(&refusals, "https://a.b/").unwrap();
        assert_eq!(line, "an outgoing request to `https://a.b` was denied; hint: `--allow`");
        let line = told_of(&refusals, "https://a.b/", "has no route").unwrap();
        assert_eq!(line, "an outgoing request to `https://a.b` has no route");
    }

    #[test]
    fn it_is_told_again_later_with_how_often_it_was() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            told(&refusals, "https://a/");
        }
        for told in lock(&refusals.known).told.values_mut() {
            told.at -= QUIET;
        }
        assert!(told(&refusals, "https://a/").unwrap().contains("; 2 more since"));
    }

    #[test]
    fn a_guest_that_asks_for_ever_new_names_is_told_on_so_often() {
        let refusals = Refusals::default();
        let lines: Vec<_> = (0..1000).filter_map(|number| told(&refusals, &format!("https://a{number}/"))).collect();
        assert_eq!((lines.len(), lock(&refusals.known).told.len()), (MOST + 1, MOST));
        assert!(lines.last().unwrap().starts_with("further messages about refused outgoing requests suppressed"));
        lock(&refusals.known).full = Some(Instant::now() - QUIET);
        assert!(told(&refusals, "https://b/").unwrap().starts_with("further messages"), "a minute later");
        let long = told(&Refusals::default(), &format!("https://{}/", "a".repeat(2000))).unwrap();
        assert!(long.len() < 3 * LONGEST);
    }
}
