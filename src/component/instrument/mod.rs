//! A component, rewritten so that its host can put an instance back to what it was.
//!
//! wasmtime tells its embedder nothing of a component's memories and globals. So they are told of from inside: each core module that has a
//! memory or a mutable global of its own exports it, and one more core module ([`agent`]) imports the globals. Functions that the component
//! exports besides have it take note of the globals and put them back, and tell the host where the memories lie.
//!
//! Handles are a component instance's own, and no core item crosses a component's border. So each component that has core instances has an
//! agent, those inside of it as well; the functions of their agents are exported once more by whatever is around them.
//!
//! Nothing is decoded and encoded again that need not be: sections are copied as they are, but for the export sections of those modules
//! and for components with agents, and new ones go to the end, which leaves all indices as they were.

mod addition;
mod agent;
mod lending;
mod module;
pub(crate) mod not_restorable;
mod output;
mod resources;

use std::collections::HashMap;
use std::rc::Rc;

use wasm_encoder::{ComponentAliasSection, ValType};
use wasmparser::types::TypesRef;
use wasmparser::{
    CanonicalFunction, ComponentAlias, ComponentExternalKind, ComponentInstance, ComponentOuterAliasKind,
    ComponentTypeRef, Encoding, Instance, Parser, Payload, Validator, WasmFeatures,
};

use crate::component::cost::{CORE_INSTANCE, Cost, FUNCTION_IMPORT, GLOBAL, MEMORY};
use crate::component::instrument::addition::{Agent, Counts, add_agent, hand_on};
use crate::component::instrument::agent::Part;
use crate::component::instrument::lending::lends;
use crate::component::instrument::module::Module;
use crate::component::instrument::not_restorable::{NotRestorable, check_name};
use crate::component::instrument::output::{Inner, Output};
use crate::component::instrument::resources::Resources;

/// Goes into the key of what is kept of an instrumented component: to be changed with what is added.
pub(crate) const VERSION: &str = "restorable 5";

/// Each is called after each exchange.
const MOST_AGENTS: usize = 32;

/// What an instance has more than this.
pub(crate) fn cost(instance: &Cost) -> Cost {
    let agents = instance.with_code.max(1);
    Cost {
        instances: agents,
        core_instances: agents,
        memories: agents,
        module_memories: 1,
        memory: agents.saturating_mul(1 << 16),
        globals: instance.globals,
        host: (CORE_INSTANCE + MEMORY + 8 * FUNCTION_IMPORT)
            .saturating_mul(agents)
            .saturating_add(GLOBAL.saturating_mul(instance.globals)),
        ..Cost::default()
    }
}

/// A component that is read, and written anew.
struct Frame<'a> {
    out: Output<'a>,
    /// The whole of it, as it is.
    range: std::ops::Range<usize>,
    /// Its core modules, by their index.
    modules: HashMap<u32, Module>,
    /// Of which module each core instance is.
    core_instances: Vec<Option<u32>>,
    /// The agents of each component inside of it; none of one that it was given.
    components: Vec<Option<Rc<[Agent]>>>,
    /// Its instances of those, by their index.
    instances: Vec<(u32, Rc<[Agent]>)>,
    imported: Resources,
    /// A function of it is lent handles.
    is_lent: bool,
    /// It has functions of its own.
    lifts: bool,
}

impl<'a> Frame<'a> {
    fn new(binary: &'a [u8], range: std::ops::Range<usize>) -> Self {
        Self {
            out: Output::new(binary),
            range,
            modules: HashMap::new(),
            core_instances: Vec::new(),
            components: Vec::new(),
            instances: Vec::new(),
            imported: Resources::default(),
            is_lent: false,
            lifts: false,
        }
    }

