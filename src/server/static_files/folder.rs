//! A folder that nobody leaves: neither by a path nor by a link.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Opened once: what is put in its place later is another folder.
#[derive(Debug)]
pub(super) struct Folder(OwnedFd);

/// `O_NONBLOCK`: nobody waits for the other end of a pipe that lies there.
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

impl Folder {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// A file or a folder in it, by the names on the way. `None` if there is none, or none that may be shown. Links are followed as long as
    /// they stay within, so that folders which Kubernetes exchanges by a link can be served; on systems that cannot look after that (without
    /// `openat2`, Linux 5.6) none is.
    pub(super) fn find(&self, names: &[Vec<u8>]) -> io::Result<Option<File>> {
        match self.open_within(names) {
            Ok(fd) => Ok(Some(File::from(fd))),
            Err(
                Errno::NOENT
                | Errno::NOTDIR
                | Errno::ACCESS
                | Errno::PERM
                | Errno::LOOP
                | Errno::XDEV
                | Errno::NAMETOOLONG
                | Errno::NXIO
                | Errno::INVAL,
            ) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn open_within(&self, names: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        use rustix::fs::ResolveFlags;

        let path = if names.is_empty() { b".".to_vec() } else { names.join(&b'/') };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // `EAGAIN`: something was renamed meanwhile, so that the kernel cannot tell whether the path stays within
        for _ in 0..16 {
            match rustix::fs::openat2(&self.0, &*path, FLAGS, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                // some sandboxes forbid what they do not know
                Err(Errno::NOSYS | Errno::PERM) => return self.open_without_links(names),
                opened => return opened,
            }
        }
        Err(Errno::AGAIN)
    }

    #[cfg(not(target_os = "linux"))]
    fn open_within(&self, names: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        self.open_without_links(names)
    }

    /// Name by name.
    fn open_without_links(&self, names: &[Vec<u8>]) -> Result<OwnedFd, Errno> {
        let mut here = rustix::fs::openat(&self.0, ".", FLAGS, Mode::empty())?;
        for name in names {
            if name == b".." || name.contains(&b'/') {
                return Err(Errno::XDEV);
            }
            here = rustix::fs::openat(&here, &**name, FLAGS | OFlags::NOFOLLOW, Mode::empty())?;
        }
        Ok(here)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::server::testing;

    fn names(path: &str) -> Vec<Vec<u8>> {
        path.split('/').filter(|name| !name.is_empty()).map(|name| name.as_bytes().to_vec()).collect()
    }

    #[test]
    fn links_lead_no_further_than_the_folder() {
        let outer = testing::Folder::new();
        for folder in ["root", "root/sub", "outside"] {
            std::fs::create_dir(outer.path(folder)).unwrap();
        }
        for file in ["root/a", "root/sub/b", "outside/secret"] {
            std::fs::write(outer.path(file), file).unwrap();
        }
        for (target, link) in [
            ("sub/b", "root/to_file"),
            ("sub", "root/to_folder"),
            ("../a", "root/sub/up"),
            ("/etc/passwd", "root/absolute"),
            ("../outside/secret", "root/out_by_file"),
            ("../outside", "root/out_by_folder"),
            ("../root/a", "root/out_and_in"),
            ("loop", "root/loop"),
            ("/proc/self/root/etc/passwd", "root/magic"),
        ] {
            symlink(target, outer.path(link)).unwrap();
        }
        let folder = Folder::open(&outer.path("root")).unwrap();
        let found = |path: &str| folder.find(&names(path)).unwrap().map(|file| std::io::read_to_string(file).unwrap());
        assert_eq!(found("a").as_deref(), Some("root/a"));
        assert_eq!(found("sub/b").as_deref(), Some("root/sub/b"));
        #[cfg(target_os = "linux")]
        for (path, content) in [("to_file", "root/sub/b"), ("to_folder/b", "root/sub/b"), ("sub/up", "root/a")] {
            assert_eq!(found(path).as_deref(), Some(content), "{path}");
        }
        let out = ["absolute", "out_by_file", "out_by_folder/secret", "out_and_in", "loop", "magic", "none", "a/b"];
        for path in out {
            assert_eq!(found(path), None, "{path}");
            assert!(folder.open_without_links(&names(path)).is_err(), "{path}");
        }
        for path in ["to_file", "to_folder/b", "sub/up"] {
            assert!(folder.open_without_links(&names(path)).is_err(), "{path}");
        }
        assert!(folder.open_without_links(&names("sub/b")).is_ok());
        assert!(folder.find(&[]).unwrap().unwrap().metadata().unwrap().is_dir());
        assert!(folder.find(&[vec![b'x'; 300]]).unwrap().is_none());
        assert!(folder.find(&[b"..".to_vec(), b"outside".to_vec()]).unwrap().is_none());
        // it stays the same folder, whatever its name means now
        std::fs::rename(outer.path("root"), outer.path("former")).unwrap();
        symlink("outside", outer.path("root")).unwrap();
        assert_eq!(found("a").as_deref(), Some("root/a"));
        assert_eq!(found("secret"), None);
    }
}
