//! Who loads what: the same content is compiled once and held once in a process, and by one process at a time.

use std::any::Any;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::component::limits::ComponentLimits;
use crate::component::variant::Variant;
use crate::engine::ProcessState;
use crate::error::Error;
use crate::process::fork::PerFork;
use crate::sync::lock;

/// How the process is started.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// What is run.
    pub program: PathBuf,
    /// With which arguments.
    pub args: Vec<OsString>,
}

/// How somebody wants a component to be loaded.
pub struct Order {
    /// What else machine code is made for.
    pub variant: Variant,
    /// What the component may cost.
    pub limits: ComponentLimits,
    /// How a process that compiles is started; needed if the limits are those of a process.
    pub launcher: Option<Launcher>,
    /// Whether somebody still waits for it.
    pub wanted: Arc<Wanted>,
    deadline: Option<Instant>,
}

impl Order {
    /// `limits.timeout` begins now.
    pub fn new(variant: Variant, limits: ComponentLimits, launcher: Option<Launcher>) -> Self {
        let deadline = limits.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Self { variant, limits, launcher, wanted: Arc::default(), deadline }
    }

    /// The time that is left; `None`: as much as it takes.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// Whether it makes sense to go on.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.wanted.is_given_up() {
            return Err(Error::Cancelled);
        }
        self.check_time()
    }

    pub(crate) fn check_time(&self) -> Result<(), Error> {
        match (self.left(), self.limits.timeout) {
            (Some(Duration::ZERO), Some(timeout)) => Err(too_long(timeout)),
            _ => Ok(()),
        }
    }
}

fn too_long(timeout: Duration) -> Error {
    let seconds = timeout.as_secs_f64();
    Error::ComponentLimit {
        message: format!("compiling the component took longer than {seconds} s (`ComponentLimits.timeout`)"),
        limit: "timeout",
        value: seconds,
        found: None,
    }
}

/// Whether somebody still waits for what was ordered, and what is told of it.
#[derive(Default)]
pub struct Wanted {
    given_up: AtomicBool,
    /// Bytes of the source, once it has been read.
    size: AtomicU64,
    entry: OnceLock<Arc<Entry>>,
}

