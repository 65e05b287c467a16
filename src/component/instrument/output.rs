//! A component that is written: what is copied of another one, and what is added.

use std::ops::Range;

use wasm_encoder::{ComponentSection, Encode, RawSection};
use wasmparser::Payload;

use crate::component::instrument::not_restorable::NotRestorable;

/// The component that is written.
pub(super) struct Output<'a> {
    binary: &'a [u8],
    pub(super) bytes: Vec<u8>,
}

impl<'a> Output<'a> {
    /// `binary`: what the ranges of payloads are in.
    pub(super) fn new(binary: &'a [u8]) -> Self {
        Self { binary, bytes: wasm_encoder::Component::HEADER.to_vec() }
    }

    pub(super) fn slice(&self, range: &Range<usize>) -> Result<&'a [u8], NotRestorable> {
        self.binary.get(range.clone()).ok_or_else(|| NotRestorable::Malformed("a section goes past its end".into()))
    }

    pub(super) fn append(&mut self, section: &impl ComponentSection) {
        section.append_to_component(&mut self.bytes);
    }

    /// A section as it is, if it is one.
    pub(super) fn copy(&mut self, payload: &Payload<'_>) -> Result<(), NotRestorable> {
        if let Some((id, range)) = payload.as_section() {
            let data = self.slice(&range)?;
            self.append(&RawSection { id, data });
        }
        Ok(())
    }
}

/// A component, as a section of the one around it.
pub(super) struct Inner<'a>(pub &'a [u8]);

impl Encode for Inner<'_> {
    fn encode(&self, sink: &mut Vec<u8>) {
        self.0.encode(sink);
    }
}

impl ComponentSection for Inner<'_> {
    fn id(&self) -> u8 {
        wasm_encoder::ComponentSectionId::Component.into()
    }
}
