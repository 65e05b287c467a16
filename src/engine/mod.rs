//! Engines, their allocator, the epoch ticker and the code cache: what all components of a process share.
//!
//! Everything here hangs off one [`ProcessState`], made at first use. A forked child makes a state of its own: the threads
//! of its parent's do not exist there, and its parent's pool resets memory by a handle on the *parent's* page map.

pub(crate) mod code_cache;
pub(crate) mod config;
pub(crate) mod heap_trim;
pub mod stats;
pub(crate) mod ticker;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use tracing::{info, warn};
use wasmtime::Engine;

use crate::engine::code_cache::CodeCache;
use crate::engine::config::{AllocatingEngine, EngineKind, Features, POOL_SLOTS, config_of, make_pooled, new_engine};
use crate::engine::ticker::{Ticked, Ticker, Ticking};
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::process::fork::PerProcess;
use crate::sync::lock;
use crate::telemetry::TARGET;

/// What one process has once.
pub struct ProcessState {
    /// Tells worlds apart across forks.
    pub generation: u64,
    /// By the features that their guests need, each of which costs those that do without it.
    engines: [Engines; Features::ALL],
    /// How many instances a pool has room for.
    slots: u32,
    /// How many of those are lost, see [`Self::lose_slot`].
    lost: AtomicU32,
    pub(crate) counters: crate::telemetry::counters::Counters,
    pub(crate) cache: Option<CodeCache>,
    pub(crate) trimming: crate::engine::heap_trim::Trimming,
    ticker: Ticker,
    pub(crate) runtime: crate::process::runtime::Runtime,
    pub(crate) scheduler: crate::scheduler::Scheduler,
}

static STATE: PerProcess<ProcessState> = PerProcess::new();

/// The state of this process, made now if this is the first use (or the first after a fork).
pub fn process_state() -> Result<&'static ProcessState, Error> {
    STATE.try_get(ProcessState::new)
}

/// The state of this process, if there is one.
pub fn existing() -> Option<&'static ProcessState> {
    STATE.existing()
}

/// To be called before `fork`: waits for a state that is being made, and for machine code that is being loaded or given back. A child
/// would wait for ever for what wasmtime makes once in a process (its handle of the page map), or for its list of all machine code, if a
/// thread of its parent's was about it.
pub fn before_fork() {
    STATE.hold();
    crate::process::undisturbed::before_fork(); // after the other: whoever makes a state is at such work, too
}

/// To be called in the parent after `fork`.
pub fn after_fork_in_parent() {
    crate::process::undisturbed::after_fork_in_parent();
    STATE.release();
}

/// To be called in a child right after `fork`: the next use makes a new state.
pub fn after_fork() {
    crate::process::undisturbed::after_fork();
    if existing().is_some() {
        crate::process::fork::begin_generation();
    }
    STATE.forget();
}

/// Engines with a pool, where the machine lets us have one. The second is made where pages can be swapped out, at the start or later:
/// an engine's way to reset its slots cannot be changed.
#[derive(Default)]
struct Pools {
    first: OnceLock<Option<AllocatingEngine>>,
    second: OnceLock<Option<AllocatingEngine>>,
    making: Mutex<()>,
}

/// The engines with the same features.
#[derive(Default)]
struct Engines {
    pools: Pools,
    /// The one that allocates on demand.
    plain: OnceLock<AllocatingEngine>,
}

impl Pools {
    fn for_now(&self) -> &OnceLock<Option<AllocatingEngine>> {
        let retired = |first: &Option<AllocatingEngine>| {
            first.as_ref().is_some_and(|made| made.scans && crate::process::pagemap::misses_pages())
        };
        if self.first.get().is_some_and(retired) { &self.second } else { &self.first }
    }

    fn all(&self) -> impl Iterator<Item = &AllocatingEngine> {
        [&self.first, &self.second].into_iter().filter_map(|pool| pool.get()?.as_ref())
    }
}

