//! Engines, their allocator, the epoch ticker and the code cache: what all components of a process share.
//!
//! Everything here hangs off one [`World`], made at first use. A forked child makes a world of its own: the threads
//! of its parent's do not exist there, and its parent's pool resets memory by a handle on the *parent's* page map.

pub mod code_cache;
pub mod compile_threads;
pub mod stats;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, WasmBacktraceDetails};

use crate::engine::code_cache::CodeCache;
use crate::error::{Error, chain};
use crate::process::fork::PerProcess;
use crate::sync::lock;

/// How long a guest runs before its thread's turn ends. A guest polled on an event loop's thread holds it for two
/// of these at the most.
pub const TICK: Duration = Duration::from_millis(1);

/// How many ticks the ticker goes on without any exchange before it parks.
const IDLE_TICKS: u32 = 100;

/// What stays resident in a slot of the pool between two guests, so that most requests fault no page in. Measured:
/// 42 µs a request without it, 21.6 with it (and PAGEMAP_SCAN).
const KEEP_RESIDENT: usize = 64 << 10;

/// What a table in a slot of the pool can grow to: address space, not memory.
const TABLE_ELEMENTS: usize = 1_000_000;

/// What belongs to a slot.
pub(crate) const CORE_INSTANCES: u32 = 24;
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 4;
/// Of one core module.
pub(crate) const MODULE_MEMORIES: u32 = 1;
pub(crate) const MODULE_TABLES: u32 = 8;
/// Addresses of a memory outside of a pool beyond its initial size; it moves when it has grown past them.
const MEMORY_RESERVATION: u64 = 1 << 20;

/// Unmapped addresses behind such a memory: constant offsets below this need no check of their own.
const MEMORY_GUARD: u64 = 64 << 10;

/// Numbers of slots to try, largest first: an address-space limit may refuse the larger ones.
const POOL_SLOTS: [u32; 3] = [1024, 256, 64];

/// What one process has once.
pub struct World {
    /// Tells worlds apart across forks.
    pub generation: u64,
    pools: Pools,
    /// How many instances its pool has room for.
    slots: u32,
    plain: OnceLock<Allocated>,
    /// The engines whose guests use fuel; counting it costs, so others do without.
    fuelled: Pools,
    /// The same without a pool.
    fuelled_plain: OnceLock<Allocated>,
    pub(crate) counters: crate::engine::stats::Counters,
    pub(crate) cache: Option<CodeCache>,
    pub(crate) trimming: crate::process::heap_trim::Trimming,
    ticker: Ticker,
    pub(crate) runtime: crate::process::runtime::Runtime,
    pub(crate) scheduler: crate::scheduler::Scheduler,
    notes: Mutex<Vec<String>>,
    /// What is worth telling, though nothing is wrong.
    remarks: Mutex<Vec<String>>,
}

static WORLD: PerProcess<World> = PerProcess::new();

/// The process's world, made now if this is the first use (or the first after a fork).
pub fn world() -> Result<&'static World, Error> {
    WORLD.try_get(World::new)
}

/// The process's world, if there is one.
pub fn existing() -> Option<&'static World> {
    WORLD.existing()
}

/// To be called before `fork`: waits for a world that is being made. A child would wait for ever for what wasmtime makes once in a
/// process (its handle of the page map), if a thread of its parent's was about it.
pub fn before_fork() {
    WORLD.hold();
}

/// To be called in the parent after `fork`.
pub fn after_fork_in_parent() {
    WORLD.release();
}

/// To be called in a child right after `fork`: the next use makes a new world.
pub fn after_fork() {
    if existing().is_some() {
        crate::process::fork::begin_generation();
    }
    WORLD.forget();
}

/// An engine, and how its instances are reset.
pub(crate) struct Allocated {
    pub engine: Engine,
    /// Whether its pool is reset by PAGEMAP_SCAN: then no instance is made in it once pages can be swapped out ([`crate::process::swap`]).
    pub scans: bool,
}

/// Engines with a pool, where the machine lets us have one. The second is made where pages can be swapped out, at the start or later:
/// an engine's way to reset its slots cannot be changed.
#[derive(Default)]
struct Pools {
    first: OnceLock<Option<Allocated>>,
    second: OnceLock<Option<Allocated>>,
    making: Mutex<()>,
}

impl Pools {
    fn for_now(&self) -> &OnceLock<Option<Allocated>> {
        let retired = |first: &Option<Allocated>| first.as_ref().is_some_and(|made| made.scans && crate::process::swap::seen());
        if self.first.get().is_some_and(retired) { &self.second } else { &self.first }
    }

