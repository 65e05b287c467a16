//! Streams of files: wasmtime-wasi's, whose blocking calls run on the threads of the guest's app, and which keep their file counted as
//! open for as long as they refer to it.

use std::sync::Arc;

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::pipe::{ClosedInputStream, ClosedOutputStream};
use wasmtime_wasi::p2::{
    DynInputStream, DynOutputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};

use crate::guest::open_files::{Open, Streaming};
use crate::process::blocking_threads::{Pool, entered, within};

/// What such a stream refers to beside its file.
pub(crate) struct Behind {
    pub threads: Pool,
    pub _open: Option<Arc<Open>>,
    pub _streaming: Streaming,
}

pub(crate) struct FileInput {
    inner: DynInputStream,
    /// Goes last: see [`Open`].
    behind: Behind,
}

impl FileInput {
    /// Puts itself around a stream.
    pub(crate) fn around(stream: &mut DynInputStream, behind: Behind) {
        let inner = std::mem::replace(stream, Box::new(ClosedInputStream));
        *stream = Box::new(Self { inner, behind });
    }
}

#[async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {
        entered(&self.behind.threads, self.inner.ready()).await;
    }
}

#[async_trait]
impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let _entered = self.behind.threads.enter();
        self.inner.read(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        within(&self.behind.threads, self.inner.blocking_read(size)).await
    }

    async fn cancel(&mut self) {
        entered(&self.behind.threads, self.inner.cancel()).await;
    }
}

pub(crate) struct FileOutput {
    inner: DynOutputStream,
    behind: Behind,
}

impl FileOutput {
    /// Puts itself around a stream.
    pub(crate) fn around(stream: &mut DynOutputStream, behind: Behind) {
        let inner = std::mem::replace(stream, Box::new(ClosedOutputStream));
        *stream = Box::new(Self { inner, behind });
    }
}

#[async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {
        entered(&self.behind.threads, self.inner.ready()).await;
    }
}

#[async_trait]
impl OutputStream for FileOutput {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        let _entered = self.behind.threads.enter();
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        self.inner.flush()
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        self.inner.check_write()
    }

    async fn blocking_write_and_flush(&mut self, bytes: Bytes) -> StreamResult<()> {
        within(&self.behind.threads, self.inner.blocking_write_and_flush(bytes)).await
    }

    async fn cancel(&mut self) {
        entered(&self.behind.threads, self.inner.cancel()).await;
    }
}
