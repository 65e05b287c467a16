//! Why guests are not reset by PAGEMAP_SCAN, if they are not.

use std::fmt;
use std::io;

/// Whoever reads it can do something about most of them.
#[derive(Debug)]
pub(crate) enum WhyNot {
    /// `WASGI_PAGEMAP_SCAN=0`. wasmtime 48.0.8 asks for present pages, and a page that the kernel moves to another place (compaction, say) is
    /// not present for the microseconds that this takes: like one that was swapped out it would not be reset.
    Unwanted,
    /// See [`crate::process::swap`].
    Swap,
    /// The kernel does not know it.
    Kernel,
    /// The process's page map cannot be opened.
    Closed(io::Error),
    /// The kernel knows it, or does not say, and refuses it.
    Refused(io::Error),
    /// It works now; wasmtime asks once in a process, and it did not then.
    Late,
}

impl WhyNot {
    /// Nothing is wrong: most machines have swap.
    pub fn is_usual(&self) -> bool {
        matches!(self, Self::Swap | Self::Unwanted)
    }

    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unwanted => "hint: several worker processes serve more requests than several threads",
            Self::Swap => "hint: keep this service from swapping (`MemorySwapMax=0` with systemd)",
            Self::Kernel => "hint: several worker processes serve more requests than several threads",
            Self::Closed(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "hint: a process that has changed its user may not look at itself; start it as its final user"
            }
            Self::Closed(_) => "hint: mount `/proc`",
            Self::Refused(_) => "hint: let the sandbox (a seccomp profile, say) allow that ioctl",
            Self::Late => "hint: restart the process",
        }
    }
}

impl fmt::Display for WhyNot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unwanted => write!(out, "PAGEMAP_SCAN is not used (`WASGI_PAGEMAP_SCAN=0`)"),
            Self::Swap => {
                write!(out, "pages of this process can be swapped out, and PAGEMAP_SCAN would pass them over")
            }
            Self::Kernel => write!(out, "this kernel has no PAGEMAP_SCAN (Linux 6.7)"),
            Self::Closed(error) => write!(out, "`/proc/self/pagemap` cannot be opened: {error}"),
            Self::Refused(error) => write!(out, "the ioctl PAGEMAP_SCAN is refused: {error}"),
            Self::Late => write!(out, "PAGEMAP_SCAN could not be used when this process first asked for it"),
        }
    }
}

/// None if it can be used.
#[cfg(target_os = "linux")]
pub(crate) fn why_not() -> Option<WhyNot> {
    if std::env::var_os("WASGI_PAGEMAP_SCAN").is_some_and(|wanted| wanted == "0") {
        return Some(WhyNot::Unwanted);
    }
    if crate::process::swap::look_closely() {
        return Some(WhyNot::Swap);
    }
    if wasmtime::PoolingAllocationConfig::is_pagemap_scan_available() {
        return None;
    }
    let map = match std::fs::File::open("/proc/self/pagemap") {
        Ok(map) => map,
        Err(error) => return Some(WhyNot::Closed(error)),
    };
    Some(match scan_nothing(&map) {
        Ok(()) => WhyNot::Late,
        Err(error) if error.raw_os_error() == Some(libc::ENOTTY) => WhyNot::Kernel,
        Err(error) => WhyNot::Refused(error),
    })
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn why_not() -> Option<WhyNot> {
    Some(WhyNot::Kernel)
}

/// Asks for no page at all.
#[cfg(target_os = "linux")]
fn scan_nothing(map: &std::fs::File) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    /// `struct pm_scan_arg` of `linux/fs.h`.
    #[repr(C)]
    #[derive(Default)]
    struct Scan {
        size: u64,
        flags: u64,
        start: u64,
        end: u64,
        walk_end: u64,
        regions: u64,
        regions_len: u64,
        max_pages: u64,
        category_inverted: u64,
        category_mask: u64,
        category_anyof_mask: u64,
        return_mask: u64,
    }
    /// `_IOWR('f', 16, struct pm_scan_arg)`
    const PAGEMAP_SCAN: u64 = 3 << 30 | (size_of::<Scan>() as u64) << 16 | 0x66 << 8 | 16;

    let mut scan = Scan { size: size_of::<Scan>() as u64, ..Scan::default() };
    // SAFETY: the structure is whole and says its size; a range of no pages is written nowhere.
    let done = unsafe { libc::ioctl(map.as_raw_fd(), PAGEMAP_SCAN as _, &raw mut scan) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_wasmtime_can_use_we_can_use() {
        let ours = std::fs::File::open("/proc/self/pagemap").and_then(|map| scan_nothing(&map));
        assert_eq!(ours.is_ok(), wasmtime::PoolingAllocationConfig::is_pagemap_scan_available());
    }
}
