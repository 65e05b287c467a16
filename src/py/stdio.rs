//! Where a guest's lines go: a logger, a callable or a file of the caller's.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::ThreadId;

use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

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
    pub fn given(name: &str, sink: Option<Bound<'_, PyAny>>) -> PyResult<Self> {
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

/// The output of one exchange on its way to the sinks: in order, by one thread at a time.
pub struct GuestOutput {
    sinks: Arc<Sinks>,
    stdio: Arc<Stdio>,
    exchange: u64,
    delivering: Mutex<Option<ThreadId>>,
    delivered: Condvar,
}

impl GuestOutput {
    pub fn new(sinks: Arc<Sinks>, stdio: Arc<Stdio>, exchange: u64) -> Arc<Self> {
        Arc::new(Self { sinks, stdio, exchange, delivering: Mutex::new(None), delivered: Condvar::new() })
    }

    /// From now on lines are delivered as they come, by a thread of ours; also those that come when the response is gone.
    /// The end of the guest takes the bell off again ([`Stdio::finish`]), and with it this cycle of references apart.
    pub fn go_live(self: &Arc<Self>) {
        let this = self.clone();
        self.stdio.set_bell(Box::new(move || Lane::Threads.submit(Job::Lines(this.clone()))));
    }

    /// Delivers what there is; when it returns, all that was there before has been delivered.
    pub fn deliver(&self, py: Python<'_>) {
        let me = std::thread::current().id();
        if *lock(&self.delivering) == Some(me) {
            return; // a sink that reads the same response
        }
        if self.stdio.is_empty() && lock(&self.delivering).is_none() {
            return;
        }
        py.detach(|| {
            let mut delivering = lock(&self.delivering);
            while delivering.is_some() {
                delivering = self.delivered.wait(delivering).unwrap_or_else(|poisoned| poisoned.into_inner());
            }
            *delivering = Some(me);
        });
        for line in self.stdio.take() {
            let sink = match line.stream {
                Stream::Stdout => &self.sinks.stdout,
                Stream::Stderr => &self.sinks.stderr,
                Stream::Host => &Sink::Logger,
            };
            if let Err(error) = self.write(py, sink, line.stream, &line.text) {
                error.write_unraisable(py, sink.object().map(|object| object.bind(py)));
            }
        }
        *lock(&self.delivering) = None;
        self.delivered.notify_all();
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
