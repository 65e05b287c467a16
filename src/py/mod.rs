//! The only folder that knows Python.
//!
//! Rules of the house: tokio's workers never call Python, they leave a job with a [`bridge`]; Python code never runs
//! on a guest's stack; nothing holds the GIL while it waits.

pub mod app;
pub mod awaitable;
pub mod body;
pub mod bridge;
pub mod component;
pub mod errors;
pub mod feed;
pub mod headers;
pub mod limits;
pub mod loops;
pub mod message;
pub mod reading;
pub mod stats;
pub mod stdio;
pub mod threads;
pub mod upstream;
pub mod wit;

pub(crate) use crate::sync::lock;
