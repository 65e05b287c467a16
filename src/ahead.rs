//! A response that is read ahead of its guest, as far as the buffers of a connection would take it.
//!
//! A guest may write the whole body of its request before it reads the response, while the upstream waits for somebody to take
//! the response before it is done with the request. Over a connection both lie in its buffers; here, in this room and in
//! [`crate::body::GuestBody::read_on`].

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::task::AbortHandle;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::sync::lock;

/// How much of a response lies ready before its guest reads.
const AHEAD: usize = 1 << 20;

type Framed = Option<Result<Frame<Bytes>, HostError>>;

/// The body of a response until its guest reads it. At its end, or when nobody wants it any more, `at_end` is called, once.
pub struct Ahead {
    shared: Arc<Mutex<Shared>>,
    /// Reads ahead, until the guest reads.
    task: Option<AbortHandle>,
}

struct Shared {
    inner: WasiBody,
    ready: VecDeque<Framed>,
    bytes: usize,
    /// The guest reads. The task that has read ahead may be about to look once more, and must not take what is the guest's.
    taken: bool,
    at_end: Option<Box<dyn FnOnce() + Send>>,
}

impl Shared {
    fn poll_inner(&mut self, cx: &mut Context<'_>) -> Poll<Framed> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        if !matches!(frame, Some(Ok(_))) {
            self.end();
        }
        Poll::Ready(frame)
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.taken && self.bytes < AHEAD && self.at_end.is_some() {
            let frame = ready!(self.poll_inner(cx));
            if let Some(Ok(frame)) = &frame {
                self.bytes += frame.data_ref().map_or(0, Bytes::len);
            }
            self.ready.push_back(frame);
        }
        Poll::Ready(())
    }

    fn end(&mut self) {
        if let Some(at_end) = self.at_end.take() {
            at_end();
        }
    }
}

impl Ahead {
    /// `runtime`: where to read ahead; `None`: only as the guest reads.
    pub fn new(
        inner: WasiBody,
        runtime: Option<&tokio::runtime::Handle>,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Self {
        let shared = Shared { inner, ready: VecDeque::new(), bytes: 0, taken: false, at_end: Some(Box::new(at_end)) };
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

impl Body for Ahead {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Framed> {
        if let Some(task) = self.task.take() {
            task.abort(); // the guest reads, and is the one to be woken
        }
        let mut shared = lock(&self.shared);
        shared.taken = true;
        match shared.ready.pop_front() {
            Some(frame) => Poll::Ready(frame),
            None if shared.at_end.is_none() => Poll::Ready(None),
            None => shared.poll_inner(cx),
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        lock(&self.shared).end();
    }
}
