//! What all guests of one app have together.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use crate::guest::grants::DirGrant;
use crate::guest::open_files::Files;

pub(crate) struct AppShare {
    pub files: Arc<Files>,
    /// Bytes that they hold.
    pub memory: Arc<AtomicI64>,
}

impl AppShare {
    pub(crate) fn new(dirs: &[DirGrant]) -> Self {
        Self { files: Files::new(dirs), memory: Arc::default() }
    }
}
