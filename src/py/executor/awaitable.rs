//! Our own awaitable: the cheapest way for a task to wait for Rust.
//!
//! An operation is polled on the loop's thread. If it is ready at once, the task goes on without the loop's help;
//! if not, the task waits for a plain `asyncio.Future`, which the loop's [`LoopCore`] resolves. Measured in a throw-away
//! binding: 1.0 to 1.1 times the floor, where a future made by pyo3-async-runtimes costs 4.4 to 9 times.

use std::ffi::CString;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use pyo3::exceptions::{PyRuntimeError, PyRuntimeWarning, PyStopIteration};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::exchange::handle::in_parent;
use crate::py::errors::to_py;
use crate::py::executor::event_loop::LoopCore;
use crate::py::executor::exit::is_exiting;
use crate::py::executor::operation::{Begun, Operation, Waiting};
use crate::py::executor::running_loop::running_loop;
use crate::py::held::{Held, attach, detach};
use crate::py::lock;
use crate::py::once::text;

/// An awaitable that asyncio accepts like a coroutine; awaited once. Cancelling or closing it cancels the work.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct Awaitable {
    state: Mutex<State>,
    /// What is called by awaiting it: who forgets that is warned.
    call: Option<&'static str>,
}

enum State {
    New(Box<dyn Operation>),
    /// The loop's, too: it drops the operation when it closes.
    Waiting {
        operation: Arc<Waiting>,
        core: Arc<LoopCore>,
        number: u64,
    },
    Done,
}

impl State {
    fn new(operation: impl Operation + 'static) -> Self {
        Self::New(Box::new(operation))
    }
}

impl Awaitable {
    pub fn new(operation: impl Operation + 'static) -> Self {
        Self { state: Mutex::new(State::new(operation)), call: None }
    }

    /// One of which a coroutine would say that it was never awaited.
    pub fn of_call(name: &'static str, operation: impl Operation + 'static) -> Self {
        Self { state: Mutex::new(State::new(operation)), call: Some(name) }
    }

    fn step(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let (operation, is_new) = match std::mem::replace(&mut *lock(&self.state), State::Done) {
            // before it has begun it is of no process
            State::New(operation) => (Some(Begun::new(operation)), true),
            State::Waiting { operation, core, number } => {
                core.forget(number);
                let operation = lock(&operation).take();
                (operation, false)
            }
            State::Done => (None, false),
        };
        let Some(mut begun) = operation else {
            return Err(PyRuntimeError::new_err("cannot await this a second time"));
        };
        if begun.is_foreign() {
            return Err(to_py(py, &in_parent()));
        }
        let operation = &mut begun.operation;
        if is_new && let Poll::Ready(result) = operation.poll(py, &mut Context::from_waker(Waker::noop())) {
            return finished(py, result);
        }
        let running = running_loop(py)?;
        let core = LoopCore::of(&running)?;
        let future = running.call_method0(text!(py, "create_future"))?;
        let number = core.keep(future.clone().unbind());
        let waker = Arc::new(LoopWaker { core: core.clone(), number });
        match operation.poll(py, &mut Context::from_waker(&Waker::from(waker))) {
            Poll::Ready(result) => {
                core.forget(number);
                finished(py, result)
            }
            Poll::Pending => {
                // What `Future.__await__` does: it tells the task that this one is awaited, not returned.
                future.setattr(text!(py, "_asyncio_future_blocking"), true)?;
                let operation = Arc::new(Mutex::new(Some(begun)));
                core.waits(number, &operation);
                *lock(&self.state) = State::Waiting { operation, core, number };
                Ok(future.unbind())
            }
        }
    }

    /// Stops the work.
    fn stop(state: State) {
        if let State::Waiting { operation, core, number } = state {
            core.forget(number);
            let operation = lock(&operation).take();
            drop(operation);
        }
    }
}

impl Drop for Awaitable {
    fn drop(&mut self) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Done);
        if let Some(call) = self.call
            && matches!(state, State::New(_))
            && !is_exiting()
        {
            attach(|py| warn_of_unawaited(py, call));
        }
        Self::stop(state);
    }
}

/// The last reference may go while an exception is on its way, which this must not touch.
#[cold]
fn warn_of_unawaited(py: Python<'_>, call: &str) {
    crate::py::executor::finalization::protect();
    let raised = PyErr::take(py);
    let told = CString::new(format!("coroutine '{call}' was never awaited"))
        .map_err(PyErr::from)
        .and_then(|text| PyErr::warn(py, py.get_type::<PyRuntimeWarning>().as_any(), &text, 1));
    if let Err(error) = told {
        error.write_unraisable(py, None);
    }
    if let Some(raised) = raised {
        raised.restore(py);
    }
}

fn finished(py: Python<'_>, result: PyResult<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let value = result?;
    // a tuple would be spread over StopIteration's arguments
    Err(PyErr::from_value(py.get_type::<PyStopIteration>().call1((value,))?))
}

#[pymethods]
impl Awaitable {
    fn __await__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.step(py)
    }

    fn send(&self, py: Python<'_>, value: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let _ = value;
        self.step(py)
    }

    /// Called when the task is cancelled: what was waited for is stopped, then the exception goes on.
    #[pyo3(signature = (exception, value=None, traceback=None, /))]
    fn throw(
        &self,
        py: Python<'_>,
        exception: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Py<PyAny>> {
        self.close(py);
        let _ = traceback;
        let exception = match value {
            Some(value) if value.is_instance_of::<pyo3::exceptions::PyBaseException>() => value.clone(),
            Some(value) => exception.call1((value,))?,
            None if exception.is_instance_of::<pyo3::types::PyType>() => exception.call0()?,
            None => exception.clone(),
        };
        Err(PyErr::from_value(exception))
    }

    fn close(&self, py: Python<'_>) {
        let state = std::mem::replace(&mut *lock(&self.state), State::Done);
        detach(py, || Self::stop(state));
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // taken by this thread only for moments in which no Python object is made, so that the collector cannot run
        match self.state.try_lock().as_deref() {
            Ok(State::New(operation)) => operation.traverse(&visit),
            Ok(State::Waiting { operation, .. }) => match operation.try_lock().as_deref() {
                Ok(Some(begun)) => begun.operation.traverse(&visit),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }
}

/// Wakes a task of one event loop, from any thread and without the GIL.
pub(crate) struct LoopWaker {
    core: Arc<LoopCore>,
    /// Of the future that the task waits for, which its loop keeps: a waker that others hold must not keep a task, and with it the loop.
    number: u64,
}

impl Wake for LoopWaker {
    fn wake(self: Arc<Self>) {
        self.core.wake(self.number);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.core.wake(self.number);
    }
}

/// `async with` gives what it was asked of.
pub(crate) struct Itself(pub Option<Held<Py<PyAny>>>);

impl Operation for Itself {
    fn poll(&mut self, py: Python<'_>, _: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        Poll::Ready(Ok(self.0.take().map_or_else(|| py.None(), Held::into_inner)))
    }

    fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(self.0.as_deref())
    }
}

/// Something that is done when it is awaited, without waiting.
pub(crate) struct Once<F>(pub Option<F>);

impl<F: FnOnce(Python<'_>) + Send> Operation for Once<F> {
    fn poll(&mut self, py: Python<'_>, _: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if let Some(act) = self.0.take() {
            act(py);
        }
        Poll::Ready(Ok(py.None()))
    }
}
