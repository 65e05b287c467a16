//! What belongs to the process, and what a fork does to it: threads, signals, memory, files that are this user's.

pub mod blocking_threads;
pub mod compile_threads;
pub mod fork;
pub mod own_stack;
pub mod pagemap;
pub mod private_files;
pub mod runtime;
pub mod signals;
pub mod swap;
pub mod system_limits;