impl ProcessState {
    fn new() -> Result<Self, Error> {
        crate::process::system_limits::check_signal_stacks()?;
        let cache = open_cache();
        if let Some(reason) = crate::process::system_limits::memory_files() {
            warn!(target: TARGET, "{reason}: each instance copies its initial memory, which is slower");
        }
        let no_scan = crate::process::pagemap::why_not();
        let (pooled, slots) = make_pooled(Features::default(), no_scan.is_none()).unzip();
        if no_scan.is_some() || pooled.is_none() {
            crate::process::pagemap::told(); // it makes no difference
        }
        if let (Some(reason), Some(_), true) = (no_scan, &pooled, cfg!(target_os = "linux")) {
            let cost = "guests start slower, and threads contend with each other";
            let hint = reason.hint();
            if reason.is_usual() {
                info!(target: TARGET, "{reason}: {cost}; {hint}");
            } else {
                warn!(target: TARGET, "{reason}: {cost}; {hint}");
            }
        }
        let engines: [Engines; Features::ALL] = std::array::from_fn(|_| Engines::default());
        let [first, ..] = &engines;
        let _ = first.pools.first.set(pooled);
        Ok(Self {
            generation: crate::process::fork::generation(),
            engines,
            slots: slots.unwrap_or(POOL_SLOTS[0]),
            lost: AtomicU32::new(0),
            counters: crate::telemetry::counters::Counters::default(),
            cache,
            trimming: crate::engine::heap_trim::Trimming::default(),
            ticker: Ticker::default(),
            runtime: crate::process::runtime::Runtime::new(),
            scheduler: crate::scheduler::Scheduler::new(crate::process::fork::generation()),
        })
    }

    fn engines_with(&self, features: Features) -> &Engines {
        let [none, ..] = &self.engines;
        self.engines.get(features.index()).unwrap_or(none)
    }

    /// The engine with the pooling allocator, where the machine lets us have one.
    pub(crate) fn pooled(&self, features: Features) -> Option<&AllocatingEngine> {
        let pools = &self.engines_with(features).pools;
        let pool = pools.for_now();
        if let Some(made) = pool.get() {
            return made.as_ref();
        }
        let _making = lock(&pools.making);
        if let Some(made) = pool.get() {
            return made.as_ref();
        }
        let made = make_pooled(features, crate::process::pagemap::why_not().is_none());
        pool.get_or_init(|| made.map(|(made, _)| made)).as_ref()
    }

    /// The engine that allocates on demand: for components that fit no slot of the pool.
    pub(crate) fn plain(&self, features: Features) -> Result<&AllocatingEngine, Error> {
        let slot = &self.engines_with(features).plain;
        if let Some(made) = slot.get() {
            return Ok(made);
        }
        let engine = new_engine(&config_of(EngineKind { features, pooled: false }))
            .map_err(|error| Error::Host(Reason::new(format!("cannot make an engine: {}", chain(&error)), error)))?;
        Ok(slot.get_or_init(|| AllocatingEngine { engine, scans: false }))
    }

    /// All engines that there are.
    pub(crate) fn engines(&self) -> impl Iterator<Item = &Engine> {
        let all = self.engines.iter().flat_map(|engines| engines.pools.all().chain(engines.plain.get()));
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
        self.ticker.enter(self)
    }

    /// How many instances there is room for; where they are allocated on demand, as many as a pool would have.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.saturating_sub(self.lost.load(Ordering::Relaxed))
    }

    /// The instance in one of them is never given back.
    pub(crate) fn lose_slot(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the ticker's thread runs.
    pub(crate) fn has_ticker(&self) -> bool {
        self.ticker.is_running()
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
        self.ticker.live()
    }
}

impl Ticked for ProcessState {
    fn tick(&'static self) {
        for engine in self.engines() {
            engine.increment_epoch();
        }
        self.scheduler.tick(&self.runtime);
    }
}

/// Where machine code is kept, if it may be.
fn open_cache() -> Option<CodeCache> {
    let directory = match std::env::var_os("WASGI_CACHE_DIR") {
        Some(path) if path.is_empty() => return None,
        Some(path) => PathBuf::from(path),
        None => match user_cache(std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir()) {
            Some(cache) => cache.join("wasgi"),
            None => {
                warn!(
                    target: TARGET,
                    "the code cache is off: neither `XDG_CACHE_HOME` nor `HOME` is an absolute path; \
                     hint: `WASGI_CACHE_DIR` says where"
                );
                return None;
            }
        },
    };
    let most = std::env::var_os("WASGI_CACHE_SIZE").filter(|bytes| !bytes.is_empty());
    let bytes = most.as_ref().and_then(|bytes| bytes.to_str()?.parse().ok());
    if let (Some(most), None) = (&most, bytes) {
        warn!(target: TARGET, "`WASGI_CACHE_SIZE` is ignored: not a number of bytes: {}", most.display());
    }
    match CodeCache::open(&directory, bytes) {
        Ok(cache) => Some(cache),
        Err(reason) => {
            warn!(target: TARGET, "the code cache is off: `{}`: {reason}", directory.display());
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

/// The release of wasmtime that this is built with: `Cargo.lock` has it, too, as a test sees to.
pub const WASMTIME: &str = "48.0.8";
