//! Loading: is it a component, which WASI does it speak, does it find here what it imports.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

use crate::engine::{Linked, World, world};
use crate::error::{Error, chain};
use crate::host::Host;
use crate::outline::{Outline, Wasi};

/// A component, compiled and linked. Immutable.
pub struct Component {
    pub outline: Outline,
    /// SHA-256 of its binary form, in hexadecimal.
    pub digest: String,
    first: Slot,
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
    /// Nanoseconds that the last instantiation took; 0 before the first.
    set_up: AtomicU64,
    /// How many of the next exchanges are to keep off event loops, because a guest computed for longer than its turn.
    computes: AtomicU32,
}

/// After a guest that computed for longer than its turn, so many others start on the runtime: a component that always
/// does so holds an event loop up once in a while, not each time.
const KEEP_OFF: u32 = 32;

/// An instantiation that takes longer than this is kept off event loops.
const HEAVY: Duration = Duration::from_micros(500);

impl Prepared {
    fn new(linked: &Linked, compiled: wasmtime::component::Component) -> Result<Self, Error> {
        let pre = linked.linker.instantiate_pre(&compiled).and_then(ProxyPre::new).map_err(|error| {
            Error::UnsupportedComponent(format!("the component cannot be linked: {}", chain(&error)))
        })?;
        Ok(Self { compiled, pre, set_up: AtomicU64::new(0), computes: AtomicU32::new(0) })
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.pre.engine()
    }

    pub(crate) fn pre(&self) -> &ProxyPre<Host> {
        &self.pre
    }

    pub(crate) fn set_up_took(&self, time: Duration) {
        self.set_up.store(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// A guest has computed for longer than its turn on a calling thread.
    pub(crate) fn was_interrupted(&self) {
        self.computes.store(KEEP_OFF, Ordering::Relaxed);
    }

    /// Whether the next guest should not start on an event loop's thread: instantiating, if it has to be, takes long, or nobody
    /// knows yet, or one computed for too long lately. Counts one off the exchanges that the last such guest keeps away.
    pub(crate) fn keep_off_loop(&self, needs_set_up: bool) -> bool {
        let nanos = self.set_up.load(Ordering::Relaxed);
        let computes =
            self.computes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
        computes || (needs_set_up && (nanos == 0 || u128::from(nanos) > HEAVY.as_nanos()))
    }
}

impl Component {
    /// Compiles a component from its binary or text form, or takes the machine code from the cache.
    pub fn new(source: &[u8]) -> Result<Arc<Self>, Error> {
        let binary = crate::outline::to_binary(source)?;
        let outline = Outline::read(&binary)?;
        match outline.wasi() {
            Some(Wasi::P2) => {}
            Some(Wasi::P3) => {
                return Err(Error::UnsupportedComponent(
                    "the component speaks WASI 0.3 (it exports `wasi:http/handler`); this version hosts 0.2; \
                     hint: build it for `wasi:http/incoming-handler@0.2`"
                        .into(),
                ));
            }
            None => {
                let exports = if outline.exports.is_empty() {
                    "nothing".to_owned()
                } else {
                    format!("`{}`", outline.exports.join("`, `"))
                };
                return Err(Error::UnsupportedComponent(format!(
                    "the component exports no HTTP handler: it exports {exports}; \
                     hint: wasgi calls `wasi:http/incoming-handler@0.2`"
                )));
            }
        }
        let missing = outline.missing();
        if !missing.is_empty() {
            return Err(missing_error(missing));
        }
        let digest = hex(&Sha256::digest(&binary));
        let world = world()?;
        let prepared = Self::compile(world, false, &binary)?;
        Ok(Arc::new(Self { outline, digest, first: Slot::new(world, false, prepared) }))
    }

    /// Compiles it once more, for guests under a limit of fuel. `source` is what it was made from.
    pub fn prepare_for_fuel(&self, source: &[u8]) -> Result<(), Error> {
        let world = world()?;
        if self.slots().any(|slot| slot.fuel) {
            return Ok(());
        }
        let binary = crate::outline::to_binary(source)?;
        if hex(&Sha256::digest(&binary)) != self.digest {
            return Err(Error::InvalidComponent("the component has changed since it was loaded".into()));
        }
        let prepared = Self::compile(world, true, &binary)?;
        self.first.add(Slot::new(world, true, prepared));
        Ok(())
    }

    fn compile(world: &World, fuel: bool, binary: &[u8]) -> Result<Prepared, Error> {
        let make = |engine: &Engine| wasmtime::component::Component::new(engine, binary);
        prepare(world, fuel, make, |reason| refusal(reason, binary))
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

fn missing_error(missing: Vec<String>) -> Error {
    let mut message = format!("the component imports what wasgi does not provide: `{}`", missing.join("`, `"));
    let hint = if missing.iter().any(|name| name.starts_with("wasi:") && name.contains("@0.3")) {
        "this version provides WASI 0.2 only"
    } else if missing.iter().any(|name| name.starts_with("wasi:")) {
        "`wasgi wit DIR` writes out what is provided"
    } else {
        "compose the component with one that exports it (wac, wasm-tools compose)"
    };
    message.push_str(&format!("; hint: {hint}"));
    Error::MissingImports { message, missing }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
