//! Core errors to Python exceptions and back. The classes are Python's: `python/wasgi/errors.py`.

use std::error::Error as StdError;
use std::path::Path;
use std::sync::{Arc, Mutex};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule, PyString};

use crate::error::Error;
use crate::error::trap::Trap;
use crate::http::error_code::{ErrorCode, NAMES, Payload};
use crate::limits::Limit;
use crate::py::held::Held;
use crate::py::once::Once;
use crate::sync::lock;
use crate::text::{LONGEST, tame, tamed};

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: Once<Py<PyModule>> = Once::new();
    Ok(MODULE.try_get(py, || py.import("wasgi.errors").map(Bound::unbind))?.bind(py))
}

/// An exception of `wasgi.errors`: `class(message, **attributes)`.
fn make(py: Python<'_>, class: &str, message: String, attributes: &Bound<'_, PyDict>) -> PyResult<PyErr> {
    let exception = module(py)?.getattr(class)?.call((message,), Some(attributes))?;
    Ok(PyErr::from_value(exception))
}

/// The exception of an error; what that came from is its `__cause__`, link by link.
pub(crate) fn to_py(py: Python<'_>, error: &Error) -> PyErr {
    let exception = match try_to_py(py, error) {
        Ok(exception) => exception,
        Err(failure) => return failure,
    };
    if let Error::InvalidComponent(_) | Error::UnsupportedComponent(_) | Error::Host(_) | Error::Code(_) = error
        && let Some(cause) = error.source().and_then(|source| cause_of(py, source))
    {
        exception.set_cause(py, Some(cause));
    }
    exception
}

/// The exception of an error of a library's or the system's, which is an `OSError` where its number is known.
fn cause_of(py: Python<'_>, source: &(dyn StdError + 'static)) -> Option<PyErr> {
    let mut links = Vec::new();
    let mut next = Some(source);
    while let Some(link) = next.filter(|_| links.len() < MOST_LINKS) {
        links.push((tamed(link.to_string(), LONGEST), number_of(link)));
        next = link.source();
    }
    // what only repeats the one within says nothing; that may have a number
    links.reverse();
    links.dedup_by(|outer, inner| outer.0 == inner.0);
    let mut cause = None;
    for (text, number) in links {
        let exception = match number {
            Some(number) => of_system(py, number).unwrap_or_else(|failure| failure),
            None => named(py, "WasgiError", text),
        };
        exception.set_cause(py, cause);
        cause = Some(exception);
    }
    cause
}

/// How many links of a chain are shown.
const MOST_LINKS: usize = 16;

