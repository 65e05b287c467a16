//! Threads that are in our code when the interpreter finalizes stay asleep.
//!
//! Before Python 3.14 the interpreter ends a daemon thread that comes back for the GIL then where it stands, by `pthread_exit`. glibc
//! unwinds its stack for that. Frames of Rust may not be unwound by others: where a method of ours has called code of the user's, the
//! process aborts. Python 3.14 has such threads hang instead, and pyo3 does the same where *it* asks for the GIL; between the two there is
//! all that the user's code waits for. So each thread has glibc call a handler of ours before it unwinds the first frame, and the
//! handler does not come back. musl and macOS end a thread without unwinding it, so there is nothing to do there.

use std::ffi::{CStr, c_int, c_void};

use crate::process::fork::PerProcess;

#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(crate) use glibc::protect;

/// To be called on a thread of Python's before Python code is called under a frame of ours. Costs a look at a thread-local.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub fn protect() {}

/// Whether the interpreter finalizes. Not of the stable interface before 3.13, where its name had an underscore.
pub(crate) fn is_finalizing() -> bool {
    static FOUND: PerProcess<Option<unsafe extern "C" fn() -> c_int>> = PerProcess::new();
    let found = FOUND.get(|| {
        // SAFETY: the names are C strings; a symbol of either name, where there is one, is a function without arguments.
        unsafe {
            let find = |name: &CStr| libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
            let known = find(c"Py_IsFinalizing");
            let known = if known.is_null() { find(c"_Py_IsFinalizing") } else { known };
            std::mem::transmute::<*mut c_void, Option<unsafe extern "C" fn() -> c_int>>(known)
        }
    });
    // SAFETY: it only reads an atomic number.
    found.is_some_and(|is_finalizing| unsafe { is_finalizing() } != 0)
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    use std::cell::Cell;
    use std::ffi::{c_int, c_void};
    use std::mem::MaybeUninit;

    use crate::process::fork::PerProcess;
    use crate::py::executor::exit::is_exiting;

    /// `struct _pthread_cleanup_buffer` of glibc's pthread.h.
    #[repr(C)]
    struct Buffer {
        routine: Option<extern "C" fn(*mut c_void)>,
        argument: *mut c_void,
        cancel_type: c_int,
        previous: *mut Self,
    }

    type Push = unsafe extern "C" fn(*mut Buffer, extern "C" fn(*mut c_void), *mut c_void);

    thread_local! {
        static PROTECTED: Cell<bool> = const { Cell::new(false) };
    }

    /// To be called on a thread of Python's before Python code is called under a frame of ours. Costs a look at a thread-local.
    #[inline]
    pub(crate) fn protect() {
        if !PROTECTED.replace(true) {
            register();
        }
    }

    #[cold]
    fn register() {
        static PUSH: PerProcess<Option<Push>> = PerProcess::new();
        let push = *PUSH.get(|| {
            // looked up, not linked: should a later glibc be without it, exit waits for those threads only, as elsewhere
            // SAFETY: the name is a C string; the symbol, where there is one, is this function of pthread.h.
            unsafe {
                let found = libc::dlsym(libc::RTLD_DEFAULT, c"_pthread_cleanup_push".as_ptr());
                std::mem::transmute::<*mut c_void, Option<Push>>(found)
            }
        });
        let (Some(push), Some(bottom)) = (push, stack_bottom()) else { return };
        // SAFETY: `bottom` is the lowest part of this thread's own stack, which lives as long as the thread and is used by nobody who is
        // not about to overflow it. glibc calls the handler when it leaves a frame above the buffer, which is any frame.
        unsafe { push(bottom, stay_asleep, std::ptr::null_mut()) }
    }

    /// Called by `pthread_exit`. Threads that end so for reasons of their own, while the interpreter lives, go on.
    extern "C" fn stay_asleep(_: *mut c_void) {
        while is_exiting() || super::is_finalizing() {
            // SAFETY: waits for a signal, and has no other effect.
            unsafe { libc::pause() };
        }
    }

    /// The main thread has none: its stack grows, and it is the one that finalizes.
    fn stack_bottom() -> Option<*mut Buffer> {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        let (mut lowest, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: the attributes are initialised by the first call on them, used if that succeeded, and destroyed once.
        let failed = unsafe {
            if libc::getpid() == libc::gettid()
                || libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0
            {
                return None;
            }
            let failed = libc::pthread_attr_getstack(attributes.as_ptr(), &raw mut lowest, &raw mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            failed
        };
        (failed == 0 && !lowest.is_null() && size > 16 << 10).then_some(lowest.cast())
    }
}
