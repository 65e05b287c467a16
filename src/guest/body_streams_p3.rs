//! Streams of bodies, and the futures of their trailers, as WASI 0.3 has them.
//!
//! wasmtime-wasi-http has its own, of which these are the same but for four things: what a guest has read of a chunk is not lost when it
//! passes the stream on, its own trailers win over those of what it passes on, error-codes go by our table, and writes of nothing are no
//! frames.

use std::any::{Any, TypeId};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{
    Destination, FutureAny, FutureConsumer, FutureProducer, FutureReader, Resource, Source, StreamConsumer,
    StreamProducer, StreamReader, StreamResult,
};
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode as Code;
use wasmtime_wasi_http::{Error as HostError, FieldMap, WasiBody, WasiHttpView};

use crate::exchange::body_pipe::{Contents, End, Ender, LetGo, Pipe};
use crate::guest::seat::Read;
use crate::guest::store::StoreState;
use crate::http::error_code::ErrorCode;
use crate::outgoing::hooks::WRITE;

/// The trailers of a body, or what broke it.
pub(crate) type Trailers = FutureReader<Result<Option<Resource<FieldMap>>, Code>>;

type Store<'a> = StoreContextMut<'a, StoreState>;

/// What a body that breaks off is, as an error-code.
pub(crate) fn code_of(error: &HostError) -> ErrorCode {
    ErrorCode::from_host(error).unwrap_or_else(|| ErrorCode::plain("HTTP-protocol-error"))
}

/// A body as its guest reads it.
pub(crate) fn to_guest(mut store: Store<'_>, body: WasiBody) -> wasmtime::Result<(StreamReader<u8>, Trailers)> {
    let (end, ended) = oneshot::channel();
    let read = || Read::by(store.data().seat());
    let (of_contents, of_trailers) = (read(), read());
    let trailers = FutureReader::new(&mut store, Ended { ended, read: of_trailers })?;
    let trailers = FutureAny::try_from_future_reader(&mut store, trailers)?;
    let received = Received { body, rest: Bytes::new(), end: Some(end), trailers: trailers.clone(), read: of_contents };
    let contents = StreamReader::new(&mut store, received)?;
    Ok((contents, trailers.try_into_future_reader()?))
}

/// A body as its guest makes it: of a stream of its own, or of one that it has got. Without a pipe, the guest has nothing more to say of it.
pub(crate) fn of_guest(
    mut store: Store<'_>,
    contents: Option<StreamReader<u8>>,
    trailers: Trailers,
) -> wasmtime::Result<(WasiBody, Option<Pipe>)> {
    let turn = store.data().turn.clone();
    let (pipe, body, ender) = match contents.map(|contents| contents.try_into::<Received>(&mut store)) {
        None => Pipe::passing_on(None, &turn),
        Some(Ok(received)) => {
            let mut trailers = FutureAny::try_from_future_reader(&mut store, trailers)?;
            if received.has_trailers(&trailers) {
                trailers.close(store)?;
                return Ok((received.whole(), None));
            }
            let (pipe, body, ender) = Pipe::passing_on(Some(received.contents()), &turn);
            trailers.try_into_future_reader()?.pipe(store, Told(ender))?;
            return Ok((body, Some(pipe)));
        }
        Some(Err(stream)) => {
            let (pipe, body, ender, contents) = Pipe::written(&turn);
            stream.pipe(&mut store, Written(contents))?;
            (pipe, body, ender)
        }
    };
    trailers.pipe(store, Told(ender))?;
    Ok((body, Some(pipe)))
}

/// A body that a guest has got. It keeps what is left of a chunk: wasmtime would drop that with a stream that is passed on.
struct Received {
    body: WasiBody,
    rest: Bytes,
    end: Option<oneshot::Sender<End>>,
    /// The future that `end` is told to.
    trailers: FutureAny,
    read: Read,
}

impl Received {
    /// Whether these are the trailers that came with it. A future that was let go of may have left its number to another.
    fn has_trailers(&self, trailers: &FutureAny) -> bool {
        self.end.as_ref().is_some_and(|end| !end.is_closed()) && self.trailers == *trailers
    }

    fn ends(&mut self, end: End) {
        if let Some(told) = self.end.take() {
            let _ = told.send(end);
        }
    }

    /// What is left of it, with its trailers.
    fn whole(self) -> WasiBody {
        Rest { rest: self.rest, body: self.body, end: None }.boxed_unsync()
    }

    /// What is left of it; of its end the guest hears.
    fn contents(self) -> WasiBody {
        Rest { rest: self.rest, body: self.body, end: self.end }.boxed_unsync()
    }
}

