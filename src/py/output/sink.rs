//! A sink: the logger, a callable, or a file.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

/// Where one of the two streams goes.
pub enum Sink {
    Logger,
    Callable(Py<PyAny>),
    File(Py<PyAny>),
}

impl Sink {
    pub fn given(name: &str, sink: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        crate::py::executor::finalization::protect();
        let Some(sink) = sink else { return Ok(Self::Logger) };
        let write = sink.getattr_opt("write")?;
        let callbacks = sink.py().import("wasgi._native.callbacks")?;
        if callbacks.call_method1("is_async", (write.as_ref().unwrap_or(&sink),))?.is_truthy()? {
            return Err(PyTypeError::new_err(format!(
                "`{name}` must not be a coroutine function: it runs on a thread"
            )));
        }
        Ok(match sink {
            sink if write.is_some() => {
                let output = sink.py().import("wasgi._native.output")?;
                output.call_method1("check_text_file", (name, &sink))?;
                Self::File(sink.unbind())
            }
            sink if sink.is_callable() => Self::Callable(sink.unbind()),
            sink => {
                return Err(PyTypeError::new_err(format!(
                    "`{name}` must be None, a callable or a file, not {}",
                    sink.get_type().name()?
                )));
            }
        })
    }

    pub fn object(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Logger => None,
            Self::Callable(object) | Self::File(object) => Some(object),
        }
    }
}
