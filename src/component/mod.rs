//! Loading: is it a component, which WASI does it speak, does it find here what it imports.

pub(crate) mod blocks;
pub(crate) mod census;
pub(crate) mod checks;
pub mod compile_child;
pub(crate) mod compiler;
pub(crate) mod cost;
pub(crate) mod debug_budget;
pub(crate) mod debug_info;
pub(crate) mod declared_types;
pub(crate) mod expansion;
pub(crate) mod file_format;
pub mod inspect;
pub(crate) mod instrument;
pub(crate) mod interface_names;
pub(crate) mod joints;
pub mod limits;
pub mod loading;
pub mod source;
pub mod variant;

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tracing::warn;
use wasmtime::Engine;

use crate::component::census::Census;
use crate::component::cost::Cost;
use crate::component::inspect::ComponentInfo;
use crate::component::instrument::not_restorable::NotRestorable;
use crate::component::loading::{Order, Turn, Work, loaded};
use crate::component::variant::{Variant, hex};
use crate::engine::config::{
    AllocatingEngine, CORE_INSTANCES, EngineKind, Features, MEMORIES, MODULE_MEMORIES, MODULE_TABLES, TABLES,
};
use crate::engine::{ProcessState, process_state};
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::prepared::Prepared;
use crate::process::undisturbed::{DropUndisturbed, undisturbed};
use crate::telemetry::TARGET;

/// A component, compiled, and linked if all that it imports is provided. Immutable.
pub struct Component {
    /// What its file says of it.
    pub info: ComponentInfo,
    /// SHA-256 of its binary form, in hexadecimal.
    pub digest: String,
    /// What it was loaded from, if that was no file.
    pub source: OnceLock<Bytes>,
    census: Census,
    /// Or why it cannot be linked.
    first: Result<Slot, Error>,
    /// Why its instances cannot be put back to what they were, once that is known.
    not_restorable: OnceLock<NotRestorable>,
}

/// What one process has made of a component; a forked child adds its own, and so do guests that need another variant.
struct Slot {
    generation: u64,
    variant: Variant,
    prepared: Arc<Prepared>,
    next: OnceLock<Box<Slot>>,
}

impl Slot {
    fn new(process: &ProcessState, variant: Variant, prepared: Prepared) -> Self {
        Self { generation: process.generation, variant, prepared: Arc::new(prepared), next: OnceLock::new() }
    }

