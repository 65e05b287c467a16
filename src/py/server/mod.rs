//! `wasgi.Server`: the native server from Python.

mod hosted;
pub(crate) mod listeners;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use tracing::Level;

use crate::py::app::PyApp;
use crate::py::errors::to_py;
use crate::py::executor::awaitable::Awaitable;
use crate::py::executor::blocking::block_on;
use crate::py::executor::operation::Operation;
use crate::py::executor::serial::{Serial, Turn};
use crate::py::held::detach;
use crate::py::lock;
use crate::py::log;
use crate::py::server::hosted::PyHosted;
use crate::server::access_log::format::Format;
use crate::server::access_log::log::{AccessLog, Destination};
use crate::server::bind::BindOptions;
use crate::server::certificates::Certificates;
use crate::server::forwarded::Trusted;
use crate::server::journal::Journal;
use crate::server::routes::{Hosted, RouteError, Routes};
use crate::server::settings::{Caps, Timeouts};
use crate::server::{Server, Settings};

/// The base class of `wasgi.Server`, which reads the arguments and describes them.
#[pyclass(name = "Server", module = "wasgi", frozen, subclass)]
pub struct PyServer {
    server: Arc<Server>,
}

/// A table of pairs of patterns and apps, and one of patterns and folders.
fn routes(table: &Bound<'_, PyList>, folders: Vec<(String, PathBuf)>) -> PyResult<Arc<Routes>> {
    let py = table.py();
    let mut rules: Vec<(String, Arc<dyn Hosted>)> = Vec::new();
    for rule in table.iter() {
        let (pattern, app): (String, Bound<'_, PyAny>) = rule.extract()?;
        let callee = app.cast::<PyApp>()?.get().callee();
        rules.push((pattern, PyHosted::new(py, callee, &app)?));
    }
    detach(py, || Routes::new(rules, folders)).map_err(|error| match error {
        RouteError::Wrong(why) => PyValueError::new_err(why),
        error @ RouteError::Folder(..) => PyOSError::new_err(error.to_string()),
    })
}

fn seconds(given: Option<f64>) -> Option<Duration> {
    given.and_then(|given| Duration::try_from_secs_f64(given).ok())
}

#[pymethods]
impl PyServer {
    #[new]
    #[pyo3(signature = (table, folders, *, bind, health, backlog, reuse_port, socket_mode, header_timeout, body_timeout, idle_timeout, drain_timeout, connections, streams, header_bytes, trusted, proxy_protocol, threads, tls, access_log, access_format, request_ids))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        table: &Bound<'_, PyList>,
        folders: Vec<(String, PathBuf)>,
        bind: Vec<String>,
        health: Option<String>,
        backlog: u32,
        reuse_port: bool,
        socket_mode: Option<u32>,
        header_timeout: Option<f64>,
        body_timeout: Option<f64>,
        idle_timeout: Option<f64>,
        drain_timeout: f64,
        connections: usize,
        streams: u32,
        header_bytes: usize,
        trusted: Vec<String>,
        proxy_protocol: bool,
        threads: Option<usize>,
        tls: Option<(PathBuf, PathBuf, Option<PathBuf>, bool)>,
        access_log: Option<PathBuf>,
        access_format: &str,
        request_ids: bool,
    ) -> PyResult<Self> {
        crate::py::executor::threads::threads().ensure(py)?;
        let routes = routes(table, folders)?;
        let format = Format::parse(access_format).map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
        let journal = journal();
        let access_log = access_log.map(|path| {
            let shown = path.clone();
            let destination = if path.as_os_str() == "-" { Destination::Stdout } else { Destination::File(path) };
            AccessLog::open(format, destination, journal.clone()).map_err(|error| {
                PyOSError::new_err(format!("the access log `{}` cannot be opened: {error}", shown.display()))
            })
        });
        let settings = Settings {
            tls: tls.map(|(certificate, key, client_ca, client_required)| Certificates {
                certificate,
                key,
                client_ca,
                client_required,
            }),
            access_log: access_log.transpose()?,
            request_ids,
            addresses: listeners::addresses(&bind)?,
            health: listeners::addresses(health.as_slice())?.pop(),
            bind: BindOptions { backlog, reuse_port, mode: socket_mode },
            timeouts: Timeouts {
                header: seconds(header_timeout),
                body: seconds(body_timeout),
                idle: seconds(idle_timeout),
            },
            drain: seconds(Some(drain_timeout)).unwrap_or_default(),
            caps: Caps { connections, streams, header_bytes },
            trusted: Trusted::parse(trusted.iter().map(String::as_str))
                .map_err(|wrong| PyValueError::new_err(wrong.to_string()))?,
            proxy_protocol,
            threads: threads.and_then(NonZeroUsize::new),
            journal,
        };
        let server = detach(py, || Server::bind(settings, routes));
        Ok(Self { server: server.map_err(|error| PyOSError::new_err(error.to_string()))? })
    }

    /// Where it listens: ``127.0.0.1:8000``, ``[::1]:8000``, ``unix:/run/x.sock``; with the real port for 0.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        self.server.addresses().to_vec()
    }

    /// URLs that open on this machine, one for each address.
    #[getter]
    fn urls(&self) -> Vec<String> {
        self.server.urls().to_vec()
    }

    /// The address at which ``/live`` and ``/ready`` are answered. None: `health` was not given.
    #[getter]
    fn health(&self) -> Option<String> {
        self.server.health().map(str::to_owned)
    }

    /// Whether it takes no more connections.
    #[getter]
    fn closing(&self) -> bool {
        self.server.is_closing()
    }

    fn _start(&self, py: Python<'_>) -> PyResult<()> {
        detach(py, || self.server.start()).map_err(|error| to_py(py, &error))?;
        let mut started = lock(&STARTED);
        started.retain(|server| server.strong_count() > 0);
        started.push(Arc::downgrade(&self.server));
        Ok(())
    }

    fn _swap(&self, py: Python<'_>, table: &Bound<'_, PyList>, folders: Vec<(String, PathBuf)>) -> PyResult<()> {
        let routes = routes(table, folders)?;
        detach(py, || self.server.swap(routes)).map_err(|error| to_py(py, &error))
    }

    /// Reads the certificates again at once, and opens the access log again: for files that others write or move.
    fn reopen(&self, py: Python<'_>) {
        detach(py, || self.server.reopen());
    }

    /// Does not wait.
    fn _close(&self, py: Python<'_>, seconds: f64) {
        let within = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::from_secs(u64::from(u32::MAX)));
        detach(py, || self.server.close(within));
    }

    fn _wait(&self, py: Python<'_>) -> PyResult<()> {
        let mut ended = Box::pin(self.server.ended());
        block_on(py, |cx| ended.as_mut().poll(cx))
    }

    fn _wait_async(&self) -> Awaitable {
        Awaitable::new(Ends(Box::pin(self.server.ended())))
    }

    /// The server's numbers: open connections, those accepted, requests, and tables of routes that still have exchanges under way after
    /// `swap`.
    fn _stats(&self) -> (usize, u64, u64, usize) {
        let stats = self.server.stats();
        (stats.connections, stats.accepted, stats.requests, stats.old_routes)
    }
}

