//! A body that a guest of WASI 0.3 has made, between its streams and whoever reads it: of what it writes itself, or of what it has got
//! and passes on.
//!
//! One write lies in between, and none before its message is sent. The end is told when the turn is over in which the guest has ended the body: one that traps in it leaves a
//! body that breaks off.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::guest_turn::{GuestTurn, Moment};
use crate::exchange::guest_written::is_guests_body;
use crate::http::error_code::ErrorCode;
use crate::sync::lock;

/// How a body ends: with trailers or without, or broken.
pub(crate) type End = Result<Option<http::HeaderMap>, ErrorCode>;

struct Shared {
    turn: Arc<GuestTurn>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// A write that nobody has taken.
    chunk: Bytes,
    /// Whether the guest may write more.
    is_open: bool,
    /// What the guest has said of the end.
    end: Option<End>,
    /// When it last said that something ends.
    ended: Moment,
    /// Its message is sent, or somebody reads all the same.
    is_sent: bool,
    /// Nobody will ever read.
    is_let_go: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Who waits with the end until the message is sent.
    ender: Option<Waker>,
}

impl State {
    fn send(&mut self) -> [Option<Waker>; 2] {
        match std::mem::replace(&mut self.is_sent, true) {
            true => [None, None],
            false => [self.writer.take(), self.ender.take()],
        }
    }
}

/// What lies between a body's streams and its reader.
pub(crate) struct Pipe(Arc<Shared>);

/// The bodies of messages that a guest has made, by their messages' handles. One whose message was let go of stays until the next message has
/// its handle.
#[derive(Default)]
pub(crate) struct Unsent(HashMap<u32, Weak<Shared>>);

impl Unsent {
    pub(crate) fn add(&mut self, message: u32, pipe: &Pipe) {
        self.0.insert(message, Arc::downgrade(&pipe.0));
    }

    /// The message is sent: from now on what the guest writes is taken.
    pub(crate) fn send(&mut self, message: u32) {
        let Some(shared) = self.0.remove(&message).and_then(|shared| shared.upgrade()) else { return };
        let wakers = lock(&shared.state).send();
        wakers.into_iter().for_each(wake);
    }
}

/// Nobody reads any more.
pub(crate) struct LetGo;

/// Where what a guest writes goes.
pub(crate) struct Contents(Arc<Shared>);

impl Contents {
    /// Whether there is room for a write.
    pub(crate) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), LetGo>> {
        let mut state = lock(&self.0.state);
        if state.is_let_go {
            return Poll::Ready(Err(LetGo));
        }
        if state.is_sent && state.chunk.is_empty() {
            return Poll::Ready(Ok(()));
        }
        state.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Puts a write where there is room for it.
    pub(crate) fn put(&self, chunk: Bytes) {
        let mut state = lock(&self.0.state);
        if state.is_let_go {
            return;
        }
        state.chunk = chunk;
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }
}

impl Drop for Contents {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.is_open = false;
        state.ended = self.0.turn.now();
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }
}

/// Where a guest says how its body ends.
pub(crate) struct Ender(Arc<Shared>);

impl Ender {
    /// Whether the message is sent, or never will be.
    pub(crate) fn poll_sent(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.0.state);
        if state.is_sent || state.is_let_go {
            return Poll::Ready(());
        }
        state.ender = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn end(&self, end: End) {
        let mut state = lock(&self.0.state);
        if state.end.is_some() {
            return;
        }
        state.end = Some(end);
        state.ended = self.0.turn.now();
        let reader = state.reader.take();
        drop(state);
        wake(reader);
    }
}

impl Drop for Ender {
    fn drop(&mut self) {
        self.end(Err(ErrorCode::plain("HTTP-protocol-error")));
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Pipe {
    fn new(turn: &Arc<GuestTurn>, is_open: bool) -> Self {
        Self(Arc::new(Shared { turn: turn.clone(), state: Mutex::new(State { is_open, ..State::default() }) }))
    }

    fn ends(self, contents: Option<WasiBody>) -> (Self, WasiBody, Ender) {
        let body = Piped { shared: self.0.clone(), contents, is_over: false }.boxed_unsync();
        let ender = Ender(self.0.clone());
        (self, body, ender)
    }

    /// Of a body whose contents the guest passes on, if there are any; it says how it ends.
    pub(crate) fn passing_on(contents: Option<WasiBody>, turn: &Arc<GuestTurn>) -> (Self, WasiBody, Ender) {
        Self::new(turn, false).ends(contents)
    }

    /// Of a body that the guest writes.
    pub(crate) fn written(turn: &Arc<GuestTurn>) -> (Self, WasiBody, Ender, Contents) {
        let (pipe, body, ender) = Self::new(turn, true).ends(None);
        let contents = Contents(pipe.0.clone());
        (pipe, body, ender, contents)
    }
}

/// The reader's end.
struct Piped {
    shared: Arc<Shared>,
    /// What is passed on, until it has ended.
    contents: Option<WasiBody>,
    is_over: bool,
}

impl Piped {
    /// What there is of contents that are passed on; nothing when they have ended.
    fn poll_contents(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        while let Some(contents) = &mut self.contents {
            match ready!(Pin::new(contents).poll_frame(cx)) {
                Some(Ok(frame)) if frame.data_ref().is_some_and(Bytes::is_empty) => {}
                Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(frame))),
                // its own trailers are told to the guest, which says those of this body
                Some(Ok(_)) | None => self.contents = None,
                broken @ Some(Err(_)) => {
                    self.contents = None;
                    self.is_over = true;
                    return Poll::Ready(broken);
                }
            }
        }
        Poll::Ready(None)
    }
}