    fn all(&self) -> impl Iterator<Item = &Allocated> {
        [&self.first, &self.second].into_iter().filter_map(|pool| pool.get()?.as_ref())
    }
}

impl World {
    fn new() -> Result<Self, Error> {
        crate::process::system_limits::check_signal_stacks()?;
        let mut notes = Vec::new();
        let cache = open_cache(&mut notes);
        if let Some(reason) = crate::process::system_limits::memory_files() {
            notes.push(format!("{reason}: each instance copies what its memory begins with, which is slower"));
        }
        let no_scan = crate::process::pagemap::why_not();
        let (pooled, slots) = make_pooled(false, no_scan.is_none(), &mut notes).unzip();
        if no_scan.is_some() || pooled.is_none() {
            crate::process::swap::told(); // it makes no difference
        }
        let mut remarks = Vec::new();
        if let (Some(reason), Some(_), true) = (no_scan, &pooled, cfg!(target_os = "linux")) {
            let told = if reason.is_usual() { &mut remarks } else { &mut notes };
            told.push(format!("{reason}: guests start slower, and threads hold each other up; {}", reason.hint()));
        }
        let pools = Pools { first: OnceLock::from(pooled), ..Pools::default() };
        Ok(Self {
            generation: crate::process::fork::generation(),
            pools,
            slots: slots.unwrap_or(POOL_SLOTS[0]),
            plain: OnceLock::new(),
            fuelled: Pools::default(),
            fuelled_plain: OnceLock::new(),
            counters: crate::engine::stats::Counters::default(),
            cache,
            trimming: crate::process::heap_trim::Trimming::default(),
            ticker: Ticker::default(),
            runtime: crate::process::runtime::Runtime::new(),
            scheduler: crate::scheduler::Scheduler::new(crate::process::fork::generation()),
            notes: Mutex::new(notes),
            remarks: Mutex::new(remarks),
        })
    }

    /// The engine with the pooling allocator, where the machine lets us have one. `fuel`: for guests under
    /// [`crate::limits::Limits::fuel`].
    pub(crate) fn pooled(&self, fuel: bool) -> Option<&Allocated> {
        let pools = if fuel { &self.fuelled } else { &self.pools };
        let pool = pools.for_now();
        if let Some(made) = pool.get() {
            return made.as_ref();
        }
        let _making = lock(&pools.making);
        if let Some(made) = pool.get() {
            return made.as_ref();
        }
        let mut notes = Vec::new();
        let made = make_pooled(fuel, crate::process::pagemap::why_not().is_none(), &mut notes);
        notes.into_iter().for_each(|note| self.note(note));
        pool.get_or_init(|| made.map(|(made, _)| made)).as_ref()
    }

    /// The engine that allocates on demand: for components that fit no slot of the pool.
    pub(crate) fn plain(&self, fuel: bool) -> Result<&Allocated, Error> {
        let slot = if fuel { &self.fuelled_plain } else { &self.plain };
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        let engine = new_engine(&config_of(Kind { fuel, pooled: false }))
            .map_err(|error| Error::Host(format!("cannot make an engine: {}", chain(&error))))?;
        Ok(slot.get_or_init(|| Allocated { engine, scans: false }))
    }

    /// All engines that there are.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        let pooled = self.pools.all().chain(self.fuelled.all());
        let all = pooled.chain(self.plain.get()).chain(self.fuelled_plain.get());
        all.map(|made| &made.engine)
    }

    /// Where machine code is kept, if it is.
    pub fn cache_directory(&self) -> Option<&std::path::Path> {
        self.cache.as_ref().map(CodeCache::directory)
    }

    /// A file beside the cache, for processes to lock.
    pub(crate) fn lock_file(&self, name: &str) -> Option<std::fs::File> {
        self.cache.as_ref()?.lock_file(name)
    }

    /// An exchange begins: the ticker ticks until the returned guard is dropped.
    pub fn tick(&'static self) -> Result<Ticking, Error> {
        self.ticker.enter(self)?;
        Ok(Ticking { ticker: &self.ticker })
    }

    /// What was worth telling about the set-up; each line is told once.
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.notes))
    }

    /// The same, where nothing is wrong.
    pub fn take_remarks(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.remarks))
    }

    pub fn note(&self, line: String) {
        lock(&self.notes).push(line);
    }

    /// How many instances there is room for; where they are allocated on demand, as many as a pool would have.
    pub(crate) fn slots(&self) -> u32 {
        self.slots
    }

    /// Whether the ticker's thread runs.
    pub(crate) fn has_ticker(&self) -> bool {
        self.ticker.thread.get().is_some()
    }

    /// Ends all guests, then what serves them. Waits for their threads, but not longer than `bound`.
    pub fn shut_down(&self, bound: Duration) {
        let deadline = std::time::Instant::now() + bound;
        self.runtime.announce_shut_down();
        self.scheduler.shut_down(bound / 2);
        self.runtime.shut_down(deadline.saturating_duration_since(std::time::Instant::now()));
    }

    /// How many exchanges are under way.
    pub fn live(&self) -> usize {
        self.ticker.live.load(Ordering::Relaxed)
    }
}

