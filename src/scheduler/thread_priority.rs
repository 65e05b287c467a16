//! What the system's scheduler is told of threads, and asked about them.

use std::sync::OnceLock;
use std::time::Duration;

/// CPU time of a thread; of the wall where a system does not tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ThreadTime(Duration);

impl ThreadTime {
    /// Of this thread.
    pub(crate) fn now() -> Self {
        #[cfg(unix)]
        return Self(read(libc::CLOCK_THREAD_CPUTIME_ID));
        #[cfg(not(unix))]
        Self(wall())
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

#[cfg(unix)]
fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is ours to write; a clock that is not there is refused, and leaves it as it is.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(not(target_os = "linux"))]
fn wall() -> Duration {
    static BEGAN: crate::process::fork::PerProcess<std::time::Instant> = crate::process::fork::PerProcess::new();
    BEGAN.get(std::time::Instant::now).elapsed()
}

/// A thread, for others to look at and to slow down.
#[derive(Default)]
pub(crate) struct Thread(OnceLock<Known>);

#[cfg(target_os = "linux")]
struct Known {
    clock: libc::clockid_t,
    number: libc::id_t,
}

#[cfg(not(target_os = "linux"))]
struct Known;

#[cfg(target_os = "linux")]
impl Thread {
    /// It is the calling one.
    pub(crate) fn is_here(&self) {
        let mut clock = libc::CLOCK_THREAD_CPUTIME_ID;
        // SAFETY: the calling thread exists, and the number is ours to write.
        unsafe { libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock) };
        // SAFETY: it takes nothing and always succeeds.
        let number = unsafe { libc::gettid() };
        let _ = self.0.set(Known { clock, number: libc::id_t::try_from(number).unwrap_or(0) });
    }

    /// Its CPU time. To be asked while it lives.
    pub(crate) fn time(&self) -> ThreadTime {
        ThreadTime(self.0.get().map_or(Duration::ZERO, |known| read(known.clock)))
    }

    /// Gives it the lowest priority there is, which it cannot leave again without privileges. Whoever wakes up interrupts it at once:
    /// under EEVDF a thread of any other policy, however low, is not interrupted until it has had its slice, 3 ms here.
    pub(crate) fn lower_to_last(&self) {
        let Some(known) = self.0.get().filter(|known| known.number > 0) else { return };
        set(known.number, LAST);
        let Ok(number) = libc::pid_t::try_from(known.number) else { return };
        // SAFETY: it is made of numbers, of which some systems have more.
        let parameters: libc::sched_param = unsafe { std::mem::zeroed() };
        // SAFETY: the structure is ours to read; a thread that is gone, or a refusal, changes nothing.
        unsafe { libc::sched_setscheduler(number, libc::SCHED_IDLE, &raw const parameters) };
    }
}

#[cfg(not(target_os = "linux"))]
impl Thread {
    pub fn is_here(&self) {
        let _ = self.0.set(Known);
    }

    pub fn time(&self) -> ThreadTime {
        ThreadTime(wall())
    }

    pub fn lower_to_last(&self) {}
}

/// How much less of a processor than others a thread gets that computes for guests: about a tenth where both want it.
#[cfg(target_os = "linux")]
const LOWER: libc::c_int = 10;

#[cfg(target_os = "linux")]
const LAST: libc::c_int = 19;

/// Lowers the priority of this thread for good; what it starts inherits that. It needs no privileges.
#[cfg(target_os = "linux")]
pub(crate) fn lower() {
    // SAFETY: it takes nothing.
    let now = unsafe { libc::getpriority(libc::PRIO_PROCESS as _, 0) };
    set(0, now.saturating_add(LOWER).min(LAST));
}

/// On Linux a thread has a priority of its own (`setpriority(2)`, "C library/kernel differences").
#[cfg(target_os = "linux")]
fn set(thread: libc::id_t, nice: libc::c_int) {
    // SAFETY: numbers only; a refusal changes nothing.
    unsafe { libc::setpriority(libc::PRIO_PROCESS as _, thread, nice) };
}

#[cfg(target_vendor = "apple")]
pub(crate) fn lower() {
    // SAFETY: it names a class, and a relative priority that is allowed.
    unsafe { libc::pthread_set_qos_class_self_np(libc::qos_class_t::QOS_CLASS_UTILITY, 0) };
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn lower() {}