impl Body for Piped {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        let mut state = lock(&this.shared.state);
        let wakers = state.send();
        let is_guests = state.end.is_none();
        drop(state);
        wakers.into_iter().for_each(wake);
        if this.contents.is_some() {
            let polled = this.poll_contents(cx);
            if is_guests {
                is_guests_body();
            }
            if let Some(frame) = ready!(polled) {
                return Poll::Ready(Some(frame));
            }
        }
        let mut state = lock(&this.shared.state);
        if !state.chunk.is_empty() {
            let chunk = std::mem::take(&mut state.chunk);
            let writer = state.writer.take();
            drop(state);
            wake(writer);
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        state.reader = Some(cx.waker().clone());
        if state.is_open || state.end.is_none() || !this.shared.turn.is_over(state.ended, cx) {
            return Poll::Pending;
        }
        state.reader = None;
        this.is_over = true;
        Poll::Ready(match state.end.take() {
            Some(Ok(Some(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Some(Err(code)) => Some(Err(code.into_host())),
            Some(Ok(None)) | None => None,
        })
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.is_let_go = true;
        state.chunk = Bytes::new();
        state.reader = None;
        let wakers = [state.writer.take(), state.ender.take()];
        drop(state);
        wakers.into_iter().for_each(wake);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::exchange::testing::{Script, data};

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn next(body: &mut WasiBody) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        Pin::new(body).poll_frame(&mut cx())
    }

    /// A guest in the midst of a turn.
    fn turn() -> Arc<GuestTurn> {
        let turn = Arc::<GuestTurn>::default();
        {
            let work = pin!(async {});
            let inside = pin!(turn.inside(work));
            assert!(pin!(turn.around(inside)).poll(&mut cx()).is_ready());
        }
        turn
    }

    #[test]
    fn one_write_lies_in_between_and_none_before_its_message_is_sent() {
        let (pipe, mut body, ender, contents) = Pipe::written(&turn());
        let mut unsent = Unsent::default();
        unsent.add(7, &pipe);
        unsent.send(6);
        assert!(contents.poll_room(&cx()).is_pending() && ender.poll_sent(&cx()).is_pending());
        unsent.send(7);
        assert!(ender.poll_sent(&cx()).is_ready());
        assert!(matches!(contents.poll_room(&cx()), Poll::Ready(Ok(()))));
        contents.put(data(3));
        assert!(contents.poll_room(&cx()).is_pending());
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap().len() == 3));
        assert!(matches!(contents.poll_room(&cx()), Poll::Ready(Ok(()))));
        drop(body);
        assert!(matches!(contents.poll_room(&cx()), Poll::Ready(Err(LetGo))));
    }

    #[test]
    fn nobody_waits_for_a_message_that_will_not_be_sent() {
        let (_pipe, body, ender, contents) = Pipe::written(&turn());
        drop(body);
        assert!(ender.poll_sent(&cx()).is_ready());
        assert!(matches!(contents.poll_room(&cx()), Poll::Ready(Err(LetGo))));
    }

    #[test]
    fn whoever_reads_a_message_that_is_not_sent_gets_what_is_written() {
        let (_pipe, mut body, ender, contents) = Pipe::written(&turn());
        assert!(next(&mut body).is_pending());
        assert!(ender.poll_sent(&cx()).is_ready());
        assert!(matches!(contents.poll_room(&cx()), Poll::Ready(Ok(()))));
    }

    #[test]
    fn the_end_is_told_when_the_turn_is_over() {
        for end_first in [false, true] {
            let turn = turn();
            let (_pipe, mut body, ender, contents) = Pipe::written(&turn);
            contents.put(data(1));
            if end_first {
                ender.end(Ok(None));
                drop(contents);
            } else {
                drop(contents);
                ender.end(Ok(None));
            }
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))), "what was written is told at once");
            assert!(next(&mut body).is_pending());
            turn.end();
            for _ in 0..2 {
                assert!(matches!(next(&mut body), Poll::Ready(None)));
            }
        }
    }

    #[test]
    fn a_body_needs_both_its_ends() {
        let turn = turn();
        let (_pipe, mut body, ender, contents) = Pipe::written(&turn);
        drop(contents);
        turn.end();
        assert!(next(&mut body).is_pending());
        drop(ender);
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(HostError::HttpProtocolError)))));
    }

    #[test]
    fn a_body_that_is_passed_on_ends_as_its_guest_says() {
        let trailers = http::HeaderMap::from_iter([(http::header::ETAG, http::HeaderValue::from_static("a"))]);
        let turn = turn();
        let contents = Script::new(vec![data(1), data(0), data(2)], true).boxed_unsync();
        let (_pipe, mut body, ender) = Pipe::passing_on(Some(contents), &turn);
        for size in [1, 2] {
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap().len() == size));
        }
        assert!(next(&mut body).is_pending());
        ender.end(Ok(Some(trailers)));
        turn.end();
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(frame))) if frame.is_trailers()));
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }
}
