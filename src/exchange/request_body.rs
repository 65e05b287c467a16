//! Bodies on their way into a guest: held to their rules, in pieces that no guest copies more than, and on whose time they come.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::body_check::{BodyCheck, BodyRules};
use crate::exchange::guest_clock::{Clock, Wait};
use crate::exchange::handle::ExchangeState;
use crate::http::error_code::ErrorCode;
use crate::http::message::empty;

/// A body on its way into a guest.
pub(crate) struct RequestBody {
    body: WasiBody,
    check: BodyCheck,
    done: bool,
    /// The request's body: while the guest waits for it the clock stands still, and going past a limit ends the exchange.
    exchange: Option<(Weak<ExchangeState>, Arc<Clock>)>,
    wait: Option<Arc<Wait>>,
    /// What has passed of a large chunk, and has not been given yet.
    rest: Bytes,
}

/// The most that a guest is given at once, so that no read of its copies more: whoever makes a body may do it in one chunk.
const PIECE: usize = 256 << 10;

impl RequestBody {
    /// The body of the request that an exchange is about.
    pub fn of_caller(body: WasiBody, rules: BodyRules, exchange: &Arc<ExchangeState>) -> Self {
        exchange.has_reader.store(true, Ordering::Relaxed);
        let exchange = Some((Arc::downgrade(exchange), exchange.clock.clone()));
        Self { body, check: BodyCheck::new(rules), done: false, exchange, wait: None, rest: Bytes::new() }
    }

    /// The body of an upstream's response.
    pub fn of_upstream(body: WasiBody, rules: BodyRules) -> Self {
        Self { body, check: BodyCheck::new(rules), done: false, exchange: None, wait: None, rest: Bytes::new() }
    }

    /// What it comes from; nothing more comes.
    pub fn take(&mut self) -> WasiBody {
        self.done = true;
        self.rest = Bytes::new();
        std::mem::replace(&mut self.body, empty())
    }

    /// Past a limit a caller's request ends its exchange; an upstream's response is the guest's to cope with.
    fn check(&mut self, frame: Option<&Frame<Bytes>>) -> Result<(), ErrorCode> {
        let Err(violation) = self.check.frame(frame) else { return Ok(()) };
        let code = violation.code.clone();
        if violation.limit.is_some()
            && let Some(exchange) = self.exchange.as_ref().and_then(|(exchange, _)| exchange.upgrade())
        {
            exchange.stop(violation.into_error());
        }
        Err(code)
    }

    fn first_piece(&mut self, frame: Frame<Bytes>) -> Frame<Bytes> {
        if frame.data_ref().is_none_or(|data| data.len() <= PIECE) {
            return frame;
        }
        let mut data = frame.into_data().unwrap_or_default();
        self.rest = data.split_off(PIECE);
        Frame::data(data)
    }

    fn settle_wait(&mut self) {
        if let Some(wait) = self.wait.take() {
            wait.finish();
        }
    }
}

impl Body for RequestBody {
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

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.settle_wait();
        if let Some(exchange) = self.exchange.as_ref().and_then(|(exchange, _)| exchange.upgrade()) {
            exchange.has_reader.store(false, Ordering::Relaxed);
        }
    }
}
