//! `wasgi.Report`: what an exchange has cost; `wait` and `finished`: how its guest has ended.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use pyo3::prelude::*;

use crate::error::Error;
use crate::exchange::handle::ExchangeHandle;
use crate::py::errors::to_py;
use crate::py::executor::operation::Operation;
use crate::py::message::body::PyBody;
use crate::py::message::read::Drain;
use crate::py::values::{Reduced, hash_of};

/// The cost of an exchange so far: time, memory, fuel.
#[pyclass(name = "Report", module = "wasgi", frozen, eq, get_all, from_py_object)]
#[derive(Clone, PartialEq)]
pub struct PyReport {
    /// The number of the exchange in this process, as in log records and lines of stdout and stderr.
    exchange: u64,
    /// Seconds from the guest's start to its end.
    duration: f64,
    /// Peak memory in bytes: linear memory, the host's memory for its instance and behind its handles.
    memory: u64,
    /// The number of outgoing requests.
    outgoing: u64,
    /// The number of earlier exchanges of its instance: 0 for a fresh one.
    reused: u64,
    /// The fuel that it used, under `Limits.fuel` and when it has ended; else None.
    fuel: Option<u64>,
    /// Whether the guest still runs.
    running: bool,
}

impl PyReport {
    /// Of an exchange that came to nothing before its guest was made.
    pub fn of_nothing(exchange: u64, begun: Instant) -> Self {
        let duration = begun.elapsed().as_secs_f64();
        Self { exchange, duration, memory: 0, outgoing: 0, reused: 0, fuel: None, running: false }
    }

    pub fn of(exchange: u64, owner: &ExchangeHandle) -> Self {
        let report = owner.report();
        Self {
            exchange,
            duration: report.duration.as_secs_f64(),
            memory: report.memory,
            outgoing: report.outgoing,
            reused: report.reused,
            fuel: report.fuel,
            running: report.running,
        }
    }
}

#[pymethods]
impl PyReport {
    fn __repr__(&self) -> String {
        format!(
            "Report(exchange={}, duration={:.6}, memory={}, outgoing={}, reused={}, fuel={}, running={})",
            self.exchange,
            self.duration,
            self.memory,
            self.outgoing,
            self.reused,
            self.fuel.map_or_else(|| "None".to_owned(), |fuel| fuel.to_string()),
            if self.running { "True" } else { "False" }
        )
    }

    fn __hash__(&self) -> u64 {
        hash_of(&self.__repr__())
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Reduced<'py>> {
        let this = slf.get();
        let all = (this.exchange, this.duration, this.memory, this.outgoing, this.reused, this.fuel, this.running);
        Ok((slf.get_type().getattr("_restore")?, all.into_pyobject(slf.py())?))
    }

    /// What `__reduce__` has pickled.
    #[staticmethod]
    fn _restore(
        exchange: u64,
        duration: f64,
        memory: u64,
        outgoing: u64,
        reused: u64,
        fuel: Option<u64>,
        running: bool,
    ) -> Self {
        Self { exchange, duration, memory, outgoing, reused, fuel, running }
    }

    fn __copy__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __deepcopy__(slf: Py<Self>, _memo: &Bound<'_, PyAny>) -> Py<Self> {
        slf
    }
}

/// The end of a guest: what is left of its body is thrown away, unless somebody reads it.
pub(crate) struct End {
    exchange: u64,
    owner: ExchangeHandle,
    body: Arc<PyBody>,
    rest: Option<Drain>,
    failure: Option<Error>,
    ended: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl End {
    pub(crate) fn new(exchange: u64, owner: &ExchangeHandle, body: &Arc<PyBody>) -> Self {
        let ended = Box::pin(owner.ended());
        Self { exchange, owner: owner.observe(), body: body.clone(), rest: None, failure: None, ended }
    }

    /// The failure that ended it, if one did.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Error>> {
        if let Some(error) = self.owner.out_of_reach() {
            return Poll::Ready(Some(error));
        }
        if self.rest.is_none() {
            self.rest = self.body.take_rest(cx.waker()).map(Drain::new);
        }
        if let Some(rest) = &mut self.rest {
            match ready!(rest.poll(cx)) {
                Ok(trailers) => self.body.keep_trailers(trailers),
                Err(error) => self.failure = Some(error),
            }
            self.rest = None;
        }
        ready!(self.ended.as_mut().poll(cx));
        Poll::Ready(match self.owner.outcome() {
            // that the rest of the body was broken is why it was stopped
            Some(Err(Error::Cancelled)) if self.failure.is_some() => self.failure.take(),
            Some(Err(error)) => Some(error),
            _ => self.failure.take(),
        })
    }

    pub(crate) fn tell(&self, py: Python<'_>, failure: Option<Error>) -> PyResult<PyReport> {
        match failure {
            Some(error) => Err(to_py(py, &error)),
            None => Ok(PyReport::of(self.exchange, &self.owner)),
        }
    }
}

impl Drop for End {
    /// Whoever waited gave up, which stops nothing.
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            self.body.give_back(rest.into_body());
        }
    }
}

/// `await response.finished()`.
pub(crate) struct Finished(pub Option<End>);

impl Operation for Finished {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let Some(end) = &mut self.0 else { return Poll::Ready(Ok(py.None())) };
        let failure = ready!(end.poll(cx));
        Poll::Ready(end.tell(py, failure).and_then(|report| Ok(Py::new(py, report)?.into_any())))
    }

    fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.0.as_ref().map_or(Ok(()), |end| end.body.traverse(visit))
    }

    fn owns_body(&self) -> bool {
        self.0.as_ref().is_some_and(|end| Arc::strong_count(&end.body) == 1)
    }
}
