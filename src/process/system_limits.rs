//! What the system refuses to this process, asked before a library takes it for granted.

use crate::error::Error;

/// Faults of guests are handled on stacks of their own; wasmtime panics on the first thread that gets none.
#[cfg(unix)]
pub(crate) fn check_signal_stacks() -> Result<(), Error> {
    let mut stack = std::mem::MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: asks only; what the kernel may fill is not read.
    if unsafe { libc::sigaltstack(std::ptr::null(), stack.as_mut_ptr()) } == 0 {
        return Ok(());
    }
    Err(Error::Host(format!(
        "stacks for signal handlers are refused, and no guest can run without: {}; hint: let the sandbox (a seccomp profile, say) \
         allow `sigaltstack`",
        std::io::Error::last_os_error()
    ).into()))
}

#[cfg(not(unix))]
pub(crate) fn check_signal_stacks() -> Result<(), Error> {
    Ok(())
}

/// Whether what is mapped from now on is kept from being swapped (`mlockall(MCL_FUTURE)`): made resident at once, all of it, and not
/// given back by `MADV_DONTNEED`. The kernel tells by refusing just that.
#[cfg(target_os = "linux")]
pub(crate) fn locks_all_memory() -> bool {
    const LENGTH: usize = 4096;
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a mapping of our own, which nobody else knows, and which is given back.
    unsafe {
        let page = libc::mmap(std::ptr::null_mut(), LENGTH, access, flags, -1, 0);
        if page == libc::MAP_FAILED {
            return false;
        }
        let locked = libc::madvise(page, LENGTH, libc::MADV_DONTNEED) != 0;
        libc::munmap(page, LENGTH);
        locked
    }
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn locks_all_memory() -> bool {
    false
}

/// Components whose memories begin with more than this fail where files may be as large as this only, and say so.
#[cfg(target_os = "linux")]
const LARGE: u64 = 256 << 20;

/// Why there are no files in memory, or only small ones, if that is so: wasmtime keeps in them what guests' memories begin with.
#[cfg(target_os = "linux")]
pub(crate) fn memory_files() -> Option<String> {
    if let Err(error) = rustix::fs::memfd_create(c"wasgi-try", rustix::fs::MemfdFlags::CLOEXEC) {
        return Some(format!("files in memory are refused (`memfd_create`: {})", std::io::Error::from(error)));
    }
    let most = rustix::process::getrlimit(rustix::process::Resource::Fsize).current.filter(|most| *most < LARGE)?;
    Some(format!("files in memory may have {most} bytes only (`ulimit -f`)"))
}

/// Elsewhere none are used.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory_files() -> Option<String> {
    None
}