    /// A section, which the validator has not seen yet. `around`: what encloses it, the innermost last.
    fn section(
        &mut self,
        payload: &Payload<'_>,
        types: TypesRef<'_>,
        around: &[Frame<'_>],
    ) -> Result<(), NotRestorable> {
        match payload {
            Payload::ModuleSection { unchecked_range, .. } => {
                let binary = self.out.slice(unchecked_range)?;
                let module = Module::read(binary)?;
                self.out.append(&module.bytes(binary)?);
                self.modules.insert(types.module_count(), module);
                return Ok(());
            }
            // appended when it has been read
            Payload::ComponentSection { .. } => return Ok(()),
            Payload::InstanceSection(section) => {
                for instance in section.clone() {
                    self.core_instances.push(match instance? {
                        Instance::Instantiate { module_index, .. } => Some(module_index),
                        Instance::FromExports(_) => None,
                    });
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for (at, instance) in (types.component_instance_count()..).zip(section.clone()) {
                    let ComponentInstance::Instantiate { component_index, .. } = instance? else { continue };
                    let agents = self.components.get(component_index as usize).cloned().flatten();
                    let agents = agents.ok_or(NotRestorable::Component)?;
                    if !agents.is_empty() {
                        self.instances.push((at, agents));
                    }
                    if self.agents_inside() > MOST_AGENTS {
                        return Err(NotRestorable::Instances(MOST_AGENTS));
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.clone() {
                    let agents = match alias? {
                        ComponentAlias::Outer { kind: ComponentOuterAliasKind::Component, count, index } => {
                            let of = match count {
                                0 => Some(&self.components),
                                _ => around.iter().rev().nth(count as usize - 1).map(|frame| &frame.components),
                            };
                            of.and_then(|of| of.get(index as usize)).cloned().flatten()
                        }
                        ComponentAlias::InstanceExport { kind: ComponentExternalKind::Component, .. } => None,
                        _ => continue,
                    };
                    self.components.push(agents);
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                for function in section.clone() {
                    match function? {
                        CanonicalFunction::ResourceNew { .. } => return Err(NotRestorable::Resources),
                        CanonicalFunction::Lift { type_index, .. } => {
                            self.lifts = true;
                            self.is_lent |= lends(types, type_index);
                        }
                        _ => {}
                    }
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.clone() {
                    let export = export?;
                    check_name(export.name.name)?;
                    if export.kind == ComponentExternalKind::Component {
                        let agents = self.components.get(export.index as usize).cloned().flatten();
                        self.components.push(agents);
                    }
                }
            }
            Payload::ComponentImportSection(section) => {
                for import in section.clone() {
                    if let ComponentTypeRef::Component(_) = import?.ty {
                        self.components.push(None);
                    }
                }
                self.imported.read(section, types)?;
            }
            _ => {}
        }
        self.out.copy(payload)
    }

    fn agents_inside(&self) -> usize {
        self.instances.iter().map(|(_, agents)| agents.len()).sum()
    }

    /// What is added at its end. Returns all agents in it.
    fn end(&mut self, types: TypesRef<'_>, is_outermost: bool) -> Result<Vec<Agent>, NotRestorable> {
        let inside: Vec<(u32, usize, Agent)> = self
            .instances
            .iter()
            .flat_map(|(at, agents)| agents.iter().enumerate().map(|(number, agent)| (*at, number, *agent)))
            .collect();
        let mut counts = Counts::of(types);
        let mut agents = Vec::new();
        if self.core_instances.iter().any(Option::is_some) || (is_outermost && inside.is_empty()) {
            let (mut memories, mut globals) = (Vec::new(), Vec::new());
            for (instance, module) in (0..).zip(&self.core_instances) {
                let Some(index) = module else { continue };
                let module = self.modules.get(index).ok_or(NotRestorable::Module)?;
                let part = |name: &String| Part { instance, name: name.clone(), ty: () };
                memories.extend(module.memories().iter().map(part));
                let part = |(name, ty): &(String, ValType)| Part { instance, name: name.clone(), ty: *ty };
                globals.extend(module.globals().iter().map(part));
            }
            let mut aliases = ComponentAliasSection::new();
            let resources = self.imported.indices(types, &mut aliases);
            counts.types += aliases.len();
            self.out.append(&aliases);
            agents.push(add_agent(&mut self.out, &mut counts, &memories, &globals, &resources));
        } else if self.lifts {
            return Err(NotRestorable::BuiltIns);
        }
        hand_on(&mut self.out, &mut counts, &inside, agents.len());
        agents.extend(inside.iter().map(|(.., agent)| *agent));
        Ok(agents)
    }
}

/// Rewrites a component. Goes as deep on the stack as it is nested.
pub(crate) fn instrument(binary: &[u8]) -> Result<Vec<u8>, NotRestorable> {
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut frames: Vec<Frame<'_>> = Vec::new();
    // what encloses the place that is read: components, and a module at the most
    let mut open: Vec<Encoding> = Vec::new();
    let mut begun = 0..binary.len();
    let mut is_lent = false;
    let mut made = None;
    for payload in Parser::new(0).parse_all(binary) {
        let payload = payload?;
        match (&payload, open.last()) {
            (Payload::Version { encoding, .. }, _) => {
                open.push(*encoding);
                if *encoding == Encoding::Component {
                    frames.push(Frame::new(binary, begun.clone()));
                }
            }
            (Payload::End(_), Some(Encoding::Component)) => {
                open.pop();
                let Some(mut frame) = frames.pop() else { continue };
                let agents = frame.end(of_component(&validator)?, frames.is_empty())?;
                is_lent |= frame.is_lent;
                match frames.last_mut() {
                    Some(outer) => {
                        let inner = if agents.is_empty() { outer.out.slice(&frame.range)? } else { &frame.out.bytes };
                        outer.out.append(&Inner(inner));
                        outer.components.push(Some(agents.into()));
                    }
                    None => made = Some((frame.out.bytes, agents.len())),
                }
            }
            (Payload::End(_), _) => drop(open.pop()),
            (Payload::CodeSectionEntry(body), _) => module::check_body(body)?,
            (section, Some(Encoding::Component)) => {
                if let Payload::ComponentSection { unchecked_range, .. } = section {
                    begun = unchecked_range.clone();
                }
                if let Some((frame, around)) = frames.split_last_mut() {
                    frame.section(section, of_component(&validator)?, around)?;
                }
            }
            _ => {}
        }
        validator.payload(&payload)?;
    }
    let (bytes, agents) = made.ok_or_else(|| NotRestorable::Malformed("it does not end".into()))?;
    if agents > 1 {
        check_composed(&bytes, is_lent)?;
    }
    Ok(bytes)
}

/// What else holds of a component that is composed of several.
fn check_composed(bytes: &[u8], is_lent: bool) -> Result<(), NotRestorable> {
    // a list has as many handles as the one likes, which nobody counts, and which take numbers of the other's
    if is_lent {
        return Err(NotRestorable::Lent);
    }
    // what is handed outwards may be of types that only those inside know; bodies of functions are not looked at
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    for payload in Parser::new(0).parse_all(bytes) {
        validator.payload(&payload?).map_err(|error| NotRestorable::Types(error.message().into()))?;
    }
    Ok(())
}

fn of_component(validator: &Validator) -> Result<TypesRef<'_>, NotRestorable> {
    validator.types(0).ok_or_else(|| NotRestorable::Malformed("it has sections before its head".into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
