//! A component that is compiled and linked, and what is known of how its guests behave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::engine::config::{AllocatingEngine, Features};
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::command::{Command, CommandPre};
use crate::guest::linker::linker_for;
use crate::guest::panics::UntilItPanics;
use crate::guest::store::StoreState;
use crate::process::undisturbed::DropUndisturbed;
use crate::scheduler::LONG_TURN;

/// What of a component is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Its handler of requests.
    Handler,
    /// Its `wasi:cli/run`.
    Command,
}

/// A component that is linked, by the generation of WASI that its handler is of.
pub(crate) enum Pre {
    P2(ProxyPre<StoreState>),
    P3(ServicePre<StoreState>),
    Command(CommandPre),
}

/// A guest that is there.
pub(crate) enum Proxy {
    P2(wasmtime_wasi_http::p2::bindings::Proxy),
    P3(wasmtime_wasi_http::p3::bindings::Service),
    Command(Command),
}

impl Pre {
    pub(crate) async fn instantiate(&self, store: &mut Store<StoreState>) -> wasmtime::Result<Proxy> {
        match self {
            Self::P2(pre) => pre.instantiate_async(store).await.map(Proxy::P2),
            Self::P3(pre) => UntilItPanics::new(pre.instantiate_async(store)).await.map(Proxy::P3),
            Self::Command(pre) => pre.instantiate(store).await.map(Proxy::Command),
        }
    }
}

/// A component, ready to be instantiated.
pub struct Prepared {
    compiled: DropUndisturbed<wasmtime::component::Component>,
    pre: DropUndisturbed<Pre>,
    /// Nanoseconds that an instantiation takes, the shorter of the last two: one may have waited for a processor. 0 before the first.
    set_up: AtomicU64,
    /// Nanoseconds that the last one took.
    last_set_up: AtomicU64,
    /// See [`crate::engine::config::AllocatingEngine::scans`].
    scans: bool,
    /// Bytes that the host keeps for an instance, besides its memories and tables.
    host: u64,
}

/// An instantiation that takes longer than this is kept off event loops.
const HEAVY: Duration = Duration::from_micros(500);

impl Prepared {
    pub(crate) fn new(
        made: &AllocatingEngine,
        compiled: wasmtime::component::Component,
        features: Features,
        entry: Entry,
        host: u64,
    ) -> Result<Self, Error> {
        let compiled = DropUndisturbed::new(compiled);
        let linker = linker_for(&made.engine, features)?;
        let pre = linker.instantiate_pre(&compiled).and_then(|pre| match (entry, features.concurrency) {
            (Entry::Command, _) => CommandPre::new(pre, features).map(Pre::Command),
            (Entry::Handler, true) => ServicePre::new(pre).map(Pre::P3),
            (Entry::Handler, false) => ProxyPre::new(pre).map(Pre::P2),
        });
        let pre = pre.map_err(|error| {
            let text = format!("the component cannot be linked: {}", chain(&error));
            Error::UnsupportedComponent(Reason::new(text, error))
        })?;
        Ok(Self {
            compiled,
            pre: DropUndisturbed::new(pre),
            set_up: AtomicU64::new(0),
            last_set_up: AtomicU64::new(u64::MAX),
            scans: made.scans,
            host,
        })
    }

    /// Its machine code, for another process.
    pub(crate) fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        self.compiled.serialize()
    }

    pub(crate) fn engine(&self) -> &Engine {
        match &*self.pre {
            Pre::P2(pre) => pre.engine(),
            Pre::P3(pre) => pre.engine(),
            Pre::Command(command) => command.pre.engine(),
        }
    }

    /// Bytes that the host keeps for an instance, besides its memories and tables: known before there is one.
    pub(crate) fn host_memory(&self) -> u64 {
        self.host
    }

    /// Which generation of WASI its guests are of.
    pub(crate) fn pre(&self) -> &Pre {
        &self.pre
    }

    /// Whether no more instances may be made of it: a slot of its pool may hold what an earlier guest has written.
    pub(crate) fn is_retired(&self) -> bool {
        self.scans && crate::process::swap::seen()
    }

    /// An instance was made. Returns whether that took long, and whether that was to be expected.
    pub(crate) fn set_up_took(&self, time: Duration) -> (bool, bool) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1);
        let last = self.last_set_up.swap(nanos, Ordering::Relaxed);
        let before = self.set_up.swap(nanos.min(last), Ordering::Relaxed);
        (time > HEAVY, before == 0 || u128::from(before) > HEAVY.as_nanos())
    }

    /// Whether an instantiation is one long turn.
    pub(crate) fn is_slow_to_set_up(&self) -> bool {
        u128::from(self.set_up.load(Ordering::Relaxed)) > LONG_TURN.as_nanos()
    }

    /// Whether an event loop's thread should not instantiate it: that takes long, or nobody knows yet.
    pub(crate) fn keeps_off_loop(&self) -> bool {
        self.set_up.load(Ordering::Relaxed) == 0 || self.is_heavy()
    }

    /// Whether its instances hold so much that an event loop's thread should not give it back.
    pub(crate) fn is_heavy(&self) -> bool {
        u128::from(self.set_up.load(Ordering::Relaxed)) > HEAVY.as_nanos()
    }
}
