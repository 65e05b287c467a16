//! Whether a function of a component is lent handles by whoever calls it.

use std::collections::HashSet;

use wasmparser::component_types::{ComponentAnyTypeId, ComponentDefinedType, ComponentValType};
use wasmparser::types::TypesRef;

/// Whether a parameter of a function of this type is a borrowed handle, or has some.
pub(super) fn lends(types: TypesRef<'_>, of_function: u32) -> bool {
    if of_function >= types.component_type_count() {
        return false; // the validator refuses it
    }
    let ComponentAnyTypeId::Func(id) = types.component_any_type_at(of_function) else { return false };
    let Some(function) = types.get(id) else { return false };
    let mut seen = HashSet::new();
    let mut open: Vec<ComponentValType> = function.params.iter().map(|(_, ty)| *ty).collect();
    while let Some(ty) = open.pop() {
        let ComponentValType::Type(id) = ty else { continue };
        if !seen.insert(id) {
            continue;
        }
        match types.get(id) {
            Some(ComponentDefinedType::Borrow(_)) => return true,
            Some(ComponentDefinedType::Record(record)) => open.extend(record.fields.values().copied()),
            Some(ComponentDefinedType::Variant(variant)) => {
                open.extend(variant.cases.values().filter_map(|case| case.ty));
            }
            Some(ComponentDefinedType::Map { key, value, .. }) => open.extend([*key, *value]),
            Some(ComponentDefinedType::Tuple(tuple)) => open.extend(tuple.types.iter().copied()),
            Some(
                ComponentDefinedType::List { element, .. } | ComponentDefinedType::FixedLengthList { element, .. },
            ) => {
                open.push(*element);
            }
            Some(ComponentDefinedType::Option { ty, .. }) => open.push(*ty),
            Some(ComponentDefinedType::Result { ok, err, .. }) => open.extend([*ok, *err].into_iter().flatten()),
            // no borrowed handle goes through a stream or a future
            Some(
                ComponentDefinedType::Primitive(_)
                | ComponentDefinedType::Flags(_)
                | ComponentDefinedType::Enum(_)
                | ComponentDefinedType::Own(_)
                | ComponentDefinedType::Future { .. }
                | ComponentDefinedType::Stream { .. },
            )
            | None => {}
        }
    }
    false
}
