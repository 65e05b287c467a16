//! What is said of outgoing requests that were refused: where to, why, and what would allow it; the same not twice in a minute.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::Uri;

use crate::sync::lock;

/// How long nothing is said of what was said.
const QUIET: Duration = Duration::from_secs(60);
/// How many different ones an app remembers. A guest that asks for ever new names is told on so often a minute.
const MOST: usize = 32;
/// Of an origin in a log line.
const LONGEST: usize = 300;

/// Of one app.
#[derive(Default)]
pub(crate) struct Refusals(Mutex<HashMap<u64, Told>>);

/// A request that was refused.
pub(crate) struct Refused<'a> {
    pub uri: &'a Uri,
    /// Why.
    pub what: &'a str,
    /// Whether another path might not have been: then it is told for each, though the path is not.
    pub by_path: bool,
    /// What would allow it, for an origin.
    pub hint: &'a dyn Fn(&str) -> Option<String>,
}

struct Told {
    at: Instant,
    /// How often since then.
    again: u64,
}

impl Refusals {
    /// The line to log, unless the like of it was logged lately.
    pub fn told(&self, refused: &Refused<'_>) -> Option<String> {
        let key = refused.key();
        let mut known = lock(&self.0);
        let now = Instant::now();
        let again = match known.get_mut(&key) {
            Some(told) if now.duration_since(told.at) < QUIET => {
                told.again += 1;
                return None;
            }
            Some(told) => told.again,
            None => 0,
        };
        if known.len() >= MOST {
            known.retain(|_, told| now.duration_since(told.at) < QUIET);
            if known.len() >= MOST {
                return None;
            }
        }
        known.insert(key, Told { at: now, again: 0 });
        let more = if again > 0 { format!("; {again} more of them since this was last said") } else { String::new() };
        Some(refused.sentence(&more))
    }
}

impl Refused<'_> {
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (origin(self.uri), self.what, self.by_path.then(|| self.uri.path())).hash(&mut hasher);
        hasher.finish()
    }

    pub fn sentence(&self, more: &str) -> String {
        let origin = origin(self.uri);
        let what: String = self.what.chars().take(LONGEST).collect();
        let hint = (self.hint)(&origin).map_or_else(String::new, |hint| format!("; hint: {hint}"));
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn told(refusals: &Refusals, url: &str) -> Option<String> {
        told_of(refusals, url, false)
    }

    fn told_of(refusals: &Refusals, url: &str, by_path: bool) -> Option<String> {
        let hint = |origin: &str| Some(format!("allow `{origin}`"));
        refusals.told(&Refused { uri: &url.parse().unwrap(), what: "was denied", by_path, hint: &hint })
    }

    #[test]
    fn an_origin_is_told_once_and_without_secrets() {
        let refusals = Refusals::default();
        let line = told(&refusals, "https://user:secret@a.b:81/x?key=secret").unwrap();
        assert_eq!(line, "an outgoing request to `https://a.b:81` was denied; hint: allow `https://a.b:81`");
        assert_eq!(told(&refusals, "https://a.b:81/other"), None);
        assert!(told(&refusals, "https://a.b/").is_some(), "another one");
        for told in [true, false] {
            assert_eq!(told_of(&refusals, "https://a.b:81/path", true).is_some(), told, "a rule that looks at paths");
        }
    }

    #[test]
    fn it_is_told_again_later_with_how_often_it_was() {
        let refusals = Refusals::default();
        for _ in 0..3 {
            told(&refusals, "https://a/");
        }
        for told in lock(&refusals.0).values_mut() {
            told.at -= QUIET;
        }
        assert!(told(&refusals, "https://a/").unwrap().contains("; 2 more of them since"));
    }

    #[test]
    fn a_guest_that_asks_for_ever_new_names_is_told_on_so_often() {
        let refusals = Refusals::default();
        let lines = (0..1000).filter_map(|number| told(&refusals, &format!("https://a{number}/"))).count();
        assert_eq!((lines, lock(&refusals.0).len()), (MOST, MOST));
        let long = told(&Refusals::default(), &format!("https://{}/", "a".repeat(2000))).unwrap();
        assert!(long.len() < 3 * LONGEST);
    }
}
