//! What is asked of Python once, and known from then on: a function of a module, a text.
//!
//! A `PyOnceLock` of PyO3's, and with it `intern!`, is left half made while whoever makes it waits for the GIL or imports a module. A child
//! that was forked at that moment would wait for ever, in its first call. Here nobody waits: of several threads that ask at once each
//! makes it, and one is heard.

use std::convert::Infallible;
use std::sync::OnceLock;

use pyo3::prelude::*;
use pyo3::types::PyString;

/// A value of the interpreter's, which lives as long as the process.
pub(crate) struct Once<T>(OnceLock<T>);

impl<T> Once<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// What is known, or made now.
    pub(crate) fn get(&self, py: Python<'_>, make: impl FnOnce() -> T) -> &T {
        match self.try_get(py, || Ok::<_, Infallible>(make())) {
            Ok(value) => value,
            Err(never) => match never {},
        }
    }

    /// The same, where making it can fail: then the next who asks makes it.
    pub(crate) fn try_get<E>(&self, _py: Python<'_>, make: impl FnOnce() -> Result<T, E>) -> Result<&T, E> {
        if let Some(value) = self.0.get() {
            return Ok(value);
        }
        let value = make()?;
        // it is set with the GIL, which whoever forks has: no fork comes into this
        Ok(self.0.get_or_init(|| value))
    }
}

impl Once<Py<PyAny>> {
    /// An attribute of a module.
    pub(crate) fn import<'py>(&self, py: Python<'py>, module: &str, name: &str) -> PyResult<&Bound<'py, PyAny>> {
        Ok(self.try_get(py, || py.import(module)?.getattr(name).map(Bound::unbind))?.bind(py))
    }
}

impl Once<Py<PyString>> {
    pub(crate) fn text<'py>(&self, py: Python<'py>, text: &str) -> &Bound<'py, PyString> {
        self.get(py, || PyString::intern(py, text).unbind()).bind(py)
    }
}

/// A `str` that is made once for each place in the code.
macro_rules! text {
    ($py:expr, $text:literal) => {{
        static TEXT: $crate::py::once::Once<pyo3::Py<pyo3::types::PyString>> = $crate::py::once::Once::new();
        TEXT.text($py, $text)
    }};
}

pub(crate) use text;
