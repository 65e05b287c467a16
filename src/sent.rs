//! The body of a guest's request on its way out.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HostError;

use crate::body::GuestBody;
use crate::sync::lock;

/// Bytes of a body that are kept until there is a response, so that they can be sent again where the peer says that it has not
/// processed the request.
const KEPT: usize = 64 << 10;
/// How long a guest that has begun the body of a POST may take to write something, or to end it, before the head is sent without
/// knowing: some wait for the response's head before they write, as with gRPC's streams.
const PATIENCE: Duration = Duration::from_millis(50);

/// The body of one request, for as many attempts as it takes.
pub struct Content(Arc<Mutex<Source>>);

struct Source {
    /// What is still to be read of it.
    rest: Option<GuestBody>,
    /// What has been read, for the next attempt: all of it, while `whole`.
    read: Vec<Piece>,
    size: usize,
    whole: bool,
    /// Of `read`, how much this attempt has had.
    next: usize,
    /// How it broke off, until somebody is told.
    failure: Option<HostError>,
    /// Which attempt it is: those before get nothing any more.
    attempt: u64,
    /// Whoever waits for more.
    waiting: Option<Waker>,
}

#[derive(Clone)]
enum Piece {
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

/// The body as one attempt sends it.
pub struct Sent {
    source: Arc<Mutex<Source>>,
    attempt: u64,
}

impl Content {
    /// Waits until it is known whether there is one, and says so in the head. A GET or its like must not be framed as having a
    /// body that does not come: a guest that has begun one and waits for the answer before it goes on is waited for no longer
    /// than `most`.
    pub async fn of(parts: &mut Parts, body: GuestBody, most: Duration) -> Self {
        let is_framed = parts.headers.contains_key(CONTENT_LENGTH);
        let content = Self(Arc::new(Mutex::new(Source {
            rest: Some(body).filter(|body| !body.is_end_stream()),
            read: Vec::new(),
            size: 0,
            whole: true,
            next: 0,
            failure: None,
            attempt: 0,
            waiting: None,
        })));
        let expects_none = parts.method.is_safe() || parts.method == Method::DELETE;
        if !is_framed {
            let patience = if expects_none { most } else { most.min(PATIENCE) };
            let first = std::future::poll_fn(|cx| lock(&content.0).look(cx));
            let _ = tokio::time::timeout(patience, first).await;
        }
        match (content.is_empty(), is_framed) {
            (_, true) => {}
            // RFC 9110, 8.6: where a method has a meaning for content, none is content of no length
            (true, false) => {
                if [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method) {
                    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
                }
            }
            // else hyper would send none with a GET; with HTTP/2 it leaves this out
            (false, false) if expects_none => {
                parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            }
            (false, false) => {}
        }
        content
    }

    /// For one more attempt; the one before gets nothing any more.
    pub fn sent(&self) -> Sent {
        let mut source = lock(&self.0);
        source.attempt += 1;
        source.next = 0;
        Sent { source: self.0.clone(), attempt: source.attempt }
    }

    /// Whether all of it can be sent once more.
    pub fn is_whole(&self) -> bool {
        lock(&self.0).whole
    }

    /// Whether it is known that there is none.
    pub fn is_empty(&self) -> bool {
        let source = lock(&self.0);
        source.whole && source.rest.is_none() && source.read.is_empty()
    }

    /// There will be no other attempt.
    pub fn is_answered(&self) {
        lock(&self.0).forget();
    }

    /// Whether all of it has been read of the guest.
    pub fn is_over(&self) -> bool {
        lock(&self.0).rest.is_none()
    }

    /// Nothing more of it is sent: whoever has not sent it all fails. The guest may finish it.
    pub fn stop(&self) {
        let (rest, waiting) = {
            let mut source = lock(&self.0);
            let Some(rest) = source.rest.take() else { return };
            source.attempt += 1;
            (rest, source.waiting.take())
        };
        drop(rest);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
    }
}

impl Source {
    /// Nothing is kept any more, but for what this attempt has not had yet.
    fn forget(&mut self) {
        self.whole = false;
        let had = self.next.min(self.read.len());
        self.read.drain(..had);
        self.next = 0;
    }

    /// Reads the first piece, or finds that there is none.
    fn look(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match ready!(self.poll_rest(cx)) {
            None => {}
            Some(Ok(first)) => self.read.push(first),
            Some(Err(error)) => self.failure = Some(error),
        }
        Poll::Ready(())
    }

    fn poll_rest(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, HostError>>> {
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
                Err(frame) => Piece::Trailers(frame.into_trailers().unwrap_or_default()),
            })),
        })
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let piece = match self.read.get(self.next).cloned() {
            Some(piece) => piece,
            None => match self.failure.take() {
                Some(error) => return Poll::Ready(Some(Err(error))),
                None => match ready!(self.poll_rest(cx)) {
                    Some(Ok(piece)) => {
                        self.read.push(piece.clone());
                        piece
                    }
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => return Poll::Ready(None),
                },
            },
        };
        self.next += 1;
        if !self.whole || self.size > KEPT {
            self.forget();
        }
        Poll::Ready(Some(Ok(piece.frame())))
    }
}

impl Body for Sent {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let mut source = lock(&self.source);
        if source.attempt != self.attempt {
            // the connection of an attempt that has failed, which has not heard of that yet
            return Poll::Ready(Some(Err(HostError::ConnectionTerminated)));
        }
        let frame = source.poll_frame(cx);
        source.waiting = frame.is_pending().then(|| cx.waker().clone());
        frame
    }

    fn is_end_stream(&self) -> bool {
        let source = lock(&self.source);
        let is_read = source.rest.is_none() && source.next >= source.read.len() && source.failure.is_none();
        source.attempt == self.attempt && is_read
    }
}
