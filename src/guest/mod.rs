//! A store and the guest's instance in it: what the host links, grants, counts and takes back.

#[cfg(unix)]
pub mod file_listing;
pub mod file_streams;
pub mod files;
pub mod folders;
pub mod host_memory;
pub mod instance;
pub mod instance_pool;
pub mod limiter;
pub mod prepared;
pub mod linker;
pub mod timers;
pub mod request_checks;
pub mod store;
