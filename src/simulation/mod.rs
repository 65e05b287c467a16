//! Virtual time, and clocks and randomness that are the same each time: `wasgi.testing`'s deterministic surroundings.

pub mod environment;
mod time_state;
mod turns;
pub mod virtual_time;
pub mod watched_body;
