//! The body of a guest's response on its way out: what lies between the guest and its reader, and whose time it takes.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, MutexGuard, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::guest_clock::{Clock, Wait};
use crate::http::message::empty;
use crate::process::fork::ParentsLock;

/// The most writes in a body's channel. A guest that waits there is woken by its reader, from another thread mostly: it is to have several
/// writes to make then. 1 GiB of writes of 4 KiB each was echoed 1.6 times as fast with seven as with one.
pub(crate) const MOST_IN_CHANNEL: usize = 7;

/// How many of the writes that may lie between a guest of WASI 0.2 and its reader are in the channel, which has a place besides for the next one.
pub(crate) fn in_channel(chunks: usize) -> usize {
    chunks.saturating_sub(1).clamp(1, MOST_IN_CHANNEL)
}

/// How many of them lie where it can be seen that nobody takes them. In WASI 0.3, which has no such channel, all do.
pub(crate) fn in_sight(chunks: usize) -> usize {
    (chunks + 1).saturating_sub(in_channel(chunks)).max(1)
}

/// The body of a guest's response on its way out. Both sides look at it: the reader takes frames; when the guest waits, its side
/// looks whether as many as may lie here do and nobody takes them, for then the time is the reader's.
pub(crate) struct ResponseBuffer {
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

/// What a guest has answered: the body of its response, or none, since it was an error-code.
#[derive(Clone, Default)]
pub(crate) struct ResponseSlot(Arc<OnceLock<Option<Arc<ParentsLock<ResponseBuffer>>>>>);

impl ResponseSlot {
    pub(crate) fn set(&self, body: Option<Arc<ParentsLock<ResponseBuffer>>>) {
        let _ = self.0.set(body);
    }

    pub(crate) fn is_answered(&self) -> bool {
        self.0.get().is_some()
    }

    /// The guest waits: perhaps because nobody takes what it has written.
    pub(crate) fn look(&self) {
        if let Some(mut buffer) = self.0.get().and_then(|body| body.as_ref()?.lock()) {
            buffer.look();
        }
    }
}

impl ResponseBuffer {
    /// `most`: so many writes lie [in sight](in_sight).
    pub(crate) fn new(body: WasiBody, most: usize, clock: Arc<Clock>) -> Arc<ParentsLock<Self>> {
        let ready = VecDeque::new();
        Arc::new(ParentsLock::new(Self { body, ready, most, reader: None, clock, holds: false, ended: false }))
    }

    /// The guest waits.
    pub(crate) fn look(&mut self) {
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

    fn release_clock(&mut self) {
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
                        self.release_clock();
                        return Poll::Pending;
                    }
                }
            }
        };
        self.ended |= !matches!(frame, Some(Ok(_)));
        self.release_clock();
        Poll::Ready(frame)
    }
}

/// The reader's end.
pub(crate) struct ResponseReader(pub Arc<ParentsLock<ResponseBuffer>>);

impl ResponseReader {
    /// None in a forked child, where the guest's side does not exist, and to tell it would be to wake a task of the parent's runtime.
    fn own(&self) -> Option<MutexGuard<'_, ResponseBuffer>> {
        if self.0.is_foreign() { None } else { self.0.lock() }
    }
}

