//! What a component is made of, counted from its binary: before anything is expanded or compiled, and without recursion over
//! what a stranger sent.

use wasmparser::{
    BinaryReader, ComponentAlias, ComponentExternalKind, ComponentOuterAliasKind, ComponentTypeRef, CompositeInnerType,
    ElementItems, FunctionBody, Operator, Parser, Payload, TypeRef,
};

use crate::expansion::{Cost, Item, Sort, StaticComponent, expand};

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
    /// Types, of components and of core modules.
    pub types: u64,
    /// Imports, exports, aliases and arguments.
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

impl Census {
    /// Counts all but what nests inside of function bodies, see [`Depths`]. What is malformed is left to the
    /// validator, which refuses it: the same parser reads there.
    pub fn take(binary: &[u8]) -> Self {
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
                    let number = modules.len();
                    modules.push(Cost::of_module());
                    census.modules += 1;
                    if let Some(Open::Component(outer)) = place
                        && let Some(outer) = components.get_mut(outer)
                    {
                        outer.items.push(Item::Module(number));
                    }
                    open.push(Open::Module(number));
                }
                Payload::ComponentSection { .. } => {
                    let number = components.len();
                    components.push(StaticComponent::default());
                    census.components += 1;
                    if let Some(Open::Component(outer)) = place
                        && let Some(outer) = components.get_mut(outer)
                    {
                        outer.items.push(Item::Component(number));
                    }
                    open.push(Open::Component(number));
                    census.nesting = census.nesting.max(open.len() as u64 - 1);
                }
                Payload::End(_) => {
                    open.pop();
                }
                other => match place {
                    Some(Open::Component(number)) => {
                        if let Some(component) = components.get_mut(number) {
                            census.component_section(binary, other, component);
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
        census.instance = expand(&components, &modules);
        census.functions = census.functions.saturating_add(census.instance.adapters);
        census
    }

    fn component_section<'a>(&mut self, binary: &[u8], payload: Payload<'a>, component: &mut StaticComponent<'a>) {
        let items = &mut component.items;
        match payload {
            Payload::ComponentTypeSection(section) => {
                self.types = self.types.saturating_add(u64::from(section.count()));
                component.definitions = component.definitions.saturating_add(u64::from(section.count()));
                if let Some(bytes) = binary.get(section.range()) {
                    self.nesting = self.nesting.max(deepest_in_types(BinaryReader::new(bytes, 0)));
                }
            }
            Payload::CoreTypeSection(section) => self.types = self.types.saturating_add(u64::from(section.count())),
            Payload::InstanceSection(section) => {
                for instance in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    match instance {
                        wasmparser::Instance::Instantiate { module_index, args } => {
                            self.names = self.names.saturating_add(args.len() as u64);
                            items.push(Item::InstantiateModule(module_index));
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
                            items.push(Item::Instantiate { component: component_index, args });
                        }
                        wasmparser::ComponentInstance::FromExports(exports) => {
                            self.names = self.names.saturating_add(exports.len() as u64);
                            let exports = exports
                                .iter()
                                .filter_map(|export| Some((export.name.name, sort(export.kind)?, export.index)))
                                .collect();
                            items.push(Item::Group(exports));
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
                                items.push(Item::AliasExport { sort, instance: instance_index, name });
                            }
                        }
                        ComponentAlias::Outer { kind, count, index } => {
                            let sort = match kind {
                                ComponentOuterAliasKind::CoreModule => Sort::Module,
                                ComponentOuterAliasKind::Component => Sort::Component,
                                ComponentOuterAliasKind::CoreType | ComponentOuterAliasKind::Type => continue,
                            };
                            items.push(Item::AliasOuter { sort, count, index });
                        }
                        ComponentAlias::CoreInstanceExport { .. } => {}
                    }
                }
            }
            Payload::ComponentCanonicalSection(section) => {
                component.adapters = component.adapters.saturating_add(u64::from(section.count()));
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
                    items.push(Item::Import { sort, name: import.name.name });
                }
            }
            Payload::ComponentExportSection(section) => {
                for export in section.into_iter().map_while(Result::ok) {
                    self.names += 1;
                    match sort(export.kind) {
                        Some(sort) => items.push(Item::Export { sort, name: export.name.name, index: export.index }),
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
                for group in section.into_iter().map_while(Result::ok) {
                    for ty in group.types() {
                        self.types += 1;
                        if let CompositeInnerType::Func(function) = &ty.composite_type.inner {
                            let arity = function.params().len().max(function.results().len());
                            self.parameters = self.parameters.max(arity as u64);
                        }
                    }
                }
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
                    module.host += TABLE;
                    module.table_elements = module.table_elements.saturating_add(table.ty.initial);
                }
            }
            Payload::MemorySection(section) => {
                for memory in section.into_iter().map_while(Result::ok) {
                    module.memories += 1;
                    module.host += MEMORY;
                    let page = memory.page_size_log2.unwrap_or(16).min(16);
                    module.memory = module.memory.saturating_add(memory.initial.saturating_mul(1 << page));
                }
            }
            Payload::TagSection(section) => module.host += u64::from(section.count()) * TAG,
            Payload::GlobalSection(section) => {
                module.globals = module.globals.saturating_add(u64::from(section.count()));
                module.host += u64::from(section.count()) * GLOBAL;
            }
            Payload::ExportSection(section) => {
                self.names = self.names.saturating_add(u64::from(section.count()));
                module.host += u64::from(section.count()) * FUNCTION_REFERENCE;
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
                module.host += u64::from(section.count()) * SEGMENT;
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

/// How deep blocks are nested in function bodies: the most of any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depths {
    /// Blocks of every kind in each other.
    pub blocks: u64,
    /// The loops among them: compiling takes the square of their number.
    pub loops: u64,
}

impl Depths {
    /// Bodies that cannot be deeper than `most` are not read: those that have fewer bytes that could begin a block, or a loop.
    /// Counting bytes is many times faster than reading operators, and leaves next to nothing of most components to be read.
    pub fn read(binary: &[u8], most: Self) -> Self {
        let mut deepest = Self::default();
        for payload in Parser::new(0).parse_all(binary) {
            match payload {
                Ok(Payload::CodeSectionEntry(body)) if may_be_deeper(body.as_bytes(), most) => deepest.read_body(&body),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        deepest
    }

    fn read_body(&mut self, body: &FunctionBody<'_>) {
        // what is open: whether it is a loop
        let mut open = Vec::new();
        let mut loops = 0u64;
        let Ok(mut operators) = body.get_operators_reader() else { return };
        while !operators.eof() {
            let Ok(operator) = operators.read() else { return };
            match operator {
                Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } | Operator::TryTable { .. } => {
                    let is_loop = matches!(operator, Operator::Loop { .. });
                    open.push(is_loop);
                    loops += u64::from(is_loop);
                    self.blocks = self.blocks.max(open.len() as u64);
                    self.loops = self.loops.max(loops);
                }
                Operator::End => loops -= u64::from(open.pop().unwrap_or(false)),
                _ => {}
            }
        }
    }
}

fn may_be_deeper(body: &[u8], most: Depths) -> bool {
    const BLOCK: u8 = 0x02;
    const LOOP: u8 = 0x03;
    const IF: u8 = 0x04;
    const TRY_TABLE: u8 = 0x1f;
    let count = |begins: fn(u8) -> bool| body.iter().filter(|byte| begins(**byte)).count() as u64;
    count(|byte| matches!(byte, BLOCK | LOOP | IF | TRY_TABLE)) > most.blocks || count(|byte| byte == LOOP) > most.loops
}

const INSTANCE_TYPE: u8 = 0x42;
const COMPONENT_TYPE: u8 = 0x41;
/// The declaration of a type inside of another.
const TYPE_DECLARATION: u8 = 0x01;

/// How deep types of components and instances are nested in each other, in a section of types or as much of it as is
/// well-formed. wasmparser reads and validates them by recursion, so this is asked before it does.
fn deepest_in_types(mut reader: BinaryReader<'_>) -> u64 {
    let Ok(count) = reader.read_var_u32() else { return 0 };
    let mut deepest = 0;
    // what is open, and how many entries of it are left
    let mut open = vec![(false, count)];
    loop {
        let depth = open.len() as u64 - 1;
        let Some((of_component, left)) = open.last_mut() else { return deepest };
        let of_component = *of_component;
        if *left == 0 {
            open.pop();
            if open.is_empty() {
                return deepest;
            }
            continue;
        }
        *left -= 1;
        let mut ahead = reader.clone();
        if depth > 0 {
            let Ok(kind) = ahead.read_u8() else { return deepest };
            if kind != TYPE_DECLARATION {
                let read = match of_component {
                    true => reader.read::<wasmparser::ComponentTypeDeclaration<'_>>().map(drop),
                    false => reader.read::<wasmparser::InstanceTypeDeclaration<'_>>().map(drop),
                };
                if read.is_err() {
                    return deepest;
                }
                continue;
            }
            reader = ahead.clone();
        }
        let Ok(kind) = ahead.read_u8() else { return deepest };
        if kind != INSTANCE_TYPE && kind != COMPONENT_TYPE {
            if reader.read::<wasmparser::ComponentType<'_>>().is_err() {
                return deepest;
            }
            continue;
        }
        reader = ahead;
        let Ok(entries) = reader.read_var_u32() else { return deepest };
        open.push((kind == COMPONENT_TYPE, entries));
        deepest = deepest.max(open.len() as u64 - 1);
    }
}

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

// What wasmtime keeps for them in an instance's `VMContext` (`VMOffsets`), and beside it.

const FUNCTION_IMPORT: u64 = 32;
const OTHER_IMPORT: u64 = 32;
const FUNCTION_REFERENCE: u64 = 32;
const GLOBAL: u64 = 16;
const TAG: u64 = 8;
/// With the host's own `Table`.
const TABLE: u64 = 16 + 128;
/// With the host's own `Memory`.
const MEMORY: u64 = 24 + 256;
const SEGMENT: u64 = 16;
