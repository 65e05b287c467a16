//! Names to addresses, by the system's resolver, with its failures told apart.

use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType};
use tokio::sync::{Semaphore, SetOnce};
use tokio::task::AbortHandle;

use crate::process::blocking_threads::Threads;
use crate::process::fork::PerFork;
use crate::sync::lock;

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unresolved {
    #[error("the name does not exist")]
    NoSuchName,
    #[error("the name has no address")]
    NoAddress,
    #[error("temporary failure in name resolution")]
    Unavailable,
    #[error("the resolver failed (error {0})")]
    Failed(i32),
    #[error("the lookup was cancelled: the process is exiting")]
    GivenUp,
}

impl Unresolved {
    /// The response code of DNS that means the same (RFC 1035, 4.1.1).
    pub(crate) fn rcode(self) -> Option<&'static str> {
        match self {
            Self::NoSuchName => Some("NXDOMAIN"),
            Self::NoAddress => Some("NOERROR"),
            Self::Unavailable => Some("SERVFAIL"),
            Self::Failed(_) | Self::GivenUp => None,
        }
    }
}

impl From<LookupError> for Unresolved {
    fn from(error: LookupError) -> Self {
        match error.kind() {
            LookupErrorKind::NoName => Self::NoSuchName,
            LookupErrorKind::NoData => Self::NoAddress,
            LookupErrorKind::Again => Self::Unavailable,
            _ => Self::Failed(error.error_num()),
        }
    }
}

pub(crate) type Resolving = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Unresolved>> + Send>>;

/// Whoever knows the addresses of names.
pub(crate) trait Resolve: Send + Sync {
    fn resolve(&self, name: String) -> Resolving;
}

/// How many names are looked up at once. The system's resolver keeps a thread until it is done, whoever still waits for it; so
/// a name server that never answers holds up the names of one `Network` and no more, and one name takes one place however often it
/// is asked for.
const AT_ONCE: usize = 16;

type Found = Result<Vec<IpAddr>, Unresolved>;
type LookUp = Arc<dyn Fn(&str) -> Found + Send + Sync>;

/// The system's resolver.
pub(crate) struct System {
    turns: Arc<Semaphore>,
    under_way: Arc<Mutex<HashMap<String, Weak<Lookup>>>>,
    look_up: LookUp,
    threads: PerFork<Threads>,
}

/// Of one name, for all who wait for that. It lasts until nobody waits any more, or once it has begun until it is done.
struct Lookup {
    found: SetOnce<Found>,
    task: OnceLock<AbortHandle>,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::with(Arc::new(|name: &str| {
            let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
            let found = dns_lookup::getaddrinfo(Some(name), None, Some(hints))?;
            Ok(found.filter_map(|info| info.ok().map(|info| info.sockaddr.ip())).collect::<Vec<_>>())
        }))
    }
}

impl System {
    fn with(look_up: LookUp) -> Self {
        Self {
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            under_way: Arc::default(),
            look_up,
            threads: PerFork::default(),
        }
    }

    fn lookup(&self, name: String) -> Arc<Lookup> {
        let mut under_way = lock(&self.under_way);
        if let Some(lookup) = under_way.get(&name).and_then(Weak::upgrade) {
            return lookup;
        }
        under_way.retain(|_, lookup| lookup.strong_count() > 0);
        let lookup = Arc::new(Lookup { found: SetOnce::new(), task: OnceLock::new() });
        let waiting = Arc::downgrade(&lookup);
        under_way.insert(name.clone(), waiting.clone());
        drop(under_way);
        let (turns, look_up, under_way) = (self.turns.clone(), self.look_up.clone(), self.under_way.clone());
        let threads = self.threads.get(|| Threads::new("wasgi-names", AT_ONCE));
        let task = tokio::spawn(async move {
            let turn = turns.acquire_owned().await;
            let Some(lookup) = waiting.upgrade() else { return };
            let Some(threads) = threads.handle() else {
                let _ = lookup.found.set(Err(Unresolved::GivenUp));
                return;
            };
            threads.spawn_blocking(move || {
                let _turn = turn;
                let found = look_up(&name).map(families_in_turn);
                lock(&under_way).remove(&name);
                let _ = lookup.found.set(found);
            });
        });
        let _ = lookup.task.set(task.abort_handle());
        lookup
    }
}

impl Resolve for System {
    fn resolve(&self, name: String) -> Resolving {
        let lookup = self.lookup(name);
        Box::pin(async move { lookup.found.wait().await.clone() })
    }
}

/// The system's order, with its families in turn (RFC 8305, 4).
fn families_in_turn(found: Vec<IpAddr>) -> Vec<IpAddr> {
    let first_is_v4 = found.first().is_some_and(IpAddr::is_ipv4);
    let (ours, theirs): (Vec<_>, Vec<_>) = found.into_iter().partition(|address| address.is_ipv4() == first_is_v4);
    let (mut ours, mut theirs) = (ours.into_iter(), theirs.into_iter());
    let mut ordered: Vec<IpAddr> = Vec::new();
    loop {
        let both = [ours.next(), theirs.next()];
        if both == [None, None] {
            return ordered;
        }
        for address in both.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn families_take_turns_and_nothing_is_tried_twice() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
        let ordered = |texts: &[&str]| families_in_turn(addresses(texts));
        assert_eq!(ordered(&["::1", "::2", "::3", "1.1.1.1"]), addresses(&["::1", "1.1.1.1", "::2", "::3"]));
        assert_eq!(ordered(&["1.1.1.1", "1.1.1.1", "::1"]), addresses(&["1.1.1.1", "::1"]));
        assert_eq!(ordered(&[]), addresses(&[]));
    }

    #[test]
    fn failures_are_told_apart() {
        for (number, expected) in [
            (libc::EAI_NONAME, Unresolved::NoSuchName),
            (libc::EAI_AGAIN, Unresolved::Unavailable),
            (libc::EAI_MEMORY, Unresolved::Failed(libc::EAI_MEMORY)),
        ] {
            assert_eq!(Unresolved::from(LookupError::new(number)), expected);
        }
    }

    #[test]
    fn the_systems_resolver() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let resolve = |name: &str| runtime.block_on(async { System::default().resolve(name.into()).await });
        let found = resolve("localhost").unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        assert!(resolve("no-such-name.invalid").is_err() && resolve("a\0b").is_err());
    }

    #[test]
    fn a_name_that_never_resolves_takes_one_place() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let held = Mutex::new(held);
        let look_up = move |name: &str| {
            if name == "hangs" {
                let _ = lock(&held).recv();
            }
            Ok(vec![IpAddr::from([127, 0, 0, 1])])
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let resolver = System::with(Arc::new(look_up));
            let patience = std::time::Duration::from_millis(5);
            // one after the other, and all at once
            for _ in 0..AT_ONCE {
                assert!(tokio::time::timeout(patience, resolver.resolve("hangs".into())).await.is_err());
            }
            let waiting: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(resolver.resolve("hangs".into()))).collect();
            assert_eq!(resolver.resolve("is.there".into()).await.unwrap().len(), 1);
            release.send(()).unwrap();
            for each in waiting {
                assert_eq!(each.await.unwrap().unwrap().len(), 1);
            }
            assert!(lock(&resolver.under_way).is_empty());
        });
    }
}
