//! Why an engine does not compile a component.

use crate::error::{Error, chain};

/// Why an engine does not compile a component. What is valid by some proposal that this engine does not offer is not called invalid:
/// it is validated, which takes as much time and memory as its types do.
pub(crate) fn refusal(error: &wasmtime::Error, binary: &[u8]) -> Error {
    if let Some(refused) = Error::refused_by_system(error) {
        return refused;
    }
    // it may have names of the component's in it
    let escaped = |character: char| -> String {
        if character.is_control() { character.escape_debug().collect() } else { character.into() }
    };
    let reason: String = chain(error).chars().take(2000).map(escaped).collect();
    let mut validator = wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all());
    if validator.validate_all(binary).is_ok() {
        Error::UnsupportedComponent(
            format!("the component uses a feature that this engine does not support: {reason}").into(),
        )
    } else {
        Error::InvalidComponent(format!("not a valid component: {reason}").into())
    }
}
