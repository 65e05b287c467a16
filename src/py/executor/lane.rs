//! `Lane`: the event loop, or the threads, that run a job.

use std::sync::Arc;

use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::job::Job;
use crate::py::executor::threads::threads;

#[derive(Clone)]
pub enum Lane {
    Loop(Arc<LoopCore>),
    Threads,
}

impl Lane {
    pub fn submit(&self, job: Arc<dyn Job>) {
        match self {
            Self::Loop(core) => core.submit(job),
            Self::Threads => threads().submit(job),
        }
    }
}
