//! The body of a client's request on its way to a guest.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};
use wasmtime_wasi_http::Error as HostError;

use crate::http::error_code::ErrorCode;
use crate::server::watch::Watch;

/// How much of a body that its guest has not read is read and thrown away, and for how long: so the client gets the answer (RFC 9112,
/// 9.6; RFC 9113, 8.1).
pub(super) const MOST_DRAINED: u64 = 64 << 20;
pub(super) const DRAINED_WITHIN: Duration = Duration::from_secs(30);

/// What has become of a request's body, for whoever answers.
#[derive(Default)]
pub(super) struct BodyState(AtomicU8);

const UNREAD: u8 = 0;
const READS: u8 = 1;
const ENDED: u8 = 2;
const TIMED_OUT: u8 = 3;
const BROKEN: u8 = 4;

impl BodyState {
    pub(super) fn is_unread(&self) -> bool {
        self.0.load(Ordering::Relaxed) == UNREAD
    }

    /// The answer if it is the client's fault that there is no other.
    pub(super) fn fault(&self) -> Option<(u16, &'static str)> {
        match self.0.load(Ordering::Relaxed) {
            TIMED_OUT => Some((408, "the body of the request did not come in time")),
            BROKEN => Some((400, "the body of the request is malformed, or breaks off")),
            _ => None,
        }
    }

    fn set(&self, state: u8) {
        self.0.store(state, Ordering::Relaxed);
    }
}

/// See the module.
pub(super) struct ClientBody {
    /// None: it has ended, or is somebody else's.
    incoming: Option<Incoming>,
    state: Arc<BodyState>,
    /// How long the client may send nothing while the guest waits for it.
    most: Option<Duration>,
    timer: Option<Pin<Box<Sleep>>>,
    waits: bool,
    /// Of HTTP/1 with `expect: 100-continue`: before that is answered nothing comes.
    expects: bool,
    watch: Arc<Watch>,
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, most: Option<Duration>, expects: bool, watch: Arc<Watch>) -> Self {
        let (state, timer) = (Arc::default(), None);
        Self { incoming: Some(incoming), state, most, timer, waits: false, expects, watch }
    }

    pub(super) fn state(&self) -> &Arc<BodyState> {
        &self.state
    }

    fn fail(&mut self, state: u8, name: &'static str) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        self.state.set(state);
        self.incoming = None;
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
        let Some(incoming) = &mut this.incoming else { return Poll::Ready(None) };
        if this.state.is_unread() {
            this.state.set(READS);
        }
        let polled = Pin::new(incoming).poll_frame(cx);
        if polled.is_pending() {
            return if this.is_late(cx) { this.fail(TIMED_OUT, "connection-read-timeout") } else { Poll::Pending };
        }
        this.waits = false;
        match ready!(polled) {
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
            None => {
                this.state.set(ENDED);
                this.incoming = None;
                Poll::Ready(None)
            }
            Some(Err(_)) if this.watch.is_malformed() => this.fail(BROKEN, "HTTP-protocol-error"),
            Some(Err(_)) => this.fail(BROKEN, "connection-terminated"),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.incoming.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for ClientBody {
    fn drop(&mut self) {
        // where it waits for `100 Continue`, nothing is to come
        let is_awaited = self.expects && self.state.is_unread();
        if let Some(incoming) = self.incoming.take()
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
    let read = async {
        let mut rest = MOST_DRAINED;
        while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match rest.checked_sub(bytes) {
                Some(left) => rest = left,
                None => break,
            }
        }
    };
    let _ = tokio::time::timeout(DRAINED_WITHIN, read).await;
}
