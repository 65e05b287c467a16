//! What both sides of one exchange share: who may end it, whose time it takes, its bodies and its lines.

pub mod body_checks;
pub mod guest_body;
pub mod guest_clock;
pub mod handle;
pub mod refusals;
pub mod stdio;
