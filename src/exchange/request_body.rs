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
use crate::exchange::guest_written::is_hosts_body;
use crate::exchange::handle::ExchangeState;
use crate::http::error_code::ErrorCode;

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
    pub(crate) fn of_caller(body: WasiBody, rules: BodyRules, exchange: &Arc<ExchangeState>) -> Self {
        exchange.has_reader.store(true, Ordering::Relaxed);
        let exchange = Some((Arc::downgrade(exchange), exchange.clock.clone()));
        Self { body, check: BodyCheck::new(rules), done: false, exchange, wait: None, rest: Bytes::new() }
    }

    /// The body of an upstream's response.
    pub(crate) fn of_upstream(body: WasiBody, rules: BodyRules) -> Self {
        Self { body, check: BodyCheck::new(rules), done: false, exchange: None, wait: None, rest: Bytes::new() }
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
        is_hosts_body();
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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::error::Error;
    use crate::exchange::handle::ExchangeHandle;
    use crate::exchange::testing::{Script, data};
    use crate::http::message::{Side, empty};

    fn rules(side: Side, length: Option<u64>, limit: Option<u64>) -> BodyRules {
        BodyRules { limit, ..BodyRules::of_length(side, length) }
    }

    fn exchange() -> Arc<ExchangeState> {
        let limit = std::time::Duration::from_secs(9);
        ExchangeState::new(crate::engine::process_state().unwrap(), 1, Some(limit))
    }

    fn poll(body: &mut RequestBody) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    fn code(polled: Poll<Option<Result<Frame<Bytes>, HostError>>>) -> &'static str {
        match polled {
            Poll::Ready(Some(Err(error))) => ErrorCode::from_host(&error).unwrap().name,
            _ => "",
        }
    }

    #[test]
    fn a_large_chunk_comes_in_pieces() {
        let body = Script::new(vec![data(2 * PIECE + 1)], true).boxed_unsync();
        let mut body = RequestBody::of_upstream(body, rules(Side::Response, Some(2 * PIECE as u64 + 1), None));
        for size in [PIECE, PIECE, 1] {
            let Poll::Ready(Some(Ok(frame))) = poll(&mut body) else { unreachable!() };
            assert_eq!(frame.into_data().unwrap().len(), size);
        }
        assert!(matches!(poll(&mut body), Poll::Ready(None)));
    }

    #[test]
    fn a_request_past_its_limit_ends_its_exchange() {
        let exchange = exchange();
        let body = Script::new(vec![data(2), data(2)], true).boxed_unsync();
        let mut body = RequestBody::of_caller(body, rules(Side::Request, None, Some(3)), &exchange);
        assert!(matches!(poll(&mut body), Poll::Ready(Some(Ok(_)))));
        assert_eq!(code(poll(&mut body)), "HTTP-request-body-size");
        assert!(matches!(poll(&mut body), Poll::Ready(None)), "nothing more comes");
        let outcome = ExchangeHandle::observer(&exchange).outcome();
        assert!(matches!(outcome, Some(Err(Error::Limited { limit: "request_body", value: 3, .. }))));
    }

    #[test]
    fn one_that_is_not_as_announced_is_told_to_the_guest_alone() {
        let exchange = exchange();
        for frames in [vec![data(1)], vec![data(3)]] {
            let body = Script::new(frames.clone(), true).boxed_unsync();
            let mut body = RequestBody::of_caller(body, rules(Side::Request, Some(2), None), &exchange);
            let polled = poll(&mut body);
            let told = if code(Poll::Pending).is_empty() && matches!(polled, Poll::Ready(Some(Ok(_)))) {
                poll(&mut body)
            } else {
                polled
            };
            assert_eq!(code(told), "HTTP-request-body-size");
        }
        assert!(ExchangeHandle::observer(&exchange).outcome().is_none());
    }

    #[test]
    fn the_guests_clock_stands_still_while_its_caller_sends_nothing() {
        let exchange = exchange();
        let body = Script::new(Vec::new(), false).boxed_unsync();
        let mut body = RequestBody::of_caller(body, rules(Side::Request, None, None), &exchange);
        exchange.clock.enter();
        assert!(poll(&mut body).is_pending());
        assert!(exchange.clock.leave(None).is_none(), "held");
        drop(body);
        assert!(exchange.clock.leave(None).is_some(), "nobody waits any more");
    }

    #[test]
    fn an_exchange_has_a_reader_for_as_long_as_there_is_its_body() {
        let exchange = exchange();
        assert!(!ExchangeHandle::observer(&exchange).has_reader());
        let body = RequestBody::of_caller(empty(), rules(Side::Request, None, None), &exchange);
        assert!(ExchangeHandle::observer(&exchange).has_reader());
        drop(body);
        assert!(!ExchangeHandle::observer(&exchange).has_reader());
    }
}
