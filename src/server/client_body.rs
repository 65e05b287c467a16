//! The body of a client's request on its way to a guest.

use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error as HostError;

use crate::http::error_code::ErrorCode;
use crate::http::message::with_trailers;
use crate::server::watch::Watch;
use crate::sync::lock;

/// How much of a body that its guest has not read is read and thrown away, and for how long: so the client gets the answer (RFC 9112,
/// 9.6; RFC 9113, 8.1).
pub(super) const MOST_DRAINED: u64 = 64 << 20;
pub(super) const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// A request's body, which its guest reads and whoever answers looks at.
pub(super) struct BodyState {
    /// How far it has come.
    stage: AtomicU8,
    /// None: it has ended, or nobody wants it.
    incoming: Mutex<Option<Incoming>>,
    /// What came when it was asked for before its guest did.
    early: Mutex<Option<Frame<Bytes>>>,
    /// Of HTTP/1 with `expect: 100-continue`: before that is answered nothing comes.
    expects: bool,
}

const UNREAD: u8 = 0;
const READS: u8 = 1;
const ENDED: u8 = 2;
const LEFT: u8 = 3;
const TIMED_OUT: u8 = 4;
const BROKEN: u8 = 5;

impl BodyState {
    fn stage(&self) -> u8 {
        self.stage.load(Ordering::Relaxed)
    }

    fn set(&self, stage: u8) {
        self.stage.store(stage, Ordering::Relaxed);
    }

    /// The client waits for `100 Continue`, and nobody has asked for the body.
    pub(super) fn is_awaited(&self) -> bool {
        self.expects && matches!(self.stage(), UNREAD | LEFT)
    }

    /// The answer if it is the client's fault that there is no other.
    pub(super) fn fault(&self) -> Option<(u16, &'static str)> {
        match self.stage() {
            TIMED_OUT => Some((408, "the body of the request did not come in time (`body_timeout`)")),
            BROKEN => Some((400, "the body of the request is malformed, or breaks off")),
            _ => None,
        }
    }

    /// Asks for the body of a guest that has answered and may still read it: after the head of an answer hyper sends no `100 Continue`, and
    /// the client would wait.
    pub(super) async fn ask(&self) {
        if !self.expects || !matches!(self.stage(), UNREAD | READS) {
            return;
        }
        if self.stage() == UNREAD
            && let Some(incoming) = &mut *lock(&self.incoming)
            && let Poll::Ready(Some(Ok(frame))) =
                Pin::new(incoming).poll_frame(&mut Context::from_waker(std::task::Waker::noop()))
        {
            *lock(&self.early) = Some(frame);
        }
        self.set(READS);
        // hyper sends it before it asks for the answer again
        tokio::task::yield_now().await;
    }
}

/// See the module.
pub(super) struct ClientBody {
    state: Arc<BodyState>,
    /// How long the client may send nothing while the guest waits for it.
    most: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    watch: Arc<Watch>,
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, most: Option<Duration>, expects: bool, watch: Arc<Watch>) -> Self {
        let (stage, early) = (AtomicU8::new(UNREAD), Mutex::default());
        let state = Arc::new(BodyState { stage, incoming: Mutex::new(Some(incoming)), early, expects });
        Self { state, most, timer: None, waits: false, watch }
    }

    pub(super) fn state(&self) -> &Arc<BodyState> {
        &self.state
    }

    /// It is over: nothing more comes of it.
    fn end(&self, stage: u8) {
        self.state.set(stage);
        let incoming = lock(&self.state.incoming).take();
        drop(incoming);
    }

    fn fail(&self, stage: u8, name: &'static str) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        self.end(stage);
        Poll::Ready(Some(Err(ErrorCode::plain(name).into_host())))
    }

    /// Whether the client has been silent for too long.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(most) = self.most else { return false };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(most)));
        if !std::mem::replace(&mut self.waits, true) {
            timer.as_mut().reset(Instant::now() + most);
        }
        timer.as_mut().poll(cx).is_ready()
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        let polled = {
            let mut incoming = lock(&this.state.incoming);
            let Some(incoming) = &mut *incoming else { return Poll::Ready(None) };
            if let Some(early) = lock(&this.state.early).take() {
                return Poll::Ready(Some(Ok(early)));
            }
            if this.state.stage() == UNREAD {
                this.state.set(READS);
            }
            Pin::new(incoming).poll_frame(cx)
        };
        if polled.is_pending() {
            return if this.is_late(cx) { this.fail(TIMED_OUT, "connection-read-timeout") } else { Poll::Pending };
        }
        this.waits = false;
        match ready!(polled) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(with_trailers(frame)))),
            None => {
                this.end(ENDED);
                Poll::Ready(None)
            }
            Some(Err(_)) if this.watch.is_malformed() => this.fail(BROKEN, "HTTP-protocol-error"),
            Some(Err(_)) => this.fail(BROKEN, "connection-terminated"),
        }
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.state.early).is_none() && lock(&self.state.incoming).as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        lock(&self.state.incoming).as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        let incoming = lock(&self.state.incoming).take();
        // where it waits for `100 Continue`, nothing is to come
        let is_awaited = self.state.is_awaited();
        if self.state.stage() == UNREAD {
            self.state.set(LEFT);
        }
        if let Some(incoming) = incoming
            && !is_awaited
            && !incoming.is_end_stream()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            // ends with its connection, whose end ends the body
            drop(runtime.spawn(drain(incoming)));
        }
    }
}

/// Reads a body that nobody wants, for a bounded time.
async fn drain(mut incoming: Incoming) {
    throw_away(MOST_DRAINED, |cx| {
        let frame = ready!(Pin::new(&mut incoming).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => Some(frame.data_ref().map_or(0, Bytes::len)),
            _ => None,
        })
    })
    .await;
}

/// Takes what comes, up to so many bytes, and for a bounded time. `poll`: how many bytes have come; none at the end.
pub(super) async fn throw_away(most: u64, mut poll: impl FnMut(&mut Context<'_>) -> Poll<Option<usize>>) {
    let taken = async {
        let mut rest = most;
        while let Some(bytes) = std::future::poll_fn(&mut poll).await {
            match rest.checked_sub(bytes as u64) {
                Some(left) => rest = left,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(DRAINED_WITHIN, taken).await;
}
