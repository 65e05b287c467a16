//! Loading: is it a component, which WASI does it speak, does it find here what it imports.

use std::collections::HashMap;
use std::fs::{File, TryLockError};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::engine::{Linked, World, world};
use crate::error::{Error, chain};
use crate::host::Host;
use crate::outline::Outline;
use crate::scheduler::LONG_TURN;
use crate::sync::lock;

/// A component, compiled and linked. Immutable.
pub struct Component {
    pub outline: Outline,
    /// SHA-256 of its binary form, in hexadecimal.
    pub digest: String,
    /// What it was loaded from, if that was no file.
    pub source: OnceLock<Bytes>,
    first: Slot,
}

/// The components of a process by what is in them: the same content is compiled once and held once, for as long as anybody
/// has it. Whoever comes while it is being compiled waits for that.
#[derive(Default)]
pub(crate) struct Loaded(Mutex<HashMap<String, Arc<Mutex<Weak<Component>>>>>);

impl Loaded {
    fn get(&self, digest: &str, make: impl FnOnce() -> Result<Component, Error>) -> Result<Arc<Component>, Error> {
        let entry = {
            let mut all = lock(&self.0);
            // one that somebody else has is being compiled, or asked for; its lock may be held for long
            all.retain(|_, entry| Arc::strong_count(entry) > 1 || lock(entry).strong_count() > 0);
            all.entry(digest.to_owned()).or_default().clone()
        };
        let mut slot = lock(&entry);
        if let Some(component) = slot.upgrade() {
            return Ok(component);
        }
        let component = Arc::new(make()?);
        *slot = Arc::downgrade(&component);
        Ok(component)
    }
}

/// What one world has made of a component; a forked child adds its own, and so do guests under a limit of fuel.
struct Slot {
    generation: u64,
    fuel: bool,
    prepared: Arc<Prepared>,
    next: OnceLock<Box<Slot>>,
}

impl Slot {
    fn new(world: &World, fuel: bool, prepared: Prepared) -> Self {
        Self { generation: world.generation, fuel, prepared: Arc::new(prepared), next: OnceLock::new() }
    }

    /// Appends a slot, or takes the like of it that somebody else has appended meanwhile.
    fn add(&self, slot: Self) -> Arc<Prepared> {
        let (mut last, mut slot) = (self, Box::new(slot));
        loop {
            if last.generation == slot.generation && last.fuel == slot.fuel {
                return last.prepared.clone();
            }
            let prepared = slot.prepared.clone();
            match last.next.set(slot) {
                Ok(()) => return prepared,
                Err(back) => slot = back,
            }
            match last.next.get() {
                Some(next) => last = next,
                None => return prepared,
            }
        }
    }
}

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
}

/// After a guest that computed for longer than its turn, so many others start on the runtime: a component that always
/// does so holds an event loop up once in a while, not each time.
const KEEP_OFF: u32 = 32;

/// So many turns are measured after one that seemed long.
const SUSPECT: u32 = 64;

/// An instantiation that takes longer than this is kept off event loops.
const HEAVY: Duration = Duration::from_micros(500);

