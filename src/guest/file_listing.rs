//! A folder that a guest lists: read piece by piece as the guest asks for it. wasmtime-wasi 48 reads the whole folder first, and keeps it
//! for as long as the guest keeps the stream.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, openat, statat};
use rustix::io::Errno;
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};
use wasmtime_wasi::runtime::spawn_blocking;

use crate::guest::open_files::Open;
use crate::process::blocking_threads::{Pool, within};

/// How many entries are read at once: names have 255 bytes at the most, so these are 64 KiB.
const AT_ONCE: usize = 256;

/// Its kind and its name, or why it cannot be had.
pub(crate) type Entry = io::Result<(FileType, String)>;

/// What is left of a folder.
pub(crate) struct Unread {
    rest: Rest,
    threads: Pool,
}

struct Rest {
    folder: Arc<File>,
    entries: Dir,
    _open: Open,
}

impl Unread {
    pub(crate) async fn begin(folder: Arc<File>, threads: Pool, open: Open) -> io::Result<Self> {
        let opened = within(&threads, async {
            // an own position in it, and the guest's descriptor may be one that reads nothing (`O_PATH`)
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let begin = move || {
                let entries = Dir::new(openat(&*folder, ".", flags, Mode::empty())?)?;
                Ok(Rest { folder, entries, _open: open })
            };
            spawn_blocking(begin).await
        });
        let rest: rustix::io::Result<Rest> = opened.await;
        Ok(Self { rest: rest?, threads })
    }

    /// The next entries, and what is left.
    pub(crate) async fn read(self) -> (VecDeque<Entry>, Option<Self>) {
        let Self { rest, threads } = self;
        let (read, rest) = within(&threads, async { spawn_blocking(move || rest.read()).await }).await;
        (read, rest.map(|rest| Self { rest, threads }))
    }
}

/// A `directory-entry-stream` of WASI 0.2.
pub(crate) struct Listing {
    /// None while some of it is read, and when all of it has been.
    unread: Option<Unread>,
    read: VecDeque<Entry>,
}

impl Listing {
    pub(crate) async fn new(folder: Arc<File>, threads: Pool, open: Open) -> FsResult<Self> {
        Ok(Self { unread: Some(Unread::begin(folder, threads, open).await?), read: VecDeque::new() })
    }

    pub(crate) async fn next(&mut self) -> Option<Result<DirectoryEntry, ErrorCode>> {
        if self.read.is_empty()
            && let Some(unread) = self.unread.take()
        {
            (self.read, self.unread) = unread.read().await;
        }
        let entry = self.read.pop_front()?;
        Some(entry.map(|(kind, name)| DirectoryEntry { type_: kind_of(kind), name }).map_err(ErrorCode::from))
    }
}

impl Rest {
    /// The next entries, and what is left.
    fn read(mut self) -> (VecDeque<Entry>, Option<Self>) {
        let mut read = VecDeque::new();
        while read.len() < AT_ONCE {
            match self.entries.read() {
                Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
                Some(Ok(entry)) => read.push_back(self.entry(&entry)),
                Some(Err(error)) => {
                    read.push_back(Err(error.into()));
                    return (read, None);
                }
                None => return (read, None),
            }
        }
        (read, Some(self))
    }

    fn entry(&self, entry: &DirEntry) -> Entry {
        let kind = match entry.file_type() {
            // a file system that keeps no types with its names
            FileType::Unknown => {
                let stat = statat(&*self.folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        let name = entry.file_name().to_str().map_err(|_| Errno::ILSEQ)?.to_owned();
        Ok((kind, name))
    }
}

fn kind_of(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        _ => DescriptorType::Unknown,
    }
}
