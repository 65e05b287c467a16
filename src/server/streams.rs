//! The tasks of HTTP/2's streams. hyper has each stream answered by a task of its own; one whose client takes nothing of it is dropped,
//! which resets the stream, and leaves the others of its connection alone.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep};

use crate::sync::lock;

tokio::task_local! {
    static PACE: Pace;
}

/// Whether the client of a stream takes what is sent. Between a frame and the next the client's window is waited for.
#[derive(Clone, Default)]
pub(super) struct Pace(Arc<AtomicBool>);

impl Pace {
    /// That of the stream whose task this is.
    pub(super) fn current() -> Option<Self> {
        PACE.try_with(Self::clone).ok()
    }

    pub(super) fn takes(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    pub(super) fn waits(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Where a connection's streams run: with it they go.
#[derive(Clone)]
pub(super) struct Streams {
    tasks: Arc<std::sync::Mutex<JoinSet<()>>>,
    most: Option<Duration>,
}

impl Streams {
    /// `most`: how long a client may take nothing.
    pub(super) fn new(most: Option<Duration>) -> Self {
        Self { tasks: Arc::default(), most }
    }

    /// Ends them all.
    pub(super) fn abort(&self) {
        lock(&self.tasks).abort_all();
    }
}

impl<F: Future + Send + 'static> hyper::rt::Executor<F> for Streams {
    fn execute(&self, future: F) {
        let pace = Pace::default();
        let stream =
            Stream { future: Box::pin(future), pace: pace.clone(), most: self.most, timer: None, waits: false };
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(PACE.scope(pace, stream));
    }
}

/// One stream's task.
struct Stream<F> {
    future: Pin<Box<F>>,
    pace: Pace,
    most: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
}

impl<F: Future> Future for Stream<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let had = this.pace.0.load(Ordering::Relaxed);
        if this.future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let waits = this.pace.0.load(Ordering::Relaxed);
        // a frame that went out in this turn is a new wait
        let is_new = waits && !(had && this.waits);
        this.waits = waits;
        let Some(most) = this.most.filter(|_| waits) else { return Poll::Pending };
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(most)));
        if is_new {
            timer.as_mut().reset(Instant::now() + most);
        }
        timer.as_mut().poll(cx)
    }
}
