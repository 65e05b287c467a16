//! A socket file: who may make it, replace it and remove it.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::FlockOperation;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::server::address::BindError;

/// How often another server that starts in the same folder is waited for, and how long each time.
const PATIENCE: (u32, Duration) = (50, Duration::from_millis(20));

/// A listener at a path.
#[derive(Debug)]
pub struct UnixSocketFile {
    /// Non-blocking.
    pub listener: UnixListener,
    /// `None` where others answer for the file.
    file: Option<OwnFile>,
}

/// Removes the file when it is dropped, in the process that has made it, if it is still the same file.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    inode: (u64, u64),
    process: u32,
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        // In a forked worker this is the parent's, and another server may have put its own in its place.
        if self.process == std::process::id() && inode_of(&self.path) == Some(self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl UnixSocketFile {
    /// Makes the file. `mode` is what it has from the first moment on; without, the umask says it. One that a server has left behind is
    /// replaced, one that a server still listens at is not.
    pub(super) fn bind(path: &Path, mode: Option<u32>, backlog: i32) -> Result<Self, BindError> {
        let failed = |source| BindError::Unix { path: path.to_owned(), source };
        let address = SockAddr::unix(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => BindError::PathTooLong(path.to_owned()),
            _ => failed(error),
        })?;
        // the working directory may be another one when it is removed
        let absolute = std::path::absolute(path).map_err(failed)?;
        let _alone = lock_folder(&absolute);
        make_room(path, &address)?;
        let socket = new_socket().map_err(failed)?;
        bind_with_mode(&socket, &address, mode).map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => BindError::PathInUse(path.to_owned()),
            _ => failed(error),
        })?;
        let inode = inode_of(&absolute);
        let file = inode.map(|inode| OwnFile { path: absolute, inode, process: std::process::id() });
        socket.listen(backlog).map_err(failed)?;
        Ok(Self { listener: socket.into(), file })
    }

    /// One whose file is not ours to remove.
    pub(super) fn of_others(listener: UnixListener) -> Self {
        Self { listener, file: None }
    }

    /// Where it is, as clients write it; without one if it is in Linux's abstract namespace.
    pub fn path(&self) -> Option<PathBuf> {
        match &self.file {
            Some(file) => Some(file.path.clone()),
            None => self.listener.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned)),
        }
    }
}

fn new_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn inode_of(path: &Path) -> Option<(u64, u64)> {
    path.symlink_metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Two servers that start at once must not take each other's new socket for one that was left behind. Where the folder cannot be locked they
/// are not kept apart.
fn lock_folder(path: &Path) -> Option<File> {
    let folder = File::open(path.parent()?).ok()?;
    for _ in 0..PATIENCE.0 {
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder),
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => std::thread::sleep(PATIENCE.1),
            Err(_) => return None,
        }
    }
    None
}

/// Removes what a server has left behind. A link is not followed: it leads to where somebody else may have wanted it to.
fn make_room(path: &Path, address: &SockAddr) -> Result<(), BindError> {
    let failed = |source| BindError::Unix { path: path.to_owned(), source };
    let metadata = match path.symlink_metadata() {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let kind = match metadata.file_type() {
        kind if kind.is_socket() => None,
        kind if kind.is_symlink() => Some("a symbolic link"),
        kind if kind.is_dir() => Some("a folder"),
        kind if kind.is_file() => Some("a file"),
        _ => Some("neither a socket nor free"),
    };
    if let Some(kind) = kind {
        return Err(BindError::NotASocket { path: path.to_owned(), kind });
    }
    match new_socket().and_then(|socket| socket.connect(address)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            if inode_of(path) != Some((metadata.dev(), metadata.ino())) {
                return Err(BindError::PathInUse(path.to_owned()));
            }
            std::fs::remove_file(path).map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::EPROTOTYPE) => {
            Err(BindError::NotASocket { path: path.to_owned(), kind: "a socket of another kind, which is in use" })
        }
        // a queue that is full is somebody's, too
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(failed(error)),
        _ => Err(BindError::PathInUse(path.to_owned())),
    }
}

