//! `Flushed`: an operation whose result waits until the guest's lines have been delivered.

use std::sync::Arc;
use std::task::{Context, Poll};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::py::executor::operation::Operation;
use crate::py::held::Held;
use crate::py::output::{GuestOutput, Until};

/// An operation whose result is given when the lines that its guest has printed until then have been delivered.
pub(crate) struct Flushed<O> {
    operation: O,
    output: Option<Arc<GuestOutput>>,
    result: Option<Held<PyResult<Py<PyAny>>>>,
    lines: Until,
}

impl<O> Flushed<O> {
    pub(crate) fn new(operation: O, output: Option<Arc<GuestOutput>>) -> Self {
        Self { operation, output, result: None, lines: Until::default() }
    }
}

impl<O: Operation> Operation for Flushed<O> {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let result = match self.result.take() {
            Some(result) => result.into_inner(),
            None => std::task::ready!(self.operation.poll(py, cx)),
        };
        if let Some(output) = &self.output {
            match output.poll_delivered(py, cx, &mut self.lines) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.result = Some(result.into());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(result)
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(Ok(result)) = self.result.as_deref() {
            visit.call(result)?;
        }
        self.operation.traverse(visit)?;
        match &self.output {
            // this one's, and the body's
            Some(output) if self.operation.owns_body() && Arc::strong_count(output) == 2 => visit.call(&*output.sinks),
            _ => Ok(()),
        }
    }
}
