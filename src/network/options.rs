//! What a `Network` allows itself.

use std::time::Duration;

/// How many connections there may be, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// To all origins together.
    pub total: usize,
    /// To one origin.
    pub per_origin: usize,
    /// How long a connection is kept that nobody uses.
    pub idle: Duration,
    /// How long a connection is used at all.
    pub lifetime: Option<Duration>,
}

/// How a `Network` connects, and for how long it waits.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name, TCP and TLS together, and the wait for a connection that is free: of all attempts.
    pub connect: Duration,
    /// From the connection to the head of the response: of all attempts.
    pub first_byte: Option<Duration>,
    /// Between two chunks of the response; and for which the peer may leave unread what is written to it.
    pub between_bytes: Option<Duration>,
    /// From the request to the end of the response.
    pub total: Option<Duration>,
    /// Of its connections.
    pub caps: Caps,
    /// Whether TLS offers it.
    pub http2: bool,
    /// Whether it is spoken without TLS.
    pub h2c: bool,
    /// Bytes of a response's head.
    pub head: u32,
    /// Bytes of a response's body.
    pub body: Option<u64>,
    /// After failures that may pass.
    pub retries: u32,
}
