//! Where a guest's lines go: a logger, a callable or a file of the caller's.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::ThreadId;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

use super::awaitable::Operation;
use super::bridge::{Job, Lane};
use super::lock;
use crate::stdio::{Stdio, Stream};

/// Where one of the two streams goes.
pub enum Sink {
    Logger,
    Callable(Py<PyAny>),
    File(Py<PyAny>),
}

impl Sink {
    fn given(name: &str, sink: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(match sink {
            None => Self::Logger,
            Some(sink) if sink.hasattr("write")? => Self::File(sink.unbind()),
            Some(sink) if sink.is_callable() => Self::Callable(sink.unbind()),
            Some(sink) => {
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

/// The sinks of an app.
pub struct Sinks {
    pub stdout: Sink,
    pub stderr: Sink,
    /// Names the component in log records.
    pub component: String,
}

impl Sinks {
    pub fn given(
        stdout: Option<Bound<'_, PyAny>>,
        stderr: Option<Bound<'_, PyAny>>,
        component: String,
    ) -> PyResult<Arc<Self>> {
        let (stdout, stderr) = (Sink::given("stdout", stdout)?, Sink::given("stderr", stderr)?);
        Ok(Arc::new(Self { stdout, stderr, component }))
    }
}

/// The output of one exchange on its way to the sinks: in order, by one thread at a time.
pub struct GuestOutput {
    sinks: Arc<Sinks>,
    stdio: Arc<Stdio>,
    exchange: u64,
    delivering: Mutex<Delivering>,
    /// Whether a thread is asked to deliver already: a guest that prints a lot is one job, not one for each write.
    asked: AtomicBool,
}

#[derive(Default)]
struct Delivering {
    by: Option<ThreadId>,
    waiting: Vec<Waker>,
}

impl GuestOutput {
    pub fn new(sinks: Arc<Sinks>, stdio: Arc<Stdio>, exchange: u64) -> Arc<Self> {
        Arc::new(Self { sinks, stdio, exchange, delivering: Mutex::default(), asked: AtomicBool::new(false) })
    }

    /// From now on lines are delivered as they come, by a thread of ours; also those that come when the response is gone.
    /// The end of the guest takes the bell off again ([`Stdio::finish`]), and with it this cycle of references apart.
    pub fn go_live(self: &Arc<Self>) {
        let this = self.clone();
        self.stdio.set_bell(Box::new(move || {
            if !this.asked.swap(true, Ordering::SeqCst) {
                Lane::Threads.submit(Job::Lines(this.clone()));
            }
        }));
    }

    /// The job. If somebody delivers already, these lines are delivered with the others.
    pub fn turn(&self, py: Python<'_>) {
        self.asked.store(false, Ordering::SeqCst);
        self.try_deliver(py);
    }

    /// Delivers what there is, unless another thread is about it.
    pub fn try_deliver(&self, py: Python<'_>) {
        let _ = self.poll_deliver(py, &mut Context::from_waker(Waker::noop()));
    }

    /// Delivers what there is. Ready when all that was there before has been delivered, by whomever.
    pub fn poll_deliver(&self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<()> {
        let me = std::thread::current().id();
        // a line that comes while the last one is delivered rang its bell for nothing: so look again
        while std::task::ready!(self.begin(me, cx)) {
            loop {
                let lines = self.stdio.take();
                if lines.is_empty() {
                    break;
                }
                for line in lines {
                    if super::bridge::is_too_late() {
                        continue; // the process exits, and this sink is slower than its guest
                    }
                    let sink = match line.stream {
                        Stream::Stdout => &self.sinks.stdout,
                        Stream::Stderr => &self.sinks.stderr,
                        Stream::Host => &Sink::Logger,
                    };
                    if let Err(error) = self.write(py, sink, line.stream, &line.text) {
                        error.write_unraisable(py, sink.object().map(|object| object.bind(py)));
                    }
                }
            }
            let waiting = {
                let mut delivering = lock(&self.delivering);
                delivering.by = None;
                std::mem::take(&mut delivering.waiting)
            };
            for waker in waiting {
                waker.wake();
            }
        }
        Poll::Ready(())
    }

    /// Whether there is something for this thread to deliver; pending if another one is about it.
    fn begin(&self, me: ThreadId, cx: &mut Context<'_>) -> Poll<bool> {
        let mut delivering = lock(&self.delivering);
        match delivering.by {
            Some(by) if by == me => Poll::Ready(false), // a sink that reads the same response
            Some(_) => {
                delivering.waiting.push(cx.waker().clone());
                Poll::Pending
            }
            None if self.stdio.is_empty() => Poll::Ready(false),
            None => {
                delivering.by = Some(me);
                Poll::Ready(true)
            }
        }
    }

    /// Delivers what there is, or waits until it has been delivered. Signals interrupt the wait.
    pub fn deliver(&self, py: Python<'_>) -> PyResult<()> {
        super::waiting::block_on_python(py, |py, cx| self.poll_deliver(py, cx))
    }

    fn write(&self, py: Python<'_>, sink: &Sink, stream: Stream, text: &str) -> PyResult<()> {
        let bridge = py.import(intern!(py, "wasgi._bridge"))?;
        let stream = match stream {
            Stream::Stdout => intern!(py, "stdout"),
            Stream::Stderr => intern!(py, "stderr"),
            Stream::Host => intern!(py, "host"),
        };
        match sink {
            Sink::Logger => {
                bridge.call_method1(intern!(py, "log_line"), (text, stream, &self.sinks.component, self.exchange))?;
            }
            Sink::Callable(callable) => {
                let line = bridge.getattr(intern!(py, "Line"))?.call1((text, stream, self.exchange))?;
                callable.call1(py, (line,))?;
            }
            Sink::File(file) => {
                file.call_method1(py, intern!(py, "write"), (format!("{text}\n"),))?;
            }
        }
        Ok(())
    }
}

/// An operation whose result is given when the lines that its guest has printed until then have been delivered.
pub struct Flushed<O> {
    operation: O,
    output: Option<Arc<GuestOutput>>,
    result: Option<PyResult<Py<PyAny>>>,
}

impl<O> Flushed<O> {
    pub fn new(operation: O, output: Option<Arc<GuestOutput>>) -> Self {
        Self { operation, output, result: None }
    }
}

impl<O: Operation> Operation for Flushed<O> {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        let result = match self.result.take() {
            Some(result) => result,
            None => std::task::ready!(self.operation.poll(py, cx)),
        };
        if let Some(output) = &self.output
            && output.poll_deliver(py, cx).is_pending()
        {
            self.result = Some(result);
            return Poll::Pending;
        }
        Poll::Ready(result)
    }
}
