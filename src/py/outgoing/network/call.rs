//! `wasgi.outgoing.call` of a network: a request that Python code sends itself.

use std::sync::Arc;
use std::task::{Context, Poll};

use pyo3::prelude::*;

use crate::network::Network;
use crate::outgoing::host_request::HostRequest;
use crate::py::errors::to_py;
use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::operation::Operation;
use crate::py::executor::running_loop::running_loop;
use crate::py::held::Held;
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::once::text;
use crate::py::output::flushed::Flushed;
use crate::py::output::{GuestOutput, Sinks};
use crate::py::process_of;

/// A request of Python's own. It is sent when it is awaited.
pub(super) enum Call {
    New {
        network: Arc<Network>,
        request: Held<Py<PyRequest>>,
    },
    Sent(HostRequest, Arc<GuestOutput>),
    /// What the log is told of it is on its way.
    Answered(Flushed<Answered>),
    Done,
}

impl Call {
    fn begin(py: Python<'_>, network: &Network, request: &PyRequest) -> PyResult<Self> {
        let event_loop = LoopCore::of(&running_loop(py)?)?;
        let context = match request.body().is_python() {
            true => py.import(text!(py, "contextvars"))?.call_method0(text!(py, "copy_context"))?,
            false => py.None().into_bound(py),
        };
        let timeouts = request.limits();
        let (request, feed) = request.to_guest(py, Some(&event_loop), &context)?;
        let asked = HostRequest::new(process_of(py)?, network, request, timeouts).map_err(|error| to_py(py, &error))?;
        if let Some(feed) = feed {
            feed.belongs_to(asked.owner().abort_handle());
        }
        let output = GuestOutput::new(Sinks::of_no_app(py)?, asked.warnings().clone(), 0);
        Ok(Self::Sent(asked, output))
    }
}

impl Operation for Call {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Self::New { network, request } = self {
            *self = match Self::begin(py, network, request.get()) {
                Ok(sent) => sent,
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        if let Self::Sent(asked, output) = self {
            let answered = match std::task::ready!(asked.poll(cx)) {
                Ok(response) => Py::new(py, PyResponse::from_upstream(response)).map(Py::into_any),
                Err(error) => Err(to_py(py, &error)),
            };
            let output = output.clone();
            *self = Self::Answered(Flushed::new(Answered(Some(answered.into())), Some(output)));
        }
        let Self::Answered(answered) = self else { return Poll::Pending };
        let answered = std::task::ready!(answered.poll(py, cx));
        *self = Self::Done;
        Poll::Ready(answered)
    }
}

/// What is known already.
pub(super) struct Answered(Option<Held<PyResult<Py<PyAny>>>>);

impl Operation for Answered {
    fn poll(&mut self, py: Python<'_>, _: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        Poll::Ready(self.0.take().map_or_else(|| Ok(py.None()), Held::into_inner))
    }
}