fn new_engine(config: &Config) -> wasmtime::Result<Engine> {
    crate::process::signals::around_engine(|| Engine::new(config))
}

/// What decides about the machine code that an engine runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// It counts fuel.
    pub fuel: bool,
    /// Instances lie in a pool, where each memory has all addresses that it can grow to.
    pub pooled: bool,
}

/// An engine of a kind without a pool: machine code made by it runs in one that has it. It compiles on the calling thread where
/// no others are to be had.
pub(crate) fn bare_engine(kind: Kind) -> wasmtime::Result<Engine> {
    let mut config = config_of(kind);
    if !crate::engine::compile_threads::have_threads() {
        config.parallel_compilation(false);
    }
    Engine::new(&config)
}

fn config_of(kind: Kind) -> Config {
    let mut config = base_config(kind.fuel);
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

fn base_config(fuel: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        .epoch_interruption(true)
        // source lines in backtraces of components that have debug information, which is kept with the machine code and read
        // when one traps
        .wasm_backtrace_details(WasmBacktraceDetails::Enable)
        .consume_fuel(fuel)
        // wasmtime is built without its `gc`. What needs it must be refused when it is loaded: on 48.0.8 a `call_indirect` by a
        // type that has subtypes, which needs none of gc's values, aborts the process.
        .gc_support(false)
        .wasm_gc(false)
        // rayon's threads do not exist in a forked child, and would be waited for in vain
        .parallel_compilation(crate::process::fork::generation() == 0)
        // 0.2 needs none of it, and it costs a fifth of a request's time (21.6 µs with it, 17.2 without)
        .concurrency_support(false)
        // else each instance copies what its memory begins with, which is slower
        .memory_init_cow(crate::process::system_limits::memory_files().is_none());
    config
}

/// The engine, and how many instances its pool has room for; none if the machine has no room for a pool.
fn make_pooled(fuel: bool, scan: bool, notes: &mut Vec<String>) -> Option<(Allocated, u32)> {
    let mut refused = String::new();
    if crate::process::system_limits::locks_all_memory() {
        notes.push(
            "no pool of instances is set up, since this process keeps all of its memory from being swapped (`mlockall`), and \
             would keep the whole pool: each is allocated on demand, which is slower"
                .into(),
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
            .total_stacks(slots)
            .max_memories_per_module(MODULE_MEMORIES)
            .max_tables_per_module(MODULE_TABLES)
            .table_elements(TABLE_ELEMENTS)
            .linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(KEEP_RESIDENT)
            .async_stack_keep_resident(KEEP_RESIDENT)
            .pagemap_scan(if scan { Enabled::Yes } else { Enabled::No });
        let mut config = config_of(Kind { fuel, pooled: true });
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        match new_engine(&config) {
            Ok(engine) => return Some((Allocated { engine, scans: scan }, slots)),
            Err(error) => refused = chain(&error),
        }
    }
    notes.push(format!(
        "no pool of instances could be set up ({refused}): each is allocated on demand, which is slower; \
         hint: several worker processes serve more requests than several threads"
    ));
    None
}

/// Where machine code is kept, if it may be.
fn open_cache(notes: &mut Vec<String>) -> Option<CodeCache> {
    let directory = match std::env::var_os("WASGI_CACHE_DIR") {
        Some(path) if path.is_empty() => return None,
        Some(path) => PathBuf::from(path),
        None => match user_cache(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir()) {
            Some(cache) => cache.join("wasgi"),
            None => {
                notes.push(
                    "the code cache is off: neither `XDG_CACHE_HOME` nor `HOME` is an absolute path; \
                     hint: `WASGI_CACHE_DIR` says where"
                        .into(),
                );
                return None;
            }
        },
    };
    let most = std::env::var_os("WASGI_CACHE_SIZE").filter(|bytes| !bytes.is_empty());
    let bytes = most.as_ref().and_then(|bytes| bytes.to_str()?.parse().ok());
    if let (Some(most), None) = (&most, bytes) {
        notes.push(format!("`WASGI_CACHE_SIZE` is ignored: not a number of bytes: {}", most.display()));
    }
    match CodeCache::open(&directory, bytes) {
        Ok(cache) => Some(cache),
        Err(reason) => {
            notes.push(format!("the code cache is off: `{}`: {reason}", directory.display()));
            None
        }
    }
}

/// The user's folder for caches. Paths in these variables must be absolute: a relative one is ignored (XDG Base Directory
/// Specification), since it would be another folder wherever the program is started.
fn user_cache(xdg: Option<std::ffi::OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let xdg = xdg.map(PathBuf::from).filter(|path| path.is_absolute());
    xdg.or_else(|| home.filter(|path| path.is_absolute()).map(|home| home.join(".cache")))
}

/// One thread that ends every running guest's turn each [`TICK`]; it sleeps while there are no exchanges.
#[derive(Default)]
struct Ticker {
    live: AtomicUsize,
    parked: AtomicBool,
    thread: OnceLock<std::thread::Thread>,
    starting: Mutex<()>,
}

/// Asks the scheduler for a short slice. Under EEVDF a thread that wakes up does not interrupt one that computes until
/// that one has had its slice (some milliseconds), unless its own is shorter (Linux 6.12). Measured: a guest that spins has
/// the thread that polls it for 1.5 ms in the median with this, for 2.5 without. Older kernels ignore it.
#[cfg(target_os = "linux")]
fn ask_for_prompt_wakeups() {
    // SAFETY: asks only; 0 is the calling thread.
    let (policy, nice) = unsafe { (libc::sched_getscheduler(0), libc::getpriority(libc::PRIO_PROCESS, 0)) };
    if policy != libc::SCHED_OTHER {
        return; // as the process was started
    }
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: libc::SCHED_OTHER as u32,
        sched_flags: 0,
        sched_nice: nice,
        sched_priority: 0,
        sched_runtime: 100_000,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the structure is whole and says its size; 0 is the calling thread. A refusal changes nothing.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

#[cfg(not(target_os = "linux"))]
fn ask_for_prompt_wakeups() {}

/// While it lives, guests lose their turn at every tick.
pub struct Ticking {
    ticker: &'static Ticker,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.ticker.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Ticker {
    fn enter(&'static self, world: &'static World) -> Result<(), Error> {
        self.live.fetch_add(1, Ordering::SeqCst);
        let running = match self.thread.get() {
            Some(thread) => {
                if self.parked.load(Ordering::SeqCst) {
                    crate::process::swap::look();
                    thread.unpark();
                }
                Ok(())
            }
            None => {
                crate::process::swap::look();
                self.start(world)
            }
        };
        if running.is_err() {
            self.live.fetch_sub(1, Ordering::SeqCst);
        }
        running
    }

    fn start(&'static self, world: &'static World) -> Result<(), Error> {
        let _starting = lock(&self.starting);
        if self.thread.get().is_some() {
            return Ok(());
        }
        let handle = std::thread::Builder::new()
            .name("wasgi-ticker".into())
            .stack_size(64 << 10)
            .spawn(move || self.run(world))
            .map_err(|error| crate::process::fork::no_thread("the epoch ticker", &error))?;
        let _ = self.thread.set(handle.thread().clone());
        Ok(())
    }

    fn run(&'static self, world: &'static World) {
        crate::process::signals::open_here();
        ask_for_prompt_wakeups();
        let mut idle = 0;
        loop {
            std::thread::sleep(TICK);
            crate::process::swap::look();
            for engine in world.engines() {
                engine.increment_epoch();
            }
            world.scheduler.tick(world);
            if self.live.load(Ordering::SeqCst) > 0 {
                idle = 0;
                continue;
            }
            idle += 1;
            if idle >= IDLE_TICKS {
                // `enter` counts first and looks at `parked` second, this side the other way round:
                // one of the two sees the other.
                self.parked.store(true, Ordering::SeqCst);
                if self.live.load(Ordering::SeqCst) == 0 {
                    std::thread::park();
                }
                self.parked.store(false, Ordering::SeqCst);
                idle = 0;
            }
        }
    }
}
