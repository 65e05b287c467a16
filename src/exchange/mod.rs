//! What both sides of one exchange share: who may end it, whose time it takes, its bodies and its lines.

pub mod body_check;
pub mod body_pipe;
pub mod cut_body;
pub mod guest_body;
pub mod guest_clock;
pub mod guest_stream;
pub mod guest_turn;
pub mod guest_written;
pub mod handle;
pub mod phase;
pub mod refusals;
pub mod request_body;
pub mod response_body;
pub mod shared_body;
pub mod stdio;
#[cfg(test)]
mod testing;
pub mod unread;
