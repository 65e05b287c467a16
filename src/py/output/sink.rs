//! A sink: the logger, a callable, or a file.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};

use crate::exchange::stdio::{Line, Stream};
use crate::py::once::text;

/// Where one of the two streams goes.
pub(super) enum Sink {
    Logger,
    Callable(Py<PyAny>),
    File(Py<PyAny>),
}

impl Sink {
    pub(super) fn given(name: &str, sink: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
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

    pub(super) fn object(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Logger => None,
            Self::Callable(object) | Self::File(object) => Some(object),
        }
    }

    /// One line; `whose`: the names of its component and its app in log records, and the number of its exchange.
    pub(super) fn write(
        &self,
        py: Python<'_>,
        line: &Line,
        whose: (&str, &str, u64),
        context: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let (component, app, exchange) = whose;
        let output = py.import(text!(py, "wasgi._native.output"))?;
        let stream = name_of(py, line.stream);
        let (sink, arguments) = match self {
            Self::Logger => {
                let sink = output.getattr(text!(py, "log_line"))?;
                (sink, (&line.text, stream, component, app, exchange).into_pyobject(py)?)
            }
            Self::Callable(callable) => {
                let made = output.getattr(text!(py, "Line"))?.call1((&line.text, stream, exchange, line.cut))?;
                (callable.bind(py).clone(), (made,).into_pyobject(py)?)
            }
            Self::File(file) => {
                let end = if line.cut { "" } else { "\n" };
                let write = file.bind(py).getattr(text!(py, "write"))?;
                (write, (format!("{}{end}", line.text),).into_pyobject(py)?)
            }
        };
        match context {
            None => sink.call1(arguments)?,
            Some(context) => {
                let arguments: Vec<_> = std::iter::once(sink).chain(arguments.iter()).collect();
                context.call_method1(text!(py, "run"), PyTuple::new(py, arguments)?)?
            }
        };
        Ok(())
    }
}

/// What Python code calls a stream.
pub(super) fn name_of<'py>(py: Python<'py>, stream: Stream) -> &'py Bound<'py, PyString> {
    match stream {
        Stream::Stdout => text!(py, "stdout"),
        Stream::Stderr => text!(py, "stderr"),
        Stream::Outgoing => text!(py, "outgoing"),
        Stream::Host => text!(py, "host"),
        Stream::News => text!(py, "news"),
    }
}
