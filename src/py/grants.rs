//! What an app's guests may have of its process: variables, arguments, folders.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyMapping, PyString};

use crate::guest::grants::{DirGrant, Grants};
use crate::py::dir::PyDir;
use crate::py::held::detach;
use crate::py::paths::path_of;

/// A str, with the error that is right for it if it has a surrogate, which is no text to a guest.
fn given_text(given: &Bound<'_, PyAny>, wrong: &'static str) -> PyResult<String> {
    let text = given.cast::<PyString>().map_err(|_| PyTypeError::new_err(wrong))?;
    Ok(text.to_str()?.to_owned())
}

/// From `App(env=, args=, dirs=)`.
pub(crate) fn grants(
    py: Python<'_>,
    env: Option<&Bound<'_, PyMapping>>,
    args: Option<&Bound<'_, PyAny>>,
    dirs: Option<&Bound<'_, PyMapping>>,
) -> PyResult<Grants> {
    let mut grants = Grants::default();
    if let Some(env) = env {
        for item in env.items()?.iter() {
            let (name, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            let wrong = "`env` must map str to str";
            let (name, value) = (given_text(&name, wrong)?, given_text(&value, wrong)?);
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(PyValueError::new_err(format!("`env` has an invalid name or value: {name:?}")));
            }
            grants.env.push((name, value));
        }
    }
    if let Some(args) = args {
        if args.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("`args` must be a sequence of str, not one str"));
        }
        for arg in args.try_iter()? {
            let arg = given_text(&arg?, "`args` must be a sequence of str")?;
            if arg.contains('\0') {
                return Err(PyValueError::new_err(format!("`args` has an argument with a NUL: {arg:?}")));
            }
            grants.args.push(arg);
        }
    }
    if let Some(dirs) = dirs {
        for item in dirs.items()?.iter() {
            let (guest, given): (String, Bound<'_, PyAny>) = item.extract()?;
            let (host, write) = match given.cast::<PyDir>() {
                Ok(dir) => (dir.get().path.clone(), dir.get().write),
                Err(_) => (path_of(&given, || "`dirs` must map guest paths to `Dir` or paths".to_owned())?, false),
            };
            if guest.contains('\0') {
                return Err(PyValueError::new_err(format!("`dirs` has a guest path with a NUL: {guest:?}")));
            }
            // a network file system may let it wait: without the interpreter
            let why = detach(py, || match host.metadata() {
                Ok(found) if found.is_dir() => None,
                Ok(_) => Some("not a directory"),
                Err(_) => Some("no such directory"),
            });
            if let Some(why) = why {
                return Err(PyValueError::new_err(format!("`dirs`: {why}: `{}`", host.display())));
            }
            grants.dirs.push(DirGrant { guest, host: std::path::absolute(&host).unwrap_or(host), write });
        }
    }
    Ok(grants)
}
