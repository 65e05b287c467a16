//! The executor: event loops and threads that run Python code, and how a thread of Python's waits for the core.

pub(crate) mod awaitable;
pub(crate) mod blocking;
pub(crate) mod context;
pub(crate) mod event_loop;
pub(crate) mod exit;
pub(crate) mod finalization;
pub(crate) mod job;
pub(crate) mod lane;
pub(crate) mod loop_bridge;
pub(crate) mod operation;
pub(crate) mod running_loop;
pub(crate) mod serial;
pub(crate) mod threads;
