//! The source of a component: bytes, or a file.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use pyo3::prelude::*;

use crate::component::limits::ComponentLimits;
use crate::component::source::Unread;
use crate::error::Error;
use crate::py::errors::{of_file, to_py};
use crate::py::held::detach;

#[derive(Clone)]
pub(crate) enum Source {
    Bytes(Bytes),
    Path(PathBuf),
}

pub(crate) enum Failed {
    Core(Error),
    /// Of reading the file.
    File(PathBuf, std::io::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl Failed {
    pub(crate) fn to_py(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Core(error) => to_py(py, error),
            Self::File(path, error) => of_file(py, path, error),
        }
    }
}

impl Source {
    /// The bytes, unless a file has more than it may.
    pub(crate) fn read(&self, limits: &ComponentLimits) -> Result<Bytes, Failed> {
        let path = match self {
            Self::Bytes(bytes) => return Ok(bytes.clone()),
            Self::Path(path) => path,
        };
        let read = read_file(path, limits.size).map_err(|unread| match unread {
            Unread::NoFile(error) => Failed::Core(error),
            Unread::Io(error) => Failed::File(path.clone(), error),
        })?;
        read.map(Bytes::from).map_err(|large| {
            self.blame(Error::component_limit("size", "bytes", limits.size.unwrap_or(u64::MAX), large))
        })
    }

    /// A component's fault with the file that it is in.
    pub(crate) fn blame(&self, error: Error) -> Failed {
        match self {
            Self::Bytes(_) => Failed::Core(error),
            Self::Path(path) => Failed::Core(error.of_file(&path.display().to_string())),
        }
    }

    pub(crate) fn label(&self) -> String {
        match self {
            Self::Bytes(_) => "a component".to_owned(),
            Self::Path(path) => file_name(path),
        }
    }
}

pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What is in it, or how large it is, if that is more than it may be: then it is not read.
fn read_file(path: &Path, most: Option<u64>) -> Result<Result<Vec<u8>, u64>, Unread> {
    let (file, size) = crate::component::source::open(path)?;
    if most.is_some_and(|most| size > most) {
        return Ok(Err(size));
    }
    let mut bytes = Vec::new();
    let failed = |error| Unread::Io(std::io::Error::new(std::io::ErrorKind::OutOfMemory, error));
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(failed)?;
    file.take(size).read_to_end(&mut bytes).map_err(Unread::Io)?;
    Ok(Ok(bytes))
}

/// The bytes of a component's file, for whoever looks at one without loading it.
pub(crate) fn read(py: Python<'_>, path: PathBuf, limits: &ComponentLimits) -> PyResult<Bytes> {
    let source = Source::Path(path);
    detach(py, || source.read(limits)).map_err(|failed| failed.to_py(py))
}