/// Nobody can connect before the mode is as it is wanted, since `bind` makes the file with it.
fn bind_with_mode(socket: &Socket, address: &SockAddr, mode: Option<u32>) -> io::Result<()> {
    let Some(mode) = mode else { return socket.bind(address) };
    // The umask is the process's: another thread's new file would get it as well. So a thread of its own has one of its own, where the
    // system allows that (Linux; not in a container that forbids `unshare`).
    std::thread::scope(|scope| {
        let bind = || {
            #[cfg(target_os = "linux")]
            // SAFETY: takes a number; concerns this thread alone, which ends with the function.
            let _ = unsafe { libc::unshare(libc::CLONE_FS) };
            let mask = |mask: libc::mode_t| {
                // SAFETY: takes and gives a number.
                unsafe { libc::umask(mask) }
            };
            let before = mask((!mode & 0o777) as libc::mode_t);
            let bound = socket.bind(address);
            mask(before);
            bound
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, bind)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that binds has failed")))
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;
    use crate::server::testing::Folder;

    fn bind(path: &Path) -> Result<UnixSocketFile, BindError> {
        UnixSocketFile::bind(path, None, 16)
    }

    fn mode(path: &Path) -> u32 {
        path.symlink_metadata().unwrap().mode() & 0o777
    }

    #[test]
    fn a_running_servers_file_is_not_stolen() {
        let folder = Folder::new();
        let path = folder.path("x.sock");
        let first = bind(&path).unwrap();
        assert!(matches!(bind(&path), Err(BindError::PathInUse(_))));
        UnixStream::connect(&path).unwrap();
        assert_eq!(first.path(), Some(path.clone()));
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn one_whose_queue_is_full_is_running() {
        let folder = Folder::new();
        let path = folder.path("x.sock");
        let _first = UnixSocketFile::bind(&path, None, 0).unwrap();
        let client = new_socket().unwrap();
        client.connect(&SockAddr::unix(&path).unwrap()).unwrap();
        let second = new_socket().unwrap().connect(&SockAddr::unix(&path).unwrap());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(matches!(bind(&path), Err(BindError::PathInUse(_))));
    }

    #[test]
    fn a_dead_servers_file_is_replaced() {
        let folder = Folder::new();
        let path = folder.path("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = bind(&path).unwrap();
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = Folder::new();
        let refused = |path: &Path, kind: &str| {
            let error = bind(path).unwrap_err();
            assert!(matches!(&error, BindError::NotASocket { .. }) && error.to_string().contains(kind), "{error}");
            assert!(path.symlink_metadata().is_ok());
        };
        let path = folder.path("file");
        std::fs::write(&path, "precious").unwrap();
        refused(&path, "is a file");
        refused(&folder.path(""), "is a folder");
        // to a file, to a dead socket, to nothing
        drop(UnixListener::bind(folder.path("dead.sock")).unwrap());
        for (number, target) in ["file", "dead.sock", "nothing"].into_iter().enumerate() {
            let link = folder.path(&format!("link{number}"));
            symlink(folder.path(target), &link).unwrap();
            refused(&link, "a symbolic link");
        }
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        let _datagrams = UnixDatagram::bind(folder.path("datagrams")).unwrap();
        refused(&folder.path("datagrams"), "of another kind");
    }

    #[test]
    fn paths_that_cannot_be() {
        let folder = Folder::new();
        assert!(matches!(bind(&folder.path(&"x".repeat(200))), Err(BindError::PathTooLong(_))));
        let error = bind(&folder.path("none/x.sock")).unwrap_err();
        assert!(
            matches!(&error, BindError::Unix { source, .. } if source.kind() == io::ErrorKind::NotFound),
            "{error}"
        );
    }

    #[test]
    fn the_mode_is_there_from_the_first_moment_on() {
        let folder = Folder::new();
        std::fs::write(folder.path("by umask"), "").unwrap();
        let by_umask = mode(&folder.path("by umask"));
        let path = folder.path("x.sock");
        for wanted in [0o600, 0o660, 0o666, 0o777] {
            let _listener = UnixSocketFile::bind(&path, Some(wanted), 16).unwrap();
            assert_eq!(mode(&path), wanted);
        }
        // nobody else's umask is another one now
        std::fs::write(folder.path("after"), "").unwrap();
        assert_eq!(mode(&folder.path("after")), by_umask);
        let _listener = bind(&path).unwrap();
        assert_eq!(mode(&path) & 0o666, by_umask);
    }

    #[test]
    fn only_who_made_the_file_removes_it() {
        let folder = Folder::new();
        let path = folder.path("x.sock");
        // a forked worker's copy
        let mut of_parent = bind(&path).unwrap();
        of_parent.file.as_mut().unwrap().process += 1;
        drop(of_parent);
        assert!(path.exists());
        // another server's, in the place of ours
        let ours = bind(&path).unwrap();
        std::fs::rename(&path, folder.path("ours")).unwrap();
        let theirs = bind(&path).unwrap();
        drop(ours);
        UnixStream::connect(&path).unwrap();
        drop(theirs);
        assert!(!path.exists());
        // an inherited one
        let listener = UnixListener::bind(&path).unwrap();
        let others = UnixSocketFile::of_others(listener);
        assert_eq!(others.path(), Some(path.clone()));
        drop(others);
        assert!(path.exists());
    }

    #[test]
    fn of_servers_that_start_at_once_one_wins() {
        let folder = Folder::new();
        let path = folder.path("x.sock");
        for _ in 0..20 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(4);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let start = || {
                    start.wait();
                    bind(&path)
                };
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(start)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(bound.iter().filter(|one| one.is_ok()).count(), 1);
            UnixStream::connect(&path).unwrap();
        }
    }
}
