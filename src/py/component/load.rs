//! Loading: on threads of ours, whose stacks we choose, while the caller hears signals or its event loop goes on.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use tokio::sync::oneshot;
use tracing::Level;

use crate::component::Component;
use crate::component::loading::{Order, Wanted};
use crate::error::Error;
use crate::process::own_stack;
use crate::py::component::source::{Failed, Source};
use crate::py::component::threads::{loads, spawn};
use crate::py::errors::to_py;
use crate::py::executor::blocking::block_on;
use crate::py::executor::operation::Operation;
use crate::py::held::{Held, detach};
use crate::py::lock;
use crate::py::log;
use crate::telemetry::TARGET;

/// What takes longer is told to the log.
const LONG: Duration = Duration::from_secs(1);

/// What is loaded, and how.
pub(crate) struct Ask {
    pub source: Source,
    pub order: Order,
}

impl Ask {
    /// Reads and compiles: on a thread of ours.
    fn load(&self) -> Result<Arc<Component>, Failed> {
        let bytes = self.source.read(&self.order.limits)?;
        self.order.wanted.is_of_size(bytes.len());
        let component = Component::new(&bytes, &self.order).map_err(|error| self.source.blame(error))?;
        if let Source::Bytes(bytes) = &self.source {
            component.source.get_or_init(|| bytes.clone());
        }
        Ok(component)
    }
}

/// Blocks until it is loaded.
pub(crate) fn load(py: Python<'_>, ask: Ask) -> PyResult<Arc<Component>> {
    let label = ask.source.label();
    on_a_thread(py, &label, ask, |ask| ask.load())
}

/// Compiles a component once more, for what is ordered, and blocks until it is.
pub(crate) fn prepare(py: Python<'_>, label: &str, component: Arc<Component>, ask: Ask) -> PyResult<()> {
    on_a_thread(py, label, ask, move |ask| {
        let source = ask.source.read(&ask.order.limits)?;
        ask.order.wanted.is_of_size(source.len());
        component.prepare(&source, &ask.order).map_err(|error| ask.source.blame(error))
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
        // no more threads are to be had: then on this one, which is deaf to Ctrl-C until it is done
        let taken = lock(&shared).take();
        let done = detach(py, || taken.map(|(ask, work)| own_stack::on_this_thread(|| work(&ask))));
        let lost = || Err(Error::Host("the component was not loaded".into()));
        return done.unwrap_or_else(lost).map_err(Failed::Core).flatten().map_err(|error| error.to_py(py));
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

struct Leaving(Arc<Wanted>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.give_up();
    }
}

fn tell_begin(py: Python<'_>, label: &str, wanted: &Wanted) -> PyResult<()> {
    let kept = match crate::engine::existing().and_then(|process| process.cache_directory()) {
        Some(directory) => format!("its machine code will be cached in {}", directory.display()),
        None => "its machine code will not be cached".to_owned(),
    };
    log::write(
        py,
        TARGET,
        Level::INFO,
        &format!("`{label}` ({:.1} MB) is being compiled; {kept}", wanted.size() as f64 / 1e6),
    )
}

fn tell_end(py: Python<'_>, label: &str, begun: Instant) -> PyResult<()> {
    log::write(
        py,
        TARGET,
        Level::INFO,
        &format!("`{label}` has been compiled, in {:.1} s", begun.elapsed().as_secs_f64()),
    )
}

/// What is made of a component that has been loaded.
pub(crate) type Make = Box<dyn FnOnce(Python<'_>, Arc<Component>) -> PyResult<Py<PyAny>> + Send>;

/// What `load_async` awaits. Dropping it gives the component up: in a process of its own the compilation ends, in this one it
/// goes on and its machine code is kept.
pub(crate) struct Loading {
    /// Taken by the thread that loads it, unless it has been given up before.
    ask: Arc<Mutex<Option<Ask>>>,
    /// What is made of the component.
    make: Option<Held<Make>>,
    label: String,
    is_started: bool,
    begun: Instant,
    wanted: Arc<Wanted>,
    receiver: Option<oneshot::Receiver<Result<Arc<Component>, Failed>>>,
    /// Who is woken each second, to say that it takes long.
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Loading {
    pub(crate) fn new(ask: Ask, make: Make) -> Self {
        Self {
            label: ask.source.label(),
            wanted: ask.order.wanted.clone(),
            ask: Arc::new(Mutex::new(Some(ask))),
            make: Some(make.into()),
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
            if let Ok(process) = crate::engine::process_state()
                && let Ok(runtime) = process.runtime.handle()
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
        log::tell_events(py)?;
        let Some(make) = self.make.take() else {
            return Err(to_py(py, &Error::Host("the component was loaded already".into())));
        };
        (make.into_inner())(py, component)
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
