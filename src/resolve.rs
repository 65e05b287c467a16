//! Names to addresses, by the system's resolver, with its failures told apart.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use dns_lookup::{AddrInfoHints, LookupError, LookupErrorKind, SockType};
use tokio::sync::Semaphore;

use crate::blocking::Threads;
use crate::process::PerFork;

/// Why a name has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    #[error("there is no such name")]
    NoSuchName,
    #[error("the name has no address")]
    NoAddress,
    #[error("no name server could say, for now")]
    Unavailable,
    #[error("the resolver failed (error {0})")]
    Failed(i32),
    #[error("the lookup was given up, for the process ends")]
    GivenUp,
}

impl Unresolved {
    /// The response code of DNS that means the same (RFC 1035, 4.1.1).
    pub fn rcode(self) -> Option<&'static str> {
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

pub type Resolving = Pin<Box<dyn Future<Output = Result<Vec<IpAddr>, Unresolved>> + Send>>;

/// Whoever knows the addresses of names.
pub trait Resolve: Send + Sync {
    fn resolve(&self, name: String) -> Resolving;
}

/// How many names are looked up at once. The system's resolver keeps a thread until it is done, whoever still waits for it; so
/// a name server that never answers holds up the names of one `Network` and no more.
const AT_ONCE: usize = 16;

/// The system's resolver.
pub struct System {
    turns: Arc<Semaphore>,
    threads: PerFork<Threads>,
}

impl System {
    pub fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(AT_ONCE)), threads: PerFork::default() }
    }
}

impl Resolve for System {
    fn resolve(&self, name: String) -> Resolving {
        let turns = self.turns.clone();
        let threads = self.threads.get(|| Threads::new("wasgi-names", AT_ONCE));
        Box::pin(async move {
            let turn = turns.acquire_owned().await.map_err(|_| Unresolved::GivenUp)?;
            let lookup = move || {
                let _turn = turn;
                let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
                let found = dns_lookup::getaddrinfo(Some(&name), None, Some(hints))?;
                Ok(found.filter_map(|info| info.ok().map(|info| info.sockaddr.ip())).collect::<Vec<_>>())
            };
            let threads = threads.handle().ok_or(Unresolved::GivenUp)?;
            match threads.spawn_blocking(lookup).await {
                Ok(found) => found.map(families_in_turn),
                Err(_) => Err(Unresolved::GivenUp),
            }
        })
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
        let resolve = |name: &str| runtime.block_on(System::new().resolve(name.into()));
        let found = resolve("localhost").unwrap();
        assert!(found.iter().all(IpAddr::is_loopback) && !found.is_empty());
        assert!(resolve("no-such-name.invalid").is_err() && resolve("a\0b").is_err());
    }
}
