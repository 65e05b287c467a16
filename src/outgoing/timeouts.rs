//! The timeouts of a guest's `request-options`, for upstreams that keep none themselves.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HostError;

use crate::http::error_code::ErrorCode;
use crate::outgoing::upstream::{Answer, Timeouts};
use crate::simulation::virtual_time::{Clock, WorkClock};

/// Waits for the head of a response no longer than the guest's options allow: for upstreams that have no connecting of their
/// own to be timed. The two limits before the first byte count together, and a `connect-timeout` alone limits nothing here.
pub fn within(timeouts: Timeouts, clock: Option<&WorkClock>, answer: Answer) -> Answer {
    let Some(first_byte) = timeouts.first_byte else {
        return answer;
    };
    let limit = first_byte.saturating_add(timeouts.connect.unwrap_or_default());
    let end = clock.map(|clock| clock.limit(limit));
    Box::pin(async move {
        let end: Limit = match end {
            Some(end) => Box::pin(end),
            None => Box::pin(tokio::time::sleep(limit)),
        };
        tokio::select! {
            biased;
            answer = answer => answer,
            () = end => Err(read_timeout().into()),
        }
    })
}

fn read_timeout() -> ErrorCode {
    ErrorCode::plain("connection-read-timeout")
}

/// The end of a time.
type Limit = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A limit of the time between two chunks.
pub(crate) struct Pause {
    limit: Duration,
    clock: Option<Clock>,
    end: Option<Limit>,
}

impl Pause {
    pub(crate) fn new(limit: Duration, clock: Option<Clock>) -> Self {
        Self { limit, clock, end: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let end = self.end.get_or_insert_with(|| match &self.clock {
            Some(clock) => Box::pin(clock.after(self.limit)),
            None => Box::pin(tokio::time::sleep(self.limit)),
        });
        end.as_mut().poll(cx)
    }
}

/// A response body under a limit of the time between two chunks, if there is one.
pub(crate) struct ReadTimeout<B, K> {
    body: B,
    pause: Option<Pause>,
    /// Held until the body has been read, or nobody wants it.
    _kept: K,
}

impl<B, K> ReadTimeout<B, K> {
    pub(crate) fn new(body: B, pause: Option<Pause>, kept: K) -> Self {
        Self { body, pause, _kept: kept }
    }
}

impl<B: Body<Data = Bytes, Error = HostError> + Unpin, K: Unpin> Body for ReadTimeout<B, K> {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) {
            if let Some(pause) = &mut this.pause {
                pause.end = None;
            }
            return Poll::Ready(frame);
        }
        let Some(pause) = &mut this.pause else { return Poll::Pending };
        ready!(pause.poll(cx));
        Poll::Ready(Some(Err(read_timeout().into_host())))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::VecDeque;

    use http_body_util::BodyExt;

    use super::*;
    use crate::http::message::empty;

    const LIMIT: Duration = Duration::from_millis(30);

    fn run<F: Future>(test: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test)
    }

    fn limits(connect: Option<Duration>, first_byte: Option<Duration>) -> Timeouts {
        Timeouts { connect, first_byte, between_bytes: None }
    }

    fn after(pause: Duration) -> Answer {
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            Ok(http::Response::new(empty()))
        })
    }

    fn never() -> Answer {
        Box::pin(std::future::pending())
    }

    #[test]
    fn a_head_that_does_not_come_is_a_read_timeout() {
        let late = run(async { within(limits(None, Some(LIMIT)), None, never()).await });
        assert_eq!(late.unwrap_err().code.name, "connection-read-timeout");
    }

    #[test]
    fn the_limits_before_the_first_byte_count_together() {
        let limits = limits(Some(Duration::from_secs(60)), Some(Duration::ZERO));
        assert!(run(async { within(limits, None, after(LIMIT)).await }).is_ok());
    }

    #[test]
    fn a_connect_timeout_alone_limits_nothing() {
        let limits = limits(Some(Duration::ZERO), None);
        assert!(run(async { within(limits, None, after(LIMIT)).await }).is_ok());
    }

    #[test]
    fn an_answer_that_is_there_is_taken_whatever_the_limit() {
        let ready: Answer = Box::pin(async { Ok(http::Response::new(empty())) });
        assert!(run(async { within(limits(None, Some(Duration::ZERO)), None, ready).await }).is_ok());
    }

    /// Chunks with pauses before them, and no end.
    struct Slow(VecDeque<Duration>, Option<Pin<Box<tokio::time::Sleep>>>);

    impl Body for Slow {
        type Data = Bytes;
        type Error = HostError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
            let this = &mut *self;
            let Some(pause) = this.0.front() else { return Poll::Pending };
            let sleep = this.1.get_or_insert_with(|| Box::pin(tokio::time::sleep(*pause)));
            ready!(sleep.as_mut().poll(cx));
            (this.1, _) = (None, this.0.pop_front());
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[test]
    fn each_chunk_has_its_time_and_the_first_that_is_late_is_a_read_timeout() {
        run(async {
            // together longer than the limit, each shorter
            let body = Slow([LIMIT / 3; 6].into(), None);
            let mut body = ReadTimeout::new(body, Some(Pause::new(LIMIT * 3, None)), ());
            for _ in 0..6 {
                assert!(body.frame().await.unwrap().is_ok());
            }
            let late = body.frame().await.unwrap().unwrap_err();
            assert_eq!(ErrorCode::from_host(&late).unwrap().name, "connection-read-timeout");
        });
    }

    #[test]
    fn what_is_kept_is_kept_until_the_body_is_dropped() {
        let kept = std::sync::Arc::new(());
        let body = ReadTimeout::new(empty(), None, kept.clone());
        assert_eq!(std::sync::Arc::strong_count(&kept), 2);
        drop(body);
        assert_eq!(std::sync::Arc::strong_count(&kept), 1);
    }
}
