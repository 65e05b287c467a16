//! Streams of files as WASI 0.3 has them, over those of WASI 0.2: a piece is on its way between the disk and the guest at most, on the
//! threads of the guest's app.

use std::io;
use std::pin::Pin;
use std::sync::Weak;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, StreamError, StreamResult as Done};
use wasmtime_wasi::p3::bindings::filesystem::types::ErrorCode;

use crate::exchange::handle::ExchangeState;
use crate::guest::open_files::BUFFER;

/// The least that is read at once: a guest may take one byte after the other.
const READ: usize = 8 << 10;

/// How a stream ends, for the future that tells it: well, unless something is said before.
pub(crate) struct End(Option<oneshot::Sender<Result<(), ErrorCode>>>);

impl End {
    pub(crate) fn new() -> (Self, oneshot::Receiver<Result<(), ErrorCode>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    pub(crate) fn say(&mut self, end: Result<(), ErrorCode>) {
        if let Some(sender) = self.0.take() {
            let _ = sender.send(end);
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        self.say(Ok(()));
    }
}

/// A call on a stream, which comes back when it is over.
type Call<S, T> = Pin<Box<dyn Future<Output = (S, Done<T>)> + Send>>;

enum State<S, T> {
    Idle(S),
    Busy(Call<S, T>),
    Over,
}

impl<S: Unpin, T> State<S, T> {
    /// Begins a call if none is under way, and has it go on.
    fn poll(&mut self, cx: &mut Context<'_>, begin: impl FnOnce(S) -> Call<S, T>) -> Poll<Done<T>> {
        let mut call = match std::mem::replace(self, Self::Over) {
            Self::Idle(stream) => begin(stream),
            Self::Busy(call) => call,
            Self::Over => return Poll::Ready(Err(StreamError::Closed)),
        };
        match call.as_mut().poll(cx) {
            Poll::Pending => {
                *self = Self::Busy(call);
                Poll::Pending
            }
            Poll::Ready((stream, done)) => {
                *self = Self::Idle(stream);
                Poll::Ready(done)
            }
        }
    }
}

fn code(error: &StreamError) -> ErrorCode {
    match error {
        StreamError::LastOperationFailed(error) => {
            error.downcast_ref::<io::Error>().map_or(ErrorCode::Io, ErrorCode::from)
        }
        _ => ErrorCode::Io,
    }
}

/// `read-via-stream`. It goes no further when the exchange in which it was made is over: a guest may have given it to the host, which
/// reads on without it.
pub(crate) struct FromFile {
    state: State<DynInputStream, Bytes>,
    end: End,
    exchange: Weak<ExchangeState>,
}

impl FromFile {
    pub(crate) fn new(stream: DynInputStream, end: End, exchange: Weak<ExchangeState>) -> Self {
        Self { state: State::Idle(stream), end, exchange }
    }
}

impl<D> StreamProducer<D> for FromFile {
    type Item = u8;
    type Buffer = Bytes;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut to: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if self.exchange.upgrade().is_none_or(|exchange| exchange.has_ended()) {
            self.state = State::Over;
            self.end.say(Err(ErrorCode::Interrupted));
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        let size = match to.remaining(&mut store) {
            Some(0) => return Poll::Ready(Ok(StreamResult::Completed)),
            asked => asked.unwrap_or(0).clamp(READ, BUFFER as usize),
        };
        let read = self.state.poll(cx, |mut stream| {
            Box::pin(async move {
                let read = stream.blocking_read(size).await;
                (stream, read)
            })
        });
        match read {
            // what is read is had by the next read
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(bytes)) => {
                to.set_buffer(bytes);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(Err(error)) => {
                if !matches!(error, StreamError::Closed) {
                    self.end.say(Err(code(&error)));
                }
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

/// `write-via-stream` and `append-via-stream`.
pub(crate) struct ToFile {
    state: State<DynOutputStream, usize>,
    end: End,
}

impl ToFile {
    pub(crate) fn new(stream: DynOutputStream, end: End) -> Self {
        Self { state: State::Idle(stream), end }
    }
}

impl<D> StreamConsumer<D> for ToFile {
    type Item = u8;

    /// A write that the guest cancels is waited for: it is known only then what was written.
    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        from: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let mut from = from.as_direct(store);
        if matches!(self.state, State::Idle(_)) {
            if finish {
                return Poll::Ready(Ok(StreamResult::Cancelled));
            }
            if from.remaining().is_empty() {
                return Poll::Ready(Ok(StreamResult::Completed));
            }
        }
        let written = self.state.poll(cx, |mut stream| {
            let piece = from.remaining().chunks(BUFFER as usize).next().map_or(Bytes::new(), Bytes::copy_from_slice);
            Box::pin(async move {
                let size = piece.len();
                let written = stream.blocking_write_and_flush(piece).await;
                (stream, written.map(|()| size))
            })
        });
        match ready!(written) {
            Ok(size) => {
                from.mark_read(size);
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Err(error) => {
                self.end.say(Err(code(&error)));
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}
