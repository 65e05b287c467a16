//! Whether the kernel may merge pages of this process with others of the same content (KSM, `PR_SET_MEMORY_MERGE`), looked at again and again.
//!
//! A page that a guest has filled with zeros may become the kernel's own page of zeros then (`use_zero_pages`), which PAGEMAP_SCAN takes for
//! one that nobody has written. wasmtime 48.0.8 does not reset it, and the next instance in that slot finds zeros where its component has
//! data. So where pages are merged no instance is made in a pool that is reset so ([`crate::engine`]), as where they can be swapped out.

use crate::process::seen_once::SeenOnce;

/// They are merged, or were at some time: what was merged then may still be.
pub(super) static MERGED: SeenOnce = SeenOnce::new(
    "pages of this process are now merged with others of the same content (KSM): from now on instances are reset in the \
     slower way; hint: leave this service out of that (`MemoryKSM=no` with systemd)",
);

/// Whether pages may have been merged, as far as [`look`] has seen.
pub(crate) fn seen() -> bool {
    MERGED.is_seen()
}

/// Looks, by one system call: when [`crate::process::swap::look`] does. Returns whether they may have been merged.
pub(crate) fn look() -> bool {
    if !seen() && is_on() {
        MERGED.see();
    }
    seen()
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
