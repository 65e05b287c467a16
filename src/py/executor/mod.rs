//! The executor: event loops and threads that run Python code, and how a thread of Python's waits for the core.

pub mod awaitable;
pub mod blocking;
pub mod context;
pub mod event_loop;
pub mod exit;
pub mod finalization;
pub mod job;
pub mod lane;
pub mod operation;
pub mod running_loop;
pub mod serial;
pub mod threads;
