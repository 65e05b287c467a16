//! What a component may cost at load: bounds of what is counted in it, and of compiling it.

use std::time::Duration;

use crate::component::blocks::Blocks;
use crate::component::census::Census;
use crate::error::Error;

/// `None` lifts a limit. The Python class says the defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComponentLimits {
    /// Bytes of the source.
    pub size: Option<u64>,
    /// Bytes of the source, if it is text.
    pub text: Option<u64>,
    /// Instances, of components and of core modules, that one instance of it is made of.
    pub instances: Option<u64>,
    pub modules: Option<u64>,
    /// Components inside of it.
    pub components: Option<u64>,
    pub memories: Option<u64>,
    pub tables: Option<u64>,
    pub globals: Option<u64>,
    pub functions: Option<u64>,
    /// And declarations inside of types.
    pub types: Option<u64>,
    /// Imports, exports, aliases, arguments, and parts of types.
    pub names: Option<u64>,
    /// Levels of components, types and blocks.
    pub nesting: Option<u64>,
    /// Levels of loops in a function.
    pub loops: Option<u64>,
    /// Bytes of all function bodies.
    pub code: Option<u64>,
    /// Bytes of one function body.
    pub function_size: Option<u64>,
    /// Of all functions.
    pub locals: Option<u64>,
    /// Of one core function type, and results.
    pub parameters: Option<u64>,
    /// Bytes of data segments.
    pub data: Option<u64>,
    /// Items of element segments.
    pub elements: Option<u64>,
    /// How long compiling may take, in a process of its own.
    pub timeout: Option<Duration>,
    /// Bytes that compiling may take, in a process of its own.
    pub memory: Option<u64>,
}

/// wasmparser reads and validates nested types and components by recursion, on a stack of ours (see `own_stack.rs`)
/// that is large enough for so many levels. Where there is no limit, this one holds.
pub const MOST_NESTED: u64 = 1000;

impl ComponentLimits {
    /// Nothing is limited.
    pub const NONE: Self = Self {
        size: None,
        text: None,
        instances: None,
        modules: None,
        components: None,
        memories: None,
        tables: None,
        globals: None,
        functions: None,
        types: None,
        names: None,
        nesting: None,
        loops: None,
        code: None,
        function_size: None,
        locals: None,
        parameters: None,
        data: None,
        elements: None,
        timeout: None,
        memory: None,
    };

    /// Whether it is to be compiled in a process of its own.
    pub fn are_of_a_process(&self) -> bool {
        self.timeout.is_some() || self.memory.is_some()
    }

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
