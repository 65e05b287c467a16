//! Bodies at the guest's border: how much may pass, whether it is what was announced, and whose time it takes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::guest_clock::{Clock, Wait};
use crate::http::error_code::ErrorCode;
use crate::error::Error;
use crate::http::fields;
use crate::http::message::{Side, empty, is_bare};
use crate::exchange::handle::Shared;
use crate::process::fork::ParentsLock;

/// What bounds a body on its way into a guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub side: Side,
    /// What its message announced.
    pub length: Option<u64>,
    /// The most bytes that may pass, and the name of that limit.
    pub limit: Option<u64>,
    /// The most bytes of trailers.
    pub fields: Option<u64>,
}

impl Bounds {
    /// Of the answer to a request, which was HEAD or not.
    pub fn of_answer<B>(to_head: bool, answer: &http::Response<B>, fields: Option<u64>) -> Self {
        let length = fields::announced_length(answer.headers()).filter(|_| !is_bare(to_head, answer.status()));
        Self { side: Side::Response, length, limit: None, fields }
    }
}

/// A body on its way into a guest.
pub(crate) struct Inflow {
    body: WasiBody,
    bounds: Bounds,
    passed: u64,
    done: bool,
    /// The request's body: while the guest waits for it the clock stands still, and going past a limit ends the exchange.
    exchange: Option<(Weak<Shared>, Arc<Clock>)>,
    wait: Option<Arc<Wait>>,
    /// What has passed of a large chunk, and has not been given yet.
    rest: Bytes,
}

/// The most that a guest is given at once, so that no read of its copies more: whoever makes a body may do it in one chunk.
const PIECE: usize = 256 << 10;

impl Inflow {
    /// The body of the request that an exchange is about.
    pub fn of_caller(body: WasiBody, bounds: Bounds, shared: &Arc<Shared>) -> Self {
        shared.has_reader.store(true, Ordering::Relaxed);
        let exchange = Some((Arc::downgrade(shared), shared.clock.clone()));
        Self { body, bounds, passed: 0, done: false, exchange, wait: None, rest: Bytes::new() }
    }

    /// The body of an upstream's response.
    pub fn of_upstream(body: WasiBody, bounds: Bounds) -> Self {
        Self { body, bounds, passed: 0, done: false, exchange: None, wait: None, rest: Bytes::new() }
    }

    /// What it comes from; nothing more comes.
    pub fn take(&mut self) -> WasiBody {
        self.done = true;
        self.rest = Bytes::new();
        std::mem::replace(&mut self.body, empty())
    }

    fn check(&mut self, frame: Option<&Frame<Bytes>>) -> Result<(), ErrorCode> {
        let side = self.bounds.side;
        let Some(frame) = frame else {
            return match self.bounds.length {
                Some(length) if length != self.passed => Err(side.body_size(self.passed)),
                _ => Ok(()),
            };
        };
        if let Some(data) = frame.data_ref() {
            self.passed += data.len() as u64;
            if let Some(limit) = self.bounds.limit.filter(|limit| self.passed > *limit) {
                return Err(self.refuse(side.body_size(self.passed), "request_body", limit));
            }
            if self.bounds.length.is_some_and(|length| self.passed > length) {
                return Err(side.body_size(self.passed));
            }
        }
        if let Some(trailers) = frame.trailers_ref() {
            self.check(None)?;
            let size = fields::size(trailers);
            if let Some(limit) = self.bounds.fields.filter(|limit| size > *limit) {
                return Err(self.refuse(side.trailer_size(size), "fields", limit));
            }
        }
        Ok(())
    }

    fn first_piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if frame.data_ref().is_none_or(|data| data.len() <= PIECE) {
            return frame;
        }
        let mut data = frame.into_data().unwrap_or_default();
        self.rest = data.split_off(PIECE);
        Frame::data(data)
    }

    /// Past a limit: a caller's request ends its exchange; an upstream's response is the guest's to cope with.
    fn refuse(&self, code: ErrorCode, limit: &'static str, value: u64) -> ErrorCode {
        if let Some(shared) = self.exchange.as_ref().and_then(|(shared, _)| shared.upgrade()) {
            shared.stop(Error::Limited { code: code.clone(), limit, value });
        }
        code
    }

    fn settle_wait(&mut self) {
        if let Some(wait) = self.wait.take() {
            wait.finish();
        }
    }
}

