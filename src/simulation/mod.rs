//! Virtual time, and clocks and randomness that are the same each time: `wasgi.testing`'s deterministic surroundings.

pub mod environment;
pub mod virtual_time;
