//! What a component is made of, counted from its binary: before anything is expanded or compiled, and without recursion over
//! what a stranger sent.

use wasmparser::{
    ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentTypeRef, ElementItems, Parser, Payload,
    SectionLimited, TypeRef,
};

use crate::component::cost::{
    Cost, FUNCTION_IMPORT, FUNCTION_REFERENCE, GLOBAL, MEMORY, OTHER_IMPORT, SEGMENT, TABLE, TAG,
};
use crate::component::declared_types::DeclaredTypes;
use crate::component::expansion::{Item, Sort, StaticComponent, expand};
use crate::component::limits::ComponentLimits;
use crate::error::Error;

/// The numbers, as far as they say what loading and instantiating cost.
#[derive(Clone, Debug, Default)]
pub struct Census {
    /// Bytes of the binary form.
    pub size: u64,
    pub modules: u64,
    /// Components inside of it.
    pub components: u64,
    /// Functions that are compiled: those with a body, and one for each adapter between components.
    pub functions: u64,
    /// Types, of components and of core modules, and what is declared inside of them.
    pub types: u64,
    /// Imports, exports, aliases, arguments, and parts of types.
    pub names: u64,
    /// Bytes of function bodies.
    pub code: u64,
    /// Bytes of the largest function body.
    pub function_size: u64,
    /// Locals of all functions.
    pub locals: u64,
    /// The most parameters, or results, of a core function type.
    pub parameters: u64,
    /// How deep components and types are nested.
    pub nesting: u64,
    /// What one instance of it is made of.
    pub instance: Cost,
    /// What its definitions have of the same, instantiated or not.
    pub defined: Cost,
}

/// Levels of components beyond this are not followed: so many have been refused long before, and each takes memory here.
const DEEPEST: usize = 100_000;

impl Census {
    /// Counts all but what nests inside of function bodies, see [`Blocks`](crate::component::blocks::Blocks), and checks it. What is malformed is
    /// left to the validator, which refuses it: the same parser reads there. What is instantiated is followed when all that is written
    /// down is within its limits, so that following it is.
    pub fn take(binary: &[u8], limits: &ComponentLimits) -> Result<Self, Error> {
        let (mut census, components, modules) = Self::count(binary, limits);
        limits.check(&census)?;
        census.instance = expand(&components, &modules);
        // a pool looks at modules that nothing instantiates, too
        let (instance, defined) = (&mut census.instance, &census.defined);
        instance.module_memories = instance.module_memories.max(defined.module_memories);
        instance.module_tables = instance.module_tables.max(defined.module_tables);
        census.functions = census.functions.saturating_add(census.instance.adapters);
        limits.check(&census)?;
        Ok(census)
    }

