//! Loading: on threads of ours, whose stacks we choose, while the caller hears signals or its event loop goes on.

use std::collections::VecDeque;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use tokio::sync::oneshot;

use super::awaitable::Operation;
use super::component::{Origin, PyComponent};
use super::errors::to_py;
use super::lock;
use super::waiting::block_on;
use crate::component::Component;
use crate::component_limits::ComponentLimits;
use crate::error::Error;
use crate::loading::{Order, Wanted};
use crate::process::PerProcess;
use crate::source::Unread;

/// What takes longer is told to the log.
const LONG: Duration = Duration::from_secs(1);

/// wasmparser and wasmtime recurse as deep as types and components are nested, which `component_limits::MOST_NESTED` bounds: not
/// on whatever stack the calling thread has. Addresses, not memory.
const STACK: usize = 64 << 20;

/// Where no thread is to be had, and the stack is the caller's.
const MOST_NESTED_ON_A_STRANGERS_STACK: u64 = 50;

/// How many `load_async` are worked at at once; others wait for their turn.
const MOST_AT_ONCE: usize = 8;

/// What is loaded, and how.
pub struct Ask {
    pub source: Source,
    pub order: Order,
}

#[derive(Clone)]
pub enum Source {
    Bytes(Bytes),
    Path(PathBuf),
}

pub enum Failed {
    Core(Error),
    /// Of reading the file.
    File(PathBuf, std::io::Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Core(error)
    }
}

impl Failed {
    fn to_py(&self, py: Python<'_>) -> PyErr {
        match self {
            Self::Core(error) => to_py(py, error),
            Self::File(path, error) => of_file(py, path, error),
        }
    }
}

/// The `OSError` that `open` would raise.
fn of_file(py: Python<'_>, path: &Path, error: &std::io::Error) -> PyErr {
    let Some(number) = error.raw_os_error() else {
        // a path with a null byte, which no system has been asked for
        return match error.kind() {
            std::io::ErrorKind::InvalidInput => PyValueError::new_err(error.to_string()),
            _ => PyOSError::new_err(error.to_string()),
        };
    };
    match py.import("os").and_then(|os| os.call_method1("strerror", (number,))) {
        Ok(text) => PyOSError::new_err((number, text.unbind(), path.as_os_str().to_owned())),
        Err(failure) => failure,
    }
}

impl Source {
    /// The bytes, or as many of a file as show that they are too many.
    pub fn read(&self, limits: &ComponentLimits) -> Result<Bytes, Failed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.clone()),
            Self::Path(path) => read_file(path, limits.size).map(Bytes::from).map_err(|unread| match unread {
                Unread::NoFile(error) => Failed::Core(error),
                Unread::Io(error) => Failed::File(path.clone(), error),
            }),
        }
    }

    /// A component's fault with the file that it is in.
    fn blame(&self, error: Error) -> Failed {
        match self {
            Self::Bytes(_) => Failed::Core(error),
            Self::Path(path) => Failed::Core(error.of_file(&path.display().to_string())),
        }
    }

    pub fn label(&self) -> String {
        match self {
            Self::Bytes(_) => "a component".to_owned(),
            Self::Path(path) => file_name(path),
        }
    }
}

pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn read_file(path: &Path, most: Option<u64>) -> Result<Vec<u8>, Unread> {
    let (file, size) = crate::source::open(path)?;
    if let Some(most) = most
        && size > most
    {
        return Err(Unread::Io(std::io::Error::new(std::io::ErrorKind::FileTooLarge, TooLarge { size })));
    }
    let mut bytes = Vec::new();
    let failed = |error| Unread::Io(std::io::Error::new(std::io::ErrorKind::OutOfMemory, error));
    bytes.try_reserve_exact(usize::try_from(size).unwrap_or(usize::MAX)).map_err(failed)?;
    file.take(size).read_to_end(&mut bytes).map_err(Unread::Io)?;
    Ok(bytes)
}

/// A file that need not be read to be refused.
#[derive(Debug)]
struct TooLarge {
    size: u64,
}

impl std::error::Error for TooLarge {}

impl std::fmt::Display for TooLarge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.size)
    }
}

impl Ask {
    /// Reads and compiles: on a thread of ours.
    fn load(&self) -> Result<Arc<Component>, Failed> {
        let bytes = match self.source.read(&self.order.limits) {
            Err(Failed::File(_, error)) if let Some(large) = too_large(&error) => {
                let most = self.order.limits.size.unwrap_or(u64::MAX);
                return Err(self.source.blame(Error::component_limit("size", "bytes", most, large)));
            }
            read => read?,
        };
        self.order.wanted.is_of_size(bytes.len());
        let component = Component::new(&bytes, &self.order).map_err(|error| self.source.blame(error))?;
        if let Source::Bytes(bytes) = &self.source {
            component.source.get_or_init(|| bytes.clone());
        }
        Ok(component)
    }
}

fn too_large(error: &std::io::Error) -> Option<u64> {
    error.get_ref()?.downcast_ref::<TooLarge>().map(|large| large.size)
}

