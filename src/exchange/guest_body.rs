//! Bodies that come out of a guest, and how they end.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use wasmtime_wasi_http::WasiBody;

use crate::error::Error;
use crate::exchange::body_check::{BodyCheck, BodyRules, Length};
use crate::exchange::handle::ExchangeHandle;
use crate::exchange::unread::{Past, Unread, discard};
use crate::http::error_code::ErrorCode;
use crate::http::message::{Side, empty};

/// Small frames that are ready together cross to the reader as one chunk of about this size.
const CHUNK: usize = 64 << 10;

/// What a reader gets next.
#[derive(Debug)]
pub enum Next {
    /// Bytes, one at least.
    Chunk(Bytes),
    /// The clean end, with the trailers if there were any.
    End(Option<http::HeaderMap>),
}

/// A body written by a guest: of its response, or of a request that it sends out.
///
/// A clean end means that the guest said so. Whatever else ends it (a trap, a limit, a handle dropped or forgotten)
/// is an error at the reader, with the outcome of the guest as its cause.
///
/// The body of a request is read on when its reader leaves it, as a server reads on that has answered early (RFC 9112, 9.6):
/// guests send a body and wait for the response at once, and a body that cannot be written would hide the response from
/// them. The task that reads on ends with the guest, which holds the other end.
pub struct GuestBody {
    // the first to go: its guest is stopped before it finds that nobody reads, and makes an end of its own of that
    pub(super) owner: ExchangeHandle,
    inner: WasiBody,
    /// A trailing frame or failure that came while frames were being joined.
    held: Option<Result<Next, Error>>,
    /// How much of it the reader has had, and what it has to be. Whether it is as long as announced when it ends is
    /// wasmtime-wasi-http's to say.
    check: BodyCheck,
    done: bool,
    /// It is read and thrown away, so that its guest can end it: whoever closes it meanwhile stops nobody.
    pub(super) may_end: bool,
    /// Of a request: what was read on of it.
    pub(super) unread: Option<Unread>,
}

impl GuestBody {
    pub(crate) fn new(inner: WasiBody, rules: BodyRules, owner: ExchangeHandle) -> Self {
        let check = BodyCheck::new(rules);
        Self { owner, inner, held: None, check, done: false, may_end: false, unread: None }
    }

    /// The body of a request that a guest sends out.
    pub(crate) fn of_request(inner: WasiBody, length: Option<u64>, exchange: ExchangeHandle) -> Self {
        let mut body = Self::new(inner, BodyRules::of_length(Side::Request, length), exchange);
        body.unread = Some(Unread::default());
        body
    }

    /// Whoever waited for more of it waits no longer.
    pub fn reader_is_gone(&mut self) {
        if let Some(unread) = &mut self.unread {
            unread.set_reader(None);
        }
    }

    /// Nobody reads on. The rest is read and thrown away if it is a request's.
    pub fn discard_rest(&mut self) {
        let Some(unread) = &mut self.unread else { return };
        if self.owner.out_of_reach().is_some() {
            // in a forked child: to tell the parent's tasks is to wait for locks that no thread here will ever give back
            std::mem::forget((self.unread.take(), std::mem::replace(&mut self.inner, empty())));
            return;
        }
        unread.stop();
        if self.done || self.held.is_some() || unread.is_discarded() {
            return;
        }
        unread.discard();
        discard(std::mem::replace(&mut self.inner, empty()), self.owner.ended(), self.owner.process());
    }

    /// Whether nothing is left of it in the guest.
    pub(super) fn has_been_read(&self) -> bool {
        self.done || self.held.is_some() || self.unread.as_ref().is_some_and(Unread::is_discarded)
    }

    pub(super) fn poll_read_on(&mut self, past: Past, cx: &mut Context<'_>) -> Poll<()> {
        while !self.has_been_read() {
            if !self.unread.as_ref().is_some_and(|unread| unread.takes_more(past)) {
                break;
            }
            let next = ready!(self.poll_data(cx));
            let Some(unread) = &mut self.unread else { break };
            match next {
                Ok(Next::Chunk(chunk)) if unread.keep(&chunk, past) => {}
                Ok(Next::Chunk(_)) => {
                    self.discard_rest();
                    break;
                }
                end => self.held = Some(end),
            }
        }
        Poll::Ready(())
    }

    /// What was read on is the reader's again.
    fn take_kept(&mut self) -> Option<Result<Bytes, Error>> {
        match self.unread.as_mut()?.take() {
            Ok(kept) => Some(self.pass(kept?)),
            Err(reason) => Some(Err(Error::Body { received: self.received(), reason, cause: None })),
        }
    }

    /// Bytes handed to the reader so far.
    pub fn received(&self) -> u64 {
        self.check.passed()
    }

    /// Whether the clean end is known, without trailers, though it has not been taken.
    pub fn has_ended(&self) -> bool {
        matches!(self.held, Some(Ok(Next::End(None)))) && self.has_nothing_kept() && self.owner.overruled().is_none()
    }

    /// Whether its end is known, with trailers, though it has not been taken.
    pub fn ends_with_trailers(&self) -> bool {
        matches!(self.held, Some(Ok(Next::End(Some(_)))))
    }

