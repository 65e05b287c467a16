//! Whether the pages of this process can be swapped out, looked at again and again.
//!
//! wasmtime 48.0.8 resets a slot of its pool by PAGEMAP_SCAN, which it asks for pages that are *present* and written. A dirty page
//! that was swapped out is not present, so it is not reset, and the next instance in that slot reads what an earlier one has
//! written. So where pages can be swapped out, or could once since this process began, no instance is made in a pool that is
//! reset so ([`crate::engine`]).

use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::seen_once::SeenOnce;

/// Pages can be swapped out, or could be at some time: what went out then may still be out. A forked child inherits it.
pub(super) static SWAPPED: SeenOnce = SeenOnce::new(
    "pages of this process can now be swapped out: from now on instances are reset in the \
     slower way; hint: keep this service from swapping (`MemorySwapMax=0` with systemd)",
);
/// Looks that found swap which the process's control group may not use.
static SPARED: AtomicU32 = AtomicU32::new(0);

/// Where swap exists and only the control group forbids it, that is asked at every so many looks: about each second.
const LOOKS_PER_QUESTION: u32 = 1000;

/// Whether a page may have been swapped out, as far as [`look`] has seen.
pub(crate) fn seen() -> bool {
    SWAPPED.is_seen()
}

/// Looks, by one system call, and at times at the control group. The ticker does so each millisecond, and whoever begins
/// an exchange while it sleeps: the window in which swap is not noticed is a millisecond.
pub(crate) fn look() {
    if seen() || !exists() {
        return;
    }
    let looks = SPARED.fetch_add(1, Ordering::Relaxed);
    if looks.is_multiple_of(LOOKS_PER_QUESTION) && !forbidden() {
        SWAPPED.see();
    }
}

/// Looks, and asks the control group now.
pub(crate) fn look_closely() -> bool {
    SPARED.store(0, Ordering::Relaxed);
    look();
    seen()
}

/// Whether the machine has any swap: files, partitions, zram. Asked of the kernel itself: `/proc` may be hidden, or made up by a
/// container's manager. The kernel counts a device before it writes any page to it.
#[cfg(target_os = "linux")]
fn exists() -> bool {
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: the kernel fills the structure where it succeeds, and only then it is read.
    unsafe { libc::sysinfo(info.as_mut_ptr()) != 0 || info.assume_init().totalswap != 0 }
}

/// Elsewhere there is no PAGEMAP_SCAN.
#[cfg(not(target_os = "linux"))]
fn exists() -> bool {
    false
}

fn forbidden() -> bool {
    std::fs::read_to_string("/proc/self/cgroup")
        .is_ok_and(|groups| forbidden_by(&groups, std::path::Path::new("/sys/fs/cgroup")))
}

/// Whether some level of the process's control group (version 2) has no swap. Version 1 cannot say so: its limits are of memory
/// and swap together, and its swappiness counts only where the group itself is short of memory.
fn forbidden_by(groups: &str, mounted: &std::path::Path) -> bool {
    let Some(own) = groups.lines().find_map(|line| line.strip_prefix("0::/")) else { return false };
    if own.split('/').any(|part| part == "..") {
        return false; // a group outside of what is mounted here
    }
    let own = mounted.join(own);
    own.ancestors()
        .take_while(|level| level.starts_with(mounted))
        .any(|level| std::fs::read_to_string(level.join("memory.swap.max")).is_ok_and(|most| most.trim() == "0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_group_forbids_swap_at_any_level() -> std::io::Result<()> {
        let mounted = std::env::temp_dir().join(format!("wasgi-cgroup-{}", std::process::id()));
        std::fs::create_dir_all(mounted.join("a/b"))?;
        let limit = |level: &str, most: &str| std::fs::write(mounted.join(level).join("memory.swap.max"), most);
        let groups = "4:memory:/c\n0::/a/b\n";
        assert!(!forbidden_by(groups, &mounted));
        limit("a/b", "max\n")?;
        limit("a", "1048576\n")?;
        assert!(!forbidden_by(groups, &mounted));
        limit("a", "0\n")?;
        assert!(forbidden_by(groups, &mounted));
        assert!(!forbidden_by("0::/\n", &mounted));
        assert!(!forbidden_by("0::/../a\n", &mounted));
        assert!(!forbidden_by("4:memory:/a\n", &mounted));
        limit("", "0\n")?;
        assert!(forbidden_by("0::/\n", &mounted));
        std::fs::remove_dir_all(&mounted)
    }
}
