//! How Python code gets run: on which event loop or thread, and how a thread waits for the core.

pub mod awaitable;
pub mod blocking;
pub mod event_loop;
pub mod finalization;
pub mod job;
pub mod serial;
pub mod threads;
