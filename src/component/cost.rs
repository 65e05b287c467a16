//! What an instance is made of, and what the host keeps for it.

/// Of an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Of components and of core modules.
    pub instances: u64,
    /// Of core modules alone.
    pub core_instances: u64,
    /// Of components that have core instances of their own.
    pub with_code: u64,
    pub memories: u64,
    /// The most of one core module.
    pub module_memories: u64,
    pub tables: u64,
    /// The most of one core module.
    pub module_tables: u64,
    pub globals: u64,
    /// Functions lifted and lowered between components.
    pub adapters: u64,
    /// Bytes of data segments, which are copied for each instance.
    pub data: u64,
    /// Items of element segments, likewise.
    pub elements: u64,
    /// Elements that tables have from the start.
    pub table_elements: u64,
    /// Bytes that memories have from the start.
    pub memory: u64,
    /// Bytes that the host keeps for it besides.
    pub host: u64,
}

/// wasmtime's own structures for a core instance: `Instance`, its `VMContext`'s head, its place in the store.
pub(crate) const CORE_INSTANCE: u64 = 1024;
/// Likewise for a component's.
pub(crate) const COMPONENT_INSTANCE: u64 = 512;
/// A lowered or lifted function, a resource or the like in a component's `VMComponentContext`.
pub(crate) const ADAPTER: u64 = 64;

impl Cost {
    pub fn of_module() -> Self {
        Self { instances: 1, core_instances: 1, host: CORE_INSTANCE, ..Self::default() }
    }

    pub(crate) const ENDLESS: Self = Self {
        instances: u64::MAX,
        core_instances: u64::MAX,
        with_code: u64::MAX,
        memories: u64::MAX,
        module_memories: u64::MAX,
        tables: u64::MAX,
        module_tables: u64::MAX,
        globals: u64::MAX,
        adapters: u64::MAX,
        data: u64::MAX,
        elements: u64::MAX,
        table_elements: u64::MAX,
        memory: u64::MAX,
        host: u64::MAX,
    };

    pub fn add(&mut self, other: &Self) {
        let add = |own: &mut u64, others: u64| *own = own.saturating_add(others);
        add(&mut self.instances, other.instances);
        add(&mut self.core_instances, other.core_instances);
        add(&mut self.with_code, other.with_code);
        add(&mut self.memories, other.memories);
        add(&mut self.tables, other.tables);
        self.module_memories = self.module_memories.max(other.module_memories);
        self.module_tables = self.module_tables.max(other.module_tables);
        add(&mut self.globals, other.globals);
        add(&mut self.adapters, other.adapters);
        add(&mut self.data, other.data);
        add(&mut self.elements, other.elements);
        add(&mut self.table_elements, other.table_elements);
        add(&mut self.memory, other.memory);
        add(&mut self.host, other.host);
    }
}

// What wasmtime keeps for what is in a core instance, in its `VMContext` (`VMOffsets`) and beside it.

pub(crate) const FUNCTION_IMPORT: u64 = 32;
pub(crate) const OTHER_IMPORT: u64 = 32;
pub(crate) const FUNCTION_REFERENCE: u64 = 32;
pub(crate) const GLOBAL: u64 = 16;
pub(crate) const TAG: u64 = 8;
/// With the host's own `Table`.
pub(crate) const TABLE: u64 = 16 + 128;
/// With the host's own `Memory`.
pub(crate) const MEMORY: u64 = 24 + 256;
pub(crate) const SEGMENT: u64 = 16;
