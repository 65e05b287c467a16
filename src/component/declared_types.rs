//! What a section of a component's types declares, counted without recursion: types of components and of instances have types of
//! their own, nested as deep as their author likes, and wasmparser reads and validates them by recursion.

use wasmparser::{
    BinaryReader, ComponentDefinedType, ComponentType, ComponentTypeDeclaration, CompositeInnerType, CoreType,
    InstanceTypeDeclaration, ModuleTypeDeclaration, RecGroup,
};

const COMPONENT_TYPE: u8 = 0x41;
const INSTANCE_TYPE: u8 = 0x42;
/// The declaration of a type inside of another.
const TYPE_DECLARATION: u8 = 0x01;

/// Levels beyond this are not followed: so many have been refused long before, and each takes memory here.
const DEEPEST: usize = 1_000_000;

/// The numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DeclaredTypes {
    /// Types, and declarations inside of types.
    pub types: u64,
    /// Imports, exports and aliases inside of types, and what types have parts of: fields, cases, flags, parameters.
    pub names: u64,
    /// The most parameters, or results, of a core function type.
    pub parameters: u64,
    /// How deep types of components and instances are nested in each other.
    pub depth: u64,
    /// There is one of an asynchronous function, a stream or a future.
    pub is_async: bool,
}

impl DeclaredTypes {
    /// Of a section of component types, or as much of it as is well-formed.
    pub(crate) fn count(section: &[u8]) -> Self {
        let mut declared = Self::default();
        let mut reader = BinaryReader::new(section, 0);
        let Ok(count) = reader.read_var_u32() else { return declared };
        // what is open: whether it is a component's, and how many entries of it are left
        let mut open = vec![(false, count)];
        while let Some((of_component, left)) = open.last_mut() {
            let of_component = *of_component;
            if *left == 0 {
                open.pop();
                continue;
            }
            *left -= 1;
            let is_nested = open.len() > 1;
            match declared.entry(&mut reader, is_nested, of_component) {
                Some(Some(inner)) if open.len() <= DEEPEST => {
                    declared.depth = declared.depth.max(open.len() as u64);
                    open.push(inner);
                }
                Some(None) => {}
                // malformed, which the validator says
                Some(Some(_)) | None => break,
            }
        }
        declared
    }

    /// Reads one entry. A type with entries of its own is only begun, and given back.
    #[allow(clippy::option_option)]
    fn entry(
        &mut self,
        reader: &mut BinaryReader<'_>,
        is_nested: bool,
        of_component: bool,
    ) -> Option<Option<(bool, u32)>> {
        let mut ahead = reader.clone();
        self.types += 1;
        if is_nested {
            if ahead.read_u8().ok()? != TYPE_DECLARATION {
                match of_component {
                    true => self.of_component(&reader.read().ok()?),
                    false => self.of_instance(&reader.read().ok()?),
                }
                return Some(None);
            }
            *reader = ahead.clone();
        }
        let kind = ahead.read_u8().ok()?;
        if kind == INSTANCE_TYPE || kind == COMPONENT_TYPE {
            *reader = ahead;
            return Some(Some((kind == COMPONENT_TYPE, reader.read_var_u32().ok()?)));
        }
        self.parts(&reader.read().ok()?);
        Some(None)
    }

    fn of_component(&mut self, declaration: &ComponentTypeDeclaration<'_>) {
        match declaration {
            ComponentTypeDeclaration::CoreType(ty) => self.inside_of_core_type(ty),
            ComponentTypeDeclaration::Type(_) => {} // read entry by entry
            ComponentTypeDeclaration::Alias(_)
            | ComponentTypeDeclaration::Export { .. }
            | ComponentTypeDeclaration::Import(_) => self.names += 1,
        }
    }

    fn of_instance(&mut self, declaration: &InstanceTypeDeclaration<'_>) {
        match declaration {
            InstanceTypeDeclaration::CoreType(ty) => self.inside_of_core_type(ty),
            InstanceTypeDeclaration::Type(_) => {} // likewise
            InstanceTypeDeclaration::Alias(_) | InstanceTypeDeclaration::Export { .. } => self.names += 1,
        }
    }

    fn parts(&mut self, ty: &ComponentType<'_>) {
        let parts = match ty {
            ComponentType::Func(function) => {
                self.is_async |= function.async_;
                function.params.len()
            }
            ComponentType::Defined(defined) => match defined {
                ComponentDefinedType::Record(fields) => fields.len(),
                ComponentDefinedType::Variant(cases) => cases.len(),
                ComponentDefinedType::Tuple(types) => types.len(),
                ComponentDefinedType::Flags(names) | ComponentDefinedType::Enum(names) => names.len(),
                ComponentDefinedType::Future(_) | ComponentDefinedType::Stream(_) => {
                    self.is_async = true;
                    0
                }
                _ => 0,
            },
            _ => 0,
        };
        self.names += parts as u64;
    }

    /// Of a component's section of core types.
    pub(crate) fn core_type(&mut self, ty: &CoreType<'_>) {
        self.types += 1;
        self.inside_of_core_type(ty);
    }

    /// The type itself has been counted.
    fn inside_of_core_type(&mut self, ty: &CoreType<'_>) {
        match ty {
            CoreType::Rec(group) => self.inside_of_group(group),
            CoreType::Module(declarations) => {
                for declaration in declarations {
                    self.types += 1;
                    match declaration {
                        ModuleTypeDeclaration::Type(group) => self.inside_of_group(group),
                        ModuleTypeDeclaration::Export { .. }
                        | ModuleTypeDeclaration::OuterAlias { .. }
                        | ModuleTypeDeclaration::Import(_) => self.names += 1,
                    }
                }
            }
        }
    }

    /// Types that refer to each other: of a module's section of types.
    pub(crate) fn group(&mut self, group: &RecGroup) {
        self.types += 1;
        self.inside_of_group(group);
    }

    fn inside_of_group(&mut self, group: &RecGroup) {
        self.types += (group.types().len() as u64).saturating_sub(1);
        for ty in group.types() {
            if let CompositeInnerType::Func(function) = &ty.composite_type.inner {
                let arity = function.params().len().max(function.results().len());
                self.parameters = self.parameters.max(arity as u64);
            }
        }
    }
}