    /// Appends a slot, or takes the like of it that somebody else has appended meanwhile.
    fn add(&self, slot: Self) -> Arc<Prepared> {
        let (mut last, mut slot) = (self, Box::new(slot));
        loop {
            if last.generation == slot.generation && last.variant == slot.variant && !last.prepared.is_retired() {
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

/// Why instances of a component could not be put back to what they were. Goes as deep on the stack as it is nested.
pub fn why_not_restorable(source: &[u8]) -> Result<Option<String>, Error> {
    let binary = crate::component::file_format::to_binary(source)?;
    Ok(instrument::instrument(&binary).err().map(|why| why.to_string()))
}

/// A component that is linked, or why it cannot be.
type Linked = Result<Prepared, Error>;

/// Why an engine has no component.
enum Failure {
    /// The machine code is there, but this engine does not take it: another one may.
    Unfit(wasmtime::Error),
    /// There is none, whatever the engine.
    Final(Error),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Unfit(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl Component {
    /// Compiles a component from its binary or text form, or takes the machine code from the cache. Goes as deep on the stack
    /// as the component is nested, which the limits bound: to be called on a thread of ours.
    pub fn new(source: &[u8], order: &Order) -> Result<Arc<Self>, Error> {
        order.limits.check_source(source)?;
        let binary = crate::component::file_format::to_binary(source)?;
        let digest = hex(&Sha256::digest(&binary));
        let process = process_state()?;
        let census = match loaded().find::<Self>(&digest) {
            Some(same) => {
                order.limits.check(&same.census)?;
                same.census.clone()
            }
            None => Census::take(&binary, &order.limits)?,
        };
        let info = ComponentInfo::read(&binary)?;
        order.limits.check_blocks(&binary)?;
        info.check_release()?;
        let work = loaded().begin(&digest, order)?;
        let component = match work.component() {
            Some(component) => component,
            None => {
                let (plain, instance) = (Variant::PLAIN, &census.instance);
                let linked = Self::compile(process, &info, plain, &digest, &binary, order, &work, instance)?;
                let first = linked.map(|prepared| Slot::new(process, plain, prepared));
                let component = Self {
                    info,
                    digest: digest.clone(),
                    source: OnceLock::new(),
                    census,
                    first,
                    not_restorable: OnceLock::new(),
                };
                let component = Arc::new(component);
                work.keep(&component);
                component
            }
        };
        drop(work);
        component.prepare_binary(process, &binary, order)?;
        Ok(component)
    }

    /// Compiles it once more, for what is ordered. `source` is what it was made from.
    pub fn prepare(&self, source: &[u8], order: &Order) -> Result<(), Error> {
        let process = process_state()?;
        if !self.lacks(order.variant) {
            return Ok(());
        }
        order.limits.check_source(source)?;
        let binary = crate::component::file_format::to_binary(source)?;
        if hex(&Sha256::digest(&binary)) != self.digest {
            return Err(Error::InvalidComponent("the component has changed since it was loaded".into()));
        }
        self.prepare_binary(process, &binary, order)
    }

    fn prepare_binary(&self, process: &'static ProcessState, binary: &[u8], order: &Order) -> Result<(), Error> {
        let variant = order.variant;
        let Ok(first) = &self.first else { return Ok(()) };
        if !self.lacks(variant) {
            return Ok(());
        }
        let work = loaded().begin(&format!("{} {variant:?}", self.digest), order)?;
        if !self.lacks(variant) {
            return Ok(());
        }
        let instance = self.cost_of_instance(variant);
        let instrumented = match variant.restorable.then(|| instrument::instrument(binary)) {
            None => None,
            Some(Ok(instrumented)) => Some(instrumented),
            Some(Err(why)) => {
                let _ = self.not_restorable.set(why);
                return Ok(());
            }
        };
        let binary = instrumented.as_deref().unwrap_or(binary);
        let linked = Self::compile(process, &self.info, variant, &self.digest, binary, order, &work, &instance)?;
        first.add(Slot::new(process, variant, linked?));
        Ok(())
    }

    /// Compiles it, and links it unless it lacks an import, or anything to call.
    #[allow(clippy::too_many_arguments)]
    fn compile(
        process: &ProcessState,
        info: &ComponentInfo,
        variant: Variant,
        digest: &str,
        binary: &[u8],
        order: &Order,
        work: &Work,
        instance: &Cost,
    ) -> Result<Linked, Error> {
        let features = info.features(variant.fuel);
        let digest = &*variant.name(digest);
        work.compiles();
        order.check()?;
        let kept = |engine: &Engine, pooled: bool, tell: bool| {
            let Some(cache) = &process.cache else { return Ok(None) };
            match cache.load(engine, digest, tell) {
                Err(refused) if pooled => Err(Failure::Unfit(refused)),
                found => Ok(found.unwrap_or(None)),
            }
        };
        // what is kept waits for nobody: the lock is shared with other components, somebody else's perhaps
        let turn = RefCell::new(None);
        let harmless = OnceCell::new();
        let make = |engine: &Engine, pooled: bool| {
            if let Some(kept) = kept(engine, pooled, turn.borrow().is_some())? {
                return Ok(kept);
            }
            if turn.borrow().is_none() {
                turn.replace(Some(Turn::take(process, digest, order)));
                order.check()?;
                if let Some(kept) = kept(engine, pooled, true)? {
                    return Ok(kept); // another process has compiled it meanwhile
                }
            }
            let binary = match harmless.get() {
                Some(binary) => binary,
                None => {
                    let looked_at = without_harm(binary, || work.check(order))?;
                    harmless.get_or_init(|| looked_at)
                }
            };
            let kind = EngineKind { features, pooled };
            let code = if order.limits.are_of_a_process() {
                compiler::compile(kind, binary, order, work)?
            } else {
                crate::engine::config::compile(engine, kind, binary).map_err(|error| refusal(&error, binary))?
            };
            // even if it fits no slot of the pool: the next process finds that out without compiling
            if let Some(cache) = &process.cache {
                cache.store(engine, digest, &code);
            }
            // SAFETY: the bytes come from `precompile_component` of the same module, here or in a process that we have started.
            Ok(undisturbed(|| unsafe { wasmtime::component::Component::deserialize(engine, code) })?)
        };
        let link = |made: &AllocatingEngine, compiled, host| match info.check_imports(true).and(info.check_entry()) {
            Ok(entry) => Prepared::new(made, compiled, features, entry, host),
            Err(unlinked) => {
                drop(DropUndisturbed::new(compiled));
                Err(unlinked)
            }
        };
        let linked =
            prepare(process, features, instance, make, |made, compiled, host| match link(made, compiled, host) {
                Err(why @ (Error::MissingImports { .. } | Error::UnsupportedComponent(_))) => Ok(Err(why)),
                linked => linked.map(Ok),
            });
        drop(turn);
        linked
    }

    /// Whether machine code of it is still to be made for guests of this kind.
    pub fn lacks(&self, variant: Variant) -> bool {
        let cannot = variant.restorable && self.not_restorable.get().is_some();
        self.first.is_ok() && !cannot && !self.slots().any(|slot| slot.variant == variant)
    }

    /// What one instance of it is made of.
    fn cost_of_instance(&self, variant: Variant) -> Cost {
        let mut instance = self.census.instance;
        if variant.restorable {
            instance.add(&instrument::cost(&instance));
        }
        instance
    }

    /// Whether its instances can be put back to what they were, if that is known: it was compiled for that, or was to be.
    pub fn is_restorable(&self) -> Option<bool> {
        if self.not_restorable.get().is_some() {
            return Some(false);
        }
        self.slots().any(|slot| slot.variant.restorable).then_some(true)
    }

    /// Why its instances cannot be put back to what they were, if that is known.
    pub fn why_not_restorable(&self) -> Option<String> {
        self.not_restorable.get().map(NotRestorable::to_string)
    }

    /// Whether apps can be made of it. `has_handler`: something answers the requests that it passes on by `wasi:http/handler`. One
    /// without a handler of its own has an app as well, whose requests fail.
    pub fn check(&self, has_handler: bool) -> Result<(), Error> {
        self.info.check_imports(has_handler)?;
        match &self.first {
            Err(why) if self.info.handler().is_some() => Err(why.clone()),
            _ => Ok(()),
        }
    }

    /// Whether it can be run as a command.
    pub fn check_command(&self) -> Result<(), Error> {
        self.info.check_imports(false)?;
        self.info.check_command()?;
        self.first.as_ref().map(drop).map_err(Error::clone)
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        std::iter::successors(self.first.as_ref().ok(), |slot| slot.next.get().map(|next| &**next))
    }

    /// What the present process has of it.
    pub(crate) fn prepared(&self, process: &'static ProcessState, variant: Variant) -> Result<Arc<Prepared>, Error> {
        let first = self.first.as_ref().map_err(Error::clone)?;
        let mut other = None;
        for slot in self.slots().filter(|slot| slot.variant == variant) {
            if slot.generation == process.generation && !slot.prepared.is_retired() {
                return Ok(slot.prepared.clone());
            }
            other = Some(slot);
        }
        let Some(other) = other else {
            return Err(Error::Host("the component was not compiled for this app".into()));
        };
        let code = other.prepared.serialize().map_err(|error| Error::Host(Reason::new(chain(&error), error)))?;
        let restore = |engine: &Engine, _| {
            // SAFETY: the bytes come from `serialize` just now, in this process, of the same wasmtime.
            Ok(undisturbed(|| unsafe { wasmtime::component::Component::deserialize(engine, &code) })?)
        };
        let features = self.info.features(variant.fuel);
        let instance = self.cost_of_instance(variant);
        let prepared = prepare(process, features, &instance, restore, |made, compiled, host| {
            Prepared::new(made, compiled, features, self.info.check_entry()?, host)
        })?;
        Ok(first.add(Slot::new(process, variant, prepared)))
    }
}

/// Why an instance fits no slot of the pool, as far as that is known before machine code is made for it, which would be in vain.
fn unfit(instance: &Cost) -> Option<String> {
    [
        ("core instances", instance.core_instances, CORE_INSTANCES),
        ("memories", instance.memories, MEMORIES),
        ("memories in a core module", instance.module_memories, MODULE_MEMORIES),
        ("tables", instance.tables, TABLES),
        ("tables in a core module", instance.module_tables, MODULE_TABLES),
    ]
    .into_iter()
    .find(|(_, found, most)| *found > u64::from(*most))
    .map(|(what, found, most)| format!("it has {found} {what}, of at most {most}"))
}

/// Into the pool if it fits there, else into the engine that allocates on demand. `finish` gets what the host keeps for an instance, too.
fn prepare<T>(
    process: &ProcessState,
    features: Features,
    instance: &Cost,
    make: impl Fn(&Engine, bool) -> Result<wasmtime::component::Component, Failure>,
    finish: impl FnOnce(&AllocatingEngine, wasmtime::component::Component, u64) -> Result<T, Error>,
) -> Result<T, Error> {
    let host = instance.host;
    let pooled = process.pooled(features);
    let mut refused = pooled.and_then(|_| unfit(instance));
    if let Some(made) = pooled.filter(|_| refused.is_none()) {
        match make(&made.engine, true) {
            Ok(compiled) => return finish(made, compiled, host),
            Err(Failure::Unfit(error)) => refused = Some(chain(&error)),
            Err(Failure::Final(error)) => return Err(error),
        }
    }
    let made = process.plain(features)?;
    match make(&made.engine, false) {
        Ok(compiled) => {
            if let Some(reason) = refused {
                warn!(
                    target: TARGET,
                    "a component does not fit the pool of instances ({reason}): its guests are allocated on demand, \
                     which is slower; hint: several worker processes serve more of them than several threads"
                );
            }
            finish(made, compiled, host)
        }
        Err(Failure::Unfit(error)) => Err(Error::refused_by_system(&error).unwrap_or_else(|| {
            let text = format!("the engine rejects the machine code of the component: {}", chain(&error));
            Error::Host(Reason::new(text, error))
        })),
        Err(Failure::Final(error)) => Err(error),
    }
}

/// The component without debug information that would harm whoever reads it.
fn without_harm<'a>(binary: &'a [u8], go_on: impl Fn() -> Result<(), Error>) -> Result<Cow<'a, [u8]>, Error> {
    let (binary, harm) = crate::component::debug_info::without_harm(binary, &go_on)?;
    if let Some(harm) = harm {
        let reason = harm.reason();
        warn!(
            target: TARGET,
            "the debug information of a component is ignored: {reason}; its backtraces have no source lines"
        );
    }
    Ok(binary)
}

/// Why an engine does not compile a component. What is valid by some proposal that this engine does not offer is not called invalid:
/// it is validated, which takes as much time and memory as its types do.
pub(crate) fn refusal(error: &wasmtime::Error, binary: &[u8]) -> Error {
    if let Some(refused) = Error::refused_by_system(error) {
        return refused;
    }
    // it may have names of the component's in it
    let escaped = |character: char| -> String {
        if character.is_control() { character.escape_debug().collect() } else { character.into() }
    };
    let reason: String = chain(error).chars().take(2000).map(escaped).collect();
    let mut validator = wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all());
    if validator.validate_all(binary).is_ok() {
        Error::UnsupportedComponent(
            format!("the component uses a feature that this engine does not support: {reason}").into(),
        )
    } else {
        Error::InvalidComponent(format!("not a valid component: {reason}").into())
    }
}
