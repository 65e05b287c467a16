//! What a process runs of a component: from machine code that is kept, or that is made now.

use std::borrow::Cow;
use std::cell::{OnceCell, RefCell};

use tracing::warn;
use wasmtime::Engine;

use crate::component::compiler;
use crate::component::cost::Cost;
use crate::component::inspect::ComponentInfo;
use crate::component::instrument;
use crate::component::instrument::not_restorable::NotRestorable;
use crate::component::loading::{Order, Turn, Work};
use crate::component::refusal::refusal;
use crate::component::variant::Variant;
use crate::engine::ProcessState;
use crate::engine::config::{
    AllocatingEngine, CORE_INSTANCES, EngineKind, Features, MEMORIES, MODULE_MEMORIES, MODULE_TABLES, TABLES,
};
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::prepared::Prepared;
use crate::process::undisturbed::{DropUndisturbed, undisturbed};
use crate::telemetry::TARGET;

/// A component that is linked, or why it cannot be.
pub(super) type Linked = Result<Prepared, Error>;

/// Why an engine has no component.
pub(super) enum Failure {
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

/// What is made of a component, and for whom.
pub(super) struct Making<'a> {
    process: &'static ProcessState,
    info: &'a ComponentInfo,
    features: Features,
    variant: Variant,
    /// The name of its machine code.
    digest: String,
    /// The component as it was loaded.
    binary: &'a [u8],
    order: &'a Order,
    work: &'a Work,
    /// Taken when nothing is kept, and until it is linked: what is kept waits for nobody, for the lock is shared with other components,
    /// somebody else's perhaps.
    turn: RefCell<Option<Turn>>,
    /// What is compiled.
    source: OnceCell<Cow<'a, [u8]>>,
    not_restorable: OnceCell<NotRestorable>,
}

impl<'a> Making<'a> {
    /// `digest`: of the component as it was loaded.
    pub(super) fn new(
        process: &'static ProcessState,
        info: &'a ComponentInfo,
        (digest, binary): (&str, &'a [u8]),
        variant: Variant,
        order: &'a Order,
        work: &'a Work,
    ) -> Self {
        Self {
            process,
            info,
            features: info.features(variant.fuel),
            variant,
            digest: variant.name(digest).into(),
            binary,
            order,
            work,
            turn: RefCell::default(),
            source: OnceCell::new(),
            not_restorable: OnceCell::new(),
        }
    }

    /// Compiles it, unless its machine code is kept, and links it unless it lacks an import, or anything to call. `instance`: what one of it is
    /// made of.
    pub(super) fn link(&self, instance: &Cost) -> Result<Linked, Error> {
        self.work.compiles();
        self.order.check()?;
        let make = |engine: &Engine, pooled| self.machine_code(engine, pooled);
        let link = |made: &AllocatingEngine, compiled, host| match self
            .info
            .check_imports(true)
            .and(self.info.check_entry())
        {
            Ok(entry) => Prepared::new(made, compiled, self.features, entry, host),
            Err(unlinked) => {
                drop(DropUndisturbed::new(compiled));
                Err(unlinked)
            }
        };
        prepare(self.process, self.features, instance, make, |made, compiled, host| match link(made, compiled, host) {
            Err(why @ (Error::MissingImports { .. } | Error::UnsupportedComponent(_))) => Ok(Err(why)),
            linked => linked.map(Ok),
        })
    }

    /// Why its instances cannot be put back to what they were, if they were to be, and linking has failed for that.
    pub(super) fn why_not_restorable(self) -> Option<NotRestorable> {
        self.not_restorable.into_inner()
    }

    fn machine_code(&self, engine: &Engine, pooled: bool) -> Result<wasmtime::component::Component, Failure> {
        if let Some(kept) = self.kept(engine, pooled, self.turn.borrow().is_some())? {
            return Ok(kept);
        }
        if self.turn.borrow().is_none() {
            self.turn.replace(Some(Turn::take(self.process, &self.digest, self.order)));
            self.order.check()?;
            if let Some(kept) = self.kept(engine, pooled, true)? {
                return Ok(kept); // another process has compiled it meanwhile
            }
        }
        let source = match self.source.get() {
            Some(source) => source,
            None => {
                let made = self.source()?;
                self.source.get_or_init(|| made)
            }
        };
        let kind = EngineKind { features: self.features, pooled };
        let code = if self.order.limits.are_of_a_process() {
            compiler::compile(kind, source, self.order, self.work)?
        } else {
            crate::engine::config::compile(engine, kind, source).map_err(|error| refusal(&error, source))?
        };
        // even if it fits no slot of the pool: the next process finds that out without compiling
        if let Some(cache) = &self.process.cache {
            cache.store(engine, &self.digest, &code);
        }
        // SAFETY: the bytes come from `precompile_component` of the same module, here or in a process that we have started.
        Ok(undisturbed(|| unsafe { wasmtime::component::Component::deserialize(engine, code) })?)
    }

    /// Machine code that an earlier process has made of it.
    fn kept(
        &self,
        engine: &Engine,
        pooled: bool,
        tell: bool,
    ) -> Result<Option<wasmtime::component::Component>, Failure> {
        let Some(cache) = &self.process.cache else { return Ok(None) };
        match cache.load(engine, &self.digest, tell) {
            Err(refused) if pooled => Err(Failure::Unfit(refused)),
            found => Ok(found.unwrap_or(None)),
        }
    }

    /// The component without debug information that would harm whoever reads it, and with what puts its instances back, if they are to be. To
    /// make that takes 60 ms for 19 MB.
    fn source(&self) -> Result<Cow<'a, [u8]>, Error> {
        let go_on = || self.work.check(self.order);
        if !self.variant.restorable {
            return without_harm(self.binary, go_on);
        }
        let instrumented = instrument::instrument(self.binary).map_err(|why| {
            let told = Error::UnsupportedComponent(why.to_string().into());
            let _ = self.not_restorable.set(why);
            told
        })?;
        Ok(without_harm(&instrumented, go_on)?.into_owned().into())
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
pub(super) fn prepare<T>(
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
