//! Signal handlers: a guest's trap is a signal, and must reach wasmtime whoever else has installed handlers since.
//!
//! wasmtime installs its handlers once, when the first engine is made. Whoever installs others later (`faulthandler.enable()`,
//! another runtime) gets a guest's trap first, finds no fault of its own kind in it and ends the process: an untrusted guest
//! could kill its host. So three handlers stand in a row for each signal:
//!
//! - **on top** one of ours, put back before each turn of a guest if somebody has covered it. It asks wasmtime's.
//! - **wasmtime's**, which knows by the program counter whether a guest of this very wasmtime has trapped; if not, it asks
//!   whoever was there before it:
//! - **at the bottom** another one of ours, installed just before the first engine. It asks the handlers that have covered
//!   ours, the latest first, then the one that was there before all of this.
//!
//! So a real fault still reaches faulthandler, and another wasmtime in the process its own guests. What is left: a handler that
//! is installed by another thread while a guest has its turn, a millisecond at the most, is put below only after that turn.
//!
//! A thread that has such a signal blocked never gets to a handler: the kernel ends the process. Threads inherit what is blocked
//! (uWSGI blocks everything in all its threads but the first), so they are opened for each turn, and once for all in our own.

#[cfg(all(unix, not(target_vendor = "apple")))]
pub(crate) use unix::{around_engine, open_here, reclaim};

/// Elsewhere no signals are used: on macOS wasmtime hears of traps by Mach ports, which come first.
#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub(crate) fn around_engine<T>(make: impl FnOnce() -> T) -> T {
    make()
}

#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub(crate) fn reclaim() -> Open {
    Open
}

#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub(crate) struct Open;

#[cfg(not(all(unix, not(target_vendor = "apple"))))]
pub(crate) fn open_here() {}

#[cfg(all(unix, not(target_vendor = "apple")))]
mod unix {
    use std::cell::{Cell, UnsafeCell};
    use std::mem::MaybeUninit;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use libc::{SA_NODEFER, SA_ONSTACK, SA_SIGINFO, SIG_DFL, SIG_IGN, c_int, c_void, siginfo_t};

    use crate::process::fork::ForkLock;

    type Action = libc::sigaction;
    type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    type PlainHandler = extern "C" fn(c_int);

    /// Handlers of others that are remembered, for each signal.
    const MOST_FOREIGN: usize = 8;

    /// An action that is written before the counter or flag that publishes it, and read only after.
    struct Slot(UnsafeCell<MaybeUninit<Action>>);

    // SAFETY: written under `CHANGING` and before it is published, read only after that.
    unsafe impl Sync for Slot {}

    impl Slot {
        const fn empty() -> Self {
            Self(UnsafeCell::new(MaybeUninit::uninit()))
        }

        fn set(&self, action: Action) {
            // SAFETY: callers hold `CHANGING` and have not published the slot yet.
            unsafe { (*self.0.get()).write(action) };
        }

        /// Only for a slot that is published.
        fn get(&self) -> Action {
            // SAFETY: see above; a published slot is never written again.
            unsafe { (*self.0.get()).assume_init() }
        }
    }

    /// The handlers of one signal, from the top: ours, wasmtime's, ours, the foreign ones, the first one.
    struct Chain {
        signal: c_int,
        /// Whether wasmtime takes this signal, and our handlers are there.
        ours: AtomicBool,
        wasmtime: Slot,
        foreign: [Slot; MOST_FOREIGN],
        known: AtomicUsize,
        /// Which foreign one is asked first: one more than its place.
        latest: AtomicUsize,
        first: Slot,
    }

    impl Chain {
        const fn new(signal: c_int) -> Self {
            Self {
                signal,
                ours: AtomicBool::new(false),
                wasmtime: Slot::empty(),
                foreign: [const { Slot::empty() }; MOST_FOREIGN],
                known: AtomicUsize::new(0),
                latest: AtomicUsize::new(0),
                first: Slot::empty(),
            }
        }
    }

    static CHAINS: [Chain; 4] =
        [Chain::new(libc::SIGSEGV), Chain::new(libc::SIGILL), Chain::new(libc::SIGFPE), Chain::new(libc::SIGBUS)];
    static CHANGING: ForkLock = ForkLock::new();
    /// wasmtime has installed its handlers, and will not again.
    static INSTALLED: AtomicBool = AtomicBool::new(false);

    thread_local! {
        /// A thread of ours, whose signals nobody else blocks.
        static OWN: Cell<bool> = const { Cell::new(false) };
        /// How many handlers of others are being asked on this thread about one fault: one that asks back whoever was there
        /// before it must not be asked again.
        static ASKED: Cell<usize> = const { Cell::new(0) };
        /// The fault that handlers of others have seen last and done nothing about, and how often one after the other.
        static UNHANDLED: Cell<(Fault, usize)> = const { Cell::new((Fault { pc: 0, address: 0 }, 0)) };
    }

