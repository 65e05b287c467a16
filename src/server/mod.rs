//! The native HTTP server.

pub mod address;
pub mod bind;
pub mod inherited;
#[cfg(test)]
mod testing;
pub mod unix_socket;