impl StreamProducer<StoreState> for Received {
    type Item = u8;
    type Buffer = Bytes;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: Store<'a>,
        to: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let this = &mut *self;
        let room = to.remaining(&mut store);
        while this.rest.is_empty() {
            let polled = Pin::new(&mut this.body).poll_frame(cx);
            let end = match this.read.polled(polled, finish) {
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => {
                        this.rest = data;
                        continue;
                    }
                    Err(frame) => Ok(frame.into_trailers().ok()),
                },
                Poll::Ready(Some(Err(error))) => Err(code_of(&error)),
                Poll::Ready(None) => Ok(None),
            };
            this.ends(end);
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        // a read of nothing asks whether there is something
        let size = room.unwrap_or(usize::MAX).min(this.rest.len());
        if size > 0 {
            let mut to = to.as_direct(store, size);
            if let Some((to, from)) = to.remaining().get_mut(..size).zip(this.rest.get(..size)) {
                to.copy_from_slice(from);
            }
            to.mark_written(size);
            this.rest.advance(size);
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }

    fn try_into(me: Pin<Box<Self>>, ty: TypeId) -> Result<Box<dyn Any>, Pin<Box<Self>>> {
        if ty != TypeId::of::<Self>() {
            return Err(me);
        }
        let me: Box<Self> = Pin::into_inner(me);
        Ok(me)
    }
}

/// What is left of a body that a guest has read from.
struct Rest {
    rest: Bytes,
    body: WasiBody,
    /// Where it is told how the body ended.
    end: Option<oneshot::Sender<End>>,
}

impl Body for Rest {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
        }
        let frame = ready!(Pin::new(&mut this.body).poll_frame(cx));
        let end = match &frame {
            Some(Ok(frame)) if frame.is_data() => return Poll::Ready(Some(Ok(Frame::data(data_of(frame))))),
            Some(Ok(frame)) => Ok(frame.trailers_ref().cloned()),
            Some(Err(error)) => Err(code_of(error)),
            None => Ok(None),
        };
        if let Some(told) = this.end.take() {
            let _ = told.send(end);
        }
        Poll::Ready(frame)
    }
}

fn data_of(frame: &Frame<Bytes>) -> Bytes {
    frame.data_ref().cloned().unwrap_or_default()
}

/// How a body that a guest reads has ended. One of which it lets go has ended well for it.
struct Ended {
    ended: oneshot::Receiver<End>,
    read: Read,
}

impl FutureProducer<StoreState> for Ended {
    type Item = Result<Option<Resource<FieldMap>>, Code>;

    fn poll_produce(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: Store<'_>,
        finish: bool,
    ) -> Poll<wasmtime::Result<Option<Self::Item>>> {
        let polled = Pin::new(&mut self.ended).poll(cx);
        let end = match self.read.polled(polled, finish) {
            Poll::Pending if finish => return Poll::Ready(Ok(None)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(end) => end.unwrap_or(Ok(None)),
        };
        let trailers = match end {
            Ok(Some(trailers)) => trailers,
            Ok(None) => return Poll::Ready(Ok(Some(Ok(None)))),
            Err(code) => return Poll::Ready(Ok(Some(Err(code.into_p3())))),
        };
        let host = store.data_mut();
        let trailers = FieldMap::new_immutable(host.http().hooks, trailers);
        // a table that is full is the guest's to cope with
        Poll::Ready(Ok(Some(match host.table().push(trailers) {
            Ok(trailers) => Ok(Some(trailers)),
            Err(error) => Err(ErrorCode::internal(error.to_string()).into_p3()),
        })))
    }
}

/// Takes what a guest writes.
struct Written(Contents);

impl StreamConsumer<StoreState> for Written {
    type Item = u8;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: Store<'_>,
        from: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        match self.0.poll_room(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(LetGo)) => return Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Ready(Ok(())) => {}
        }
        let mut from = from.as_direct(store);
        // a write of nothing asks whether there is room
        if let Some(piece) = from.remaining().chunks(WRITE).next() {
            let size = piece.len();
            self.0.put(Bytes::copy_from_slice(piece));
            from.mark_read(size);
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Takes what a guest says of its body's end, when its message is sent.
struct Told(Ender);

impl FutureConsumer<StoreState> for Told {
    type Item = Result<Option<Resource<FieldMap>>, Code>;

    fn poll_consume(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: Store<'_>,
        mut from: Source<'_, Self::Item>,
        finish: bool,
    ) -> Poll<wasmtime::Result<()>> {
        match self.0.poll_sent(cx) {
            Poll::Pending if finish => return Poll::Ready(Ok(())),
            polled => ready!(polled),
        }
        let mut said = None;
        from.read(&mut store, &mut said)?;
        match said {
            Some(Ok(Some(fields))) => {
                let fields = store.data_mut().table().delete(fields)?;
                self.0.end(Ok(Some(fields.into())));
            }
            Some(Ok(None)) => self.0.end(Ok(None)),
            Some(Err(code)) => self.0.end(Err(ErrorCode::of_guest(code))),
            None => {}
        }
        Poll::Ready(Ok(()))
    }
}
