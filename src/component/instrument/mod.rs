//! A component, rewritten so that its host can put an instance back to what it was.
//!
//! wasmtime tells its embedder nothing of a component's memories and globals. So they are told of from inside: each core module that has a
//! memory or a mutable global of its own exports it, and one more core module ([`agent`]) imports them all. Two functions that the
//! component exports besides have it take note of the globals and put them back, and tell the host where the memories lie.
//!
//! Nothing is decoded and encoded again that need not be: sections are copied as they are, but for the export sections of those modules,
//! and new ones go to the end, which leaves all indices as they were.

mod agent;
mod module;
pub(crate) mod not_restorable;
mod resources;

use std::collections::HashMap;
use std::ops::Range;

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentImportSection, ComponentSection, ComponentTypeRef, ComponentTypeSection,
    ComponentValType, ExportKind, InstanceSection, ModuleArg, ModuleSection, PrimitiveValType, RawSection, ValType,
};
use wasmparser::{Encoding, Instance, Parser, Payload, Validator, WasmFeatures};

use crate::component::cost::{CORE_INSTANCE, Cost, FUNCTION_IMPORT, GLOBAL, MEMORY};
use crate::component::instrument::agent::Part;
use crate::component::instrument::module::Module;
use crate::component::instrument::not_restorable::{NotRestorable, check_name};
use crate::component::instrument::resources::Resources;
use crate::guest::restoring::{LEFT, RESTORE, SAVE, TAKE, TELL};

/// Goes into the key of what is kept of an instrumented component: to be changed with what is added.
pub(crate) const VERSION: &str = "restorable 3";

/// What an instance has more than this.
pub(crate) fn cost(instance: &Cost) -> Cost {
    Cost {
        instances: 1,
        core_instances: 1,
        memories: 1,
        module_memories: 1,
        memory: 1 << 16,
        globals: instance.globals,
        host: CORE_INSTANCE + MEMORY + 8 * FUNCTION_IMPORT + GLOBAL.saturating_mul(instance.globals),
        ..Cost::default()
    }
}

/// How many of each the component has at its end.
struct Counts {
    /// With the aliases that are added first.
    types: u32,
    functions: u32,
    core_functions: u32,
    memories: u32,
    globals: u32,
    core_instances: u32,
    modules: u32,
}

