//! The body of a guest's request on its way out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderValue, Method};
use http_body::{Body, Frame};
use tokio::time::Instant;
use wasmtime_wasi_http::Error as HostError;

use crate::exchange::guest_body::GuestBody;
use crate::exchange::handle::ExchangeHandle;
use crate::network::connection_task::Begins;
use crate::network::request_source::Source;
use crate::network::traffic::Traffic;
use crate::sync::lock;

/// How long a guest that has begun the body of a POST may take to write something, or to end it, before the head is sent without
/// knowing: some wait for the response's head before they write, as with gRPC's streams.
const PATIENCE: Duration = Duration::from_millis(50);

/// How long a peer may take nothing of a body whose response it has finished.
const UNWANTED: Duration = Duration::from_secs(30);

/// How long a peer may leave unread the last of a request that it has answered, when its guest is gone.
pub(crate) const LAST: Duration = Duration::from_secs(2);

/// The body of one request, for as many attempts as it takes.
#[derive(Clone)]
pub(crate) struct Content {
    source: Arc<Mutex<Source>>,
    /// Whose it is.
    exchange: Arc<ExchangeHandle>,
    patience: Patience,
}

/// How long a body may be sent.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For the request and all of its response.
    pub end: Option<Instant>,
    /// For which a peer may take nothing.
    pub unread: Option<Duration>,
}

/// The body as one attempt sends it.
pub(crate) struct RequestBody {
    source: Arc<Mutex<Source>>,
    attempt: u64,
    /// Who is told when it is first read.
    begins: Option<Begins>,
}

impl Content {
    /// Waits until it is known whether there is one, and says so in the head. A GET or its like must not be framed as having a
    /// body that does not come: a guest that has begun one and waits for the answer before it goes on is waited for no longer
    /// than `most`.
    pub(crate) async fn of(parts: &mut Parts, body: GuestBody, most: Duration, patience: Patience) -> Self {
        let is_framed = parts.headers.contains_key(CONTENT_LENGTH);
        let exchange = Arc::new(body.owner().observe());
        let source = Arc::new(Mutex::new(Source {
            rest: Some(body).filter(|body| !body.is_end_stream()),
            read: VecDeque::new(),
            size: 0,
            whole: true,
            next: 0,
            failure: None,
            attempt: 0,
            waiting: None,
            is_sent: true,
            taken: 0,
            is_answered: false,
            is_broken: false,
            end: None,
        }));
        let content = Self { source, exchange, patience };
        let expects_none = parts.method.is_safe() || parts.method == Method::DELETE;
        if !is_framed {
            let patience = if expects_none { most } else { most.min(PATIENCE) };
            let first = std::future::poll_fn(|cx| lock(&content.source).look(cx));
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
    pub(crate) fn send(&self, begins: Option<Begins>) -> RequestBody {
        let mut source = lock(&self.source);
        source.attempt += 1;
        source.next = 0;
        source.is_sent = false;
        RequestBody { source: self.source.clone(), attempt: source.attempt, begins }
    }

    /// Whether nobody sends it any more.
    pub(crate) fn is_sent(&self) -> bool {
        lock(&self.source).is_sent
    }

    /// The response has ended. Waits until all of this has been sent, or there is no use in sending more: its guest has not finished
    /// it, or is gone, or the peer takes nothing. Returns whether all has been sent.
    pub(crate) async fn over(&self) -> bool {
        let sent = std::future::poll_fn(|cx| {
            let mut source = lock(&self.source);
            if source.is_sent || source.is_broken {
                return Poll::Ready(source.is_sent);
            }
            source.end = Some(cx.waker().clone());
            Poll::Pending
        });
        let mut sent = std::pin::pin!(sent);
        tokio::select! {
            biased;
            sent = &mut sent => return sent,
            () = self.exchange.ended() => {}
            () = self.stalled(self.patience.unread.unwrap_or(UNWANTED), None) => return false,
            () = until(self.patience.end) => return false,
        }
        // what the guest has written lies ready
        tokio::time::timeout(LAST, sent).await.unwrap_or(false)
    }

    /// Waits until nobody has come for more of it for so long, though there was more, nor the peer has let more be sent.
    async fn stalled(&self, limit: Duration, traffic: Option<&Traffic>) {
        let progress = || {
            let source = lock(&self.source);
            (source.taken, source.waiting.is_some() || source.is_sent, traffic.map(Traffic::windows))
        };
        loop {
            let before = progress();
            tokio::time::sleep(limit).await;
            if progress() == before && !before.1 {
                return;
            }
        }
    }

    /// Waits for that as long as a peer of HTTP/2 may let nothing be sent, and says how long that was. (One that does not read what
    /// is written is found out below.)
    pub(crate) async fn unread(&self, traffic: Option<Arc<Traffic>>) -> Duration {
        match (self.patience.unread, traffic) {
            (Some(limit), Some(traffic)) => {
                self.stalled(limit, Some(&traffic)).await;
                limit
            }
            _ => std::future::pending().await,
        }
    }

    /// Whether all of it can be sent once more.
    pub(crate) fn is_whole(&self) -> bool {
        lock(&self.source).whole
    }

    /// Whether it is known that there is none.
    pub(crate) fn is_empty(&self) -> bool {
        let source = lock(&self.source);
        source.whole && source.rest.is_none() && source.read.is_empty()
    }

    /// There will be no other attempt.
    pub(crate) fn is_answered(&self) {
        let rest = {
            let mut source = lock(&self.source);
            source.is_answered = true;
            source.forget();
            source.take_unsent()
        };
        drop(rest);
    }

    /// Whether all of it has been read of the guest.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.source).rest.is_none()
    }

    /// Nothing more of it is sent: whoever has not sent it all fails. The guest may finish it.
    pub(crate) fn stop(&self) {
        let (rest, wakers) = {
            let mut source = lock(&self.source);
            let Some(rest) = source.rest.take() else { return };
            source.attempt += 1;
            source.is_sent = true;
            (rest, [source.waiting.take(), source.end.take()])
        };
        drop(rest);
        for waker in wakers.into_iter().flatten() {
            waker.wake();
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

impl RequestBody {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        if let Some(begins) = self.begins.take() {
            begins.begin();
        }
        let mut source = lock(&self.source);
        if source.attempt != self.attempt {
            // the connection of an attempt that has failed, which has not heard of that yet
            return Poll::Ready(Some(Err(HostError::ConnectionTerminated)));
        }
        source.taken += 1;
        let frame = source.poll_frame(cx);
        if matches!(frame, Poll::Ready(Some(Err(_)))) && source.is_answered {
            // hyper would lose the response for it, of which more may come: the connection ends after that
            source.is_broken = true;
            let end = source.end.take();
            drop(source);
            if let Some(end) = end {
                end.wake();
            }
            return Poll::Pending;
        }
        source.waiting = frame.is_pending().then(|| cx.waker().clone());
        frame
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        self.get_mut().poll(cx)
    }

    fn is_end_stream(&self) -> bool {
        let source = lock(&self.source);
        let is_read = source.rest.is_none() && source.next >= source.read.len() && source.failure.is_none();
        source.attempt == self.attempt && is_read
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut source = lock(&self.source);
        if source.attempt != self.attempt {
            return;
        }
        source.is_sent = true;
        let (rest, end) = (source.take_unsent(), source.end.take());
        drop(source);
        drop(rest);
        if let Some(end) = end {
            end.wake();
        }
    }
}
