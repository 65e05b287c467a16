//! What is kept of a request's body for an upstream that has answered before it has read it.

use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use futures_util::future::select;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::task::AbortHandle;
use wasmtime_wasi_http::WasiBody;

use crate::engine::ProcessState;

/// How much of a request's body is kept for an upstream that has answered and not read it.
const KEPT: usize = 64 << 10;

/// How much of it is read on while its upstream may still read it: about as much as the buffers of a connection would take.
const ROOM: usize = 1 << 20;

/// What follows when as much of an unread body is kept as may be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// Its guest waits: the upstream may still read it while it writes its response.
    Waits,
    /// All of it is thrown away.
    IsDiscarded,
}

/// What was read of a request's body after its upstream had answered.
#[derive(Default)]
pub(super) struct Unread {
    kept: BytesMut,
    /// More came than is kept, and nobody can read it any more.
    discarded: bool,
    /// Reads on.
    task: Option<AbortHandle>,
    /// Which task that is. One that is aborted may be about to look once more, and must not take what is the reader's.
    turn: u64,
    /// The reader that waits.
    reader: Option<Waker>,
}

impl Unread {
    /// Nobody reads on in the background any more. Returns the number of whoever does so next.
    pub(super) fn stop(&mut self) -> u64 {
        self.turn += 1;
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.turn
    }

    /// Whether whoever has this number is the one that reads on.
    pub(super) fn is_turn_of(&self, turn: u64) -> bool {
        self.turn == turn
    }

    pub(super) fn set_task(&mut self, task: AbortHandle) {
        self.task = Some(task);
    }

    /// Its reader waits, or does so no more.
    pub(super) fn set_reader(&mut self, reader: Option<Waker>) {
        self.reader = reader;
    }

    pub(super) fn is_being_read(&self) -> bool {
        self.reader.is_some()
    }

    pub(super) fn is_discarded(&self) -> bool {
        self.discarded
    }

    pub(super) fn has_nothing_kept(&self) -> bool {
        self.kept.is_empty()
    }