fn number_of(link: &(dyn StdError + 'static)) -> Option<i32> {
    match link.downcast_ref::<rustix::io::Errno>() {
        Some(number) => Some(number.raw_os_error()),
        None => link.downcast_ref::<std::io::Error>()?.raw_os_error(),
    }
}

/// `OSError` makes the class that is meant of its number: `ConnectionRefusedError`, say.
fn of_system(py: Python<'_>, number: i32) -> PyResult<PyErr> {
    let words = words_of_system(py, number)?;
    Ok(PyErr::from_value(py.get_type::<PyOSError>().call1((number, words))?))
}

fn words_of_system(py: Python<'_>, number: i32) -> PyResult<Bound<'_, PyAny>> {
    py.import("os")?.call_method1("strerror", (number,))
}

/// The `OSError` that `open` would raise.
pub(crate) fn of_file(py: Python<'_>, path: &Path, error: &std::io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        // a path with a null byte, which no system has been asked for
        return match error.kind() {
            std::io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
            _ => PyOSError::new_err(error.to_string()),
        };
    };
    match words_of_system(py, number) {
        Ok(words) => PyOSError::new_err((number, words.unbind(), path.as_os_str().to_owned())),
        Err(failure) => failure,
    }
}

fn try_to_py(py: Python<'_>, error: &Error) -> PyResult<PyErr> {
    let attributes = PyDict::new(py);
    let class = match error {
        Error::InvalidComponent(_) => "InvalidComponentError",
        Error::MissingImports { missing, .. } => {
            let names = missing.iter().map(|name| tame(name, LONGEST)).collect::<Vec<_>>();
            attributes.set_item("missing", names)?;
            "MissingImportError"
        }
        Error::UnsupportedComponent(_) => "UnsupportedComponentError",
        Error::ComponentLimit { limit, value, found, .. } => {
            attributes.set_item("name", limit)?;
            // of a limit of time it is a fraction
            if *limit == "timeout" {
                attributes.set_item("limit", value)?;
            } else {
                attributes.set_item("limit", *value as u64)?;
            }
            attributes.set_item("found", found)?;
            "ComponentLimitError"
        }
        Error::Trap(trap) => {
            trap_attributes(&attributes, trap)?;
            "TrapError"
        }
        Error::GuestExit { code } => {
            attributes.set_item("code", code)?;
            "GuestExitError"
        }
        Error::NoResponse(_) => "NoResponseError",
        Error::Timeout { limit } => {
            attributes.set_item("limit", limit)?;
            "GuestTimeoutError"
        }
        Error::Limit { limit, value, trap } => {
            attributes.set_item("limit", value)?;
            let class = match limit {
                Limit::Memory | Limit::MemoryPerApp => "MemoryLimitError",
                Limit::TableElements => "TableLimitError",
                Limit::Instances => "InstanceLimitError",
                Limit::Handles => "HandleLimitError",
                Limit::Fields => "FieldsLimitError",
                Limit::Fuel => "FuelExhaustedError",
            };
            let exception = make(py, class, error.to_string(), &attributes)?;
            if let Some(trap) = trap {
                exception.set_cause(py, Some(to_py(py, &Error::Trap(trap.clone()))));
            }
            return Ok(exception);
        }
        Error::Overloaded(_) => "OverloadedError",
        Error::Code(error) => return code_to_py(py, &error.code),
        Error::Limited { code, limit, value } => {
            let exception = code_to_py(py, code)?;
            exception
                .value(py)
                .call_method1("add_note", (format!("the limit is {value} bytes (`Limits.{limit}`)"),))?;
            return Ok(exception);
        }
        Error::Closed => "AppClosedError",
        Error::Body { received, cause, .. } => {
            attributes.set_item("received", received)?;
            let exception = make(py, "BodyError", error.to_string(), &attributes)?;
            if let Some(cause) = cause {
                exception.set_cause(py, Some(to_py(py, cause)));
            }
            return Ok(exception);
        }
        Error::Caller(own) => {
            return match own.downcast_ref::<CallersException>().and_then(CallersException::take) {
                Some(exception) => Ok(exception),
                None => make(py, "WasgiError", error.to_string(), &attributes),
            };
        }
        Error::Cancelled | Error::Host(_) => "WasgiError",
    };
    make(py, class, error.sentence(), &attributes)
}

/// For somebody who looks on: a caller's own exception stays the caller's to have.
pub(crate) fn seen_from_aside(py: Python<'_>, error: &Error) -> PyErr {
    if let Error::Caller(own) = error
        && let Some(own) = own.downcast_ref::<CallersException>()
        && let Some(exception) = &*lock(&own.exception)
    {
        return exception.clone_ref(py);
    }
    to_py(py, error)
}

/// What a caller's own code has raised, on its way back to the caller. It is handed out once and not kept: its traceback
/// refers to frames, these to the response that was being read, and a response to how its exchange ended, a cycle that no
/// garbage collection would find.
#[derive(Debug)]
pub(crate) struct CallersException {
    exception: Mutex<Option<Held<PyErr>>>,
    words: String,
}

impl CallersException {
    pub(crate) fn error(exception: PyErr, py: Python<'_>) -> Error {
        let words = exception.value(py).repr().map_or_else(|_| "an exception".to_owned(), |words| words.to_string());
        Error::Caller(Arc::new(Self { exception: Mutex::new(Some(exception.into())), words }))
    }

    fn take(&self) -> Option<PyErr> {
        lock(&self.exception).take().map(Held::into_inner)
    }
}

impl std::error::Error for CallersException {}

impl std::fmt::Display for CallersException {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the request's body raised {}", self.words)
    }
}