impl Body for Inflow {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            let piece = this.rest.split_to(this.rest.len().min(PIECE));
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if this.done {
            return Poll::Ready(None);
        }
        this.settle_wait();
        let polled = match &this.exchange {
            None => Pin::new(&mut this.body).poll_frame(cx),
            Some((_, clock)) => {
                let wait = Wait::begin(Some(clock), cx.waker());
                let polled = Pin::new(&mut this.body).poll_frame(&mut Context::from_waker(&Waker::from(wait.clone())));
                if polled.is_pending() {
                    this.wait = Some(wait);
                } else {
                    wait.finish();
                }
                polled
            }
        };
        let frame = ready!(polled);
        this.done = !matches!(frame, Some(Ok(_)));
        Poll::Ready(match frame {
            Some(Err(error)) => Some(Err(error)),
            None => match this.check(None) {
                Ok(()) => None,
                Err(code) => Some(Err(code.into_host())),
            },
            Some(Ok(frame)) => match this.check(Some(&frame)) {
                Ok(()) => Some(Ok(this.first_piece(frame))),
                Err(code) => {
                    this.done = true;
                    Some(Err(code.into_host()))
                }
            },
        })
    }
}

impl Drop for Inflow {
    fn drop(&mut self) {
        self.settle_wait();
        if let Some(shared) = self.exchange.as_ref().and_then(|(shared, _)| shared.upgrade()) {
            shared.has_reader.store(false, Ordering::Relaxed);
        }
    }
}

/// The body of a guest's response on its way out. Both sides look at it: the reader takes frames; when the guest waits, its side
/// looks whether as many as may be lie there and nobody takes them, for then the time is the reader's.
pub(crate) struct Outflow {
    body: WasiBody,
    /// What has been looked at and not been taken.
    ready: VecDeque<Option<Result<Frame<Bytes>, HostError>>>,
    most: usize,
    /// The reader's wait for a frame.
    reader: Option<Arc<Wait>>,
    clock: Arc<Clock>,
    holds: bool,
    ended: bool,
}

impl Outflow {
    pub fn new(body: WasiBody, most: usize, clock: Arc<Clock>) -> Arc<ParentsLock<Self>> {
        let ready = VecDeque::new();
        Arc::new(ParentsLock::new(Self { body, ready, most, reader: None, clock, holds: false, ended: false }))
    }

    /// The guest waits.
    pub fn look(&mut self) {
        if self.ended || self.reader.as_ref().is_some_and(|wait| !wait.is_over()) {
            return;
        }
        while self.ready.len() < self.most && !matches!(self.ready.back(), Some(None | Some(Err(_)))) {
            match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(frame) => self.ready.push_back(frame),
                Poll::Pending => return,
            }
        }
        // an end that nobody has taken holds nothing up
        if matches!(self.ready.back(), Some(Some(Ok(_)))) && !self.holds {
            self.holds = true;
            self.clock.hold();
        }
    }

    fn let_go(&mut self) {
        if std::mem::take(&mut self.holds) {
            self.clock.release();
        }
    }

    /// Whether nothing more comes, and nothing is amiss.
    fn has_ended(&self) -> bool {
        match self.ready.front() {
            Some(frame) => frame.is_none(),
            None => self.ended || self.body.is_end_stream(),
        }
    }

    fn take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        if let Some(wait) = self.reader.take() {
            wait.finish();
        }
        let frame = match self.ready.pop_front() {
            Some(frame) => frame,
            None if self.ended => None,
            None => {
                let wait = Wait::begin(None, cx.waker());
                let waker = Waker::from(wait.clone());
                match Pin::new(&mut self.body).poll_frame(&mut Context::from_waker(&waker)) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => {
                        self.reader = Some(wait);
                        self.let_go();
                        return Poll::Pending;
                    }
                }
            }
        };
        self.ended |= !matches!(frame, Some(Ok(_)));
        self.let_go();
        Poll::Ready(frame)
    }
}

/// The reader's end.
pub(crate) struct OutflowReader(pub Arc<ParentsLock<Outflow>>);

impl OutflowReader {
    /// None in a forked child, where the guest's side does not exist, and to tell it would be to wake a task of the parent's runtime.
    fn own(&self) -> Option<MutexGuard<'_, Outflow>> {
        if self.0.is_foreign() { None } else { self.0.lock() }
    }
}

impl Body for OutflowReader {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        match self.own() {
            Some(mut flow) => flow.take(cx),
            None => Poll::Ready(Some(Err(HostError::HttpResponseIncomplete))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.own().is_some_and(|flow| flow.has_ended())
    }
}

impl Drop for OutflowReader {
    fn drop(&mut self) {
        let Some(mut flow) = self.own() else {
            std::mem::forget(self.0.clone()); // not even the last one to know of it lets go of what is in it
            return;
        };
        flow.ended = true;
        // whoever still knows of the exchange is not to keep the waker, and with it the reader's event loop
        if let Some(wait) = flow.reader.take() {
            wait.finish();
        }
        // the guest is to see that nobody reads
        flow.body = empty();
        flow.ready.clear();
        flow.let_go();
    }
}
