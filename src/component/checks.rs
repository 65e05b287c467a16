//! Is what is counted in a component within its limits.

use crate::component::blocks::Blocks;
use crate::component::census::Census;
use crate::component::limits::{ComponentLimits, MOST_NESTED};
use crate::error::Error;

impl ComponentLimits {
    /// Before anything is read.
    pub fn check_source(&self, source: &[u8]) -> Result<(), Error> {
        let size = source.len() as u64;
        check("size", "bytes", self.size, size)?;
        if source.starts_with(b"\0asm") { Ok(()) } else { check("text", "bytes of text", self.text, size) }
    }

    /// Before anything is expanded or compiled.
    pub fn check(&self, census: &Census) -> Result<(), Error> {
        self.against(census).into_iter().try_for_each(|(name, unit, limit, found)| check(name, unit, limit, found))
    }

    /// Each limit on what is counted: its name, what it counts, its value, and the number that was found.
    pub fn against(&self, census: &Census) -> [(&'static str, &'static str, Option<u64>, u64); 16] {
        let made = |instance: u64, defined: u64| instance.max(defined);
        let (instance, defined) = (&census.instance, &census.defined);
        [
            ("nesting", "levels of nesting", Some(self.nesting.unwrap_or(u64::MAX).min(MOST_NESTED)), census.nesting),
            ("instances", "instances", self.instances, instance.instances),
            ("modules", "core modules", self.modules, census.modules),
            ("components", "components inside of it", self.components, census.components),
            ("memories", "memories", self.memories, made(instance.memories, defined.memories)),
            ("tables", "tables", self.tables, made(instance.tables, defined.tables)),
            ("globals", "globals", self.globals, made(instance.globals, defined.globals)),
            ("functions", "functions", self.functions, census.functions),
            ("types", "types and declarations inside of types", self.types, census.types),
            ("names", "imports, exports, aliases, arguments and parts of types", self.names, census.names),
            ("code", "bytes of code", self.code, census.code),
            ("function_size", "bytes in one function", self.function_size, census.function_size),
            ("locals", "locals", self.locals, census.locals),
            ("parameters", "parameters or results of one function", self.parameters, census.parameters),
            ("data", "bytes of data", self.data, made(instance.data, defined.data)),
            ("elements", "items in element segments", self.elements, made(instance.elements, defined.elements)),
        ]
    }

    /// The same for what nests inside of functions, for which their code has to be looked at.
    pub fn check_blocks(&self, binary: &[u8]) -> Result<(), Error> {
        if self.nesting.is_none() && self.loops.is_none() {
            return Ok(());
        }
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let depths = Blocks::read(binary, Blocks { blocks: most(self.nesting), loops: most(self.loops) });
        check("nesting", "levels of nested blocks", self.nesting, depths.blocks)?;
        check("loops", "levels of nested loops", self.loops, depths.loops)
    }
}

fn check(name: &'static str, unit: &'static str, limit: Option<u64>, found: u64) -> Result<(), Error> {
    match limit {
        Some(limit) if found > limit => Err(Error::component_limit(name, unit, limit, found)),
        _ => Ok(()),
    }
}
