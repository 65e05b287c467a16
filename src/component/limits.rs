//! What a component may cost at load: bounds of what is counted in it, and of compiling it.

use std::time::Duration;

/// `None` lifts a limit. The Python class says the defaults.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ComponentLimits {
    /// Bytes of the source.
    pub size: Option<u64>,
    /// Bytes of the source, if it is text.
    pub text: Option<u64>,
    /// Instances, of components and of core modules, that one instance of it is made of.
    pub instances: Option<u64>,
    /// Core modules.
    pub modules: Option<u64>,
    /// Components inside of it.
    pub components: Option<u64>,
    /// Memories of an instance.
    pub memories: Option<u64>,
    /// Tables of an instance.
    pub tables: Option<u64>,
    /// Globals of an instance.
    pub globals: Option<u64>,
    /// Core functions.
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
}
