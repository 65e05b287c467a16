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
pub(crate) mod preparing;
pub(crate) mod refusal;
pub mod source;
pub mod variant;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use wasmtime::Engine;

use crate::component::census::Census;
use crate::component::cost::Cost;
use crate::component::inspect::ComponentInfo;
use crate::component::instrument::not_restorable::NotRestorable;
use crate::component::loading::{Order, loaded};
use crate::component::preparing::{Making, prepare};
use crate::component::variant::{Variant, hex};
use crate::engine::{ProcessState, process_state};
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::prepared::Prepared;
use crate::process::undisturbed::undisturbed;

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
            match undisturbed(|| last.next.set(slot)) {
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
                let making = Making::new(process, &info, (&digest, &binary), plain, order, &work);
                let linked = making.link(instance)?;
                drop(making);
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
        let making = Making::new(process, &self.info, (&self.digest, binary), variant, order, &work);
        let linked = match (making.link(&self.cost_of_instance(variant)), making.why_not_restorable()) {
            (Err(_), Some(why)) => {
                let _ = self.not_restorable.set(why);
                return Ok(());
            }
            (linked, _) => linked?,
        };
        first.add(Slot::new(process, variant, linked?));
        Ok(())
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
