//! One call of an app: admission, the exchange, the head of its response.

use std::sync::Arc;
use std::time::Instant;

use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};
use wasmtime_wasi_http::WasiBody;

use crate::app::App;
use crate::app::admission::{Admission, Permit};
use crate::app::exchange::Exchange;
use crate::app::shared::Reservation;
use crate::error::Error;
use crate::outgoing::upstream::Upstreams;
use crate::py::errors::to_py;
use crate::py::executor::blocking::{Inside, block_on, block_on_until, deadline};
use crate::py::executor::context::copy_context;
use crate::py::executor::event_loop::LoopCore;
use crate::py::held::detach;
use crate::py::message::feed::Feed;
use crate::py::message::request::PyRequest;
use crate::py::message::response::PyResponse;
use crate::py::on_finish::{Failure, Finishing, OnFinish};
use crate::py::once::{Once, text};
use crate::py::outgoing::{Outgoing, check_depth};
use crate::py::output::{GuestOutput, Sinks};
use crate::py::process_of;

/// How an exchange begins.
pub(crate) enum Begins {
    /// Its guest has a turn on this thread (unless setting it up would hold up an event loop); if it is not done then, the runtime goes
    /// on with it.
    Here { may_block: bool },
    /// Its guest has no turn before it is handed over: others are to begin beside it.
    First,
    /// At this place, if there is one.
    Beside(Option<Reservation>),
}

/// An exchange whose guest has begun, or waits for others to begin beside it.
pub(crate) struct Begun {
    pub(super) exchange: Exchange,
    number: u64,
    pub(super) output: Arc<GuestOutput>,
    finishing: Option<Arc<Finishing>>,
}

/// A request as a guest gets it, and what feeds its body if Python code does.
type Fed = (http::Request<WasiBody>, Option<Arc<Feed>>);

/// What an exchange is begun with. A class of its own, which both an app and its calls refer to: the collector sees each reference.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct Callee {
    pub app: Arc<App>,
    pub outgoing: Option<Outgoing>,
    /// Answers the requests that its guests pass on.
    pub handler: Option<Outgoing>,
    pub sinks: Py<Sinks>,
    pub on_finish: Option<Py<OnFinish>>,
}

#[pymethods]
impl Callee {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        for upstream in self.upstreams() {
            upstream.traverse(&visit)?;
        }
        if let Some(on_finish) = &self.on_finish {
            visit.call(on_finish)?;
        }
        visit.call(&self.sinks)
    }
}

impl Callee {
    /// `App.handle`, for no longer than so many seconds.
    pub fn call(&self, py: Python<'_>, request: &Bound<'_, PyRequest>, seconds: Option<f64>) -> PyResult<PyResponse> {
        let inside = Inside::enter();
        inside.check(py);
        let deadline = deadline(seconds)?;
        let permit = match self.app.admit(process_of(py)?).map_err(|error| to_py(py, &error))? {
            Admission::Permit(permit) => permit,
            Admission::Queued(mut queued) => {
                block_on_until(py, deadline, |cx| queued.poll(cx))?.map_err(|error| to_py(py, &error))?
            }
        };
        let begun = self.begin(py, permit, request, None, Begins::Here { may_block: true })?;
        begun.wait(py, deadline, &inside)
    }

    /// Starts the guest.
    pub(super) fn begin(
        &self,
        py: Python<'_>,
        mut permit: Permit,
        request: &Bound<'_, PyRequest>,
        event_loop: Option<&Arc<LoopCore>>,
        begins: Begins,
    ) -> PyResult<Begun> {
        let number = permit.number;
        let finishing = match &self.on_finish {
            Some(on_finish) => {
                crate::py::executor::threads::threads().ensure(py)?;
                let (method, uri) = (request.get().http_method(), request.get().uri());
                Some(self.finishing(on_finish, &mut permit, method, uri, copy_context(py)?))
            }
            None => None,
        };
        let begun = self.prepare(py, number, request, event_loop).and_then(|(asked, upstreams)| {
            let is_first = matches!(begins, Begins::First);
            let started = self.start(py, permit, asked, upstreams, begins, finishing.clone());
            let (mut begun, done) = started.map_err(|error| to_py(py, &error))?;
            if !done && !is_first {
                begun.hand_over(py)?;
            }
            Ok(begun)
        });
        begun.inspect_err(|error| {
            if let Some(finishing) = finishing {
                finishing.failed(Failure::Python(error.clone_ref(py).into()));
            }
        })
    }

