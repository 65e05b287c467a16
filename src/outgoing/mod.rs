//! Requests that guests send out, and those of the host's own: who answers them, and what bounds them.

pub mod hooks;
pub mod host_request;
pub mod in_runtime;
pub mod read_ahead;
pub mod route;
pub mod timeouts;
pub mod upstream;
