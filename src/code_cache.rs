//! Machine code of components, kept in files between processes.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

/// A directory of the user's own: whoever can write there can run code here.
pub(crate) struct CodeCache {
    directory: PathBuf,
}

impl CodeCache {
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The machine code of a component for an engine, if it is there.
    pub fn load(&self, engine: &Engine, digest: &str) -> Option<Component> {
        let code = std::fs::read(self.entry(engine, digest)).ok()?;
        // SAFETY: what lies in this directory was written by `store`.
        unsafe { Component::deserialize(engine, code) }.ok()
    }

    /// Keeps it for the next process.
    pub fn store(&self, engine: &Engine, digest: &str, component: &Component) {
        let Ok(code) = component.serialize() else { return };
        let entry = self.entry(engine, digest);
        let part = entry.with_extension(format!("part-{}", std::process::id()));
        if std::fs::write(&part, code).is_ok() {
            let _ = std::fs::rename(&part, entry);
        }
    }

    fn entry(&self, engine: &Engine, digest: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        self.directory.join(format!("{digest}-{:016x}.cwasm", hasher.finish()))
    }
}
