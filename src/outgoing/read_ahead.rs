//! A response that is read ahead of its guest, as far as the buffers of a connection would take it.
//!
//! A guest may write the whole body of its request before it reads the response, while the upstream waits for somebody to take
//! the response before it is done with the request. Over a connection both lie in its buffers; here, in this room and in
//! [`crate::exchange::shared_body::SharedBody::read_on`].

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::task::AbortHandle;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::http::message::empty;
use crate::sync::lock;

/// How much of a response lies ready before its guest reads, its frames themselves with it: those of one byte are many.
const AHEAD: usize = 1 << 20;

type Framed = Option<Result<Frame<Bytes>, HostError>>;

/// The body of a response, as its guest reads it. At its end, or when nobody wants it any more, `at_end` is called, once.
pub struct ReadAhead {
    shared: Arc<Mutex<Shared>>,
    /// Reads ahead, also when the guest has begun to read and does something else: what is polled by nobody has no timeouts, either.
    task: Option<AbortHandle>,
}

struct Shared {
    inner: WasiBody,
    ready: VecDeque<Framed>,
    bytes: usize,
    at_end: Option<Box<dyn FnOnce() + Send>>,
    wakers: Arc<Wakers>,
}

/// Who is told that there is more: the guest, if it waits, and the task that reads ahead, which is the one that finds it if the guest
/// does not come back.
#[derive(Default)]
struct Wakers {
    guest: Mutex<Option<Waker>>,
    task: Mutex<Option<Waker>>,
}

impl Wakers {
    fn set(waker: &Mutex<Option<Waker>>, cx: &Context<'_>) {
        let mut waker = lock(waker);
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    fn wake_guest(&self) {
        let guest = lock(&self.guest).take();
        if let Some(guest) = guest {
            guest.wake();
        }
    }

    fn wake_task(&self) {
        let task = lock(&self.task).take();
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_guest();
        self.wake_task();
    }
}

impl Shared {
    fn poll_inner(&mut self) -> Poll<Framed> {
        let waker = Waker::from(self.wakers.clone());
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(&mut Context::from_waker(&waker)));
        if !matches!(frame, Some(Ok(_))) {
            self.end();
        }
        if matches!(frame, Some(Err(_))) {
            // with what sends the request: its guest may be at that, and not look for this
            self.inner = empty();
        }
        Poll::Ready(frame)
    }

    fn poll_ahead(&mut self, cx: &Context<'_>) -> Poll<()> {
        Wakers::set(&self.wakers.task, cx);
        while self.at_end.is_some() {
            if self.bytes >= AHEAD {
                return Poll::Pending; // until the guest takes something
            }
            let frame = ready!(self.poll_inner());
            self.bytes += size_of(&frame);
            self.ready.push_back(frame);
            self.wakers.wake_guest();
        }
        Poll::Ready(())
    }

    fn poll_guest(&mut self, cx: &Context<'_>) -> Poll<Framed> {
        let frame = match self.ready.pop_front() {
            Some(frame) => {
                self.bytes -= size_of(&frame);
                frame
            }
            None if self.at_end.is_none() => None,
            None => {
                Wakers::set(&self.wakers.guest, cx);
                let frame = ready!(self.poll_inner());
                lock(&self.wakers.guest).take();
                frame
            }
        };
        self.wakers.wake_task();
        Poll::Ready(frame)
    }

    fn end(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }
}

fn size_of(frame: &Framed) -> usize {
    let data = match frame {
        Some(Ok(frame)) => frame.data_ref().map_or(0, Bytes::len),
        _ => 0,
    };
    data + std::mem::size_of::<Framed>()
}

impl ReadAhead {
    /// `runtime`: where to read ahead; `None`: only as the guest reads.
    pub fn new(
        inner: WasiBody,
        runtime: Option<&tokio::runtime::Handle>,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (ready, wakers) = (VecDeque::new(), Arc::default());
        let shared = Shared { inner, ready, bytes: 0, at_end: Some(Box::new(at_end)), wakers };
        let shared = Arc::new(Mutex::new(shared));
        let task = runtime.map(|runtime| {
            // it holds no more than the guest does: dropping the body drops what it is read from
            let weak = Arc::downgrade(&shared);
            let ahead = poll_fn(move |cx| match weak.upgrade() {
                Some(shared) => lock(&shared).poll_ahead(cx),
                None => Poll::Ready(()),
            });
            runtime.spawn(ahead).abort_handle()
        });
        Self { shared, task }
    }
}

impl Body for ReadAhead {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Framed> {
        lock(&self.shared).poll_guest(cx)
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        let mut shared = lock(&self.shared);
        // whoever holds the other end of what is read is not to keep its guest
        lock(&shared.wakers.guest).take();
        shared.end();
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    /// A body without an end, of frames that are all the same; counts them.
    struct Endless(Bytes, Arc<Mutex<usize>>);

    impl Body for Endless {
        type Data = Bytes;
        type Error = HostError;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Framed> {
            *lock(&self.1) += 1;
            Poll::Ready(Some(Ok(Frame::data(self.0.clone()))))
        }
    }

    #[test]
    fn no_more_lies_ready_than_may_however_small_it_comes() {
        for (data, most) in [(&b"x"[..], 20_000), (&b""[..], 20_000), (&[b'x'; 65_536][..], 16)] {
            let count = Arc::default();
            let body = Endless(Bytes::from_static(data), Arc::clone(&count));
            let ahead = ReadAhead::new(body.boxed_unsync(), None, || ());
            let cx = Context::from_waker(Waker::noop());
            assert!(lock(&ahead.shared).poll_ahead(&cx).is_pending());
            assert!((1..=most).contains(&*lock(&count)), "{} of {} bytes", lock(&count), data.len());
        }
    }

    /// Three chunks, then an end or a failure.
    struct Three(usize, bool);

    impl Body for Three {
        type Data = Bytes;
        type Error = HostError;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Framed> {
            self.0 += 1;
            Poll::Ready(match (self.0, self.1) {
                (1..=3, _) => Some(Ok(Frame::data(Bytes::from(vec![b'x'; self.0])))),
                (_, true) => None,
                (_, false) => Some(Err(HostError::HttpResponseIncomplete)),
            })
        }
    }

    #[test]
    fn the_guest_finds_what_was_read_ahead_in_order_and_its_end_is_told_once() {
        for (ahead_of_guest, ends) in [(true, true), (true, false), (false, true), (false, false)] {
            let ended = Arc::new(Mutex::new(0));
            let told = Arc::clone(&ended);
            let body = ReadAhead::new(Three(0, ends).boxed_unsync(), None, move || *lock(&told) += 1);
            let cx = Context::from_waker(Waker::noop());
            if ahead_of_guest {
                assert!(lock(&body.shared).poll_ahead(&cx).is_ready());
                assert_eq!(*lock(&ended), 1);
            }
            let mut sizes = Vec::new();
            let last = loop {
                match lock(&body.shared).poll_guest(&cx) {
                    Poll::Ready(Some(Ok(frame))) => sizes.push(frame.data_ref().map_or(0, Bytes::len)),
                    Poll::Ready(last) => break last,
                    Poll::Pending => unreachable!(),
                }
            };
            assert_eq!(sizes, [1, 2, 3]);
            assert_eq!(last.is_none(), ends);
            assert!(matches!(lock(&body.shared).poll_guest(&cx), Poll::Ready(None)));
            assert_eq!(lock(&body.shared).bytes, 0);
            drop(body);
            assert_eq!(*lock(&ended), 1);
        }
    }
}
