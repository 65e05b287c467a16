//! Folders and files that are trusted because this user wrote them: who else could have is looked at, all the way down.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// Why a folder is not trusted.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FolderError {
    /// It cannot be made or looked at.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its owner may do with it what they like.
    #[error("it belongs to another user")]
    Foreign,
    /// By its mode.
    #[error("others may write to it; hint: chmod 700")]
    Writable,
    /// A folder above it: its owner may put another one in its place.
    #[error("`{}`, in which it is, belongs to another user", .0.display())]
    ForeignAbove(PathBuf),
    /// Likewise, by the mode of a folder above it.
    #[error("others may write to `{above}`, in which it is; hint: chmod go-w {above}", above = .0.display())]
    WritableAbove(PathBuf),
}

/// A folder that only this user can write to or replace, made if it is not there. Gives its canonical path.
#[cfg(unix)]
pub(crate) fn folder(path: &Path) -> Result<PathBuf, FolderError> {
    use std::os::unix::fs::MetadataExt;

    make_folder(path)?;
    let path = path.canonicalize()?;
    let user = user();
    let metadata = std::fs::metadata(&path)?;
    if metadata.uid() != user {
        return Err(FolderError::Foreign);
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(FolderError::Writable);
    }
    // Who may write to a folder above it may put another one in its place, unless the folder is sticky (as `/tmp` is): what
    // OpenSSH's `StrictModes` asks of a home.
    for above in path.ancestors().skip(1) {
        let metadata = std::fs::metadata(above)?;
        if metadata.uid() != user && metadata.uid() != 0 {
            return Err(FolderError::ForeignAbove(above.to_owned()));
        }
        if metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0 {
            return Err(FolderError::WritableAbove(above.to_owned()));
        }
    }
    Ok(path)
}

#[cfg(not(unix))]
pub(crate) fn folder(path: &Path) -> Result<PathBuf, FolderError> {
    std::fs::create_dir_all(path)?;
    Ok(path.canonicalize()?)
}

/// Makes it and what is missing above it with mode 0700, whatever the umask.
#[cfg(unix)]
fn make_folder(path: &Path) -> io::Result<()> {
    match make_one(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match path.parent() {
            Some(above) if !above.as_os_str().is_empty() => {
                make_folder(above)?;
                // once: some file systems (`/proc`) say so of a folder in one that is there
                make_one(path)
            }
            _ => Err(error),
        },
        made => made,
    }
}

#[cfg(unix)]
fn make_one(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

    match std::fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)),
        // another process may have been quicker
        Err(_) if path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Opens a plain file of this user's for reading. Nothing else is waited for or followed: a pipe, a device, a link.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    checked(without_waiting(OpenOptions::new().read(true)).open(path)?)
}

/// Makes a new file, for this user alone.
pub(crate) fn create(path: &Path) -> io::Result<File> {
    let file = without_waiting(OpenOptions::new().read(true).write(true).create_new(true)).open(path)?;
    set_mode(&file)?;
    Ok(file)
}

/// Opens a file whose content nobody reads, made if it is not there.
pub(crate) fn open_lock(path: &Path) -> io::Result<File> {
    match create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            checked(without_waiting(OpenOptions::new().write(true)).open(path)?)
        }
        made => made,
    }
}

#[cfg(unix)]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
}

#[cfg(not(unix))]
fn without_waiting(options: &mut OpenOptions) -> &mut OpenOptions {
    options
}

/// The umask takes what it likes of the mode that a file is opened with.
#[cfg(unix)]
fn set_mode(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(0o600))
}

#[cfg(not(unix))]
fn set_mode(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(unix)]
fn checked(file: File) -> io::Result<File> {
    use std::os::unix::fs::MetadataExt;

    let metadata = file.metadata()?;
    let wrong = if !metadata.is_file() {
        "it is not a plain file"
    } else if metadata.uid() != user() {
        "it belongs to another user"
    } else if metadata.mode() & 0o022 != 0 {
        "others may write to it"
    } else if metadata.nlink() != 1 {
        "it has another hard link"
    } else {
        return Ok(file);
    };
    Err(io::Error::other(wrong))
}

#[cfg(not(unix))]
fn checked(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a plain file")) }
}

#[cfg(unix)]
fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}
