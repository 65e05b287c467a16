//! Bodies for the tests of this folder.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use wasmtime_wasi_http::Error as HostError;

/// Gives these chunks, then ends or has nothing to give.
pub(super) struct Script {
    chunks: VecDeque<Bytes>,
    ends: bool,
}

impl Script {
    pub(super) fn new(chunks: Vec<Bytes>, ends: bool) -> Self {
        Self { chunks: chunks.into(), ends }
    }
}

pub(super) fn data(size: usize) -> Bytes {
    vec![b'x'; size].into()
}

impl Body for Script {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        match self.chunks.pop_front() {
            Some(chunk) => Poll::Ready(Some(Ok(Frame::data(chunk)))),
            None if std::mem::take(&mut self.ends) => Poll::Ready(None), // whoever asks again waits for ever
            None => Poll::Pending,
        }
    }
}
