//! Bodies that need the runtime, wherever they are read.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use wasmtime_wasi_http::Error as HostError;

/// A body that finds the runtime, its timers and tasks, when it is read or dropped: a guest passes it on as its own, and a caller reads
/// that on a thread which has none.
pub(crate) struct InRuntime<B> {
    body: Option<B>,
    runtime: Handle,
}

impl<B> InRuntime<B> {
    pub(crate) fn new(body: B, runtime: Handle) -> Self {
        Self { body: Some(body), runtime }
    }

    /// What it is; nothing more comes.
    pub(crate) fn take(&mut self) -> Option<B> {
        self.body.take()
    }
}

impl<B: Body<Data = Bytes, Error = HostError> + Unpin> Body for InRuntime<B> {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let this = &mut *self;
        let Some(body) = &mut this.body else { return Poll::Ready(None) };
        let _entered = this.runtime.enter();
        Pin::new(body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl<B> Drop for InRuntime<B> {
    fn drop(&mut self) {
        let Some(body) = self.body.take() else { return };
        // what it lets go of may have to tell the runtime
        let _entered = self.runtime.enter();
        drop(body);
    }
}
