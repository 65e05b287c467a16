//! A component that is compiled and linked, and what is known of how its guests behave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::component::{Instance, InstancePre};
use wasmtime::{Engine, Store};
use wasmtime_wasi_http::p2::bindings as p2;
use wasmtime_wasi_http::p3::bindings as p3;

use crate::engine::config::{AllocatingEngine, Features};
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::command::{Command, CommandIndices};
use crate::guest::linker::linker_for;
use crate::guest::panics::UntilItPanics;
use crate::guest::restoring::Exports;
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
    P2(InstancePre<StoreState>, p2::ProxyIndices),
    P3(InstancePre<StoreState>, p3::ServiceIndices),
    Command(InstancePre<StoreState>, CommandIndices),
}

/// A guest that is there.
pub(crate) enum Proxy {
    P2(p2::Proxy),
    P3(p3::Service),
    Command(Command),
}

impl Pre {
    fn new(pre: InstancePre<StoreState>, features: Features, entry: Entry) -> wasmtime::Result<Self> {
        match (entry, features.concurrency) {
            (Entry::Command, _) => CommandIndices::new(&pre, features).map(|indices| Self::Command(pre, indices)),
            (Entry::Handler, true) => p3::ServiceIndices::new(&pre).map(|indices| Self::P3(pre, indices)),
            (Entry::Handler, false) => p2::ProxyIndices::new(&pre).map(|indices| Self::P2(pre, indices)),
        }
    }

    fn linked(&self) -> &InstancePre<StoreState> {
        let (Self::P2(pre, _) | Self::P3(pre, _) | Self::Command(pre, _)) = self;
        pre
    }

    pub(crate) async fn instantiate(&self, store: &mut Store<StoreState>) -> wasmtime::Result<(Instance, Proxy)> {
        match self {
            Self::P2(pre, indices) => {
                let instance = pre.instantiate_async(&mut *store).await?;
                let proxy = indices.load(store, &instance)?;
                Ok((instance, Proxy::P2(proxy)))
            }
            Self::P3(pre, indices) => {
                let instance = UntilItPanics::new(pre.instantiate_async(&mut *store)).await?;
                let proxy = indices.load(store, &instance)?;
                Ok((instance, Proxy::P3(proxy)))
            }
            Self::Command(pre, indices) => {
                let instance = UntilItPanics::new(pre.instantiate_async(&mut *store)).await?;
                let command = indices.load(store, &instance)?;
                Ok((instance, Proxy::Command(command)))
            }
        }
    }
}

/// A component, ready to be instantiated.
pub struct Prepared {
    compiled: DropUndisturbed<wasmtime::component::Component>,
    pre: DropUndisturbed<Pre>,
    /// What puts its instances back to what they were, if it was made for that.
    restoring: Option<Exports>,
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
        let pre = linker.instantiate_pre(&compiled).and_then(|pre| Pre::new(pre, features, entry));
        let pre = pre.map_err(|error| {
            let text = format!("the component cannot be linked: {}", chain(&error));
            Error::UnsupportedComponent(Reason::new(text, error))
        })?;
        Ok(Self {
            restoring: Exports::find(&compiled),
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
        self.pre.linked().engine()
    }

    /// Bytes that the host keeps for an instance, besides its memories and tables: known before there is one.
    pub(crate) fn host_memory(&self) -> u64 {
        self.host
    }

    /// Which generation of WASI its guests are of.
    pub(crate) fn pre(&self) -> &Pre {
        &self.pre
    }

    /// What puts its instances back to what they were, if it was made for that.
    pub(crate) fn restoring(&self) -> Option<&Exports> {
        self.restoring.as_ref()
    }

    /// Whether no more instances may be made of it: a slot of its pool may hold what an earlier guest has written.
    pub(crate) fn is_retired(&self) -> bool {
        self.scans && crate::process::pagemap::misses_pages()
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
