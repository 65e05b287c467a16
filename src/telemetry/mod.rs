//! What is counted and told of guests.

pub mod counters;

/// The target of events about the process as a whole (its set-up, its cache, its components): one for whoever subscribes to
/// [`tracing`] events.
pub const TARGET: &str = "wasgi";