/// The status of the response when a guest has answered with an error-code.
#[pyfunction]
pub(crate) fn _status_of_code(code: &str) -> u16 {
    crate::server::status_of_code(code)
}

/// Those that the interpreter's exit ends. Whoever takes the lock has the GIL: so no thread of a forked child's parent has it.
static STARTED: Mutex<Vec<Weak<Server>>> = Mutex::new(Vec::new());

/// The interpreter is about to exit: requests that nobody would serve any more are not taken. Returns those that have to end.
pub(crate) fn end_all(_: Python<'_>) -> Vec<Arc<Server>> {
    let started = std::mem::take(&mut *lock(&STARTED));
    let started: Vec<_> = started.iter().filter_map(Weak::upgrade).collect();
    for server in &started {
        server.end();
    }
    started
}

struct Ends(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>);

impl Operation for Ends {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        self.0.as_mut().poll(cx).map(|()| Ok(py.None()))
    }
}

/// How many lines wait to be logged; more are dropped.
const MOST_LINES: usize = 256;

struct Said(Level, String);

impl Turn for Said {
    fn run(self, py: Python<'_>) {
        let Self(level, line) = self;
        if let Err(error) = log::write(py, "wasgi.server", level, &line) {
            error.write_unraisable(py, None);
        }
    }
}

/// Lines for the logger `wasgi.server`, by a thread of ours.
fn journal() -> Journal {
    let lane = Arc::new(Serial::new(MOST_LINES));
    Arc::new(move |level, line| {
        if level <= Level::INFO {
            lane.submit(Said(level, line));
        }
    })
}