    /// What is written down. What is more than its limit is counted, but not kept.
    fn count<'a>(binary: &'a [u8], limits: &ComponentLimits) -> (Self, Vec<StaticComponent<'a>>, Vec<Cost>) {
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let (most_modules, most_components) = (most(limits.modules), most(limits.components));
        let most_names = most(limits.names);
        let mut census = Self { size: binary.len() as u64, ..Self::default() };
        let mut components: Vec<StaticComponent<'_>> = vec![StaticComponent::default()];
        let mut modules: Vec<Cost> = Vec::new();
        // what encloses the place that is read: components, and a module at the most
        let mut open = vec![Open::Component(0)];
        let mut begun = false;
        for payload in Parser::new(0).parse_all(binary) {
            let Ok(payload) = payload else { break };
            let place = open.last().copied();
            match payload {
                Payload::Version { .. } if !begun => begun = true,
                Payload::ModuleSection { .. } => {
                    census.modules += 1;
                    let number = if census.modules > most_modules { NOT_KEPT } else { modules.len() };
                    if number != NOT_KEPT {
                        modules.push(Cost::of_module());
                    }
                    if let Some(Open::Component(outer)) = place
                        && let Some(outer) = components.get_mut(outer)
                    {
                        outer.push(Item::Module(number), number != NOT_KEPT);
                    }
                    open.push(Open::Module(number));
                }
                Payload::ComponentSection { .. } => {
                    census.components += 1;
                    let number = if census.components > most_components { NOT_KEPT } else { components.len() };
                    if number != NOT_KEPT {
                        components.push(StaticComponent::default());
                    }
                    if let Some(Open::Component(outer)) = place
                        && let Some(outer) = components.get_mut(outer)
                    {
                        outer.push(Item::Component(number), number != NOT_KEPT);
                    }
                    open.push(Open::Component(number));
                    census.nesting = census.nesting.max(open.len() as u64 - 1);
                    if open.len() > DEEPEST {
                        break;
                    }
                }
                Payload::End(_) => {
                    open.pop();
                }
                other => match place {
                    Some(Open::Component(number)) => {
                        if let Some(component) = components.get_mut(number) {
                            census.component_section(binary, other, component, most_names);
                        }
                    }
                    Some(Open::Module(number)) => {
                        if let Some(module) = modules.get_mut(number) {
                            census.module_section(other, module);
                        }
                    }
                    None => break,
                },
            }
        }
        for module in &modules {
            census.defined.add(module);
        }
        (census, components, modules)
    }

    fn types(&mut self, declared: &DeclaredTypes) {
        self.types = self.types.saturating_add(declared.types);
        self.names = self.names.saturating_add(declared.names);
        self.parameters = self.parameters.max(declared.parameters);
        self.nesting = self.nesting.max(declared.depth);
    }

    fn component_section<'a>(
        &mut self,
        binary: &[u8],
        payload: Payload<'a>,
        component: &mut StaticComponent<'a>,
        most_names: u64,
    ) {
        match payload {
            Payload::ComponentTypeSection(section) => {
                component.definitions = component.definitions.saturating_add(number_of(&section));
                if let Some(bytes) = binary.get(section.range()) {
                    self.types(&DeclaredTypes::count(bytes));
                }
            }
            Payload::CoreTypeSection(section) => {
                let mut declared = DeclaredTypes::default();
                for ty in section.into_iter().map_while(Result::ok) {
                    declared.core_type(&ty);
                }
                self.types(&declared);
            }
            Payload::InstanceSection(section) => {
                for instance in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    match instance {
                        wasmparser::Instance::Instantiate { module_index, args } => {
                            self.names = self.names.saturating_add(args.len() as u64);
                            component.push(Item::InstantiateModule(module_index), self.names <= most_names);
                        }
                        wasmparser::Instance::FromExports(exports) => {
                            self.names = self.names.saturating_add(exports.len() as u64);
                        }
                    }
                }
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    match instance {
                        wasmparser::ComponentInstance::Instantiate { component_index, args } => {
                            self.names = self.names.saturating_add(args.len() as u64);
                            let args =
                                args.iter().filter_map(|arg| Some((arg.name, sort(arg.kind)?, arg.index))).collect();
                            let item = Item::Instantiate { component: component_index, args };
                            component.push(item, self.names <= most_names);
                        }
                        wasmparser::ComponentInstance::FromExports(exports) => {
                            self.names = self.names.saturating_add(exports.len() as u64);
                            let exports = exports
                                .iter()
                                .filter_map(|export| Some((export.name.name, sort(export.kind)?, export.index)))
                                .collect();
                            component.push(Item::Group(exports), self.names <= most_names);
                        }
                    }
                }
            }
            Payload::ComponentAliasSection(section) => {
                for alias in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    component.definitions += 1;
                    match alias {
                        ComponentAlias::InstanceExport { kind, instance_index, name } => {
                            if let Some(sort) = sort(kind) {
                                let item = Item::AliasExport { sort, instance: instance_index, name };
                                component.push(item, self.names <= most_names);
                            }
                        }
                        ComponentAlias::Outer { kind, count, index } => {
                            let sort = match kind {
                                ComponentOuterAliasKind::CoreModule => Sort::Module,
                                ComponentOuterAliasKind::Component => Sort::Component,
                                ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => continue,
                            };
                            component.push(Item::AliasOuter { sort, count, index }, self.names <= most_names);
                        }
                        ComponentAlias::CoreInstanceExport { .. } => {}
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                component.adapters = component.adapters.saturating_add(number_of(&section));
            }
            Payload::ComponentImportSection(section) => {
                for import in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    let sort = match import.ty {
                        ComponentTypeRef::Module(_) => Sort::Module,
                        ComponentTypeRef::Component(_) => Sort::Component,
                        ComponentTypeRef::Instance(_) => Sort::Instance,
                        ComponentTypeRef::Func(_) | ComponentTypeRef::Value(_) | ComponentTypeRef::Type(_) => {
                            component.definitions += 1;
                            continue;
                        }
                    };
                    component.push(Item::Import { sort, name: import.name.name }, self.names <= most_names);
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    match sort(export.kind) {
                        Some(sort) => {
                            let item = Item::Export { sort, name: export.name.name, index: export.index };
                            component.push(item, self.names <= most_names);
                        }
                        None => component.definitions += 1,
                    }
                }
            }
            _ => {}
        }
    }

    fn module_section(&mut self, payload: Payload<'_>, module: &mut Cost) {
        match payload {
            Payload::TypeSection(section) => {
                let mut declared = DeclaredTypes::default();
                for group in section.into_iter().map_while(Result::ok) {
                    declared.group(&group);
                }
                self.types(&declared);
            }
            Payload::ImportSection(section) => {
                for import in section.into_imports().map_while(Result::ok) {
                    self.names += 1;
                    module.host += match import.ty {
                        TypeRef::Func(_) | TypeRef::FuncExact(_) => FUNCTION_IMPORT,
                        _ => OTHER_IMPORT,
                    };
                }
            }
            Payload::TableSection(section) => {
                for table in section.into_iter().map_while(Result::ok) {
                    module.tables += 1;
                    module.module_tables += 1;
                    module.host += TABLE;
                    module.table_elements = module.table_elements.saturating_add(table.ty.initial);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.into_iter().map_while(Result::ok) {
                    module.memories += 1;
                    module.module_memories += 1;
                    module.host += MEMORY;
                    let page = memory.page_size_log2.unwrap_or(16).min(16);
                    module.memory = module.memory.saturating_add(memory.initial.saturating_mul(1 << page));
                }
            }
            Payload::TagSection(section) => module.host += number_of(&section) * TAG,
            Payload::GlobalSection(section) => {
                module.globals = module.globals.saturating_add(number_of(&section));
                module.host += number_of(&section) * GLOBAL;
            }
            Payload::ExportSection(section) => {
                self.names = self.names.saturating_add(number_of(&section));
                module.host += number_of(&section) * FUNCTION_REFERENCE;
            }
            Payload::ElementSection(section) => {
                for element in section.into_iter().map_while(Result::ok) {
                    let items = match element.items {
                        ElementItems::Functions(functions) => functions.count(),
                        ElementItems::Expressions(_, expressions) => expressions.count(),
                    };
                    module.elements = module.elements.saturating_add(u64::from(items));
                    module.host += SEGMENT + u64::from(items) * FUNCTION_REFERENCE;
                }
            }
            Payload::DataSection(section) => {
                module.host += number_of(&section) * SEGMENT;
                for data in section.into_iter().map_while(Result::ok) {
                    module.data = module.data.saturating_add(data.data.len() as u64);
                }
            }
            Payload::CodeSectionEntry(body) => {
                let size = body.range().len() as u64;
                self.functions += 1;
                self.code = self.code.saturating_add(size);
                self.function_size = self.function_size.max(size);
                if let Ok(locals) = body.get_locals_reader() {
                    for (count, _) in locals.into_iter().map_while(Result::ok) {
                        self.locals = self.locals.saturating_add(u64::from(count));
                    }
                }
            }
            _ => {}
        }
    }
}

/// As many entries as a section has at the most: each has a byte, whatever the section says.
fn number_of<T>(section: &SectionLimited<'_, T>) -> u64 {
    u64::from(section.count()).min(section.range().len() as u64)
}

/// The place of what is only counted.
const NOT_KEPT: usize = usize::MAX;

#[derive(Clone, Copy)]
enum Open {
    Component(usize),
    Module(usize),
}

fn sort(kind: ComponentExternalKind) -> Option<Sort> {
    match kind {
        ComponentExternalKind::Module => Some(Sort::Module),
        ComponentExternalKind::Component => Some(Sort::Component),
        ComponentExternalKind::Instance => Some(Sort::Instance),
        ComponentExternalKind::Func | ComponentExternalKind::Value | ComponentExternalKind::Type => None,
    }
}
