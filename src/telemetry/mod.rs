//! What is counted and told of guests.

pub mod counters;
