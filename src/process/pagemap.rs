//! Why guests are not reset by PAGEMAP_SCAN, if they are not.

use std::fmt;
use std::io;
use std::ops::Range;

use crate::process::merging::MERGED;
use crate::process::swap::SWAPPED;

/// Whoever reads it can do something about most of them.
#[derive(Debug)]
pub(crate) enum WhyNot {
    /// `WASGI_PAGEMAP_SCAN=0`. wasmtime 48.0.8 asks for present pages, and a page that the kernel moves to another place (compaction, say) is
    /// not present for the microseconds that this takes: like one that was swapped out it would not be reset.
    Unwanted,
    /// See [`crate::process::swap`].
    Swap,
    /// See [`crate::process::merging`].
    Merging,
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
    /// Nothing is wrong: most machines have swap, and whoever wants the others asks for them.
    pub(crate) fn is_usual(&self) -> bool {
        matches!(self, Self::Swap | Self::Merging | Self::Unwanted)
    }

    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::Unwanted => "hint: several worker processes serve more requests than several threads",
            Self::Swap => "hint: keep this service from swapping (`MemorySwapMax=0` with systemd)",
            Self::Merging => "hint: leave this service out of that (`MemoryKSM=no` with systemd)",
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
            Self::Merging => write!(
                out,
                "pages of this process are merged with others of the same content (KSM), and PAGEMAP_SCAN would pass some of them over"
            ),
            Self::Kernel => write!(out, "this kernel has no PAGEMAP_SCAN (Linux 6.7)"),
            Self::Closed(error) => write!(out, "`/proc/self/pagemap` cannot be opened: {error}"),
            Self::Refused(error) => write!(out, "the ioctl PAGEMAP_SCAN is refused: {error}"),
            Self::Late => write!(out, "PAGEMAP_SCAN could not be used when this process first asked for it"),
        }
    }
}

/// An exchange that was to begin at the moment at which it came to pass over pages.
#[derive(Debug, thiserror::Error)]
#[error("swap, or merging of pages, was switched on before the guest began; hint: send the request again")]
pub(crate) struct SwitchedOn;

/// Whether it passes over pages that guests have written, as far as was seen.
pub(crate) fn misses_pages() -> bool {
    crate::process::swap::seen() || crate::process::merging::seen()
}

/// Looks whether it does. The ticker does so each millisecond, and whoever begins an exchange while it sleeps.
pub(crate) fn look() {
    crate::process::swap::look();
    crate::process::merging::look();
}

/// What is to be said of that, once a process.
pub(crate) fn news() -> Option<&'static str> {
    SWAPPED.news().or_else(|| MERGED.news())
}

/// It need not be said.
pub(crate) fn told() {
    SWAPPED.is_told();
    MERGED.is_told();
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
    if crate::process::merging::look() {
        return Some(WhyNot::Merging);
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

/// `struct pm_scan_arg` of `linux/fs.h`.
#[cfg(target_os = "linux")]
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

#[cfg(target_os = "linux")]
impl Scan {
    /// `_IOWR('f', 16, struct pm_scan_arg)`
    const REQUEST: u64 = 3 << 30 | (size_of::<Self>() as u64) << 16 | 0x66 << 8 | 16;

    /// Returns how many regions it has found.
    ///
    /// # Safety
    ///
    /// `regions` must lead to as many `struct page_region` as `regions_len` says.
    unsafe fn run(&mut self, map: &std::fs::File) -> io::Result<usize> {
        use std::os::fd::AsRawFd;

        self.size = size_of::<Self>() as u64;
        // SAFETY: the structure is whole and says its size; the caller vouches for what it leads to.
        let found = unsafe { libc::ioctl(map.as_raw_fd(), Self::REQUEST as _, &raw mut *self) };
        usize::try_from(found).map_err(|_| io::Error::last_os_error())
    }
}

/// Asks for no page at all.
#[cfg(target_os = "linux")]
fn scan_nothing(map: &std::fs::File) -> io::Result<()> {
    // SAFETY: a range of no pages is written nowhere.
    unsafe { Scan::default().run(map) }.map(drop)
}

/// The process's own view of its pages.
pub(crate) struct PageMap(#[cfg(target_os = "linux")] std::fs::File);

impl PageMap {
    /// Of this process: a forked child needs its own.
    #[cfg(target_os = "linux")]
    pub(crate) fn open() -> io::Result<Self> {
        std::fs::File::open("/proc/self/pagemap").map(Self)
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn open() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has `found` have the pages of a range that are the process's alone, wherever they are just now: all that have been written since
    /// they were mapped. The others are what their file has, or zeros.
    #[cfg(target_os = "linux")]
    pub(crate) fn private(&self, range: &Range<usize>, found: &mut Vec<Range<usize>>) -> io::Result<()> {
        /// `struct page_region` of `linux/fs.h`.
        #[repr(C)]
        #[derive(Clone, Copy, Default)]
        struct Region {
            start: u64,
            end: u64,
            categories: u64,
        }
        const FILE: u64 = 1 << 2;
        const PRESENT: u64 = 1 << 3;
        const SWAPPED: u64 = 1 << 4;
        const ZERO: u64 = 1 << 5;

        found.clear();
        let mut regions = [Region::default(); 256];
        let (mut at, end) = (range.start as u64, range.end as u64);
        while at < end {
            let mut scan = Scan {
                start: at,
                end,
                regions: regions.as_mut_ptr() as u64,
                regions_len: regions.len() as u64,
                category_inverted: FILE | ZERO,
                category_mask: FILE | ZERO,
                // one that the kernel moves to another place at this moment is like one that is swapped out
                category_anyof_mask: PRESENT | SWAPPED,
                return_mask: PRESENT,
                ..Scan::default()
            };
            // SAFETY: `regions` lives on, and has as many as it says.
            let number = unsafe { scan.run(&self.0) }?;
            for region in regions.iter().take(number) {
                let region = region.start as usize..region.end as usize;
                match found.last_mut() {
                    Some(last) if last.end == region.start => last.end = region.end,
                    _ => found.push(region),
                }
            }
            if scan.walk_end <= at {
                return Err(io::ErrorKind::InvalidData.into());
            }
            at = scan.walk_end;
        }
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn private(&self, _: &Range<usize>, _: &mut Vec<Range<usize>>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// How many pages the calling thread has had made its own, or brought in, so far. The kernel counts what it writes on a thread's behalf
/// (`read` into a new page), too.
#[cfg(target_os = "linux")]
pub(crate) fn faults() -> i64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: it gets a whole `rusage`, of which zeros are one, too.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr());
        usage.assume_init()
    };
    usage.ru_minflt.wrapping_add(usage.ru_majflt)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn faults() -> i64 {
    0
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
