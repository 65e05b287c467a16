//! The folders that an app grants: opened once, and not in each exchange, unless others have taken their place. To look, and to open
//! them, may take for ever (a network file system): threads of the app's do both, and the exchange waits for them within its time limit.

use std::path::Path;
use std::sync::{Arc, Mutex};

use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::runtime::spawn_blocking;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::grants::DirGrant;
use crate::process::blocking_threads::{Pool, within};
use crate::sync::lock;

pub(crate) struct Folders {
    dirs: Arc<[DirGrant]>,
    open: Mutex<Option<Arc<Open>>>,
}

struct Open {
    folders: WasiFilesystemCtx,
    /// Which ones they were, where that can be told.
    identities: Vec<Option<(u64, u64)>>,
}

/// They could not be had.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotOpened(pub Error);

impl Folders {
    pub(crate) fn new(dirs: &[DirGrant]) -> Self {
        Self { dirs: dirs.into(), open: Mutex::default() }
    }

    /// The folders for another exchange: opened anew if others are where they were.
    pub(crate) async fn get(&self, threads: Option<Pool>) -> Result<WasiFilesystemCtx, NotOpened> {
        let no_threads = || NotOpened(Error::Host("no thread could be had to open the granted directories".into()));
        let threads = threads.ok_or_else(no_threads)?;
        let (dirs, known) = (self.dirs.clone(), lock(&self.open).clone());
        let look = move || Open::look(&dirs, known);
        let found = within(&threads, async { spawn_blocking(look).await }).await?;
        let folders = found.folders.clone();
        *lock(&self.open) = Some(found);
        Ok(folders)
    }
}

impl Open {
    fn look(dirs: &[DirGrant], known: Option<Arc<Self>>) -> Result<Arc<Self>, NotOpened> {
        let identities: Vec<_> = dirs.iter().map(|dir| identity(&dir.host)).collect();
        if let Some(known) = known
            && known.identities == identities
            && identities.iter().all(Option::is_some)
        {
            return Ok(known);
        }
        let mut wasi = WasiCtxBuilder::new();
        for dir in dirs {
            let perms = if dir.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&dir.host, &dir.guest, perms).map_err(|error| {
                let host = dir.host.display();
                let text = format!("cannot open the granted directory `{host}`: {}", chain(&error));
                NotOpened(Error::Host(Reason::new(text, error)))
            })?;
        }
        Ok(Arc::new(Self { folders: wasi.build().filesystem().clone(), identities }))
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(not(unix))]
fn identity(_: &Path) -> Option<(u64, u64)> {
    None
}
