//! Files that guests have open: how many, for each exchange and each app, and the app's threads that wait for the disk.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::guest::folders::Folders;
use crate::guest::grants::DirGrant;
use crate::process::blocking_threads::{Pool, Threads};

/// How many file operations of one app's guests may be under way at once; more of them wait.
pub(crate) const THREADS: usize = 8;

/// What one app has of files, in one process.
pub(crate) struct Files {
    threads: Threads,
    pub(crate) open: AtomicU64,
    pub(crate) folders: Folders,
}

impl Files {
    pub(crate) fn new(dirs: &[DirGrant]) -> Arc<Self> {
        Arc::new(Self {
            threads: Threads::new("wasgi-files", THREADS),
            open: AtomicU64::new(0),
            folders: Folders::new(dirs),
        })
    }

    pub(crate) fn threads(&self) -> Option<Pool> {
        self.threads.pool()
    }
}

/// A descriptor of the host's: counted until whoever refers to it last lets go of it, and closed by a thread of its app's, since a
/// network file system may take its time for that, too.
pub(crate) struct Open {
    app: Arc<Files>,
    guest: Arc<AtomicU64>,
    /// Goes last: streams let go of theirs before they let go of this.
    pub file: Option<Arc<File>>,
}

impl Open {
    pub(crate) fn new(app: &Arc<Files>, guest: &Arc<AtomicU64>) -> Self {
        app.open.fetch_add(1, Ordering::Relaxed);
        guest.fetch_add(1, Ordering::Relaxed);
        Self { app: app.clone(), guest: guest.clone(), file: None }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.app.open.fetch_sub(1, Ordering::Relaxed);
        self.guest.fetch_sub(1, Ordering::Relaxed);
        if let Some(file) = self.file.take() {
            self.app.threads.do_later(move || drop(file));
        }
    }
}

/// What one store has of files.
pub(crate) struct GuestFiles {
    /// None where no folder is granted, and nothing can be opened; else the app's, and how many this guest has open.
    pub app: Option<(Arc<Files>, Arc<AtomicU64>)>,
    /// By the number of the descriptor's handle.
    pub held: HashMap<u32, Arc<Open>>,
    /// How many streams of files there are.
    pub streams: Arc<AtomicU64>,
    /// Whether it was said in this exchange that a limit was met.
    pub told: bool,
}

/// What a stream of a file may hold of it, between the disk and the guest.
pub(crate) const BUFFER: u64 = 64 << 10;

/// A stream of a file: counted until it is dropped.
pub(crate) struct Streaming(pub Arc<AtomicU64>);

impl Drop for Streaming {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl GuestFiles {
    pub(crate) fn new(app: Option<Arc<Files>>) -> Self {
        Self { app: app.map(|app| (app, Arc::default())), held: HashMap::new(), streams: Arc::default(), told: false }
    }

    pub(crate) fn reset(&mut self) {
        self.told = false;
    }

    /// Whether there are streams.
    pub(crate) fn has_streams(&self) -> bool {
        self.held() > 0
    }

    /// The bytes that its streams may hold.
    pub(crate) fn held(&self) -> u64 {
        self.streams.load(Ordering::Relaxed) * BUFFER
    }

    pub(crate) fn app(&self) -> Option<&Arc<Files>> {
        self.app.as_ref().map(|(app, _)| app)
    }
}
