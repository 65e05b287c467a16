//! Machine code of components, kept in files between processes.
//!
//! Machine code is run as it is: whoever could change an entry could run anything here, and so could a disk that loses bits.
//! So each entry says for what it is, and has a digest of all that follows, looked at before any of it is used. That keeps
//! out damage and mistakes; other users are kept out by modes (`private_files.rs`); who can write as this user need not
//! trouble to write here.
//!
//! An entry is read into memory of our own and never mapped from its file: a mapped file that is written to later changes the
//! code that runs, and one that is truncated ends the process. On Linux that memory is a sealed `memfd`, from which wasmtime maps
//! code and initial memories without a further copy.

use std::fmt;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tracing::warn;
use wasmtime::Engine;
use wasmtime::component::Component;

use crate::process::private_files::{self, FolderError};
use crate::process::undisturbed::undisturbed;
use crate::telemetry::TARGET;

/// How many bytes all entries may have, unless `WASGI_CACHE_SIZE` says so.
const MOST_BYTES: u64 = 1 << 30;

/// A use of an entry is written down (as its time of change) if the last one is longer ago.
const USE: Duration = Duration::from_secs(3600);

/// A part that nobody has locked is left over, but for the moment between its making and its locking.
const LEFT_OVER: Duration = Duration::from_secs(60);

/// With the number of the format.
const MAGIC: [u8; 16] = *b"wasgi code 1\0\0\0\0";

const HEADER: usize = MAGIC.len() + 32 + 8 + 32;

/// A directory of the user's own: whoever can write there can run code here.
pub(crate) struct CodeCache {
    directory: PathBuf,
    most_bytes: u64,
    /// It was told that something cannot be kept.
    failed: AtomicBool,
    parts: AtomicU32,
}

/// Why nothing can be kept in a folder.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("its folder `locks`: {0}")]
    Locks(#[source] FolderError),
}

/// Why an entry is not what was written.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("it is a link")]
    Link,
    #[error("it is too short")]
    Short,
    #[error("it is not machine code that wasgi has written")]
    Magic,
    #[error("it is another component's, or for another engine")]
    Key,
    #[error("it does not have the length that was written")]
    Length,
    #[error("it is damaged: its digest differs")]
    Digest,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Memory(#[from] std::collections::TryReserveError),
}

/// Why there is no machine code to be had.
enum Unusable {
    /// Nobody has kept any.
    Missing,
    /// What is there is not what was written.
    Damaged(Damage),
}

impl From<io::Error> for Unusable {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Missing,
            _ if error.raw_os_error() == Some(ELOOP) => Self::Damaged(Damage::Link),
            _ => Self::Damaged(Damage::Io(error)),
        }
    }
}

#[cfg(unix)]
const ELOOP: i32 = libc::ELOOP;
#[cfg(not(unix))]
const ELOOP: i32 = i32::MIN;