    /// Whoever wants to hear of an exchange's end.
    fn finishing(
        &self,
        on_finish: &Py<OnFinish>,
        permit: &mut Permit,
        method: &http::Method,
        uri: &http::Uri,
        context: Bound<'_, PyAny>,
    ) -> Arc<Finishing> {
        let finishing = Finishing::new(on_finish, permit.number, &self.sinks, method, uri, context);
        permit.is_seen_by(finishing.clone());
        finishing
    }

    /// A request of Python's as its guest gets it, and its upstreams.
    fn prepare(
        &self,
        py: Python<'_>,
        number: u64,
        request: &Bound<'_, PyRequest>,
        event_loop: Option<&Arc<LoopCore>>,
    ) -> PyResult<(Fed, Upstreams)> {
        let request = request.get();
        let context = match self.needs_loop(request) {
            true => self.context(py, number)?,
            false => py.None().into_bound(py),
        };
        let upstreams = self.for_exchange(py, event_loop, &context)?;
        Ok((request.to_guest(py, event_loop, &context)?, upstreams))
    }

    /// An exchange that has begun, and whether its guest is done; if not, it has to be handed over.
    fn start(
        &self,
        py: Python<'_>,
        permit: Permit,
        (request, feed): Fed,
        upstreams: Upstreams,
        begins: Begins,
        finishing: Option<Arc<Finishing>>,
    ) -> Result<(Begun, bool), Error> {
        let number = permit.number;
        let (may_block, place) = match begins {
            Begins::Here { may_block } => (Some(may_block), None),
            Begins::First => (None, None),
            Begins::Beside(place) => (None, place),
        };
        let (exchange, done) = detach(py, || {
            let mut exchange = self.app.start_at(place, permit, request, upstreams)?;
            if let Some(feed) = &feed {
                feed.belongs_to(exchange.owner().abort_handle());
            }
            let runs_here = may_block.is_some_and(|may_block| may_block || !exchange.decide_off_loop());
            let done = runs_here && exchange.run_here()?;
            Ok::<_, Error>((exchange, done))
        })?;
        if let Some(finishing) = &finishing {
            finishing.began(exchange.owner().observe());
        }
        let output = GuestOutput::new(self.sinks.clone_ref(py), exchange.owner().stdio().clone(), number);
        Ok((Begun { exchange, number, output, finishing }, done))
    }

    /// Its upstreams, if no Python code takes part in its exchanges: then they are the same for all of them.
    pub(crate) fn native_upstreams(&self, py: Python<'_>) -> PyResult<Option<Upstreams>> {
        if self.on_finish.is_some() || self.upstreams().any(Outgoing::is_python) {
            return Ok(None);
        }
        let none = py.None().into_bound(py);
        self.for_exchange(py, None, &none).map(Some)
    }

    /// An exchange of the native server's that Python code takes part in. Its guest has had a turn on this thread, and goes on by itself.
    pub(crate) fn begin_served(
        &self,
        py: Python<'_>,
        mut permit: Permit,
        request: http::Request<WasiBody>,
    ) -> Result<(Exchange, Option<Arc<Finishing>>), Error> {
        let failed = |error: PyErr| Error::Host(error.to_string().into());
        let context = self.context(py, permit.number).map_err(failed)?;
        let finishing = self
            .on_finish
            .as_ref()
            .map(|on_finish| self.finishing(on_finish, &mut permit, request.method(), request.uri(), context.clone()));
        let begun = self.for_exchange(py, None, &context).map_err(failed).and_then(|upstreams| {
            self.start(py, permit, (request, None), upstreams, Begins::Here { may_block: true }, finishing.clone())
        });
        let (mut begun, done) = begun.inspect_err(|error| {
            if let Some(finishing) = &finishing {
                finishing.failed(Failure::Core(error.clone()));
            }
        })?;
        if done {
            begun.output.show(py);
        } else {
            begun.output.go_live(context);
            begun.exchange.hand_over()?;
        }
        Ok((begun.exchange, begun.finishing))
    }

