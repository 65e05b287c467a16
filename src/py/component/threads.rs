//! The threads that load components.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Mutex;

use crate::error::Error;
use crate::process::fork::{PerProcess, no_thread};
use crate::process::own_stack;
use crate::py::lock;

/// How many `load_async` are worked at at once; others wait for their turn.
const MOST_AT_ONCE: usize = 8;

/// On a thread whose stack is large enough for what is nested as deep as it may be.
pub(crate) fn spawn(job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let job = || {
        crate::process::signals::open_here();
        job();
    };
    std::thread::Builder::new().name("wasgi-compile".into()).stack_size(own_stack::SIZE).spawn(job).map(drop)
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads of `load_async`: as many as there is work for, and no more than a few.
#[derive(Default)]
pub(crate) struct Loads(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    threads: usize,
    waiting: VecDeque<Job>,
}

static LOADS: PerProcess<Loads> = PerProcess::new();

pub(crate) fn loads() -> &'static Loads {
    LOADS.get(Loads::default)
}

/// In a forked child.
pub(crate) fn forget() {
    LOADS.forget();
}

impl Loads {
    pub(crate) fn submit(&'static self, job: Job) -> Result<(), Error> {
        let mut queue = lock(&self.0);
        queue.waiting.push_back(job);
        if queue.threads >= MOST_AT_ONCE {
            return Ok(());
        }
        queue.threads += 1;
        if let Err(error) = spawn(|| self.work()) {
            queue.threads -= 1;
            if queue.threads == 0 {
                queue.waiting.clear();
                return Err(no_thread("compiling a component", error));
            }
        }
        Ok(())
    }

    fn work(&self) {
        loop {
            let job = {
                let mut queue = lock(&self.0);
                let Some(job) = queue.waiting.pop_front() else {
                    queue.threads -= 1;
                    return;
                };
                job
            };
            // whoever waits for it learns of it by the channel
            let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
        }
    }
}
