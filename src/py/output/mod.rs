//! Delivery of a guest's stdout and stderr, line by line and in order, to the sinks of its app.

pub(crate) mod flushed;
mod sink;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use pyo3::exceptions::{PyException, PyKeyboardInterrupt};
use pyo3::prelude::*;
use pyo3::{PyTraverseError, PyVisit};

use crate::exchange::stdio::{Line, Stdio, Stream};
use crate::process::fork::PerFork;
use crate::py::executor::context::copy_context;
use crate::py::executor::exit::is_too_late;
use crate::py::executor::running_loop::running_loop;
use crate::py::executor::serial::{Serial, Turn};
use crate::py::executor::threads::let_others_run;
use crate::py::held::Held;
use crate::py::lock;
use crate::py::once::{Once, text};
use crate::py::output::sink::{Sink, name_of};

/// The sinks of an app. A class of its own, which whoever may call them refers to: the collector sees each reference.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct Sinks {
    stdout: Sink,
    stderr: Sink,
    /// Names the component in log records.
    pub component: String,
    /// Names the app in log records.
    pub app: String,
    lane: PerFork<Serial<Lines>>,
}

impl Sinks {
    pub fn given(
        py: Python<'_>,
        stdout: Option<Bound<'_, PyAny>>,
        stderr: Option<Bound<'_, PyAny>>,
        component: String,
    ) -> PyResult<Py<Self>> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let (stdout, stderr) = (Sink::given("stdout", stdout)?, Sink::given("stderr", stderr)?);
        let app = format!("{component}#{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Py::new(py, Self { stdout, stderr, component, app, lane: PerFork::default() })
    }

    /// For requests that no app's guest makes.
    pub fn of_no_app(py: Python<'_>) -> PyResult<Py<Self>> {
        static LOGGER: Once<Py<Sinks>> = Once::new();
        let make = || {
            let (stdout, stderr, lane) = (Sink::Logger, Sink::Logger, PerFork::default());
            Py::new(py, Self { stdout, stderr, component: String::new(), app: String::new(), lane })
        };
        Ok(LOGGER.try_get(py, make)?.clone_ref(py))
    }

    /// Those exchanges whose lines wait for a thread of ours: each is there once at the most.
    fn lane(&self) -> Arc<Serial<Lines>> {
        self.lane.get(|| Serial::new(usize::MAX))
    }
}

#[pymethods]
impl Sinks {
    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        for sink in [&self.stdout, &self.stderr] {
            if let Some(object) = sink.object() {
                visit.call(object)?;
            }
        }
        Ok(())
    }
}

/// How many lines are taken at once: whoever waits for one of them does not wait for many others.
const BATCH: usize = 64;

/// After how many lines of one exchange the others of its app have their turn.
const SHARE: u64 = 4 * BATCH as u64;

/// The output of one exchange on its way to the sinks: in order, by one thread at a time, and never on a thread that runs an event
/// loop, which a slow sink would hold up.
pub struct GuestOutput {
    sinks: Held<Py<Sinks>>,
    stdio: Arc<Stdio>,
    exchange: u64,
    delivering: Mutex<Delivering>,
    /// Whether a thread is asked to deliver already: a guest that prints a lot is one turn, not one for each write.
    asked: AtomicBool,
    generation: u64,
}

#[derive(Default)]
struct Delivering {
    by: Option<ThreadId>,
    /// How many lines have been delivered.
    lines: u64,
    waiting: Vec<(u64, Waker)>,
}

impl Delivering {
    /// Those who wait for what has been delivered; all, where nobody delivers any more.
    fn take_waiting(&mut self) -> Vec<Waker> {
        let (lines, all) = (self.lines, self.by.is_none());
        self.waiting.extract_if(.., |(until, _)| all || *until <= lines).map(|(_, waker)| waker).collect()
    }
}

/// Up to which line somebody waits: those that there were when he came.
#[derive(Default)]
pub struct Until(Option<u64>);

/// Lines of one exchange, for a thread of ours; in a copy of the context of whoever has called.
pub(crate) struct Lines {
    output: Arc<GuestOutput>,
    context: Option<Arc<Held<Py<PyAny>>>>,
}

impl Turn for Lines {
    fn run(self, py: Python<'_>) {
        let Self { output, context } = self;
        output.asked.store(false, Ordering::SeqCst);
        let own = context.as_ref().map(|context| context.bind(py).call_method0(text!(py, "copy")));
        let own = match own.transpose() {
            Ok(own) => own,
            Err(error) => return error.write_unraisable(py, None),
        };
        let until = lock(&output.delivering).lines + SHARE;
        while let Err(error) = output.deliver_here(py, own.as_ref(), until) {
            // an interrupt is for a caller to hear of, and no thread of ours has one
            if !error.is_instance_of::<PyKeyboardInterrupt>(py) {
                error.write_unraisable(py, None);
            }
        }
        // a guest that prints without end comes again, behind those that wait; where another thread is about it, that one sees to the rest
        if lock(&output.delivering).lines >= until && !output.stdio.is_empty() {
            output.ask(|| context);
        }
    }
}

