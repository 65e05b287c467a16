//! An app as the native server has it: without Python on the way, unless Python code takes part in its exchanges.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use pyo3::prelude::*;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;

use crate::app::App;
use crate::app::admission::Permit;
use crate::app::exchange::Exchange;
use crate::error::Error;
use crate::exchange::stdio::Stdio;
use crate::outgoing::upstream::Upstreams;
use crate::py::call::Callee;
use crate::py::errors::to_py;
use crate::py::executor::job::Job;
use crate::py::executor::serial::{Serial, Turn};
use crate::py::executor::threads::threads;
use crate::py::held::Held;
use crate::py::lock;
use crate::py::on_finish::{Failure as Unfinished, Finishing};
use crate::py::once::text;
use crate::py::output::GuestOutput;
use crate::server::routes::{Beginning, Begun, Failure, Hosted, Witness};

/// How many failures wait to be logged; more are dropped: what floods a log is there already.
const MOST_FAILURES: usize = 256;

/// See the module.
pub(super) struct PyHosted {
    callee: Held<Py<Callee>>,
    app: Arc<App>,
    label: String,
    /// What answers its guests' requests; none if Python code does, which an exchange's own loop and context are needed for.
    native: Option<Upstreams>,
    forwarded: bool,
    strips: bool,
    debug: bool,
    lines: Arc<Serial<Printed>>,
    failures: Arc<Serial<Failed>>,
    this: OnceLock<std::sync::Weak<PyHosted>>,
}

impl PyHosted {
    /// `app`: a `wasgi.App`, whose options for servers are Python's.
    pub(super) fn new(py: Python<'_>, callee: &Py<Callee>, app: &Bound<'_, PyAny>) -> PyResult<Arc<Self>> {
        let native = callee.get().native_upstreams(py)?;
        let strips = app.getattr("root_path")?.extract::<String>()? == "strip";
        let hosted = Arc::new(Self {
            callee: callee.clone_ref(py).into(),
            app: callee.get().app.clone(),
            label: callee.get().sinks.get().component.clone(),
            native,
            forwarded: app.getattr("forwarded")?.is_truthy()?,
            strips,
            debug: app.getattr("debug")?.is_truthy()?,
            lines: Arc::new(Serial::new(usize::MAX)),
            failures: Arc::new(Serial::new(MOST_FAILURES)),
            this: OnceLock::new(),
        });
        let _ = hosted.this.set(Arc::downgrade(&hosted));
        Ok(hosted)
    }

    fn begin_here(
        &self,
        permit: Permit,
        request: http::Request<WasiBody>,
        upstreams: Upstreams,
        is_alone: bool,
    ) -> Result<Exchange, Error> {
        let number = permit.number;
        let mut exchange = self.app.start(permit, request, upstreams)?;
        let elsewhere = if is_alone { exchange.decide_off_own_thread() } else { exchange.decide_off_loop() };
        let done = if elsewhere { false } else { exchange.run_here()? };
        let stdio = exchange.owner().stdio().clone();
        if !done {
            self.print_as_it_comes(&stdio, number);
            exchange.hand_over()?;
        } else if !stdio.is_empty()
            && let Some(printed) = self.printed(&stdio, number)
        {
            printed.ask();
        }
        Ok(exchange)
    }

    fn printed(&self, stdio: &Arc<Stdio>, number: u64) -> Option<Arc<Printing>> {
        let hosted = self.this.get()?.upgrade()?;
        let (output, asked) = (OnceLock::new(), AtomicBool::new(false));
        Some(Arc::new(Printing { hosted, stdio: stdio.clone(), number, output, asked }))
    }

    /// The end of the guest takes the bell off again, and with it this circle of references apart.
    fn print_as_it_comes(&self, stdio: &Arc<Stdio>, number: u64) {
        if let Some(printed) = self.printed(stdio, number) {
            stdio.set_bell(Box::new(move || printed.ask()));
        }
    }
}

impl Hosted for PyHosted {
    fn app(&self) -> &App {
        &self.app
    }