/// Rewrites a component. Goes as deep on the stack as it is nested.
pub(crate) fn instrument(binary: &[u8]) -> Result<Vec<u8>, NotRestorable> {
    let mut out = Output::new(binary);
    let mut validator = Validator::new_with_features(WasmFeatures::all());
    let mut modules: HashMap<u32, Module> = HashMap::new();
    let mut instances: Vec<Option<u32>> = Vec::new();
    // what encloses the place that is read
    let mut open: Vec<Encoding> = Vec::new();
    let mut imported = Resources::default();
    let mut aliases = ComponentAliasSection::new();
    let mut resources = Vec::new();
    let mut counts = None;
    for payload in Parser::new(0).parse_all(binary) {
        let payload = payload?;
        if open.as_slice() == [Encoding::Component] {
            match &payload {
                Payload::ModuleSection { unchecked_range, .. } => {
                    let index = of_component(&validator)?.module_count();
                    let module = Module::read(out.slice(unchecked_range)?)?;
                    out.append(&module.bytes(out.slice(unchecked_range)?)?);
                    modules.insert(index, module);
                }
                Payload::InstanceSection(section) => {
                    for instance in section.clone() {
                        instances.push(match instance? {
                            Instance::Instantiate { module_index, .. } => Some(module_index),
                            Instance::FromExports(_) => None,
                        });
                    }
                    out.copy(&payload)?;
                }
                Payload::ComponentCanonicalSection(section) => {
                    for function in section.clone() {
                        if matches!(function?, wasmparser::CanonicalFunction::ResourceNew { .. }) {
                            return Err(NotRestorable::Resources);
                        }
                    }
                    out.copy(&payload)?;
                }
                Payload::ComponentExportSection(section) => {
                    for export in section.clone() {
                        check_name(export?.name.name)?;
                    }
                    out.copy(&payload)?;
                }
                Payload::ComponentImportSection(section) => {
                    imported.read(section, of_component(&validator)?)?;
                    out.copy(&payload)?;
                }
                Payload::End(_) => {
                    let types = of_component(&validator)?;
                    resources = imported.indices(types, &mut aliases);
                    counts = Some(Counts {
                        types: types.component_type_count() + aliases.len(),
                        functions: types.component_function_count(),
                        core_functions: types.function_count(),
                        memories: types.memory_count(),
                        globals: types.global_count(),
                        core_instances: types.core_instance_count(),
                        modules: types.module_count(),
                    });
                }
                other => out.copy(other)?,
            }
        }
        match &payload {
            Payload::Version { encoding, .. } => {
                if open.len() > 1 && *encoding == Encoding::Module && open.last() == Some(&Encoding::Component) {
                    return Err(NotRestorable::Nested);
                }
                open.push(*encoding);
            }
            Payload::InstanceSection(section) if open.len() > 1 => {
                for instance in section.clone() {
                    // of a module that it is given
                    if matches!(instance?, Instance::Instantiate { .. }) {
                        return Err(NotRestorable::Nested);
                    }
                }
            }
            Payload::End(_) => drop(open.pop()),
            Payload::CodeSectionEntry(body) => module::check_body(body)?,
            _ => {}
        }
        validator.payload(&payload)?;
    }
    let counts = counts.ok_or_else(|| NotRestorable::Malformed("it does not end".into()))?;
    let (mut memories, mut globals) = (Vec::new(), Vec::new());
    for (instance, module) in (0..).zip(&instances) {
        let Some(index) = module else { continue };
        let module = modules.get(index).ok_or(NotRestorable::Module)?;
        let part = |name: &String, ty| Part { instance, name: name.clone(), ty };
        memories.extend(module.memories().iter().map(|name| part(name, ())));
        globals.extend(module.globals().iter().map(|(name, ty)| Part { instance, name: name.clone(), ty: *ty }));
    }
    out.append(&aliases);
    add_agent(&mut out, &counts, &memories, &globals, &resources);
    Ok(out.bytes)
}

fn of_component(validator: &Validator) -> Result<wasmparser::types::TypesRef<'_>, NotRestorable> {
    validator.types(0).ok_or_else(|| NotRestorable::Malformed("it has sections before its head".into()))
}

/// What is added at the end of the component. `resources`: the types of all that it can have handles of.
fn add_agent(
    out: &mut Output<'_>,
    counts: &Counts,
    memories: &[Part<()>],
    globals: &[Part<ValType>],
    resources: &[u32],
) {
    let types = AgentTypes::add(out, counts.types, resources);
    let mut imports = ComponentImportSection::new();
    imports.import(TELL, ComponentTypeRef::Func(types.of_tell));
    imports.import(LEFT, ComponentTypeRef::Func(types.of_left));
    out.append(&imports);

    let mut aliases = ComponentAliasSection::new();
    for part in memories {
        aliases.alias(Alias::CoreInstanceExport {
            instance: part.instance,
            kind: ExportKind::Memory,
            name: &part.name,
        });
    }
    for part in globals {
        aliases.alias(Alias::CoreInstanceExport {
            instance: part.instance,
            kind: ExportKind::Global,
            name: &part.name,
        });
    }
    out.append(&aliases);
    let mut lowered = CanonicalFunctionSection::new();
    for memory in (counts.memories..).take(memories.len()) {
        lowered.lower(counts.functions, [CanonicalOption::Memory(memory)]);
    }
    lowered.resource_new(types.handle).resource_drop(types.handle).lower(counts.functions + 1, []);
    out.append(&lowered);

    // instantiated after all others
    out.append(&ModuleSection(&agent::module(memories.len(), globals)));
    let mut given = Vec::new();
    let tells = counts.core_functions;
    for (at, _) in (0u32..).zip(memories) {
        given.push((format!("m{at}"), ExportKind::Memory, counts.memories + at));
        given.push((format!("t{at}"), ExportKind::Func, tells + at));
    }
    let number_of_memories = u32::try_from(memories.len()).unwrap_or(u32::MAX);
    let others = tells + number_of_memories;
    for (at, name) in (0u32..).zip(["new", "drop", "left"]) {
        given.push((name.into(), ExportKind::Func, others + at));
    }
    for (at, _) in (0u32..).zip(globals) {
        given.push((format!("g{at}"), ExportKind::Global, counts.globals + at));
    }
    let mut instances = InstanceSection::new();
    instances.export_items(given);
    instances.instantiate(counts.modules, [("", ModuleArg::Instance(counts.core_instances))]);
    out.append(&instances);
    let agent = counts.core_instances + 1;
    let mut aliases = ComponentAliasSection::new();
    for name in ["save", "restore", "take"] {
        aliases.alias(Alias::CoreInstanceExport { instance: agent, kind: ExportKind::Func, name });
    }
    aliases.alias(Alias::CoreInstanceExport { instance: agent, kind: ExportKind::Memory, name: "numbers" });
    out.append(&aliases);
    let mut lifted = CanonicalFunctionSection::new();
    let first = others + 3;
    lifted.lift(first, types.of_restore, []);
    lifted.lift(first + 1, types.of_restore, []);
    let mut exports = ComponentExportSection::new();
    exports.export(SAVE, ComponentExportKind::Func, counts.functions + 2, None);
    exports.export(RESTORE, ComponentExportKind::Func, counts.functions + 3, None);
    if let Some(of_take) = types.of_take {
        lifted.lift(first + 2, of_take, [CanonicalOption::Memory(counts.memories + number_of_memories)]);
        exports.export(TAKE, ComponentExportKind::Func, counts.functions + 4, None);
    }
    out.append(&lifted);
    out.append(&exports);
}