impl Body for ResponseReader {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        match self.own() {
            Some(mut buffer) => buffer.take(cx),
            None => Poll::Ready(Some(Err(HostError::HttpResponseIncomplete))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.own().is_some_and(|buffer| buffer.has_ended())
    }
}

impl Drop for ResponseReader {
    fn drop(&mut self) {
        let Some(mut buffer) = self.own() else {
            std::mem::forget(self.0.clone()); // not even the last one to know of it lets go of what is in it
            return;
        };
        buffer.ended = true;
        // whoever still knows of the exchange is not to keep the waker, and with it the reader's event loop
        if let Some(wait) = buffer.reader.take() {
            wait.finish();
        }
        // the guest is to see that nobody reads
        buffer.body = empty();
        buffer.ready.clear();
        buffer.release_clock();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::exchange::testing::{Script, data};

    type Buffer = Arc<ParentsLock<ResponseBuffer>>;

    /// A guest that has its turn, under a limit of time, and the body that it writes.
    fn written(frames: usize, ends: bool, most: usize) -> (Arc<Clock>, Buffer) {
        let clock = Clock::new(Some(std::time::Duration::from_secs(9)));
        clock.enter();
        let body = Script::new(vec![data(1); frames], ends).boxed_unsync();
        let buffer = ResponseBuffer::new(body, most, clock.clone());
        (clock, buffer)
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    #[test]
    fn as_many_writes_lie_in_between_as_may_and_two_more() {
        for chunks in 1..40 {
            assert_eq!(in_sight(chunks) + in_channel(chunks) + 1, chunks + 2);
        }
        for (chunks, most) in [(1, 1), (2, 1), (3, 2), (8, 7), (1000, MOST_IN_CHANNEL)] {
            assert_eq!(in_channel(chunks), most);
        }
    }

    #[test]
    fn a_guest_that_waits_for_its_reader_spends_nothing() {
        let (clock, buffer) = written(3, false, 2);
        buffer.lock().unwrap().look();
        assert!(clock.leave(None).is_none(), "held");
        assert!(buffer.lock().unwrap().take(&mut cx()).is_ready());
        assert!(clock.leave(None).is_some(), "its reader has taken some");
    }

    #[test]
    fn a_guest_that_has_written_less_than_may_lie_there_spends_its_own_time() {
        let (clock, buffer) = written(1, false, 2);
        buffer.lock().unwrap().look();
        assert!(clock.leave(None).is_some());
    }

    #[test]
    fn an_end_that_nobody_has_taken_holds_nothing_up() {
        let (clock, buffer) = written(1, true, 2);
        buffer.lock().unwrap().look();
        assert!(clock.leave(None).is_some());
    }

    #[test]
    fn nothing_is_looked_at_while_its_reader_waits() {
        let (clock, buffer) = written(0, false, 1);
        assert!(buffer.lock().unwrap().take(&mut cx()).is_pending());
        buffer.lock().unwrap().look();
        assert!(buffer.lock().unwrap().ready.is_empty());
        assert!(clock.leave(None).is_some());
    }

    #[test]
    fn what_was_looked_at_is_taken_in_order_and_the_end_once() {
        let (_clock, buffer) = written(2, true, 9);
        buffer.lock().unwrap().look();
        let mut buffer = buffer.lock().unwrap();
        assert!(!buffer.has_ended());
        for _ in 0..2 {
            assert!(matches!(buffer.take(&mut cx()), Poll::Ready(Some(Ok(_)))));
        }
        assert!(buffer.has_ended());
        for _ in 0..2 {
            assert!(matches!(buffer.take(&mut cx()), Poll::Ready(None)));
        }
    }

    #[test]
    fn a_reader_that_goes_away_holds_no_guest_up() {
        let (clock, buffer) = written(3, false, 1);
        buffer.lock().unwrap().look();
        drop(ResponseReader(buffer.clone()));
        assert!(clock.leave(None).is_some());
        buffer.lock().unwrap().look();
        assert!(buffer.lock().unwrap().ready.is_empty());
        assert!(clock.leave(None).is_some());
    }

    #[test]
    fn a_response_and_an_error_code_are_answers() {
        let (_clock, buffer) = written(0, true, 1);
        for answer in [Some(buffer), None] {
            let slot = ResponseSlot::default();
            assert!(!slot.is_answered());
            slot.look();
            slot.set(answer);
            slot.look();
            assert!(slot.is_answered());
        }
    }

    /// Has nothing the first time, then always something; keeps the waker.
    struct Later(Arc<std::sync::Mutex<Option<Waker>>>);

    impl Body for Later {
        type Data = Bytes;
        type Error = HostError;

        fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
            let mut waker = self.0.lock().unwrap();
            if waker.is_some() {
                return Poll::Ready(Some(Ok(Frame::data(data(1)))));
            }
            *waker = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    #[test]
    fn a_reader_that_was_woken_and_does_not_come_holds_its_guest_up() {
        let (clock, _) = written(0, false, 1);
        let waker = Arc::default();
        let buffer = ResponseBuffer::new(Later(Arc::clone(&waker)).boxed_unsync(), 2, clock.clone());
        assert!(buffer.lock().unwrap().take(&mut cx()).is_pending());
        let woken = waker.lock().unwrap().clone();
        woken.unwrap().wake();
        let slot = ResponseSlot::default();
        slot.set(Some(buffer.clone()));
        slot.look();
        assert_eq!(buffer.lock().unwrap().ready.len(), 2, "no more than may lie there");
        assert!(clock.leave(None).is_none(), "held");
    }

    #[test]
    fn a_reader_sees_the_frames_and_the_end() {
        let (_clock, buffer) = written(2, true, 1);
        let mut reader = ResponseReader(buffer);
        for _ in 0..2 {
            assert!(!reader.is_end_stream());
            assert!(matches!(Pin::new(&mut reader).poll_frame(&mut cx()), Poll::Ready(Some(Ok(_)))));
        }
        assert!(matches!(Pin::new(&mut reader).poll_frame(&mut cx()), Poll::Ready(None)));
        assert!(reader.is_end_stream());
        let nothing = ResponseBuffer::new(empty(), 1, Clock::new(None));
        assert!(ResponseReader(nothing).is_end_stream(), "its body says so before anybody asks");
    }
}
