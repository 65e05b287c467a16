//! A component that is compiled and linked, and what is known of how its guests behave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::Engine;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::engine::config::Allocated;
use crate::error::{Error, chain};
use crate::guest::linker::linker_for;
use crate::guest::store::Host;
use crate::scheduler::LONG_TURN;

/// A component, ready to be instantiated.
pub struct Prepared {
    compiled: wasmtime::component::Component,
    pre: ProxyPre<Host>,
    /// Nanoseconds that an instantiation takes, the shorter of the last two: one may have waited for a processor. 0 before the first.
    set_up: AtomicU64,
    /// Nanoseconds that the last one took.
    last_set_up: AtomicU64,
    /// How many of the next exchanges are to keep off event loops, because a guest computed for longer than its turn.
    computes: AtomicU32,
    /// How many of the next turns on callers' threads are measured by the threads' own clocks, which costs 0.3 µs: one took long by the
    /// wall's.
    suspect: AtomicU32,
    /// A turn was one long operation, which no tick could end.
    is_unruly: Arc<AtomicBool>,
    /// See [`crate::engine::config::Allocated::scans`].
    scans: bool,
    /// Bytes that the host keeps for an instance, besides its memories and tables.
    host: u64,
}

/// After a guest that computed for longer than its turn, so many others start on the runtime: a component that always
/// does so holds an event loop up once in a while, not each time.
const KEEP_OFF: u32 = 32;

/// So many turns are measured after one that seemed long.
const SUSPECT: u32 = 64;

/// An instantiation that takes longer than this is kept off event loops.
const HEAVY: Duration = Duration::from_micros(500);

impl Prepared {
    pub(crate) fn new(made: &Allocated, compiled: wasmtime::component::Component, host: u64) -> Result<Self, Error> {
        let pre = linker_for(&made.engine)?.instantiate_pre(&compiled).and_then(ProxyPre::new).map_err(|error| {
            Error::UnsupportedComponent(format!("the component cannot be linked: {}", chain(&error)))
        })?;
        Ok(Self {
            compiled,
            pre,
            set_up: AtomicU64::new(0),
            last_set_up: AtomicU64::new(u64::MAX),
            computes: AtomicU32::new(0),
            suspect: AtomicU32::new(0),
            is_unruly: Arc::default(),
            scans: made.scans,
            host,
        })
    }

    /// Its machine code, for another process.
    pub(crate) fn serialize(&self) -> wasmtime::Result<Vec<u8>> {
        self.compiled.serialize()
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    /// Bytes that the host keeps for an instance, besides its memories and tables: known before there is one.
    pub(crate) fn host_memory(&self) -> u64 {
        self.host
    }

    pub(crate) fn pre(&self) -> &ProxyPre<Host> {
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

    /// To be asked before a turn on a caller's thread: whether the thread's own clock should time it.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed) > 0
            && self.suspect.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// A turn on a caller's thread took long by the wall's clock. Perhaps its thread only waited for a processor.
    pub(crate) fn seemed_long(&self) {
        self.suspect.store(SUSPECT, Ordering::Relaxed);
    }

    /// A guest has computed on a caller's thread for longer than it may.
    pub(crate) fn was_long(&self) {
        self.computes.store(KEEP_OFF, Ordering::Relaxed);
        self.suspect.store(SUSPECT, Ordering::Relaxed);
    }

    /// A turn was one long operation, or making an instance is one: such guests have no turn on a caller's thread.
    pub(crate) fn is_unruly(&self, needs_set_up: bool) -> bool {
        let is_slow = || u128::from(self.set_up.load(Ordering::Relaxed)) > LONG_TURN.as_nanos();
        self.is_unruly.load(Ordering::Relaxed) || (needs_set_up && is_slow())
    }

    /// For whoever gives turns to its guests, to say so.
    pub(crate) fn unruly(&self) -> &Arc<AtomicBool> {
        &self.is_unruly
    }

    /// Whether the next guest should not start on an event loop's thread: instantiating, if it has to be, takes long, or nobody
    /// knows yet, or one computed for too long lately (the second answer). Counts one off the exchanges that the last such guest
    /// keeps away.
    pub(crate) fn keep_off_loop(&self, needs_set_up: bool) -> (bool, bool) {
        let nanos = self.set_up.load(Ordering::Relaxed);
        let computes =
            self.computes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        let is_slow = needs_set_up && (nanos == 0 || u128::from(nanos) > HEAVY.as_nanos());
        (computes || is_slow || self.is_unruly(false), computes)
    }

    /// Whether its instances hold so much that an event loop's thread should not give it back.
    pub(crate) fn is_heavy(&self) -> bool {
        u128::from(self.set_up.load(Ordering::Relaxed)) > HEAVY.as_nanos()
    }
}