impl CodeCache {
    /// `most_bytes`: see [`MOST_BYTES`].
    pub(crate) fn open(directory: &Path, most_bytes: Option<u64>) -> Result<Self, OpenError> {
        let directory = private_files::folder(directory)?;
        let locks = directory.join("locks");
        match private_files::folder(&locks) {
            // nothing can be written, and nothing there is to be trusted: a cache that came with an image is read, without turns
            Err(_) if std::fs::symlink_metadata(&locks).is_err() => {}
            checked => drop(checked.map_err(OpenError::Locks)?),
        }
        let most_bytes = most_bytes.unwrap_or(MOST_BYTES);
        Ok(Self { directory, most_bytes, failed: AtomicBool::new(false), parts: AtomicU32::new(0) })
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A file for processes to lock; none if there cannot be one.
    pub(crate) fn lock_file(&self, name: &str) -> Option<File> {
        private_files::open_lock(&self.directory.join("locks").join(format!("{name}.lock"))).ok()
    }

    /// The machine code of a component for an engine, if it is there, and as it was written; if not, that is told where `tell` is
    /// set. Fails where the engine does not take the code, say because it fits no slot of the engine's pool.
    pub(crate) fn load(&self, engine: &Engine, digest: &str, tell: bool) -> wasmtime::Result<Option<Component>> {
        let key = Key::new(engine, digest);
        let path = self.directory.join(key.name(digest));
        match self.read(&path, &key) {
            // SAFETY: these bytes, which nobody else can write to, are what `store` was given: code of wasmtime's.
            Ok(code) => undisturbed(|| unsafe { code.deserialize(engine) }).map(Some),
            Err(Unusable::Missing) => Ok(None),
            Err(Unusable::Damaged(reason)) => {
                if tell {
                    let path = path.display();
                    warn!(target: TARGET, "`{path}` in the code cache is not used and is replaced: {reason}");
                }
                Ok(None)
            }
        }
    }

    fn read(&self, path: &Path, key: &Key) -> Result<Code, Unusable> {
        let mut file = private_files::open(path)?;
        let metadata = file.metadata()?;
        let mut header = [0; HEADER];
        file.read_exact(&mut header).map_err(|_| Unusable::Damaged(Damage::Short))?;
        let length = metadata.len().saturating_sub(HEADER as u64);
        let expected = Header::read(&header, key, length).map_err(Unusable::Damaged)?;
        let code = Code::read(file, length, &expected).map_err(Unusable::Damaged)?;
        if metadata.modified().is_ok_and(|used| used.elapsed().is_ok_and(|ago| ago > USE)) {
            let _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
        }
        Ok(code)
    }

    /// Keeps it for the next process. A failure is told once a process.
    pub(crate) fn store(&self, engine: &Engine, digest: &str, code: &[u8]) {
        let key = Key::new(engine, digest);
        let written = self.write(&key.name(digest), &Header::of(&key, code), code);
        self.tidy(&key.name(digest));
        if let Err(error) = written
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            let directory = self.directory.display();
            warn!(
                target: TARGET,
                "machine code cannot be cached in `{directory}`, so each process compiles it again: {error}"
            );
        }
    }

    /// An entry is there as a whole or not at all. It is not forced to the disk: what a power cut has left is found damaged.
    fn write(&self, name: &str, header: &[u8], code: &[u8]) -> io::Result<()> {
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        // a process's number is not enough: containers that share the folder have the same ones
        let random = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), number);
        let part = self.directory.join(format!("{name}.{}-{random:016x}.part", std::process::id()));
        let mut file = private_files::create(&part)?;
        // the lock tells that somebody is about it, and goes with its holder
        let locked = file.try_lock();
        let written = file.write_all(header).and_then(|()| file.write_all(code)).and_then(|()| {
            let entry = self.directory.join(name);
            std::fs::rename(&part, &entry).or_else(|error| match std::fs::symlink_metadata(&entry) {
                // a folder in its place: an empty one makes room
                Ok(metadata) if metadata.is_dir() => {
                    std::fs::remove_dir(&entry).and_then(|()| std::fs::rename(&part, &entry))
                }
                _ => Err(error),
            })
        });
        if written.is_err() {
            let _ = std::fs::remove_file(&part);
        }
        if locked.is_ok() {
            let _ = file.unlock(); // a child that was forked meanwhile has the same file open
        }
        written
    }

    /// Takes away what dead processes have left, and what has not been used for longest where there is too much. `kept` stays.
    fn tidy(&self, kept: &str) {
        let Ok(files) = std::fs::read_dir(&self.directory) else { return };
        let mut entries = Vec::new();
        for file in files.flatten() {
            let (name, path) = (file.file_name(), file.path());
            let Some(name) = name.to_str() else { continue };
            let Ok(metadata) = file.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if name.ends_with(".part") {
                let old = used.elapsed().is_ok_and(|ago| ago > LEFT_OVER);
                if old && private_files::open_lock(&path).is_ok_and(|part| part.try_lock().is_ok()) {
                    let _ = std::fs::remove_file(&path);
                }
            } else if name.ends_with(EXTENSION) && metadata.is_file() {
                entries.push((used, metadata.len(), name != kept, path));
            }
        }
        let mut bytes: u64 = entries.iter().map(|(_, bytes, ..)| bytes).sum();
        entries.sort_unstable();
        for (_, size, may_go, path) in entries {
            if bytes <= self.most_bytes {
                return;
            }
            if may_go && std::fs::remove_file(path).is_ok() {
                bytes = bytes.saturating_sub(size);
            }
        }
    }
}

const EXTENSION: &str = ".code";

/// For what an entry is: this component, compiled by this wasmtime with these settings for this machine, in this format.
struct Key([u8; 32]);

impl Key {
    fn new(engine: &Engine, digest: &str) -> Self {
        let mut hasher = Sha256Hasher(Sha256::new());
        (MAGIC, env!("CARGO_PKG_VERSION"), digest).hash(&mut hasher);
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Self(hasher.0.finalize().into())
    }

