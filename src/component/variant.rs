//! What machine code of a component is made for, besides running guests.

use std::borrow::Cow;

use sha2::{Digest, Sha256};

/// Each is compiled for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variant {
    /// It counts fuel.
    pub fuel: bool,
    /// Its instances can be put back to what they were: it is made of the instrumented component.
    pub restorable: bool,
}

impl Variant {
    /// The one that each component has.
    pub const PLAIN: Self = Self { fuel: false, restorable: false };

    /// By which name its machine code is kept.
    pub(crate) fn name(self, digest: &str) -> Cow<'_, str> {
        match self.restorable {
            true => hex(&Sha256::digest(format!("{digest} {}", crate::component::instrument::VERSION))).into(),
            false => digest.into(),
        }
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
