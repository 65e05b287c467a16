//! The guest's side of a feed: what the guest reads is asked of Python.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HostError;

use crate::py::lock;
use crate::py::message::feed::{Demand, Drive, Feed};

/// The guest's side.
pub(crate) struct FeedBody {
    feed: Arc<Feed>,
    trailers: Option<HeaderMap>,
}

impl FeedBody {
    pub(crate) fn new(feed: Arc<Feed>, trailers: Option<HeaderMap>) -> Self {
        Self { feed, trailers }
    }
}

impl Body for FeedBody {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let feed = self.feed.clone();
        let mut state = lock(&feed.state);
        if let Some(chunk) = state.chunk.take() {
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &state.end {
            Some(Ok(())) => return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers)))),
            Some(Err(code)) => return Poll::Ready(Some(Err(code.clone().into_host()))),
            None => {}
        }
        let wanted = Demand::Wanted { consumer: Some(cx.waker().clone()) };
        let before = std::mem::replace(&mut state.demand, wanted);
        let is_task = matches!(state.drive, Drive::Task { .. });
        drop(state);
        match before {
            Demand::Satisfied { producer: Some(producer) } => producer.wake(),
            // one that has not come to wait yet finds what is wanted
            Demand::Satisfied { producer: None } if is_task => {}
            // a source that blocks is asked anew for each chunk, an async one gets its task
            Demand::Satisfied { producer: None } => feed.lane.submit(feed.clone()),
            Demand::Wanted { .. } | Demand::Gone => {}
        }
        Poll::Pending
    }
}

impl Drop for FeedBody {
    fn drop(&mut self) {
        let (before, has_ended) = {
            let mut state = lock(&self.feed.state);
            (std::mem::replace(&mut state.demand, Demand::Gone), state.end.is_some())
        };
        if has_ended {
            return;
        }
        if let Demand::Satisfied { producer: Some(producer) } = before {
            producer.wake();
        }
        self.feed.lane.submit(self.feed.clone());
    }
}
