//! The types of resources that a component imports: a handle that its guest has left behind is of one of them.

use std::collections::HashSet;

use wasm_encoder::{Alias, ComponentAliasSection, ComponentExportKind};
use wasmparser::component_types::{ComponentAnyTypeId, ComponentEntityType};
use wasmparser::types::TypesRef;
use wasmparser::{ComponentImportSectionReader, ComponentTypeRef};

use crate::component::instrument::not_restorable::{NotRestorable, check_name};

/// Where the types are: imported themselves, or exported by an imported instance.
#[derive(Default)]
pub(super) struct Resources {
    types: Vec<u32>,
    instances: Vec<u32>,
}

impl Resources {
    /// What a section imports, which the validator has not seen yet.
    pub(super) fn read(
        &mut self,
        section: &ComponentImportSectionReader<'_>,
        before: TypesRef<'_>,
    ) -> Result<(), NotRestorable> {
        let mut next_type = before.component_type_count();
        let mut next_instance = before.component_instance_count();
        for import in section.clone() {
            let import = import?;
            check_name(import.name.name)?;
            match import.ty {
                ComponentTypeRef::Type(_) => {
                    self.types.push(next_type);
                    next_type += 1;
                }
                ComponentTypeRef::Instance(_) => {
                    self.instances.push(next_instance);
                    next_instance += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The indices of all of them, each type once. Those that have none yet get the next ones, by aliases.
    pub(super) fn indices(&self, types: TypesRef<'_>, aliases: &mut ComponentAliasSection) -> Vec<u32> {
        let mut next = types.component_type_count();
        let mut seen = HashSet::new();
        let mut indices = Vec::new();
        for &index in &self.types {
            if let ComponentAnyTypeId::Resource(id) = types.component_any_type_at(index)
                && seen.insert(id.resource())
            {
                indices.push(index);
            }
        }
        for &instance in &self.instances {
            let Some(ty) = types.get(types.component_instance_at(instance)) else { continue };
            for (name, item) in &ty.exports {
                if let ComponentEntityType::Type { created: ComponentAnyTypeId::Resource(id), .. } = &item.ty
                    && seen.insert(id.resource())
                {
                    aliases.alias(Alias::InstanceExport { instance, kind: ComponentExportKind::Type, name });
                    indices.push(next);
                    next += 1;
                }
            }
        }
        indices
    }
}
