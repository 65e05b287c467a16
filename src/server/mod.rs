//! The native HTTP server.

pub mod access_log;
pub mod address;
pub mod bind;
pub mod certificates;
pub mod forwarded;
pub mod inherited;
pub mod proxy_protocol;
pub mod static_files;
#[cfg(test)]
mod testing;
pub mod unix_socket;