    fn name(&self, digest: &str) -> String {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        format!("{digest}-{:016x}{EXTENSION}", u64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }
}

/// What the standard library can hash, by SHA-256.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        0 // nobody asks
    }
}

/// What stands before the code: magic, key, length, and the code's digest.
struct Header {
    digest: [u8; 32],
}

impl Header {
    fn of(key: &Key, code: &[u8]) -> Vec<u8> {
        let length = (code.len() as u64).to_le_bytes();
        [MAGIC.as_slice(), &key.0, &length, &<[u8; 32]>::from(Sha256::digest(code))].concat()
    }

    fn read(header: &[u8; HEADER], key: &Key, length: u64) -> Result<Self, Damage> {
        let (magic, rest) = header.split_at(MAGIC.len());
        let (its_key, rest) = rest.split_at(key.0.len());
        let (its_length, digest) = rest.split_at(size_of::<u64>());
        if magic != MAGIC {
            return Err(Damage::Magic);
        }
        if its_key != key.0 {
            return Err(Damage::Key);
        }
        if its_length != length.to_le_bytes() {
            return Err(Damage::Length);
        }
        match digest.try_into() {
            Ok(digest) => Ok(Self { digest }),
            Err(_) => Err(Damage::Short),
        }
    }
}

/// Code in memory of our own, compared with its digest.
enum Code {
    Bytes(Vec<u8>),
    /// A sealed one.
    #[cfg(target_os = "linux")]
    Memory(File),
}

impl Code {
    fn read(file: File, length: u64, expected: &Header) -> Result<Self, Damage> {
        #[cfg(target_os = "linux")]
        match memory::read(&file, length) {
            Ok((digest, memory)) => return matching(digest, expected).map(|()| Self::Memory(memory)),
            // no `memfd` to be had, or not so large a one
            Err(_) => rewind(&file)?,
        }
        let mut code = Vec::new();
        let mut reader = file.take(length);
        code.try_reserve_exact(usize::try_from(length).unwrap_or(usize::MAX))?;
        reader.read_to_end(&mut code)?;
        matching(Sha256::digest(&code).into(), expected)?;
        Ok(Self::Bytes(code))
    }

    /// # Safety
    /// The bytes are code of wasmtime's.
    unsafe fn deserialize(self, engine: &Engine) -> wasmtime::Result<Component> {
        match self {
            // SAFETY: the caller's promise.
            Self::Bytes(code) => unsafe { Component::deserialize(engine, code) },
            #[cfg(target_os = "linux")]
            Self::Memory(memory) => {
                use std::os::fd::AsRawFd;
                // SAFETY: the caller's promise; nobody can write to it, for it is sealed.
                unsafe { Component::deserialize_file(engine, format!("/proc/self/fd/{}", memory.as_raw_fd())) }
            }
        }
    }
}

#[cfg(target_os = "linux")]
fn rewind(mut file: &File) -> io::Result<()> {
    io::Seek::seek(&mut file, io::SeekFrom::Start(HEADER as u64)).map(drop)
}

fn matching(digest: [u8; 32], expected: &Header) -> Result<(), Damage> {
    if digest == expected.digest { Ok(()) } else { Err(Damage::Digest) }
}

#[cfg(target_os = "linux")]
mod memory {
    use std::fs::File;
    use std::io::{self, Read, Write};

    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
    use sha2::{Digest, Sha256};

    /// What is read stays in the processor's caches until it is digested and written.
    const CHUNK: usize = 128 << 10;

    /// What is left of a file, sealed, and its digest.
    pub(super) fn read(mut file: &File, length: u64) -> io::Result<([u8; 32], File)> {
        if !std::path::Path::new("/proc/self/fd").exists() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut memory = File::from(memfd_create(c"wasgi-code", flags)?);
        let mut digest = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut left = length;
        while left > 0 {
            let read = file.read(&mut chunk)?;
            let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            digest.update(bytes);
            memory.write_all(bytes)?;
            left = left.saturating_sub(read as u64);
        }
        fcntl_add_seals(&memory, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        Ok((digest.finalize().into(), memory))
    }
}

impl fmt::Debug for CodeCache {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("CodeCache").field("directory", &self.directory).finish_non_exhaustive()
    }
}