/// The types that the agent needs: their indices.
struct AgentTypes {
    of_tell: u32,
    of_left: u32,
    /// That of `save`, too.
    of_restore: u32,
    /// If there is a resource that the guest could have a handle of.
    of_take: Option<u32>,
    /// Has a place among the handles, and nothing is behind it.
    handle: u32,
}

impl AgentTypes {
    fn add(out: &mut Output<'_>, first: u32, resources: &[u32]) -> Self {
        let number = ComponentValType::Primitive(PrimitiveValType::U32);
        let mut types = ComponentTypeSection::new();
        types.defined_type().list(PrimitiveValType::U8);
        let bytes = ComponentValType::Type(first);
        types.function().params([("memory", number), ("base", bytes), ("pages", number)]).result(None);
        types.function().params([("number", number)]).result(None);
        types.function().params([("handles", number)]).result(Some(number));
        types.resource(ValType::I32, None);
        let mut next = first + 5;
        let mut of_take = None;
        if !resources.is_empty() {
            let mut handles = Vec::new();
            for &resource in resources {
                types.defined_type().own(resource);
                handles.push(ComponentValType::Type(next));
                next += 1;
            }
            types.defined_type().tuple(handles);
            types.function().params([("number", number)]).result(Some(ComponentValType::Type(next)));
            of_take = Some(next + 1);
        }
        out.append(&types);
        Self { of_tell: first + 1, of_left: first + 2, of_restore: first + 3, handle: first + 4, of_take }
    }
}

/// The component that is written.
struct Output<'a> {
    binary: &'a [u8],
    bytes: Vec<u8>,
}

impl<'a> Output<'a> {
    fn new(binary: &'a [u8]) -> Self {
        Self { binary, bytes: wasm_encoder::Component::HEADER.to_vec() }
    }

    fn slice(&self, range: &Range<usize>) -> Result<&'a [u8], NotRestorable> {
        self.binary.get(range.clone()).ok_or_else(|| NotRestorable::Malformed("a section goes past its end".into()))
    }

    fn append(&mut self, section: &impl ComponentSection) {
        section.append_to_component(&mut self.bytes);
    }

    /// A section as it is, if it is one.
    fn copy(&mut self, payload: &Payload<'_>) -> Result<(), NotRestorable> {
        if let Some((id, range)) = payload.as_section() {
            let data = self.slice(&range)?;
            self.append(&RawSection { id, data });
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
