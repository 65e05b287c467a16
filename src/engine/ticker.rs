//! The epoch ticker: one thread that ends turns of guests.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::error::Error;
use crate::scheduler::TICK;
use crate::sync::lock;

/// How many ticks the ticker goes on without any exchange before it parks.
const IDLE_TICKS: u32 = 100;

/// One thread that ends every running guest's turn each [`TICK`]; it sleeps while there are no exchanges.
#[derive(Default)]
pub(crate) struct Ticker {
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

/// What the ticker's thread calls each [`TICK`].
pub(crate) trait Ticked: Sync {
    fn tick(&'static self);
}

impl Ticker {
    /// Whether its thread runs.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.get().is_some()
    }

    /// How many exchanges are under way.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(crate) fn enter(&'static self, ticked: &'static dyn Ticked) -> Result<Ticking, Error> {
        self.live.fetch_add(1, Ordering::SeqCst);
        let running = match self.thread.get() {
            Some(thread) => {
                if self.parked.load(Ordering::SeqCst) {
                    crate::process::pagemap::look();
                    thread.unpark();
                }
                Ok(())
            }
            None => {
                crate::process::pagemap::look();
                self.start(ticked)
            }
        };
        if running.is_err() {
            self.live.fetch_sub(1, Ordering::SeqCst);
        }
        running.map(|()| Ticking { ticker: self })
    }

    fn start(&'static self, ticked: &'static dyn Ticked) -> Result<(), Error> {
        let _starting = lock(&self.starting);
        if self.thread.get().is_some() {
            return Ok(());
        }
        let handle = std::thread::Builder::new()
            .name("wasgi-ticker".into())
            .stack_size(64 << 10)
            .spawn(move || self.run(ticked))
            .map_err(|error| crate::process::fork::no_thread("the epoch ticker", error))?;
        let _ = self.thread.set(handle.thread().clone());
        Ok(())
    }

    fn run(&'static self, ticked: &'static dyn Ticked) {
        crate::process::signals::open_here();
        ask_for_prompt_wakeups();
        let mut idle = 0;
        loop {
            std::thread::sleep(TICK);
            crate::process::pagemap::look();
            ticked.tick();
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
