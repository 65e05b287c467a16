//! Work that a fork waits for, because a library does it under a lock of the process's: in a child nobody would ever open it.
//!
//! wasmtime has such locks around its list of all machine code and around its handlers of signals. They are held for microseconds, so a
//! fork is hardly ever late.

use std::any::Any;
use std::cell::Cell;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::sync::lock;

/// How many threads are at such work.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// A thread forks: nobody else begins.
static FORKING: AtomicBool = AtomicBool::new(false);

/// How often whoever waits looks again.
const LOOK: Duration = Duration::from_micros(100);

thread_local! {
    /// This thread is at such work, or forks: what it begins meanwhile waits for nobody.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Does what no fork may come into.
pub(crate) fn undisturbed<T>(work: impl FnOnce() -> T) -> T {
    let _busy = Busy::begin();
    work()
}

struct Busy {
    is_counted: bool,
}

impl Busy {
    fn begin() -> Self {
        loop {
            if let Some(busy) = Self::try_begin() {
                return busy;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// None while another thread forks.
    fn try_begin() -> Option<Self> {
        let depth = DEPTH.get();
        let is_counted = depth == 0;
        if is_counted {
            BUSY.fetch_add(1, Ordering::SeqCst);
            if FORKING.load(Ordering::SeqCst) {
                BUSY.fetch_sub(1, Ordering::SeqCst);
                return None;
            }
        }
        DEPTH.set(depth + 1);
        Some(Self { is_counted })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get().saturating_sub(1));
        if self.is_counted {
            BUSY.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Before a fork: waits until nobody is at such work. One thread at a time.
pub(crate) fn before_fork() {
    FORKING.store(true, Ordering::SeqCst);
    while BUSY.load(Ordering::SeqCst) > 0 {
        std::thread::sleep(LOOK);
    }
    DEPTH.set(DEPTH.get() + 1);
}

/// After it, in the parent.
pub(crate) fn after_fork_in_parent() {
    DEPTH.set(DEPTH.get().saturating_sub(1));
    FORKING.store(false, Ordering::SeqCst);
    drop_left();
}

/// After it, in the child.
pub(crate) fn after_fork() {
    // a thread that does not exist here may have been about to see that it cannot begin
    BUSY.store(0, Ordering::SeqCst);
    after_fork_in_parent();
}

/// In a child, a thread that does not exist there may have the lock: then these are leaked.
fn drop_left() {
    let left = LEFT.try_lock().map(|mut left| std::mem::take(&mut *left));
    drop(left);
}

/// What could not be dropped because a thread forked: whoever drops may have the GIL, which the thread that forks waits for.
static LEFT: Mutex<Vec<Box<dyn Any + Send>>> = Mutex::new(Vec::new());

/// A value that no fork comes into when it is dropped.
pub(crate) struct DropUndisturbed<T: Send + 'static>(ManuallyDrop<T>);

impl<T: Send + 'static> DropUndisturbed<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T: Send + 'static> Deref for DropUndisturbed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Send + 'static> Drop for DropUndisturbed<T> {
    fn drop(&mut self) {
        // SAFETY: it is taken here and nowhere else, and nobody can use it afterwards.
        let value = unsafe { ManuallyDrop::take(&mut self.0) };
        match Busy::try_begin() {
            Some(_busy) => drop(value),
            None => {
                lock(&LEFT).push(Box::new(value));
                if let Some(_busy) = Busy::try_begin() {
                    drop_left(); // the fork was over before it was there
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    struct Tells(mpsc::Sender<&'static str>);

    impl Drop for Tells {
        fn drop(&mut self) {
            self.0.send("is dropped").unwrap();
        }
    }

    #[test]
    fn a_fork_waits_for_work_and_new_work_for_the_fork() {
        let (go_on, wait) = mpsc::channel::<()>();
        let (begun, is_begun) = mpsc::channel();
        let working = thread::spawn(move || {
            undisturbed(|| {
                begun.send(()).unwrap();
                wait.recv().unwrap();
                undisturbed(|| ()); // for itself it does not wait
            });
        });
        is_begun.recv().unwrap();
        let (tell, told) = mpsc::channel();
        let (after, before) = (tell.clone(), tell);
        let forking = thread::spawn(move || {
            before_fork();
            before.send("forks").unwrap();
            undisturbed(|| ()); // hooks of others in the thread that forks
            let newcomer = thread::spawn(move || undisturbed(|| after.send("works").unwrap()));
            let value = DropUndisturbed::new(Tells(before.clone()));
            thread::spawn(move || drop(value)).join().unwrap(); // it waits for nobody
            assert!(!newcomer.is_finished());
            before.send("has forked").unwrap();
            after_fork_in_parent();
            newcomer.join().unwrap();
        });
        assert_eq!(told.recv_timeout(Duration::from_millis(20)), Err(mpsc::RecvTimeoutError::Timeout));
        go_on.send(()).unwrap();
        working.join().unwrap();
        forking.join().unwrap();
        let told: Vec<_> = told.try_iter().collect();
        let (begin, mut end) = (told.iter().take(2), told.iter().skip(2).collect::<Vec<_>>());
        end.sort_unstable(); // both come after the fork, in any order
        assert_eq!(begin.chain(end).copied().collect::<Vec<_>>(), ["forks", "has forked", "is dropped", "works"]);
    }
}
