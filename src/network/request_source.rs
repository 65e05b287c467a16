//! What is read of the body of a guest's request, and kept for another attempt.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HostError;

use crate::exchange::guest_body::GuestBody;
use crate::http::server_request::trailers;

/// Bytes of a body that are kept until there is a response, so that they can be sent again where the peer says that it has not
/// processed the request.
const KEPT: usize = 64 << 10;
/// And in how many pieces: each takes some memory, though a guest writes nothing in it.
const PIECES: usize = 1024;
/// Bytes that are handed on at once.
const SLICE: usize = 64 << 10;

/// A body, for one attempt after another.
pub(super) struct Source {
    /// What is still to be read of it.
    pub rest: Option<GuestBody>,
    /// What has been read, for the next attempt: all of it, while `whole`.
    pub read: VecDeque<Piece>,
    pub size: usize,
    pub whole: bool,
    /// Of `read`, how much this attempt has had.
    pub next: usize,
    /// How it broke off, until somebody is told.
    pub failure: Option<HostError>,
    /// Which attempt it is: those before get nothing any more.
    pub attempt: u64,
    /// Whoever waits for more.
    pub waiting: Option<Waker>,
    /// Whether there is somebody who sends this attempt.
    pub is_sent: bool,
    /// How often somebody has come for more.
    pub taken: u64,
    /// Nothing that goes wrong with it is told any more: the response has begun.
    pub is_answered: bool,
    /// Its guest has not finished it.
    pub is_broken: bool,
    /// Whoever waits until nobody sends it.
    pub end: Option<Waker>,
}

#[derive(Clone)]
pub(super) enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Piece {
    fn frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl Source {
    /// What nobody will send: the guest is to finish it all the same.
    pub(super) fn take_unsent(&mut self) -> Option<GuestBody> {
        if self.is_sent && self.is_answered { self.rest.take() } else { None }
    }

    /// Nothing is kept any more, but for what this attempt has not had yet.
    pub(super) fn forget(&mut self) {
        self.whole = false;
        let had = self.next.min(self.read.len());
        self.read.drain(..had);
        self.next = 0;
    }

    /// Reads the first piece, or finds that there is none.
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_rest(cx)) {
            None => {}
            Some(Ok(first)) => self.push(first),
            Some(Err(error)) => self.failure = Some(error),
        }
        Poll::Ready(())
    }

    /// By slices, so that it can be seen whether anything of it is taken.
    pub(super) fn push(&mut self, piece: Piece) {
        let mut last = piece;
        if let Piece::Data(data) = &mut last {
            while data.len() > SLICE {
                self.read.push_back(Piece::Data(data.split_to(SLICE)));
            }
        }
        self.read.push_back(last);
    }

    pub(super) fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, HostError>>> {
        let Some(rest) = &mut self.rest else { return Poll::Ready(None) };
        Poll::Ready(match ready!(Pin::new(rest).poll_frame(cx)) {
            None => {
                self.rest = None;
                None
            }
            Some(Err(error)) => {
                self.whole = false;
                Some(Err(error))
            }
            Some(Ok(frame)) => Some(Ok(match frame.into_data() {
                Ok(data) => {
                    self.size = self.size.saturating_add(data.len());
                    Piece::Data(data)
                }
                Err(frame) => Piece::Trailers(frame.into_trailers().map(trailers).unwrap_or_default()),
            })),
        })
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let piece = match self.read.get(self.next).cloned() {
            Some(piece) => piece,
            None => match self.failure.take() {
                Some(error) => return Poll::Ready(Some(Err(error))),
                None => match ready!(self.poll_rest(cx)) {
                    Some(Ok(piece)) => {
                        let first = self.read.len();
                        self.push(piece);
                        match self.read.get(first).cloned() {
                            Some(piece) => piece,
                            None => return Poll::Ready(None),
                        }
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                },
            },
        };
        self.next += 1;
        if !self.whole || self.size > KEPT || self.read.len() > PIECES {
            self.forget();
        }
        Poll::Ready(Some(Ok(piece.frame())))
    }
}