impl Prepared {
    fn new(linked: &Linked, compiled: wasmtime::component::Component) -> Result<Self, Error> {
        let pre = linked.linker.instantiate_pre(&compiled).and_then(ProxyPre::new).map_err(|error| {
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
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    pub(crate) fn pre(&self) -> &ProxyPre<Host> {
        &self.pre
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

impl Component {
    /// Compiles a component from its binary or text form, or takes the machine code from the cache.
    pub fn new(source: &[u8]) -> Result<Arc<Self>, Error> {
        let binary = crate::outline::to_binary(source)?;
        let outline = Outline::read(&binary)?;
        outline.can_be_hosted()?;
        let digest = hex(&Sha256::digest(&binary));
        let world = world()?;
        world.loaded.get(&digest, || {
            let turn = Turn::take(world, &digest);
            let prepared = Self::compile(world, false, &digest, &binary)?;
            drop(turn);
            let first = Slot::new(world, false, prepared);
            Ok(Self { outline, digest: digest.clone(), source: OnceLock::new(), first })
        })
    }

    /// Compiles it once more, for guests under a limit of fuel. `source` is what it was made from.
    pub fn prepare_for_fuel(&self, source: &[u8]) -> Result<(), Error> {
        let world = world()?;
        if self.is_prepared_for_fuel() {
            return Ok(());
        }
        let binary = crate::outline::to_binary(source)?;
        if hex(&Sha256::digest(&binary)) != self.digest {
            return Err(Error::InvalidComponent("the component has changed since it was loaded".into()));
        }
        let turn = Turn::take(world, &self.digest);
        let prepared = Self::compile(world, true, &self.digest, &binary)?;
        drop(turn);
        self.first.add(Slot::new(world, true, prepared));
        Ok(())
    }

    fn compile(world: &World, fuel: bool, digest: &str, binary: &[u8]) -> Result<Prepared, Error> {
        let make = |engine: &Engine| {
            if let Some(kept) = world.cache.as_ref().and_then(|cache| cache.load(engine, digest)) {
                return Ok(kept);
            }
            let (binary, harm) = crate::debug_info::without_harm(binary);
            let compiled = wasmtime::component::Component::new(engine, &binary)?;
            if let Some(harm) = harm {
                world.note(format!(
                    "the debug information of a component is left out: {}; its backtraces have no source lines",
                    harm.reason()
                ));
            }
            if let Some(cache) = &world.cache {
                cache.store(engine, digest, &compiled);
            }
            Ok(compiled)
        };
        prepare(world, fuel, make, |reason| refusal(reason, binary))
    }

    /// Whether it was compiled for guests under a limit of fuel.
    pub fn is_prepared_for_fuel(&self) -> bool {
        self.slots().any(|slot| slot.fuel)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::successors(Some(&self.first), |slot| slot.next.get().map(|next| &**next))
    }

    /// What the present process's world has of it.
    pub(crate) fn prepared(&self, world: &'static World, fuel: bool) -> Result<Arc<Prepared>, Error> {
        let mut other = None;
        for slot in self.slots().filter(|slot| slot.fuel == fuel) {
            if slot.generation == world.generation {
                return Ok(slot.prepared.clone());
            }
            other = Some(slot);
        }
        let Some(other) = other else {
            return Err(Error::Host("the component was not compiled for fuel".into()));
        };
        let code = other.prepared.compiled.serialize().map_err(|error| Error::Host(chain(&error)))?;
        // SAFETY: the bytes come from `serialize` just now, in this process, of the same wasmtime.
        let restore = |engine: &Engine| unsafe { wasmtime::component::Component::deserialize(engine, &code) };
        let prepared = prepare(world, fuel, restore, |reason| Error::Host(reason.to_owned()))?;
        Ok(self.first.add(Slot::new(world, fuel, prepared)))
    }
}

/// Held by the process that compiles a component, so that those which start together do not all compile it: the others
/// wait, and find its machine code in the cache. The lock is the system's, and goes with its holder; a holder that is
/// stopped, or compiles for longer than [`LONGEST_TURN`], is not waited for.
struct Turn(Option<File>);

const LONGEST_TURN: Duration = Duration::from_secs(120);

impl Turn {
    fn take(world: &World, digest: &str) -> Self {
        // one of 256 files for each component: as many as there will ever be
        Self::wait(world.lock_file(digest.get(..2).unwrap_or("")), LONGEST_TURN)
    }

    fn wait(file: Option<File>, longest: Duration) -> Self {
        let Some(file) = file else { return Self(None) };
        let deadline = Instant::now() + longest;
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => return Self(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => std::thread::sleep(pause),
                // a file system without locks, say: then each compiles for itself
                Err(_) => return Self(None),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // not by closing it alone: a child that was forked meanwhile has the same file open
        if let Some(file) = self.0.take() {
            let _ = file.unlock();
        }
    }
}

/// Into the pool if it fits there, else into the engine that allocates on demand.
fn prepare(
    world: &World,
    fuel: bool,
    make: impl Fn(&Engine) -> wasmtime::Result<wasmtime::component::Component>,
    refused_for: impl FnOnce(&str) -> Error,
) -> Result<Prepared, Error> {
    let mut refused = None;
    if let Some(linked) = world.pooled(fuel)? {
        match make(&linked.engine) {
            Ok(compiled) => return Prepared::new(linked, compiled),
            Err(error) => refused = Some(chain(&error)),
        }
    }
    let linked = world.plain(fuel)?;
    match make(&linked.engine) {
        Ok(compiled) => {
            if let Some(reason) = refused {
                world.note(format!(
                    "a component does not fit the pool of instances ({reason}): its guests are allocated on demand, \
                     which is slower; hint: several worker processes serve more of them than several threads"
                ));
            }
            Prepared::new(linked, compiled)
        }
        Err(error) => Err(refused_for(&chain(&error))),
    }
}

/// What is valid by some proposal that this engine does not offer is not called invalid.
fn refusal(reason: &str, binary: &[u8]) -> Error {
    let mut validator = wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all());
    if validator.validate_all(binary).is_ok() {
        Error::UnsupportedComponent(format!("the component uses what this engine does not offer: {reason}"))
    } else {
        Error::InvalidComponent(format!("not a valid component: {reason}"))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_not_waited_for_for_ever() {
        let path = std::env::temp_dir().join(format!("wasgi-turn-{}.lock", std::process::id()));
        let open = || File::options().write(true).create(true).truncate(false).open(&path).ok();
        let held = Turn::wait(open(), Duration::ZERO);
        assert!(held.0.is_some());
        assert!(Turn::wait(open(), Duration::ZERO).0.is_none());
        drop(held);
        assert!(Turn::wait(open(), Duration::ZERO).0.is_some());
        assert!(Turn::wait(None, Duration::ZERO).0.is_none());
        let _ = std::fs::remove_file(&path);
    }
}
