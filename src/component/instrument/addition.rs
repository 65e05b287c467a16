//! What is added at the end of a component: its agent, and the functions of the agents of those inside of it, handed outwards.

use wasm_encoder::{
    Alias, CanonicalFunctionSection, CanonicalOption, ComponentAliasSection, ComponentExportKind,
    ComponentExportSection, ComponentTypeSection, ComponentValType, ExportKind, InstanceSection, ModuleArg,
    ModuleSection, PrimitiveValType, ValType,
};
use wasmparser::types::TypesRef;

use crate::component::instrument::agent::{self, Part};
use crate::component::instrument::output::Output;
use crate::guest::restoring::{LEFT, RESTORE, SAVE, TAKE, memory_name, name};

/// An agent, as far as its functions tell.
#[derive(Clone, Copy)]
pub(super) struct Agent {
    /// So many does its component have.
    memories: u32,
    /// Whether there is a resource that its component could have a handle of.
    takes: bool,
}

impl Agent {
    /// The names of its functions, if it is the one with this number.
    fn names(self, number: usize) -> impl Iterator<Item = String> {
        let always = [SAVE, RESTORE, LEFT].map(|what| name(what, number));
        let take = self.takes.then(|| name(TAKE, number));
        // that of the first is told by the others
        let memories = (1..self.memories).map(move |memory| memory_name(number, memory as usize));
        always.into_iter().chain(take).chain(memories)
    }
}

/// How many of each a component has, with what was added.
pub(super) struct Counts {
    pub types: u32,
    functions: u32,
    core_functions: u32,
    memories: u32,
    globals: u32,
    core_instances: u32,
    modules: u32,
}

impl Counts {
    pub(super) fn of(types: TypesRef<'_>) -> Self {
        Self {
            types: types.component_type_count(),
            functions: types.component_function_count(),
            core_functions: types.function_count(),
            memories: types.memory_count(),
            globals: types.global_count(),
            core_instances: types.core_instance_count(),
            modules: types.module_count(),
        }
    }
}

/// The agent of a component. `resources`: the types of all that it can have handles of.
pub(super) fn add_agent(
    out: &mut Output<'_>,
    counts: &mut Counts,
    memories: &[Part<()>],
    globals: &[Part<ValType>],
    resources: &[u32],
) -> Agent {
    let agent = Agent { memories: u32::try_from(memories.len()).unwrap_or(u32::MAX), takes: !resources.is_empty() };
    let types = AgentTypes::add(out, counts, memories.is_empty(), resources);
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
    let mut handles = CanonicalFunctionSection::new();
    handles.resource_new(types.handle).resource_drop(types.handle);
    out.append(&handles);

    // instantiated after all others
    out.append(&ModuleSection(&agent::module(globals)));
    let functions = counts.core_functions;
    let mut given =
        vec![("new".to_owned(), ExportKind::Func, functions), ("drop".to_owned(), ExportKind::Func, functions + 1)];
    for (at, _) in (0u32..).zip(globals) {
        given.push((format!("g{at}"), ExportKind::Global, counts.globals + at));
    }
    let mut instances = InstanceSection::new();
    instances.export_items(given);
    instances.instantiate(counts.modules, [("", ModuleArg::Instance(counts.core_instances))]);
    out.append(&instances);
    let instance = counts.core_instances + 1;
    let mut aliases = ComponentAliasSection::new();
    for name in ["save", "restore", "left", "take"] {
        aliases.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Func, name });
    }
    aliases.alias(Alias::CoreInstanceExport { instance, kind: ExportKind::Memory, name: "numbers" });
    out.append(&aliases);

    let [save, restore, left, take] = [2, 3, 4, 5].map(|at| functions + at);
    let first_memory = counts.memories;
    let of_first = (agent.memories > 0).then_some(CanonicalOption::Memory(first_memory));
    let numbers = CanonicalOption::Memory(first_memory + agent.memories);
    let mut lifted = CanonicalFunctionSection::new();
    lifted.lift(save, types.of_restore, of_first);
    lifted.lift(restore, types.of_restore, of_first);
    lifted.lift(left, types.of_left, []);
    if let Some(of_take) = types.of_take {
        lifted.lift(take, of_take, [numbers]);
    }
    for memory in 1..agent.memories {
        lifted.lift(take, types.of_restore, [CanonicalOption::Memory(first_memory + memory)]);
    }
    out.append(&lifted);
    let first = counts.functions;
    counts.functions += lifted.len();
    export(out, counts, first, agent.names(0));
    agent
}

/// The functions of agents inside of this component, so many of which it has already: of each the instance that it is in, and its number
/// there.
pub(super) fn hand_on(out: &mut Output<'_>, counts: &mut Counts, agents: &[(u32, usize, Agent)], before: usize) {
    if agents.is_empty() {
        return;
    }
    let mut aliases = ComponentAliasSection::new();
    for (instance, number, agent) in agents {
        for name in agent.names(*number) {
            aliases.alias(Alias::InstanceExport { instance: *instance, kind: ComponentExportKind::Func, name: &name });
        }
    }
    out.append(&aliases);
    let first = counts.functions;
    counts.functions += aliases.len();
    let names = agents.iter().enumerate().flat_map(|(at, (.., agent))| agent.names(before + at));
    export(out, counts, first, names);
}

/// Functions, one after the other, by these names.
fn export(out: &mut Output<'_>, counts: &mut Counts, first: u32, names: impl Iterator<Item = String>) {
    let mut exports = ComponentExportSection::new();
    for (function, name) in (first..).zip(names) {
        exports.export(name.as_str(), ComponentExportKind::Func, function, None);
    }
    out.append(&exports);
    counts.functions += exports.len();
}

/// The types that the agent needs: their indices.
struct AgentTypes {
    /// That of `save`, and of what tells of further memories, too.
    of_restore: u32,
    of_left: u32,
    /// If there is a resource that the guest could have a handle of.
    of_take: Option<u32>,
    /// Has a place among the handles, and nothing is behind it.
    handle: u32,
}

impl AgentTypes {
    fn add(out: &mut Output<'_>, counts: &mut Counts, has_no_memory: bool, resources: &[u32]) -> Self {
        let number = ComponentValType::Primitive(PrimitiveValType::U32);
        let first = counts.types;
        let mut types = ComponentTypeSection::new();
        // two numbers are returned as a place in memory: that is how the host comes to know it
        types.defined_type().tuple(if has_no_memory { vec![number] } else { vec![number, number] });
        types.function().params([("handles", number)]).result(Some(ComponentValType::Type(first)));
        types.function().params([("below", number)]).result(Some(number));
        types.resource(ValType::I32, None);
        let mut next = first + 4;
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
        counts.types += types.len();
        out.append(&types);
        Self { of_restore: first + 1, of_left: first + 2, handle: first + 3, of_take }
    }
}