    fn has_nothing_kept(&self) -> bool {
        self.unread.as_ref().is_none_or(Unread::has_nothing_kept)
    }

    /// Whether its reader has had as many bytes as were announced, though its guest may still have to end it.
    pub fn is_all_there(&self) -> bool {
        self.check.rules().length.announced() == Some(self.received())
    }

    /// The handle on its exchange.
    pub fn owner(&self) -> &ExchangeHandle {
        &self.owner
    }

    /// Nobody will read on: the guest, if it is ours, is stopped.
    pub fn close(&mut self) {
        if self.may_end {
            return; // whoever lets it end sees to that
        }
        if !self.done {
            self.owner.stop();
        }
        self.discard_rest();
    }

    /// Whether nobody may have any of it.
    pub fn is_withheld(&self) -> bool {
        self.check.rules().length == Length::Nothing
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

    /// The next chunk, or the end; an error where it breaks off.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, Error>> {
        match self.take_kept() {
            Some(Ok(kept)) => return Poll::Ready(Ok(Next::Chunk(kept))),
            Some(Err(error)) => {
                self.done = true;
                return Poll::Ready(Err(error));
            }
            None => {}
        }
        if let Some(held) = self.held.take() {
            return Poll::Ready(self.finish(held));
        }
        if let Some(error) = self.owner.out_of_reach() {
            self.done = true;
            return Poll::Ready(Err(self.broken_by(error)));
        }
        let polled = self.poll_data(cx);
        if let (Poll::Pending, Some(unread)) = (&polled, &mut self.unread) {
            unread.set_reader(Some(cx.waker().clone()));
        }
        let first = match ready!(polled) {
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
        Poll::Ready(match self.pass(chunk) {
            Ok(chunk) => Ok(Next::Chunk(chunk)),
            Err(error) => self.finish(Err(error)),
        })
    }

    /// Hands a chunk to the reader, if it may pass; else its guest is stopped.
    fn pass(&mut self, chunk: Bytes) -> Result<Bytes, Error> {
        match self.check.data(chunk.len()) {
            Ok(()) => Ok(chunk),
            Err(violation) => {
                let error = violation.into_error();
                self.owner.stop_because(error.clone());
                Err(self.broken_by(error))
            }
        }
    }

    fn finish(&mut self, end: Result<Next, Error>) -> Result<Next, Error> {
        self.done = true;
        match end {
            Ok(_) if self.owner.overruled().is_some() => Err(self.broken(None)),
            Ok(next) => {
                // the guest may work on; it is no longer this body's
                self.owner.release();
                Ok(next)
            }
            Err(error) => {
                self.owner.stop();
                Err(match error {
                    Error::Body { reason, cause, .. } => Error::Body { received: self.received(), reason, cause },
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
                Some(Err(error)) => Err(self.broken(said(&error))),
            });
        }
    }

    /// A guest that answers HEAD with a length and no body has finished it well, but wasmtime-wasi-http finds it too short.
    fn is_bare(&self) -> bool {
        self.is_withheld() && self.received() == 0 && !matches!(self.owner.outcome(), Some(Err(_)))
    }

    /// `said`: the error-code that it broke off with.
    fn broken(&self, said: Option<ErrorCode>) -> Error {
        let (received, BodyRules { side, length, .. }) = (self.received(), self.check.rules());
        let (reason, cause) = match (self.owner.outcome(), length.announced()) {
            (Some(Err(error @ Error::Caller(_))), _) if *side == Side::Response => return error,
            (Some(Err(error)), _) => return self.broken_by(error),
            (_, announced)
                if let Some(code) = said.filter(|code| announced.is_none() || code.name != side.body_size(0).name) =>
            {
                (format!("the guest did not finish it: {code}"), Some(Box::new(Error::Code(code.into()))))
            }
            (_, Some(length)) if length != received => {
                let code = side.body_size(received);
                (format!("its content-length says {length}"), Some(Box::new(Error::Code(code.into()))))
            }
            _ => ("the guest did not finish it".to_owned(), None),
        };
        Error::Body { received, reason, cause }
    }

    fn broken_by(&self, error: Error) -> Error {
        let reason = error.to_string();
        // an upstream only looks on: what its guest's caller has raised is handed out once, and is that caller's
        let cause = match error {
            Error::Caller(_) if self.check.rules().side == Side::Request => Error::Host(reason.clone().into()),
            error => error,
        };
        Error::Body { received: self.received(), reason, cause: Some(Box::new(cause)) }
    }
}

/// The error-code that a guest breaks its body off with, or passes on; none where it has only not finished it.
fn said(error: &wasmtime_wasi_http::Error) -> Option<ErrorCode> {
    ErrorCode::from_host(error).filter(|code| code.name != "HTTP-protocol-error")
}

/// A body that broke off, for whoever it is passed on to: with the error-code that it broke off with, if it did with one.
fn passed_on(error: Error) -> wasmtime_wasi_http::Error {
    if let Error::Body { cause: Some(cause), .. } = error
        && let Error::Code(error) = *cause
    {
        return error.code.into_host();
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
        self.done || (self.held.is_none() && self.has_nothing_kept() && self.inner.is_end_stream())
    }
}

impl Drop for GuestBody {
    fn drop(&mut self) {
        self.discard_rest();
    }
}