fn trap_attributes(attributes: &Bound<'_, PyDict>, trap: &Trap) -> PyResult<()> {
    attributes.set_item("backtrace", &trap.backtrace)?;
    attributes.set_item("stderr", &trap.stderr)?;
    attributes.set_item("culprit", trap.culprit)
}

/// The exception of an error-code.
pub(crate) fn code_to_py(py: Python<'_>, code: &ErrorCode) -> PyResult<PyErr> {
    let class = module(py)?.getattr("ERROR_CODES")?.get_item(code.name)?;
    let attributes = PyDict::new(py);
    match &code.payload {
        Payload::None => {}
        Payload::Size(size) => attributes.set_item("size", size)?,
        Payload::Text(text) => attributes.set_item("detail", text)?,
        Payload::Dns { rcode, info_code } => {
            attributes.set_item("rcode", rcode)?;
            attributes.set_item("info_code", info_code)?;
        }
        Payload::Tls { alert_id, alert_message } => {
            attributes.set_item("alert_id", alert_id)?;
            attributes.set_item("alert_message", alert_message)?;
        }
        Payload::Field { field_name, field_size } => {
            attributes.set_item("field_name", field_name)?;
            attributes.set_item("field_size", field_size)?;
        }
    }
    Ok(PyErr::from_value(class.call((), Some(&attributes))?))
}

/// The error-code that an upstream's exception means to the guest; the exception is logged if it is not one.
pub(crate) fn code_of_exception(py: Python<'_>, exception: &PyErr) -> ErrorCode {
    // before Python 3.12 only a value that is taken out of its error has the traceback
    let raised = exception.clone_ref(py).into_value(py);
    let found = py
        .import("wasgi._native.failures")
        .and_then(|failures| failures.getattr("code_for_guest")?.call1((raised,)))
        .and_then(|code| read_code(&code));
    found.unwrap_or_else(|failure| {
        failure.write_unraisable(py, None);
        ErrorCode::internal("the upstream failed")
    })
}

fn read_code(exception: &Bound<'_, PyAny>) -> PyResult<ErrorCode> {
    let name: String = exception.getattr("code")?.extract()?;
    let name = NAMES.iter().copied().find(|known| *known == name).unwrap_or("internal-error");
    let has = |attribute: &str| exception.hasattr(attribute);
    let payload = if has("size")? {
        Payload::Size(exception.getattr("size")?.extract()?)
    } else if has("detail")? {
        Payload::Text(text_of(exception, "detail")?)
    } else if has("rcode")? {
        Payload::Dns { rcode: text_of(exception, "rcode")?, info_code: exception.getattr("info_code")?.extract()? }
    } else if has("alert_id")? {
        Payload::Tls {
            alert_id: exception.getattr("alert_id")?.extract()?,
            alert_message: text_of(exception, "alert_message")?,
        }
    } else if has("field_name")? {
        Payload::Field {
            field_name: text_of(exception, "field_name")?,
            field_size: exception.getattr("field_size")?.extract()?,
        }
    } else {
        Payload::None
    };
    Ok(ErrorCode { name, payload })
}

/// What is no Unicode (an operating system's bytes, as Python keeps them in a text) is replaced: a guest has UTF-8.
fn text_of(exception: &Bound<'_, PyAny>, name: &str) -> PyResult<Option<String>> {
    let text: Option<Bound<'_, PyString>> = exception.getattr(name)?.extract()?;
    Ok(text.map(|text| text.to_string_lossy().into_owned()))
}

/// An exception of this package by its class's name.
pub(crate) fn named(py: Python<'_>, class: &str, message: impl Into<String>) -> PyErr {
    make(py, class, message.into(), &PyDict::new(py)).unwrap_or_else(|failure| failure)
}