    /// All that comes is thrown away, and its reader is told so.
    pub(super) fn discard(&mut self) {
        self.discarded = true;
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Whether it is read on now.
    pub(super) fn takes_more(&self, past: Past) -> bool {
        past == Past::IsDiscarded || self.kept.len() < ROOM
    }

    /// Keeps a chunk, if as much may be kept.
    pub(super) fn keep(&mut self, chunk: &[u8], past: Past) -> bool {
        let is_kept = past == Past::Waits || self.kept.len() + chunk.len() <= KEPT;
        if is_kept {
            self.kept.extend_from_slice(chunk);
        }
        is_kept
    }

    /// What was read on is the reader's again; or why it is lost.
    pub(super) fn take(&mut self) -> Result<Option<Bytes>, String> {
        self.reader = None;
        self.stop();
        if self.discarded {
            return Err(format!(
                "its upstream responded without reading it, and only bodies of up to {KEPT} bytes are kept; hint: read \
                 it before responding"
            ));
        }
        let kept = std::mem::take(&mut self.kept).freeze();
        Ok(Some(kept).filter(|kept| !kept.is_empty()))
    }
}

/// Reads a body to its end, and throws it away. Its guest gives it an end, or is gone; but a store that others share lives on, and what a
/// guest has passed on may have none: so it is read until its exchange is `over` at the latest.
pub(super) fn discard(
    mut rest: WasiBody,
    over: impl Future<Output = ()> + Send + 'static,
    process: &'static ProcessState,
) {
    // in most cases all that there is lies there: no task is needed
    for _ in 0..4 {
        match Pin::new(&mut rest).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(_) => return,
            Poll::Pending => break,
        }
    }
    if let Ok(runtime) = process.runtime.handle() {
        runtime.spawn(async move {
            let read = async { while let Some(Ok(_)) = rest.frame().await {} };
            select(pin!(read), pin!(over)).await;
        });
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_read_on_is_the_readers_once() {
        let mut unread = Unread::default();
        assert!(unread.keep(b"one", Past::IsDiscarded) && unread.keep(b"two", Past::Waits));
        assert_eq!(unread.take().unwrap().unwrap(), "onetwo");
        assert!(unread.take().unwrap().is_none() && unread.has_nothing_kept());
    }

    #[test]
    fn no_more_is_kept_than_may_be() {
        let mut unread = Unread::default();
        assert!(unread.keep(&[0; KEPT], Past::IsDiscarded));
        assert!(!unread.keep(b"x", Past::IsDiscarded), "the rest is thrown away");
        assert!(unread.keep(b"x", Past::Waits) && unread.takes_more(Past::Waits));
        assert!(unread.keep(&[0; ROOM], Past::Waits), "a chunk is not cut");
        assert!(!unread.takes_more(Past::Waits) && unread.takes_more(Past::IsDiscarded));
    }

    #[test]
    fn a_reader_of_what_was_thrown_away_is_told_so() {
        let mut unread = Unread::default();
        unread.set_reader(Some(Waker::noop().clone()));
        assert!(unread.is_being_read());
        unread.discard();
        assert!(unread.is_discarded() && !unread.is_being_read());
        assert!(unread.take().unwrap_err().contains("it before responding"));
    }

    #[test]
    fn a_task_that_was_stopped_is_told_from_the_next_one() {
        let mut unread = Unread::default();
        let first = unread.stop();
        assert!(unread.is_turn_of(first));
        let second = unread.stop();
        assert!(!unread.is_turn_of(first) && unread.is_turn_of(second));
    }

    #[test]
    fn as_much_is_read_on_as_there_is_room() {
        let mut unread = Unread::default();
        assert!(unread.has_nothing_kept() && !unread.is_discarded());
        assert!(unread.keep(&[0; ROOM - 1], Past::Waits) && unread.takes_more(Past::Waits));
        assert!(unread.keep(b"x", Past::Waits) && !unread.takes_more(Past::Waits));
        assert!(!unread.has_nothing_kept());
    }

    #[test]
    fn the_task_that_reads_on_is_stopped() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(std::future::pending::<()>());
        let mut unread = Unread::default();
        unread.set_task(task.abort_handle());
        unread.stop();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    }

    /// So many chunks; tells when it has been read to its end.
    struct Told(usize, std::sync::mpsc::Sender<()>);

    impl Body for Told {
        type Data = Bytes;
        type Error = wasmtime_wasi_http::Error;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            let Some(left) = self.0.checked_sub(1) else {
                let _ = self.1.send(());
                return Poll::Ready(None);
            };
            self.0 = left;
            Poll::Ready(Some(Ok(http_body::Frame::data(Bytes::from_static(b"x")))))
        }
    }

    #[test]
    fn what_is_thrown_away_is_read_to_its_end() {
        for chunks in [0, 3, 9] {
            let (sender, told) = std::sync::mpsc::channel();
            let over = std::future::pending();
            discard(Told(chunks, sender).boxed_unsync(), over, crate::engine::process_state().unwrap());
            told.recv().unwrap();
        }
    }

    #[test]
    fn what_never_ends_is_read_until_its_exchange_is_over() {
        struct Endless {
            _held: Arc<()>,
        }

        impl Body for Endless {
            type Data = Bytes;
            type Error = wasmtime_wasi_http::Error;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }

        let (body, (end, over)) = (Arc::new(()), tokio::sync::oneshot::channel::<()>());
        let is_over = async move { drop(over.await) };
        discard(Endless { _held: body.clone() }.boxed_unsync(), is_over, crate::engine::process_state().unwrap());
        assert_eq!(Arc::strong_count(&body), 2, "it is read");
        drop(end);
        let begun = std::time::Instant::now();
        while Arc::strong_count(&body) > 1 {
            assert!(begun.elapsed() < std::time::Duration::from_secs(10), "it is read for ever");
            std::thread::yield_now();
        }
    }
}