/// The bytes of a component's file, for whoever looks at one without loading it.
pub fn read(py: Python<'_>, path: PathBuf, limits: &ComponentLimits) -> PyResult<Bytes> {
    let source = Source::Path(path);
    let read = py.detach(|| source.read(limits));
    read.map_err(|failed| match failed {
        Failed::File(_, error) if let Some(large) = too_large(&error) => {
            let most = limits.size.unwrap_or(u64::MAX);
            source.blame(Error::component_limit("size", "bytes", most, large)).to_py(py)
        }
        other => other.to_py(py),
    })
}

/// Blocks until it is loaded.
pub fn load(py: Python<'_>, ask: Ask) -> PyResult<Arc<Component>> {
    let label = ask.source.label();
    on_a_thread(py, &label, ask, |ask| ask.load())
}

/// Compiles a component for fuel, and blocks until it is.
pub fn prepare_for_fuel(py: Python<'_>, label: &str, component: Arc<Component>, ask: Ask) -> PyResult<()> {
    on_a_thread(py, label, ask, move |ask| {
        let source = ask.source.read(&ask.order.limits)?;
        ask.order.wanted.is_of_size(source.len());
        component.prepare_for_fuel(&source, &ask.order).map_err(|error| ask.source.blame(error))
    })
}

/// What goes deep on the stack for something else.
pub fn with_own_stack<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> Option<T> {
    py.detach(|| {
        std::thread::scope(|scope| {
            let started = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
            started.ok().and_then(|thread| thread.join().ok())
        })
    })
}

/// Works on a thread of its own, so that the calling one hears signals, and can say that this takes its time.
fn on_a_thread<T: Send + 'static>(
    py: Python<'_>,
    label: &str,
    ask: Ask,
    work: impl FnOnce(&Ask) -> Result<T, Failed> + Send + 'static,
) -> PyResult<T> {
    let wanted = ask.order.wanted.clone();
    // whoever leaves, by Ctrl-C, wants it no more
    let _leaving = Leaving(wanted.clone());
    let begun = Instant::now();
    let (sender, mut receiver) = oneshot::channel();
    let shared = Arc::new(Mutex::new(Some((ask, work))));
    let job = {
        let shared = shared.clone();
        move || {
            let taken = lock(&shared).take();
            if let Some((ask, work)) = taken {
                let _ = sender.send(work(&ask));
            }
        }
    };
    if spawn(job).is_err() {
        // no more threads are to be had: then on this one
        let Some((mut ask, work)) = lock(&shared).take() else {
            return Err(to_py(py, &Error::Host("the component was not loaded".into())));
        };
        let most = ask.order.limits.nesting.unwrap_or(u64::MAX);
        ask.order.limits.nesting = Some(most.min(MOST_NESTED_ON_A_STRANGERS_STACK));
        return py.detach(|| work(&ask)).map_err(|error| error.to_py(py));
    }
    let mut look = begun + LONG;
    let result = loop {
        let ready = block_on(py, |cx| match Pin::new(&mut receiver).poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if Instant::now() >= look => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })?;
        if let Some(result) = ready {
            break result;
        }
        // again a second later, should somebody else have told it, and gone
        look = Instant::now() + LONG;
        if wanted.is_to_tell_begin() {
            tell_begin(py, label, &wanted)?;
        }
    };
    if wanted.is_to_tell_end() {
        tell_end(py, label, begun)?;
    }
    let result = result.unwrap_or_else(|_| Err(Error::Host("loading the component failed".into()).into()));
    result.map_err(|error| error.to_py(py))
}

fn spawn(job: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    let job = || {
        crate::signals::open_here();
        job();
    };
    std::thread::Builder::new().name("wasgi-compile".into()).stack_size(STACK).spawn(job).map(drop)
}

