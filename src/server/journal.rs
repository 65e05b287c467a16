//! Whom a server tells what it says of itself.

use std::sync::Arc;

use tracing::Level;

/// Takes lines. Called on the server's threads: it must not block.
pub type Journal = Arc<dyn Fn(Level, String) + Send + Sync>;
