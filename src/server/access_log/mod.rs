//! The access log: a line for each request, in a format that its owner chooses, written by a thread of its own.

pub mod entry;
mod escape;
pub mod format;
mod json;
pub mod log;
mod time;
