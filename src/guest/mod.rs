//! A store and the guest's instance in it: what the host links, grants, counts and takes back.

pub mod app_share;
pub mod body_functions_p3;
pub mod body_streams_p3;
pub mod exchange_context;
pub mod file_functions;
pub mod file_functions_p3;
#[cfg(unix)]
pub mod file_listing;
#[cfg(unix)]
pub mod file_listing_p3;
pub mod file_streams;
pub mod file_streams_p3;
pub mod files;
pub mod folders;
pub mod grants;
pub mod host_memory;
pub mod http_functions;
pub mod instance;
pub mod instance_pool;
pub mod interfaces;
pub mod limiter;
pub mod linker;
pub mod open_files;
pub mod p2;
pub mod p3;
pub mod prepared;
pub mod request_checks;
pub mod seat;
pub mod shared;
pub mod store;
pub mod timers;
