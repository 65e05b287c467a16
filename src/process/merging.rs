//! Whether the kernel may merge pages of this process with others of the same content (KSM, `PR_SET_MEMORY_MERGE`), looked at again and again.
//!
//! A page that a guest has filled with zeros may become the kernel's own page of zeros then (`use_zero_pages`), which PAGEMAP_SCAN takes for
//! one that nobody has written. wasmtime 48.0.8 does not reset it, and the next instance in that slot finds zeros where its component has
//! data. So where pages are merged no instance is made in a pool that is reset so ([`crate::engine`]), as where they can be swapped out.

use std::sync::atomic::{AtomicBool, Ordering};

/// They are merged, or were at some time: what was merged then may still be.
static SEEN: AtomicBool = AtomicBool::new(false);
static TOLD: AtomicBool = AtomicBool::new(false);

/// What is said when that is switched on while there are instances already.
const NEWS: &str = "pages of this process are now merged with others of the same content (KSM): from now on instances are reset in the \
                    slower way; hint: leave this service out of that (`MemoryKSM=no` with systemd)";

/// Whether pages may have been merged, as far as [`look`] has seen.
pub(crate) fn seen() -> bool {
    SEEN.load(Ordering::SeqCst)
}

/// Looks, by one system call: when [`crate::process::swap::look`] does. Returns whether they may have been merged.
pub(crate) fn look() -> bool {
    if !seen() && is_on() {
        SEEN.store(true, Ordering::SeqCst);
    }
    seen()
}

/// It has been told, or need not be.
pub(crate) fn told() {
    TOLD.store(true, Ordering::Relaxed);
}

/// What is to be said of it, once a process.
pub(crate) fn news() -> Option<&'static str> {
    (seen() && !TOLD.swap(true, Ordering::Relaxed)).then_some(NEWS)
}

/// An older kernel than 6.4 knows no such setting.
#[cfg(target_os = "linux")]
fn is_on() -> bool {
    // SAFETY: it asks only, and takes no pointer.
    unsafe { libc::prctl(libc::PR_GET_MEMORY_MERGE, 0, 0, 0, 0) == 1 }
}

#[cfg(not(target_os = "linux"))]
fn is_on() -> bool {
    false
}
