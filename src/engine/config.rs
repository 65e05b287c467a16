//! How engines are set up, and what their pools have room for.

use tracing::warn;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::error::chain;
use crate::process::undisturbed::undisturbed;
use crate::telemetry::TARGET;

/// What stays resident in a slot of the pool between two guests, so that most requests fault no page in. Measured:
/// 42 µs a request without it, 21.6 with it (and PAGEMAP_SCAN).
const KEEP_RESIDENT: usize = 64 << 10;

/// What a table in a slot of the pool can grow to: address space, not memory.
const TABLE_ELEMENTS: usize = 1_000_000;

/// What belongs to a slot.
pub(crate) const CORE_INSTANCES: u32 = 24;
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 4;
/// Of a guest of WASI 0.3.
const STACKS: u32 = 8;
/// Of one core module.
pub(crate) const MODULE_MEMORIES: u32 = 1;
pub(crate) const MODULE_TABLES: u32 = 8;
/// Addresses of a memory outside of a pool beyond its initial size; it moves when it has grown past them.
const MEMORY_RESERVATION: u64 = 1 << 20;

/// Unmapped addresses behind such a memory: constant offsets below this need no check of their own.
const MEMORY_GUARD: u64 = 64 << 10;

/// Numbers of slots to try, largest first: an address-space limit may refuse the larger ones.
pub(crate) const POOL_SLOTS: [u32; 3] = [1024, 256, 64];

/// An engine, and how its instances are reset.
pub(crate) struct AllocatingEngine {
    pub engine: Engine,
    /// Whether its pool is reset by PAGEMAP_SCAN: then no instance is made in it once pages can be swapped out ([`crate::process::swap`]).
    pub scans: bool,
}

pub(crate) fn new_engine(config: &Config) -> wasmtime::Result<Engine> {
    undisturbed(|| crate::process::signals::around_engine(|| Engine::new(config)))
}

/// What guests need of their engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// It counts fuel.
    pub fuel: bool,
    /// It runs tasks of the component model at once, which WASI 0.3 is built on.
    pub concurrency: bool,
}

impl Features {
    /// Engines of a process, with and without each.
    pub(crate) const ALL: usize = 4;

    /// Of all that there are.
    pub(crate) fn index(self) -> usize {
        usize::from(self.fuel) | usize::from(self.concurrency) << 1
    }
}

/// What decides about the machine code that an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EngineKind {
    pub features: Features,
    /// Instances lie in a pool, where each memory has all addresses that it can grow to.
    pub pooled: bool,
}

/// An engine of a kind without a pool: machine code made by it runs in one that has it. It compiles on the calling thread where
/// no others are to be had.
pub(crate) fn bare_engine(kind: EngineKind) -> wasmtime::Result<Engine> {
    let mut config = config_of(kind);
    if !crate::process::compile_threads::have_threads() {
        config.parallel_compilation(false);
    }
    undisturbed(|| Engine::new(&config))
}

pub(crate) fn config_of(kind: EngineKind) -> Config {
    let mut config = base_config(kind.features);
    if !kind.pooled {
        // A memory outside of a pool would reserve 4 GiB of addresses and 2 GiB to grow: hundreds of them in each of many instances
        // use up what a process has. Its accesses are checked instead.
        config
            .memory_reservation(MEMORY_RESERVATION)
            .memory_reservation_for_growth(MEMORY_RESERVATION)
            .memory_guard_size(MEMORY_GUARD)
            .memory_may_move(true);
    }
    config
}

fn base_config(features: Features) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        // source lines in backtraces of components that have debug information, which is kept with the machine code and read
        // when one traps
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .consume_fuel(features.fuel)
        // wasmtime is built without its `gc`. What needs it must be refused when it is loaded: on 48.0.8 a `call_indirect` by a
        // type that has subtypes, which needs none of gc's values, aborts the process.
        .gc_support(false)
        .wasm_gc(false)
        // rayon's threads do not exist in a forked child, and would be waited for in vain
        .parallel_compilation(crate::process::fork::generation() == 0)
        // 0.2 needs none of it, and it costs a fifth of a request's time (21.6 µs with it, 17.2 without)
        .concurrency_support(features.concurrency)
        // else each instance copies its initial memory, which is slower
        .memory_init_cow(crate::process::system_limits::memory_files().is_none());
    config
}

/// How many stacks a pool needs. A guest of 0.2 has one. One of 0.3 has another for each call that it waits in, and so has each of its
/// core instances.
fn stacks_of(features: Features, slots: u32) -> u32 {
    if features.concurrency { slots.saturating_mul(STACKS) } else { slots }
}

/// The engine, and how many instances its pool has room for; none if the machine has no room for a pool.
pub(crate) fn make_pooled(features: Features, scan: bool) -> Option<(AllocatingEngine, u32)> {
    let mut refused = String::new();
    if crate::process::system_limits::locks_all_memory() {
        warn!(
            target: TARGET,
            "no pool of instances is set up, because this process locks all of its memory (`mlockall`), and would lock the \
             whole pool: each is allocated on demand, which is slower"
        );
        return None;
    }
    for slots in POOL_SLOTS {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_component_instances(slots)
            // A component is several core modules: its own, the adapters and shims of the toolchain, a dozen libraries (componentize-py).
            // What has more than its slot's part of any of these is allocated on demand, or a few guests would use up the pool.
            .total_core_instances(slots.saturating_mul(CORE_INSTANCES))
            .max_core_instances_per_component(CORE_INSTANCES)
            .total_memories(slots.saturating_mul(MEMORIES))
            .max_memories_per_component(MEMORIES)
            .total_tables(slots.saturating_mul(TABLES))
            .max_tables_per_component(TABLES)
            .total_stacks(stacks_of(features, slots))
            .max_memories_per_module(MODULE_MEMORIES)
            .max_tables_per_module(MODULE_TABLES)
            .table_elements(TABLE_ELEMENTS)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(KEEP_RESIDENT)
            .async_stack_keep_resident(KEEP_RESIDENT)
            .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No });
        let mut config = config_of(EngineKind { features, pooled: true });
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match new_engine(&config) {
            Ok(engine) => return Some((AllocatingEngine { engine, scans: scan }, slots)),
            Err(error) => refused = chain(&error),
        }
    }
    warn!(
        target: TARGET,
        "no pool of instances could be set up ({refused}): each is allocated on demand, which is slower; \
         hint: several worker processes serve more requests than several threads"
    );
    None
}

/// Machine code for an engine of this kind, on all cores where threads can be had, else on the calling thread.
pub(crate) fn compile(engine: &Engine, kind: EngineKind, binary: &[u8]) -> wasmtime::Result<Vec<u8>> {
    // rayon's threads do not exist in a forked child, whose engines do without them
    if crate::process::fork::generation() != 0 || crate::process::compile_threads::have_threads() {
        engine.precompile_component(binary)
    } else {
        bare_engine(kind)?.precompile_component(binary)
    }
}
