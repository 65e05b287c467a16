//! Value semantics of settings: checked numbers, repr, hash, pickling, `copy.replace`.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyString, PyTuple, PyType};

/// A number that was given as one: `True` is none, though Python takes it for 1.
#[derive(Clone, Copy)]
pub(crate) struct Number<T>(pub T);

/// A whole number of a setting. One that is too large is refused like any other wrong value.
pub(crate) type Count = Number<i64>;

pub(crate) type Seconds = Number<f64>;

fn refuse_bool(given: &Borrowed<'_, '_, PyAny>) -> PyResult<()> {
    if given.is_instance_of::<PyBool>() {
        return Err(PyTypeError::new_err("expected a number, not a bool"));
    }
    Ok(())
}

impl<'a, 'py> FromPyObject<'a, 'py> for Number<i64> {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        refuse_bool(&given)?;
        given.extract().map(Self).map_err(|error: PyErr| {
            if error.is_instance_of::<PyOverflowError>(given.py()) {
                return PyValueError::new_err(format!("a number is out of range: {}", &*given));
            }
            error
        })
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Number<u64> {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        refuse_bool(&given)?;
        given.extract().map(Self)
    }
}

impl<'a, 'py> FromPyObject<'a, 'py> for Number<f64> {
    type Error = PyErr;

    fn extract(given: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        refuse_bool(&given)?;
        given.extract().map(Self)
    }
}

/// What `__reduce__` gives.
pub(crate) type Reduced<'py> = (Bound<'py, PyAny>, Bound<'py, PyTuple>);

/// `class(**settings)`, for every protocol of pickle: `__getnewargs_ex__` would need the second one.
pub(crate) fn reduce<'py>(class: &Bound<'py, PyType>, settings: &Bound<'py, PyDict>) -> PyResult<Reduced<'py>> {
    let py = class.py();
    let partial = py.import("functools")?.getattr("partial")?.call((class,), Some(settings))?;
    Ok((partial, PyTuple::empty(py)))
}

/// What `copy.replace` gives (Python 3.13 and later): the same with these changes, checked like any other.
pub(crate) fn replaced<'py>(
    class: &Bound<'py, PyType>,
    settings: &Bound<'py, PyDict>,
    changes: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    if let Some(changes) = changes {
        settings.update(changes.as_mapping())?;
    }
    class.call((), Some(settings))
}

/// `Name(a=1, b=None)`.
pub(crate) fn shown(name: &str, settings: &Bound<'_, PyDict>) -> PyResult<String> {
    let mut parts = Vec::new();
    for (setting, value) in settings.iter() {
        let setting: String = setting.extract()?;
        parts.push(format!("{setting}={}", shown_setting(&setting, &value)?));
    }
    Ok(format!("{name}({})", parts.join(", ")))
}

/// What a repr says of a setting: nothing that is secret (keys, passwords of proxies), and no bytes.
fn shown_setting(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(match (name, value.extract::<String>()) {
        ("client_key", _) => "...".to_owned(),
        ("proxy", Ok(url)) => match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) => {
                let (before, after) = (url.get(..scheme + 3).unwrap_or(""), url.get(at..).unwrap_or(""));
                PyString::new(value.py(), &format!("{before}...{after}")).repr()?.to_string()
            }
            (None, Some(_)) => "...".to_owned(),
            _ => value.repr()?.to_string(),
        },
        _ => match value.cast::<PyBytes>() {
            Ok(bytes) => format!("<{} bytes>", bytes.as_bytes().len()),
            Err(_) => value.repr()?.to_string(),
        },
    })
}

/// The hash of a value that is all in its repr.
pub(crate) fn hash_of(repr: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    repr.hash(&mut hasher);
    hasher.finish()
}

/// The Python methods of a class of settings: its own, and those by which it is a value. What it is made of is what its `settings` say.
macro_rules! value_methods {
    (impl $class:ident as $name:literal { $($own:tt)* }) => {
        #[pyo3::pymethods]
        impl $class {
            $($own)*

            fn __repr__(&self, py: pyo3::Python<'_>) -> pyo3::PyResult<String> {
                $crate::py::values::shown($name, &self.settings(py)?)
            }

            fn __hash__(&self, py: pyo3::Python<'_>) -> pyo3::PyResult<u64> {
                Ok($crate::py::values::hash_of(&self.__repr__(py)?))
            }

            fn __reduce__<'py>(
                slf: &pyo3::Bound<'py, Self>,
            ) -> pyo3::PyResult<$crate::py::values::Reduced<'py>> {
                $crate::py::values::reduce(&slf.get_type(), &slf.get().settings(slf.py())?)
            }

            #[pyo3(signature = (**changes))]
            fn __replace__<'py>(
                slf: &pyo3::Bound<'py, Self>,
                changes: Option<&pyo3::Bound<'py, pyo3::types::PyDict>>,
            ) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::PyAny>> {
                $crate::py::values::replaced(&slf.get_type(), &slf.get().settings(slf.py())?, changes)
            }

            fn __copy__(slf: pyo3::Py<Self>) -> pyo3::Py<Self> {
                slf
            }

            fn __deepcopy__(slf: pyo3::Py<Self>, _memo: &pyo3::Bound<'_, pyo3::PyAny>) -> pyo3::Py<Self> {
                slf
            }
        }
    };
}

pub(super) use value_methods;
