//! What the connections of a server share, and what the requests of one connection share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::server::accounts::Accounts;
use crate::server::forwarded::Trusted;
use crate::server::progress::Progress;
use crate::server::request_id::Ids;
use crate::server::routes::Routes;
use crate::server::settings::{Caps, Timeouts};
use crate::server::watch::Watch;

/// What all connections of a server share.
pub(super) struct Common {
    /// The table that new requests go by.
    pub routes: std::sync::Mutex<Arc<Routes>>,
    pub timeouts: Timeouts,
    pub caps: Caps,
    pub trusted: Trusted,
    pub accounts: Accounts,
    /// Makes the ids of requests that have none.
    pub ids: Option<Ids>,
    /// Whether the system has no descriptors left for connections.
    pub is_crowded: AtomicBool,
    /// When it drains, every answer says that its connection ends.
    pub progress: Progress,
}

/// What the requests of one connection share.
pub(super) struct Connection {
    pub common: Arc<Common>,
    pub watch: Arc<Watch>,
    /// Of the client, or of the proxy before it. None: a Unix socket.
    pub peer: Option<SocketAddr>,
    /// Of this end.
    pub local: Option<SocketAddr>,
    pub is_tls: bool,
}