    /// After so many times that the same fault comes back the handler that should have done something is passed over: it was
    /// switched off, as faulthandler's is by `faulthandler.disable()`, which puts back what it found and not what it is.
    const PATIENCE: usize = 3;

    #[derive(Clone, Copy, PartialEq, Eq)]
    struct Fault {
        pc: usize,
        address: usize,
    }

    impl Fault {
        fn read(info: *mut siginfo_t, context: *mut c_void) -> Self {
            // SAFETY: both are null or what the kernel gave the handler.
            unsafe {
                let address = info.as_ref().map_or(0, |info| info.si_addr() as usize);
                Self { pc: program_counter(context), address }
            }
        }
    }

    /// # Safety
    /// `context` is null or what the kernel gave a signal handler.
    unsafe fn program_counter(context: *mut c_void) -> usize {
        // SAFETY: the caller's promise.
        let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_ref() }) else { return 0 };
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        return context.uc_mcontext.gregs.get(libc::REG_RIP as usize).map_or(0, |pc| *pc as usize);
        #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
        return context.uc_mcontext.pc as usize;
        #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
        return std::ptr::from_ref(context) as usize;
    }

    fn was_sent(info: *mut siginfo_t) -> bool {
        // SAFETY: it is null or what the kernel gave the handler.
        unsafe { info.as_ref().is_some_and(|info| info.si_code <= 0) }
    }

    fn current(signal: c_int) -> Option<Action> {
        let mut action = MaybeUninit::<Action>::uninit();
        // SAFETY: asks only; the kernel fills the structure where it succeeds.
        unsafe { (libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0).then(|| action.assume_init()) }
    }

    fn install(signal: c_int, action: &Action) {
        // SAFETY: the action is whole: one of ours below, or one that `current` gave.
        unsafe { libc::sigaction(signal, action, std::ptr::null_mut()) };
    }

    fn action_of(handler: Handler) -> Action {
        // SAFETY: a structure of integers, for which zeros are valid: no flags, an empty mask.
        let mut action: Action = unsafe { std::mem::zeroed() };
        action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK; // as wasmtime's own
        action.sa_sigaction = handler as *const () as usize;
        action
    }

    fn is(action: &Action, handler: Handler) -> bool {
        action.sa_sigaction == handler as *const () as usize
    }

    /// Makes an engine, the first of which installs wasmtime's handlers, with ours below and above them.
    pub(crate) fn around_engine<T>(make: impl FnOnce() -> T) -> T {
        if INSTALLED.load(Ordering::Acquire) {
            return make();
        }
        let changing = CHANGING.lock();
        if INSTALLED.load(Ordering::Acquire) {
            drop(changing);
            return make();
        }
        for chain in &CHAINS {
            if let Some(first) = current(chain.signal) {
                chain.first.set(first);
                install(chain.signal, &action_of(bottom));
            }
        }
        let made = make();
        for chain in &CHAINS {
            match current(chain.signal) {
                Some(now) if is(&now, bottom) => install(chain.signal, &chain.first.get()),
                Some(now) => {
                    chain.wasmtime.set(now);
                    chain.ours.store(true, Ordering::Release);
                    install(chain.signal, &action_of(top));
                    INSTALLED.store(true, Ordering::Release);
                }
                None => {}
            }
        }
        made
    }

    /// To be called before each turn of a guest: puts our handlers back on top, and opens the calling thread for them until what
    /// this gives is dropped.
    pub(crate) fn reclaim() -> Open {
        for chain in CHAINS.iter().filter(|chain| chain.ours.load(Ordering::Acquire)) {
            if current(chain.signal).is_some_and(|now| !is(&now, top)) {
                cover(chain);
            }
        }
        if OWN.get() { Open(None) } else { Open::here() }
    }

    /// To be called where each thread of ours begins: what it has inherited from whichever thread came to start it is put right.
    /// Signals other than those of faults stay blocked where they were, and priority, policy and CPUs are the main thread's.
    pub(crate) fn open_here() {
        std::mem::forget(Open::here()); // it stays open
        OWN.set(true);
        #[cfg(target_os = "linux")]
        as_main_thread();
    }

    /// A caller's thread with the signals of faults open; dropped, it blocks them again if they were blocked.
    #[must_use = "the thread is open while this lives"]
    pub(crate) struct Open(Option<libc::sigset_t>);

    impl Open {
        fn here() -> Self {
            let mut faults = MaybeUninit::<libc::sigset_t>::uninit();
            let mut before = MaybeUninit::<libc::sigset_t>::uninit();
            // SAFETY: a set is filled before it is used; the kernel fills the other one where it succeeds.
            unsafe {
                libc::sigemptyset(faults.as_mut_ptr());
                for chain in &CHAINS {
                    libc::sigaddset(faults.as_mut_ptr(), chain.signal);
                }
                if libc::pthread_sigmask(libc::SIG_UNBLOCK, faults.as_ptr(), before.as_mut_ptr()) != 0 {
                    return Self(None);
                }
                let before = before.assume_init();
                let blocked = CHAINS.iter().any(|chain| libc::sigismember(&raw const before, chain.signal) == 1);
                Self(blocked.then_some(before))
            }
        }
    }

    impl Drop for Open {
        fn drop(&mut self) {
            if let Some(before) = &self.0 {
                // SAFETY: the set came from the kernel.
                unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
            }
        }
    }

    /// A thread that is started by one with a real-time policy, or on a CPU of its own, inherits that. Refusals change nothing.
    #[cfg(target_os = "linux")]
    fn as_main_thread() {
        // SAFETY: the structures are whole, or filled by the kernel before they are read. The process's number is its main thread's;
        // 0 is the calling thread.
        unsafe {
            let main = libc::getpid();
            let policy = libc::sched_getscheduler(main);
            if policy >= 0 && policy != libc::sched_getscheduler(0) {
                let mut parameters: libc::sched_param = std::mem::zeroed();
                if libc::sched_getparam(main, &raw mut parameters) == 0 {
                    libc::sched_setscheduler(0, policy, &raw const parameters);
                }
            }
            let nice = libc::getpriority(libc::PRIO_PROCESS, main as libc::id_t);
            if nice != libc::getpriority(libc::PRIO_PROCESS, 0) {
                libc::setpriority(libc::PRIO_PROCESS, 0, nice);
            }
            let (mut its, mut own): (libc::cpu_set_t, libc::cpu_set_t) = (std::mem::zeroed(), std::mem::zeroed());
            let size = size_of::<libc::cpu_set_t>();
            if libc::sched_getaffinity(main, size, &raw mut its) == 0
                && libc::sched_getaffinity(0, size, &raw mut own) == 0
                && !libc::CPU_EQUAL(&its, &own)
            {
                libc::sched_setaffinity(0, size, &raw const its);
            }
        }
    }

    #[cold]
    fn cover(chain: &Chain) {
        let _changing = CHANGING.lock();
        let Some(now) = current(chain.signal).filter(|now| !is(now, top)) else { return };
        let known = chain.known.load(Ordering::Acquire);
        let place =
            chain.foreign.iter().take(known).position(|slot| slot.get().sa_sigaction == now.sa_sigaction).or_else(
                || {
                    chain.foreign.get(known)?.set(now);
                    chain.known.store(known + 1, Ordering::Release);
                    Some(known)
                },
            );
        // one more than are remembered is forgotten: the fault that it waits for goes to the one before
        if let Some(place) = place {
            chain.latest.store(place + 1, Ordering::Release);
        }
        install(chain.signal, &action_of(top));
    }

    fn chain_of(signal: c_int) -> Option<&'static Chain> {
        CHAINS.iter().find(|chain| chain.signal == signal)
    }

    extern "C" fn top(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        if let Some(chain) = chain_of(signal) {
            ask(&chain.wasmtime.get(), signal, info, context);
        }
    }

    extern "C" fn bottom(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        let Some(chain) = chain_of(signal) else {
            return default(signal, info);
        };
        let fault = Fault::read(info, context);
        let sent = was_sent(info);
        let (last, times) = UNHANDLED.get();
        let times = if !sent && last == fault { times } else { 0 };
        let depth = ASKED.get();
        ASKED.set(depth + 1);
        let asked = depth + times.saturating_sub(PATIENCE - 1);
        let latest = chain.latest.load(Ordering::Acquire);
        match latest.checked_sub(asked + 1).and_then(|place| chain.foreign.get(place)) {
            Some(foreign) => ask(&foreign.get(), signal, info, context),
            None if asked <= latest => ask(&chain.first.get(), signal, info, context),
            None => default(signal, info),
        }
        ASKED.set(depth);
        let handled = sent || Fault::read(info, context).pc != fault.pc;
        UNHANDLED.set((fault, if handled { 0 } else { times + 1 }));
    }

    fn ask(action: &Action, signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        match action.sa_sigaction {
            SIG_DFL | SIG_IGN => default(signal, info),
            handler if action.sa_flags & SA_SIGINFO != 0 => {
                // SAFETY: a handler that was installed with SA_SIGINFO takes these three.
                let handler = unsafe { std::mem::transmute::<usize, Handler>(handler) };
                handler(signal, info, context);
            }
            handler => {
                // SAFETY: a handler that was installed without SA_SIGINFO takes the signal's number.
                let handler = unsafe { std::mem::transmute::<usize, PlainHandler>(handler) };
                handler(signal);
            }
        }
    }

    /// What the system does by itself: the instruction that failed is tried again, and ends the process; a signal that
    /// somebody sent has to be sent again.
    fn default(signal: c_int, info: *mut siginfo_t) {
        // SAFETY: zeros are valid, and mean the default action; `info` is null or what the kernel gave the handler.
        unsafe {
            let mut action: Action = std::mem::zeroed();
            action.sa_sigaction = SIG_DFL;
            install(signal, &action);
            if was_sent(info) {
                libc::raise(signal);
            }
        }
    }
}
