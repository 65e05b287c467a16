//! Bodies whose readers tell virtual time that they wait.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HostError;

use crate::simulation::virtual_time::{Work, WorkClock};

/// A body that tells who is waited for while it has nothing to give.
pub(crate) struct Watched<B> {
    body: B,
    side: Option<(Side, WorkClock)>,
    /// What the guest waits for by it.
    _work: Option<Arc<Work>>,
}

/// Who waits for a body.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Guest,
    /// Whoever is at the work.
    Others,
}

impl<B> Watched<B> {
    /// That the guest reads. `None`: its time is the machine's.
    pub(crate) fn by_guest(body: B, work: Option<Arc<Work>>) -> Self {
        Self { body, side: work.as_ref().map(|work| (Side::Guest, work.clock().clone())), _work: work }
    }

    /// That whoever is at the work reads.
    pub(crate) fn by_others(body: B, clock: &WorkClock) -> Self {
        Self { body, side: Some((Side::Others, clock.clone())), _work: None }
    }
}

/// Whoever waits for a body has something to look at.
struct Came {
    clock: WorkClock,
    reader: Side,
    /// Of its reader's look.
    number: u64,
    came: AtomicBool,
    waker: Waker,
}

impl Came {
    fn tell(&self, change: impl FnOnce(&mut Option<u64>)) {
        self.clock.change(|work| match self.reader {
            Side::Guest => change(&mut work.gives),
            Side::Others => change(&mut work.reads),
        });
    }

    /// Its reader waits.
    fn waits(&self) {
        self.tell(|look| *look = Some(self.number));
    }

    /// Its reader waits no more, unless it has looked again meanwhile.
    fn goes_on(&self) {
        self.tell(|look| {
            if *look == Some(self.number) {
                *look = None;
            }
        });
    }
}

impl Wake for Came {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // in this order: whoever goes on does so before the other one stops
        self.came.store(true, Ordering::SeqCst);
        match self.reader {
            Side::Guest => {
                self.waker.wake_by_ref();
                self.goes_on();
            }
            Side::Others => {
                self.goes_on();
                self.waker.wake_by_ref();
            }
        }
    }
}

impl<B: Body<Data = Bytes, Error = HostError> + Unpin> Body for Watched<B> {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        let Some((reader, clock)) = &this.side else { return Pin::new(&mut this.body).poll_frame(cx) };
        let (clock, waker) = (clock.clone(), cx.waker().clone());
        let number = clock.number();
        let came = Arc::new(Came { clock, reader: *reader, number, came: AtomicBool::new(false), waker });
        if *reader == Side::Guest {
            came.waits(); // before it is asked: it may sleep at once
        }
        let polled = Pin::new(&mut this.body).poll_frame(&mut Context::from_waker(&Waker::from(came.clone())));
        if polled.is_ready() {
            came.tell(|look| *look = None); // nobody waits, whatever an earlier look was about
        } else if *reader == Side::Others {
            came.waits();
            if came.came.load(Ordering::SeqCst) {
                came.goes_on(); // it came before anybody was told that it is waited for
            }
        }
        polled
    }
}
