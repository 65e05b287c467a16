//! `App.handle_async`: what its task awaits.

use std::task::{Context, Poll};

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::app::admission::{Admission, Permit, Queued};
use crate::py::call::{Begins, Begun, Callee, Outcome};
use crate::py::errors::to_py;
use crate::py::executor::blocking::Inside;
use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::operation::Operation;
use crate::py::executor::running_loop::running_loop;
use crate::py::held::Held;
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::output::Until;
use crate::py::process_of;

/// What `handle_async` waits for. The guest starts when it is awaited.
pub(crate) enum Handle {
    New {
        callee: Held<Py<Callee>>,
        request: Held<Py<PyRequest>>,
    },
    Queued {
        callee: Held<Py<Callee>>,
        request: Held<Py<PyRequest>>,
        queued: Queued,
    },
    Begun(Begun),
    /// The head is there; lines that were printed before it are on their way.
    Answered {
        begun: Begun,
        outcome: Box<Outcome>,
        lines: Until,
    },
    Done,
}

impl Handle {
    fn begin(py: Python<'_>, callee: &Callee, permit: Permit, request: &Bound<'_, PyRequest>) -> PyResult<Begun> {
        let event_loop = match callee.needs_loop(request.get()) {
            true => Some(LoopCore::of(&running_loop(py)?)?),
            false => None,
        };
        callee.begin(py, permit, request, event_loop.as_ref(), Begins::Here { may_block: false })
    }

    fn step(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> PyResult<Option<PyResponse>> {
        let inside = Inside::enter();
        inside.check(py);
        loop {
            *self = match std::mem::replace(self, Self::Done) {
                Self::New { callee, request } => {
                    // asked for first: a guest must not have run where its caller cannot wait for it
                    running_loop(py)?;
                    match callee.get().app.admit(process_of(py)?).map_err(|error| to_py(py, &error))? {
                        Admission::Permit(permit) => {
                            Self::Begun(Self::begin(py, callee.get(), permit, request.bind(py))?)
                        }
                        Admission::Queued(queued) => Self::Queued { callee, request, queued },
                    }
                }
                Self::Queued { callee, request, mut queued } => match queued.poll(cx) {
                    Poll::Ready(permit) => {
                        let permit = permit.map_err(|error| to_py(py, &error))?;
                        Self::Begun(Self::begin(py, callee.get(), permit, request.bind(py))?)
                    }
                    Poll::Pending => {
                        *self = Self::Queued { callee, request, queued };
                        return Ok(None);
                    }
                },
                Self::Begun(mut begun) => match begun.exchange.poll_head(cx) {
                    Poll::Ready(outcome) => {
                        Self::Answered { begun, outcome: Box::new(outcome), lines: Until::default() }
                    }
                    Poll::Pending => {
                        *self = Self::Begun(begun);
                        return Ok(None);
                    }
                },
                Self::Answered { begun, outcome, mut lines } => {
                    match begun.output.poll_delivered(py, cx, &mut lines)? {
                        Poll::Ready(()) => return begun.answer(py, *outcome, false).map(Some),
                        Poll::Pending => {
                            *self = Self::Answered { begun, outcome, lines };
                            return Ok(None);
                        }
                    }
                }
                Self::Done => return Ok(None),
            }
        }
    }
}

impl Operation for Handle {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        match self.step(py, cx) {
            Ok(Some(response)) => Poll::Ready(Py::new(py, response).map(Py::into_any)),
            Ok(None) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match self {
            Self::New { callee, request } | Self::Queued { callee, request, .. } => {
                visit.call(&**callee)?;
                visit.call(&**request)
            }
            Self::Begun(begun) | Self::Answered { begun, .. } => begun.traverse(visit),
            Self::Done => Ok(()),
        }
    }
}
