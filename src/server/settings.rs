//! What a server may be told.

use std::time::Duration;

/// How long a connection may let others wait. None: no limit.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From accept to the end of the first head, through PROXY, TLS and detection; and for each later head from its first byte.
    pub header: Option<Duration>,
    /// Between two bytes of a body, read or written.
    pub body: Option<Duration>,
    /// Of a connection on which nothing is under way.
    pub idle: Option<Duration>,
}

/// How much a client may have.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Connections at once, of all clients.
    pub connections: usize,
    /// Streams of one connection of HTTP/2 at once.
    pub streams: u32,
    /// The head of a request, in bytes.
    pub header_bytes: usize,
}