impl GuestOutput {
    pub fn new(sinks: Py<Sinks>, stdio: Arc<Stdio>, exchange: u64) -> Arc<Self> {
        let (delivering, asked, generation) =
            (Mutex::default(), AtomicBool::new(false), crate::process::fork::generation());
        Arc::new(Self { sinks: sinks.into(), stdio, exchange, delivering, asked, generation })
    }

    /// Whether its guest is in the process that forked this one, which delivers its lines. A thread there may have held any lock.
    fn is_foreign(&self) -> bool {
        self.generation != crate::process::fork::generation()
    }

    /// For whoever holds this, if nobody else does: what others share is theirs to show.
    pub fn traverse(self: &Arc<Self>, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        match Arc::strong_count(self) {
            1 => visit.call(&*self.sinks),
            _ => Ok(()),
        }
    }

    /// From now on lines are delivered as they come, by a thread of ours; also those that come when the response is gone.
    /// The end of the guest takes the bell off again ([`Stdio::finish`]), and with it this cycle of references apart, and the context.
    pub fn go_live(self: &Arc<Self>, context: Bound<'_, PyAny>) {
        let (this, context) = (self.clone(), Arc::new(Held::new(context.unbind())));
        self.stdio.set_bell(Box::new(move || this.ask(|| Some(context.clone()))));
    }

    /// Has a thread of ours deliver what there is.
    fn ask(self: &Arc<Self>, context: impl FnOnce() -> Option<Arc<Held<Py<PyAny>>>>) {
        if !self.asked.swap(true, Ordering::SeqCst) {
            self.sinks.get().lane().submit(Lines { output: self.clone(), context: context() });
        }
    }

    /// The same, of a thread of Python's.
    fn ask_of(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        crate::py::executor::threads::threads().ensure(py)?;
        self.ask(|| copy_context(py).ok().map(|context| Arc::new(context.unbind().into())));
        Ok(())
    }

    /// Ready when all that was there at first has been delivered. For a thread that runs an event loop: another one does it.
    pub fn poll_delivered(
        self: &Arc<Self>,
        py: Python<'_>,
        cx: &mut Context<'_>,
        until: &mut Until,
    ) -> Poll<PyResult<()>> {
        if self.is_foreign() {
            return Poll::Ready(Ok(()));
        }
        let until = *until.0.get_or_insert_with(|| self.stdio.lines());
        {
            let delivering = lock(&self.delivering);
            if delivering.lines >= until || delivering.by == Some(std::thread::current().id()) || is_too_late() {
                return Poll::Ready(Ok(()));
            }
        }
        if let Err(error) = self.drop_unheard(py) {
            return Poll::Ready(Err(error));
        }
        {
            let mut delivering = lock(&self.delivering);
            if delivering.lines >= until {
                return Poll::Ready(Ok(()));
            }
            if !delivering.waiting.iter().any(|(_, known)| known.will_wake(cx.waker())) {
                delivering.waiting.push((until, cx.waker().clone()));
            }
        }
        if self.sinks.get().lane().is_here() {
            // a sink that has called its own app: the thread that would deliver is this one
            return Poll::Ready(self.deliver_here(py, None, until));
        }
        if let Err(error) = self.ask_of(py) {
            return Poll::Ready(Err(error));
        }
        Poll::Pending
    }

    /// Takes away what waits, if all of it is for loggers that would not log it: known without running any handler, so also where an event
    /// loop runs, and a thread need not be asked.
    fn drop_unheard(&self, py: Python<'_>) -> PyResult<()> {
        let streams = self.stdio.streams();
        if streams.is_empty() || streams.iter().any(|stream| self.sink(*stream).object().is_some()) {
            return Ok(());
        }
        let is_unheard = py.import(text!(py, "wasgi._native.output"))?.getattr(text!(py, "is_unheard"))?;
        for stream in &streams {
            if !is_unheard.call1((name_of(py, *stream),))?.is_truthy()? {
                return Ok(());
            }
        }
        if !self.claim() {
            return Ok(());
        }
        let mut lines = self.stdio.take(usize::MAX);
        // a line of another stream may have come meanwhile
        let heard = lines.iter().position(|line| !streams.contains(&line.stream)).unwrap_or(lines.len());
        let rest = lines.split_off(heard);
        if !rest.is_empty() {
            self.stdio.put_back(rest);
        }
        let waiting = {
            let mut delivering = lock(&self.delivering);
            delivering.lines += lines.len() as u64;
            delivering.by = None;
            delivering.take_waiting()
        };
        waiting.into_iter().for_each(Waker::wake);
        Ok(())
    }

