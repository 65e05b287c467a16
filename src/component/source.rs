//! Reading a component's file. Only plain files are components: a pipe would be waited for, a device has no end.

use std::fs::{File, FileType, Metadata};
use std::io;
use std::path::Path;

use crate::error::Error;

/// Why a file was not read.
pub enum Unread {
    /// What the system says.
    Io(io::Error),
    /// There is something else by that name.
    NoFile(Error),
}

/// Opens a plain file. What the kernel makes up as it is read (`/proc/kmsg`, until it has more to say) has no length: as much is to
/// be read as the length that comes with it.
pub fn open(path: &Path) -> Result<(File, u64), Unread> {
    // before it is opened, too: opening a device may do something, and a socket cannot be opened at all
    checked(path, &std::fs::metadata(path).map_err(Unread::Io)?)?;
    let file = open_at_once(path).map_err(Unread::Io)?;
    let metadata = file.metadata().map_err(Unread::Io)?;
    checked(path, &metadata)?;
    let length = metadata.len();
    Ok((file, length))
}

/// Does not wait if it has become a pipe meanwhile.
#[cfg(unix)]
fn open_at_once(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)
}

#[cfg(not(unix))]
fn open_at_once(path: &Path) -> io::Result<File> {
    File::open(path)
}

fn checked(path: &Path, metadata: &Metadata) -> Result<(), Unread> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return Ok(());
    }
    if kind.is_dir() {
        return Err(Unread::Io(io::Error::from_raw_os_error(EISDIR)));
    }
    let name = name(kind);
    Err(Unread::NoFile(Error::InvalidComponent(
        format!("`{}`: not a component but {name}; hint: read it, and pass the bytes", path.display()).into(),
    )))
}

#[cfg(unix)]
const EISDIR: i32 = libc::EISDIR;
#[cfg(not(unix))]
const EISDIR: i32 = 21;

#[cfg(unix)]
fn name(kind: FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    if kind.is_fifo() {
        "a pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else {
        "a special file"
    }
}

#[cfg(not(unix))]
fn name(_kind: FileType) -> &'static str {
    "a special file"
}
