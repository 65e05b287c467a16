//! What belongs to the process, and what a fork does to it: threads, signals, memory, files that are this user's.

pub(crate) mod afterwards;
pub(crate) mod blocking_threads;
pub(crate) mod compile_threads;
pub mod fork;
pub(crate) mod merging;
pub mod own_stack;
pub(crate) mod pagemap;
pub(crate) mod private_files;
pub mod runtime;
mod seen_once;
pub(crate) mod signals;
pub(crate) mod swap;
pub(crate) mod system_limits;
pub(crate) mod undisturbed;