struct Leaving(Arc<Wanted>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

fn tell_begin(py: Python<'_>, label: &str, wanted: &Wanted) -> PyResult<()> {
    let kept = match crate::engine::existing().and_then(|world| world.cache_directory()) {
        Some(directory) => format!("its machine code will be kept in {}", directory.display()),
        None => "there is no cache to keep its machine code in".to_owned(),
    };
    log(py, "info", &format!("`{label}` ({:.1} MB) is being compiled; {kept}", wanted.size() as f64 / 1e6))
}

fn tell_end(py: Python<'_>, label: &str, begun: Instant) -> PyResult<()> {
    log(py, "info", &format!("`{label}` has been compiled, in {:.1} s", begun.elapsed().as_secs_f64()))
}

pub fn log(py: Python<'_>, level: &str, line: &str) -> PyResult<()> {
    py.import("logging")?.call_method1("getLogger", ("wasgi",))?.call_method1(level, ("%s", line))?;
    Ok(())
}

/// Tells the log what was worth telling about the set-up of this process.
pub fn tell_notes(py: Python<'_>) -> PyResult<()> {
    let Some(world) = crate::engine::existing() else { return Ok(()) };
    for note in world.take_notes() {
        log(py, "warning", &note)?;
    }
    for remark in world.take_remarks() {
        log(py, "info", &remark)?;
    }
    Ok(())
}

/// What `load_async` awaits. Dropping it gives the component up: in a process of its own the compilation ends, in this one it
/// goes on and its machine code is kept.
pub struct Loading {
    /// Taken by the thread that loads it, unless it has been given up before.
    ask: Arc<Mutex<Option<Ask>>>,
    origin: Option<Origin>,
    label: String,
    is_started: bool,
    begun: Instant,
    wanted: Arc<Wanted>,
    receiver: Option<oneshot::Receiver<Result<Arc<Component>, Failed>>>,
    /// Who is woken each second, to say that it takes long.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Loading {
    pub fn new(ask: Ask, origin: Origin) -> Self {
        Self {
            label: ask.source.label(),
            wanted: ask.order.wanted.clone(),
            ask: Arc::new(Mutex::new(Some(ask))),
            origin: Some(origin),
            is_started: false,
            begun: Instant::now(),
            receiver: None,
            waker: Arc::default(),
        }
    }

    fn start(&mut self) -> Result<(), Error> {
        let (sender, receiver) = oneshot::channel();
        self.receiver = Some(receiver);
        self.is_started = true;
        self.begun = Instant::now();
        let (ask, waker) = (self.ask.clone(), Arc::downgrade(&self.waker));
        loads().submit(Box::new(move || {
            let Some(ask) = lock(&ask).take() else { return };
            if let Ok(world) = crate::engine::world()
                && let Ok(runtime) = world.runtime.handle()
            {
                runtime.spawn(async move {
                    loop {
                        tokio::time::sleep(LONG).await;
                        let Some(waker) = waker.upgrade() else { return };
                        let waker = lock(&waker).take();
                        if let Some(waker) = waker {
                            waker.wake();
                        }
                    }
                });
            }
            let _ = sender.send(ask.load());
        }))
    }

    fn finish(&mut self, py: Python<'_>, result: Result<Arc<Component>, Failed>) -> PyResult<Py<PyAny>> {
        if self.wanted.is_to_tell_end() {
            tell_end(py, &self.label, self.begun)?;
        }
        let component = result.map_err(|error| error.to_py(py))?;
        tell_notes(py)?;
        let Some(origin) = self.origin.take() else {
            return Err(to_py(py, &Error::Host("the component was loaded already".into())));
        };
        Ok(Py::new(py, PyComponent { component, origin })?.into_any())
    }
}

impl Operation for Loading {
    fn poll(&mut self, py: Python<'_>, cx: &mut Context<'_>) -> Poll<PyResult<Py<PyAny>>> {
        if !self.is_started
            && let Err(error) = self.start()
        {
            return Poll::Ready(Err(to_py(py, &error)));
        }
        *lock(&self.waker) = Some(cx.waker().clone());
        let Some(receiver) = &mut self.receiver else {
            return Poll::Ready(Err(to_py(py, &Error::Host("the component was loaded already".into()))));
        };
        match Pin::new(receiver).poll(cx) {
            Poll::Ready(result) => {
                self.receiver = None;
                let failed = || Err(Error::Host("loading the component failed".into()).into());
                let result = result.unwrap_or_else(|_| failed());
                Poll::Ready(self.finish(py, result))
            }
            Poll::Pending => {
                if self.begun.elapsed() >= LONG
                    && self.wanted.is_to_tell_begin()
                    && let Err(error) = tell_begin(py, &self.label, &self.wanted)
                {
                    return Poll::Ready(Err(error));
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Loading {
    fn drop(&mut self) {
        self.wanted.give_up();
        // what waits for a thread still need not keep its source
        lock(&self.ask).take();
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The threads of `load_async`: as many as there is work for, and no more than a few.
#[derive(Default)]
struct Loads(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    threads: usize,
    waiting: VecDeque<Job>,
}

static LOADS: PerProcess<Loads> = PerProcess::new();

fn loads() -> &'static Loads {
    LOADS.get(Loads::default)
}

/// In a forked child.
pub fn forget() {
    LOADS.forget();
}

impl Loads {
    fn submit(&'static self, job: Job) -> Result<(), Error> {
        let mut queue = lock(&self.0);
        queue.waiting.push_back(job);
        if queue.threads >= MOST_AT_ONCE {
            return Ok(());
        }
        queue.threads += 1;
        if let Err(error) = spawn(|| self.work()) {
            queue.threads -= 1;
            if queue.threads == 0 {
                queue.waiting.clear();
                return Err(Error::Host(format!("cannot start a thread to compile on: {error}")));
            }
        }
        Ok(())
    }

    fn work(&self) {
        loop {
            let job = {
                let mut queue = lock(&self.0);
                let Some(job) = queue.waiting.pop_front() else {
                    queue.threads -= 1;
                    return;
                };
                job
            };
            // whoever waits for it learns of it by the channel
            let _ = std::panic::catch_unwind(AssertUnwindSafe(job));
        }
    }
}