    fn label(&self) -> &str {
        &self.label
    }

    fn begin(&self, permit: Permit, request: http::Request<WasiBody>, is_alone: bool) -> Beginning {
        if let Some(Upstreams { outgoing, handler }) = &self.native {
            let upstreams = Upstreams { outgoing: outgoing.clone(), handler: handler.clone() };
            let exchange = self.begin_here(permit, request, upstreams, is_alone);
            return Beginning::Now(exchange.map(|exchange| Box::new(Begun { exchange, witness: None })));
        }
        let (reply, begun) = oneshot::channel();
        if let Some(hosted) = self.this.get().and_then(std::sync::Weak::upgrade) {
            threads().submit(Arc::new(Begins { hosted, asked: Mutex::new(Some((permit, request, reply))) }));
        }
        Beginning::Later(begun)
    }

    fn failed(&self, failure: Failure) {
        if let Some(hosted) = self.this.get().and_then(std::sync::Weak::upgrade) {
            self.failures.submit(Failed { hosted, failure });
        }
    }

    fn forwarded(&self) -> bool {
        self.forwarded
    }

    fn strips(&self) -> bool {
        self.strips
    }

    fn debug(&self) -> bool {
        self.debug
    }
}

type Reply = oneshot::Sender<Result<Box<Begun>, Error>>;

/// An exchange that Python code takes part in, on a thread of ours.
struct Begins {
    hosted: Arc<PyHosted>,
    asked: Mutex<Option<(Permit, http::Request<WasiBody>, Reply)>>,
}

impl Job for Begins {
    fn run(self: Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some((permit, request, reply)) = lock(&self.asked).take() else { return Ok(()) };
        if reply.is_closed() {
            return Ok(()); // the client has left
        }
        let begun = self.hosted.callee.get().begin_served(py, permit, request);
        let begun = begun.map(|(exchange, finishing)| {
            let witness = finishing.map(|finishing| Box::new(Watches(finishing)) as Box<dyn Witness>);
            Box::new(Begun { exchange, witness })
        });
        let _ = reply.send(begun);
        Ok(())
    }
}

struct Watches(Arc<Finishing>);

impl Witness for Watches {
    fn answered(&self, status: u16) {
        self.0.answered(status);
    }

    fn failed(&self, error: &Error) {
        self.0.failed(Unfinished::Core(error.clone()));
    }
}

/// The lines of one exchange.
struct Printing {
    hosted: Arc<PyHosted>,
    stdio: Arc<Stdio>,
    number: u64,
    output: OnceLock<Arc<GuestOutput>>,
    /// A guest that prints a lot is one turn, not one for each write.
    asked: AtomicBool,
}

impl Printing {
    /// Needs no GIL.
    fn ask(self: &Arc<Self>) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            self.hosted.lines.submit(Printed(self.clone()));
        }
    }
}

/// Lines that wait to be delivered: each exchange is there once at the most.
struct Printed(Arc<Printing>);

impl Turn for Printed {
    fn run(self, py: Python<'_>) {
        let Self(printing) = self;
        printing.asked.store(false, Ordering::SeqCst);
        let sinks = &printing.hosted.callee.get().sinks;
        let made = || GuestOutput::new(sinks.clone_ref(py), printing.stdio.clone(), printing.number);
        printing.output.get_or_init(made).show(py);
    }
}

/// A failure that waits to be logged.
struct Failed {
    hosted: Arc<PyHosted>,
    failure: Failure,
}

impl Turn for Failed {
    fn run(self, py: Python<'_>) {
        let Failure { method, target, status, midway, error, exchange } = self.failure;
        let label = &self.hosted.callee.get().sinks.get().app;
        let told = py.import(text!(py, "wasgi.serving.answers")).and_then(|answers| {
            let error = to_py(py, &error);
            let arguments = (label, method, target, status, midway, error.into_value(py), exchange);
            answers.call_method1(text!(py, "log_served"), arguments)
        });
        if let Err(error) = told {
            error.write_unraisable(py, None);
        }
    }
}
