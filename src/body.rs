//! Bodies that come out of a guest, and how they end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use wasmtime_wasi_http::WasiBody;

use crate::error::Error;
use crate::flow::Side;
use crate::owner::Owner;

/// Small frames that are ready together cross to the reader as one chunk of about this size.
const CHUNK: usize = 64 << 10;

/// What a reader gets next.
#[derive(Debug)]
pub enum Next {
    Chunk(Bytes),
    /// The clean end, with the trailers if there were any.
    End(Option<http::HeaderMap>),
}

/// A body written by a guest: of its response, or of a request that it sends out.
///
/// A clean end means that the guest said so. Whatever else ends it (a trap, a limit, a handle dropped or forgotten)
/// is an error at the reader, with the fate of the guest as its cause.
pub struct GuestBody {
    inner: WasiBody,
    /// A trailing frame or failure that came while frames were being joined.
    held: Option<Result<Next, Error>>,
    received: u64,
    expected: Expected,
    done: bool,
    owner: Owner,
}

/// What the head of a message says of its body.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// There is none, whatever length the head names: the answer to HEAD, 204, 304 (RFC 9110, 6.4.1).
    Nothing,
    /// Its length, if it was announced, and the most that may come.
    Body { side: Side, length: Option<u64>, limit: Option<u64> },
}

impl GuestBody {
    pub(crate) fn new(inner: WasiBody, expected: Expected, owner: Owner) -> Self {
        Self { inner, held: None, received: 0, expected, done: false, owner }
    }

    /// Bytes handed to the reader so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the clean end is known, without trailers, though it has not been taken.
    pub fn has_ended(&self) -> bool {
        matches!(self.held, Some(Ok(Next::End(None)))) && self.owner.overruled().is_none()
    }

    pub fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Nobody will read on: the guest, if it is ours, is stopped.
    pub fn close(&mut self) {
        if !self.done {
            self.owner.stop();
        }
    }

    /// A chunk that is there already. Any end that comes instead is kept for [`Self::poll_next`], but for a clean one, which is
    /// taken.
    pub fn take_ready(&mut self) -> Option<Bytes> {
        if self.has_ended() {
            let end = self.held.take()?;
            let _ = self.finish(end);
            return None;
        }
        if self.held.is_some() || self.done {
            return None;
        }
        match self.poll_next(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(Ok(Next::Chunk(chunk))) => Some(chunk),
            Poll::Ready(Ok(end)) => {
                self.held = Some(Ok(end));
                None
            }
            Poll::Ready(Err(error)) => {
                self.held = Some(Err(error));
                None
            }
            Poll::Pending => None,
        }
    }

    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Error>> {
        if let Some(held) = self.held.take() {
            return Poll::Ready(self.finish(held));
        }
        if let Some(error) = self.owner.out_of_reach() {
            self.done = true;
            return Poll::Ready(Err(self.broken_by(error)));
        }
        let first = match ready!(self.poll_data(cx)) {
            Ok(Next::Chunk(first)) => first,
            end => return Poll::Ready(self.finish(end)),
        };
        let mut joined: Option<BytesMut> = None;
        while joined.as_ref().map_or(first.len(), BytesMut::len) < CHUNK {
            match self.poll_data(cx) {
                Poll::Ready(Ok(Next::Chunk(more))) => {
                    joined.get_or_insert_with(|| BytesMut::from(&first[..])).extend_from_slice(&more);
                }
                Poll::Ready(end) => {
                    self.held = Some(end);
                    break;
                }
                Poll::Pending => break,
            }
        }
        let chunk = joined.map_or(first, BytesMut::freeze);
        let size = self.received + chunk.len() as u64;
        if let Expected::Body { side, limit: Some(value), .. } = self.expected
            && size > value
        {
            let error = Error::Limited { code: side.body_size(size), limit: "response_body", value };
            self.owner.stop_because(error.clone());
            return Poll::Ready(self.finish(Err(self.broken_by(error))));
        }
        self.received = size;
        Poll::Ready(Ok(Next::Chunk(chunk)))
    }

    fn finish(&mut self, end: Result<Next, Error>) -> Result<Next, Error> {
        self.done = true;
        match end {
            Ok(_) if self.owner.overruled().is_some() => Err(self.broken()),
            Ok(next) => {
                // the guest may work on; it is no longer this body's
                self.owner.release();
                Ok(next)
            }
            Err(error) => {
                self.owner.stop();
                Err(match error {
                    Error::Body { reason, cause, .. } => Error::Body { received: self.received, reason, cause },
                    other => other,
                })
            }
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Error>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                None => Ok(Next::End(None)),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => Ok(Next::Chunk(data)),
                    Err(frame) => Ok(Next::End(frame.into_trailers().ok())),
                },
                Some(Err(_)) if self.is_bare() => Ok(Next::End(None)),
                Some(Err(_)) => Err(self.broken()),
            });
        }
    }

    /// A guest that answers HEAD with a length and no body has finished it well, but wasmtime-wasi-http finds it too short.
    fn is_bare(&self) -> bool {
        matches!(self.expected, Expected::Nothing) && self.received == 0 && !matches!(self.owner.fate(), Some(Err(_)))
    }

    fn broken(&self) -> Error {
        let (reason, cause) = match (self.owner.fate(), self.expected) {
            (Some(Err(error @ Error::Caller(_))), _) => return error.clone(),
            (Some(Err(error)), _) => return self.broken_by(error.clone()),
            (_, Expected::Body { side, length: Some(length), .. }) if length != self.received => {
                let code = side.body_size(self.received);
                (format!("its content-length says {length}"), Some(Box::new(Error::Code(code))))
            }
            _ => ("the guest did not finish it".to_owned(), None),
        };
        Error::Body { received: self.received, reason, cause }
    }

    fn broken_by(&self, error: Error) -> Error {
        Error::Body { received: self.received, reason: error.to_string(), cause: Some(Box::new(error)) }
    }
}

/// A body that broke off, for whoever it is passed on to: with the error-code that it broke off with, if it did with one.
fn passed_on(error: Error) -> wasmtime_wasi_http::Error {
    if let Error::Body { cause: Some(cause), .. } = error
        && let Error::Code(code) = *cause
    {
        return code.into_host();
    }
    wasmtime_wasi_http::Error::HttpResponseIncomplete
}

/// A guest's body can be another guest's: component to component.
impl Body for GuestBody {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.done {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(self.poll_next(cx)) {
            Ok(Next::Chunk(chunk)) => Some(Ok(Frame::data(chunk))),
            Ok(Next::End(Some(trailers))) => Some(Ok(Frame::trailers(trailers))),
            Ok(Next::End(None)) => None,
            Err(error) => Some(Err(passed_on(error))),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.done || (self.held.is_none() && self.inner.is_end_stream())
    }
}