    /// Has instances made that wait for their first exchange, as many as `Reuse.ready` says. Blocks until they are there.
    pub(crate) fn make_ready(&self, py: Python<'_>) -> PyResult<()> {
        for _ in 0..self.app.reuse.map_or(0, |reuse| reuse.ready) {
            crate::py::executor::threads::threads().ensure(py)?;
            let permit = match self.app.admit(process_of(py)?).map_err(|error| to_py(py, &error))? {
                Admission::Permit(permit) => permit,
                Admission::Queued(_) => return Ok(()), // its guests are at work already
            };
            let number = permit.number;
            let context = self.context(py, number)?;
            let upstreams = self.for_exchange(py, None, &context)?;
            let exchange = detach(py, || self.app.make_ready(permit, upstreams));
            let mut exchange = exchange.map_err(|error| to_py(py, &error))?;
            let output = GuestOutput::new(self.sinks.clone_ref(py), exchange.owner().stdio().clone(), number);
            output.go_live(context);
            exchange.hand_over().map_err(|error| to_py(py, &error))?;
            let mut ended = Box::pin(exchange.owner().ended());
            block_on(py, |cx| ended.as_mut().poll(cx))?;
            if let Some(Err(error)) = exchange.owner().outcome() {
                return Err(to_py(py, &error));
            }
        }
        Ok(())
    }

    /// Its upstreams for a command.
    pub(crate) fn for_command(&self, py: Python<'_>, number: u64) -> PyResult<Upstreams> {
        let context = self.context(py, number)?;
        self.for_exchange(py, None, &context)
    }

    fn upstreams(&self) -> impl Iterator<Item = &Outgoing> {
        self.outgoing.iter().chain(&self.handler)
    }

    /// Its upstreams as an exchange uses them.
    fn for_exchange(
        &self,
        py: Python<'_>,
        event_loop: Option<&Arc<LoopCore>>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<Upstreams> {
        if self.upstreams().any(Outgoing::is_python) {
            check_depth(py)?;
        }
        let used =
            |given: &Option<Outgoing>| given.as_ref().map(|given| given.upstream(py, event_loop, context)).transpose();
        Ok(Upstreams { outgoing: used(&self.outgoing)?, handler: used(&self.handler)? })
    }

    /// A copy of the caller's context for code that takes part in an exchange, which names that in log records.
    fn context<'py>(&self, py: Python<'py>, number: u64) -> PyResult<Bound<'py, PyAny>> {
        let context = copy_context(py)?;
        let sinks = self.sinks.get();
        static SET: Once<Py<PyAny>> = Once::new();
        let set = SET.try_get(py, || {
            let exchange = py.import("wasgi._native.context")?.getattr("exchange")?;
            exchange.getattr("set").map(Bound::unbind)
        })?;
        let exchange = (&sinks.component, &sinks.app, number);
        context.call_method1(text!(py, "run"), (set, exchange))?;
        Ok(context)
    }

    /// Whether an exchange may need the caller's event loop and context: Python code takes part in it.
    pub(super) fn needs_loop(&self, request: &PyRequest) -> bool {
        self.upstreams().any(Outgoing::is_python) || request.body().is_python()
    }
}

/// What a call has of its exchange.
pub(super) type Outcome = Result<http::Response<crate::exchange::guest_body::GuestBody>, Error>;

impl Begun {
    /// The runtime goes on with its guest.
    pub(super) fn hand_over(&mut self, py: Python<'_>) -> PyResult<()> {
        crate::py::executor::threads::threads().ensure(py)?;
        self.output.go_live(copy_context(py)?);
        self.exchange.hand_over().map_err(|error| to_py(py, &error))
    }

    /// Waits for its response.
    pub(super) fn wait(mut self, py: Python<'_>, deadline: Option<Instant>, inside: &Inside) -> PyResult<PyResponse> {
        let outcome = block_on_until(py, deadline, |cx| self.exchange.poll_head(cx));
        let outcome = self.output.deliver_after(py, outcome)?;
        inside.check(py);
        self.answer(py, outcome, true)
    }

    /// A place in its instance: see [`Exchange::reserve_beside`].
    pub(super) fn reserve_beside(&self) -> Option<Reservation> {
        self.exchange.reserve_beside()
    }

    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.output.traverse(visit)
    }

    pub(super) fn answer(self, py: Python<'_>, outcome: Outcome, blocking: bool) -> PyResult<PyResponse> {
        let exception = match outcome {
            Ok(response) => {
                if let Some(finishing) = self.finishing {
                    finishing.answered(response.status().as_u16());
                }
                return Ok(PyResponse::from_guest(response, self.number, self.output, blocking));
            }
            Err(ref error @ Error::Caller(_)) => {
                let exception = to_py(py, error);
                if let Some(finishing) = self.finishing {
                    finishing.failed(Failure::Python(exception.clone_ref(py).into()));
                }
                return Err(exception);
            }
            Err(error) => {
                let exception = to_py(py, &error);
                if let Some(finishing) = self.finishing {
                    finishing.failed(Failure::Core(error));
                }
                exception
            }
        };
        exception.value(py).setattr(text!(py, "exchange"), self.number)?;
        Err(exception)
    }
}