impl Wanted {
    /// Nobody waits any more.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::SeqCst);
    }

    /// Whether nobody waits any more.
    pub fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::SeqCst)
    }

    /// The source was read.
    pub fn is_of_size(&self, bytes: usize) {
        self.size.store(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes of the source; 0 before it was read.
    pub fn size(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    /// Whether this one, of all that wait for the same, is to tell that it takes long.
    pub fn is_to_tell_begin(&self) -> bool {
        self.entry.get().is_some_and(|entry| entry.is_compiling() && !entry.told.swap(true, Ordering::SeqCst))
    }

    /// Likewise, that it is done.
    pub fn is_to_tell_end(&self) -> bool {
        self.entry
            .get()
            .is_some_and(|entry| entry.told.load(Ordering::SeqCst) && !entry.told_end.swap(true, Ordering::SeqCst))
    }
}

/// The components of a process by what is in them, for as long as anybody has them.
pub(crate) fn loaded() -> Arc<Loaded> {
    static LOADED: PerFork<Loaded> = PerFork::new();
    LOADED.get(Loaded::default)
}

/// See [`loaded`].
#[derive(Default)]
pub(crate) struct Loaded(Mutex<HashMap<String, Arc<Entry>>>);

#[derive(Default)]
struct Entry {
    state: Mutex<State>,
    /// Nobody is about it any more.
    free: Condvar,
    /// That it takes long was told, and that it is done.
    told: AtomicBool,
    told_end: AtomicBool,
}

#[derive(Default)]
struct State {
    /// The component, whatever that is to whoever loads it.
    component: Option<Weak<dyn Any + Send + Sync>>,
    busy: bool,
    /// Machine code is being made, or another process is waited for that makes it.
    compiling: bool,
    orders: Vec<Weak<Wanted>>,
}

impl State {
    fn component<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.component.as_ref()?.upgrade()?.downcast().ok()
    }

    /// Whether somebody has the component.
    fn is_alive(&self) -> bool {
        self.component.as_ref().is_some_and(|component| component.strong_count() > 0)
    }
}

impl Entry {
    fn is_compiling(&self) -> bool {
        lock(&self.state).compiling
    }
}

impl Loaded {
    fn entry(&self, key: &str) -> Arc<Entry> {
        let mut all = lock(&self.0);
        // those that somebody else has are being worked at, or asked for
        all.retain(|_, entry| Arc::strong_count(entry) > 1 || lock(&entry.state).is_alive());
        all.entry(key.to_owned()).or_default().clone()
    }

    /// The component of a digest, if somebody has it.
    pub(crate) fn find<T: Any + Send + Sync>(&self, digest: &str) -> Option<Arc<T>> {
        let entry = lock(&self.0).get(digest).cloned()?;
        let state = lock(&entry.state);
        state.component()
    }

    /// The right to work at something: whoever comes meanwhile waits, and finds it done.
    pub(crate) fn begin(&self, key: &str, order: &Order) -> Result<Work, Error> {
        /// How often one that waits looks whether it is still to wait.
        const LOOK: Duration = Duration::from_millis(20);
        let entry = self.entry(key);
        let _ = order.wanted.entry.set(entry.clone());
        let mut state = lock(&entry.state);
        state.orders.retain(|other| other.strong_count() > 0);
        state.orders.push(Arc::downgrade(&order.wanted));
        while state.busy {
            order.check()?;
            state = entry.free.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        order.check()?;
        state.busy = true;
        drop(state);
        Ok(Work { entry })
    }
}

/// Held by the one who works at something.
pub(crate) struct Work {
    entry: Arc<Entry>,
}

impl Work {
    pub(crate) fn component<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        lock(&self.entry.state).component()
    }

    pub(crate) fn keep<T: Any + Send + Sync>(&self, component: &Arc<T>) {
        let component: Arc<dyn Any + Send + Sync> = component.clone();
        lock(&self.entry.state).component = Some(Arc::downgrade(&component));
    }

    /// From now on machine code is read or made.
    pub(crate) fn compiles(&self) {
        self.entry.told.store(false, Ordering::SeqCst);
        self.entry.told_end.store(false, Ordering::SeqCst);
        lock(&self.entry.state).compiling = true;
    }

    /// Whether anybody still waits for it.
    pub(crate) fn is_wanted(&self) -> bool {
        let state = lock(&self.entry.state);
        state.orders.iter().filter_map(Weak::upgrade).any(|order| !order.is_given_up())
    }

    /// Whether it makes sense to go on: somebody waits for it, and the one for whom it is done has time.
    pub(crate) fn check(&self, order: &Order) -> Result<(), Error> {
        if self.is_wanted() { order.check_time() } else { Err(Error::Cancelled) }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        let mut state = lock(&self.entry.state);
        (state.busy, state.compiling) = (false, false);
        drop(state);
        self.entry.free.notify_all();
    }
}

/// Held by the process that compiles a component, so that those which start together do not all compile it: the others
/// wait, and find its machine code in the cache. The lock is the system's, and goes with its holder; a holder that is
/// stopped, or compiles for longer than [`LONGEST_TURN`], is not waited for.
pub(crate) struct Turn(Option<File>);

const LONGEST_TURN: Duration = Duration::from_secs(120);

impl Turn {
    pub(crate) fn take(process: &ProcessState, digest: &str, order: &Order) -> Self {
        // one of 256 files for each component: as many as there will ever be
        let longest = order.left().map_or(LONGEST_TURN, |left| left.min(LONGEST_TURN));
        Self::wait(process.lock_file(digest.get(..2).unwrap_or("")), longest, || order.wanted.is_given_up())
    }

    fn wait(file: Option<File>, longest: Duration, is_given_up: impl Fn() -> bool) -> Self {
        let Some(file) = file else { return Self(None) };
        let deadline = Instant::now() + longest;
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => return Self(Some(file)),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline && !is_given_up() => {
                    std::thread::sleep(pause);
                }
                // a file system without locks, say: then each compiles for itself
                Err(_) => return Self(None),
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // not by closing it alone: a child that was forked meanwhile has the same file open
        if let Some(file) = self.0.take() {
            let _ = file.unlock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_not_waited_for_for_ever() {
        let path = std::env::temp_dir().join(format!("wasgi-turn-{}.lock", std::process::id()));
        let open = || File::options().write(true).create(true).truncate(false).open(&path).ok();
        let held = Turn::wait(open(), Duration::ZERO, || false);
        assert!(held.0.is_some());
        assert!(Turn::wait(open(), Duration::ZERO, || false).0.is_none());
        assert!(Turn::wait(open(), Duration::from_secs(60), || true).0.is_none());
        drop(held);
        assert!(Turn::wait(open(), Duration::ZERO, || false).0.is_some());
        assert!(Turn::wait(None, Duration::ZERO, || false).0.is_none());
        let _ = std::fs::remove_file(&path);
    }

    #[test]
    fn who_waits_is_ended_by_its_time_and_by_giving_up() {
        let loaded = Loaded::default();
        let order = |timeout| Order::new(Variant::PLAIN, ComponentLimits { timeout, ..ComponentLimits::NONE }, None);
        let first = order(None);
        let work = loaded.begin("a", &first).ok();
        assert!(work.is_some());
        let late = loaded.begin("a", &order(Some(Duration::from_millis(1)))).err();
        assert!(matches!(late, Some(Error::ComponentLimit { limit: "timeout", .. })));
        let given_up = order(None);
        given_up.wanted.give_up();
        assert!(matches!(loaded.begin("a", &given_up).err(), Some(Error::Cancelled)));
        drop(work);
        assert!(loaded.begin("a", &order(None)).is_ok());
    }

    #[test]
    fn work_is_wanted_while_anybody_waits_for_it() {
        let loaded = Loaded::default();
        let order = || Order::new(Variant::PLAIN, ComponentLimits::NONE, None);
        let (first, second) = (order(), order());
        let Ok(work) = loaded.begin("a", &first) else { return assert_eq!(1, 2) };
        lock(&work.entry.state).orders.push(Arc::downgrade(&second.wanted));
        first.wanted.give_up();
        assert!(work.is_wanted());
        drop(second);
        assert!(!work.is_wanted());
    }
}