    /// Delivers what there is, unless another thread is about it, until there is nothing more, or so many lines have been.
    fn deliver_here(&self, py: Python<'_>, context: Option<&Bound<'_, PyAny>>, until: u64) -> PyResult<()> {
        let is_ours = self.sinks.get().lane().is_here();
        // a line that comes while the last one is delivered rang its bell for nothing: so look again
        while self.claim() {
            let mut result = Ok(());
            while result.is_ok() && lock(&self.delivering).lines < until {
                let mut lines = self.stdio.take(BATCH);
                if lines.is_empty() {
                    break;
                }
                let mut number = 0;
                while result.is_ok()
                    && let Some(line) = lines.pop_front()
                {
                    number += 1;
                    if is_too_late() {
                        continue; // the process exits, and this sink is slower than its guest
                    }
                    if let Err(error) = self.write(py, &line, context) {
                        match error.is_instance_of::<PyException>(py) {
                            true => {
                                let sink = self.sink(line.stream).object();
                                error.write_unraisable(py, sink.map(|object| object.bind(py)));
                            }
                            // Ctrl-C, say: the caller's, who is not kept by the lines that follow
                            false => result = Err(error),
                        }
                    }
                    if is_ours {
                        let_others_run(py);
                    }
                }
                if !lines.is_empty() {
                    self.stdio.put_back(lines);
                }
                let waiting = {
                    let mut delivering = lock(&self.delivering);
                    delivering.lines += number;
                    delivering.take_waiting()
                };
                waiting.into_iter().for_each(Waker::wake);
            }
            let (waiting, lines) = {
                let mut delivering = lock(&self.delivering);
                delivering.by = None;
                (delivering.take_waiting(), delivering.lines)
            };
            waiting.into_iter().for_each(Waker::wake);
            result?;
            if lines >= until {
                break;
            }
        }
        Ok(())
    }

    /// Makes this thread the one that delivers, if there are lines and no other thread does. Returns whether it is.
    fn claim(&self) -> bool {
        let mut delivering = lock(&self.delivering);
        if delivering.by.is_some() || self.stdio.is_empty() {
            return false;
        }
        delivering.by = Some(std::thread::current().id());
        true
    }

    /// Delivers what there is, or waits until it has been delivered. Signals interrupt the wait.
    pub fn deliver(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        if self.is_foreign() {
            return Ok(());
        }
        let mut until = Until(Some(self.stdio.lines()));
        let most = until.0.unwrap_or_default();
        if lock(&self.delivering).lines >= most {
            return Ok(());
        }
        self.drop_unheard(py)?;
        if !runs_a_loop(py) {
            let delivered = self.deliver_here(py, None, most);
            if !self.stdio.is_empty() {
                self.ask_of(py)?; // what has come meanwhile is not this caller's to wait for
            }
            delivered?;
        }
        crate::py::executor::blocking::block_on_python(py, |py, cx| self.poll_delivered(py, cx, &mut until))?
    }

    /// After a wait: what there is is delivered, and waited for unless the wait failed. Ctrl-C is not to wait for a sink.
    pub fn deliver_after<T>(self: &Arc<Self>, py: Python<'_>, waited: PyResult<T>) -> PyResult<T> {
        match waited {
            Ok(outcome) => self.deliver(py).map(|()| outcome),
            Err(error) => {
                if !self.is_foreign() && !self.stdio.is_empty() {
                    self.ask_of(py)?;
                }
                Err(error)
            }
        }
    }

    /// Sees to it that what there is is delivered soon; at once, unless this thread runs an event loop.
    pub fn show(self: &Arc<Self>, py: Python<'_>) {
        if self.is_foreign() || self.stdio.is_empty() {
            return;
        }
        let shown = if runs_a_loop(py) { self.ask_of(py) } else { self.deliver_here(py, None, self.stdio.lines()) };
        if let Err(error) = shown {
            error.write_unraisable(py, None);
        }
    }

    fn sink(&self, stream: Stream) -> &Sink {
        match stream {
            Stream::Stdout => &self.sinks.get().stdout,
            Stream::Stderr => &self.sinks.get().stderr,
            Stream::Outgoing | Stream::Host | Stream::News => &Sink::Logger,
        }
    }

    fn write(&self, py: Python<'_>, line: &Line, context: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let sinks = self.sinks.get();
        let whose = (sinks.component.as_str(), sinks.app.as_str(), self.exchange);
        self.sink(line.stream).write(py, line, whose, context)
    }
}

/// Whether this thread runs an event loop of asyncio's.
fn runs_a_loop(py: Python<'_>) -> bool {
    running_loop(py).is_ok()
}
