//! A folder that a guest of WASI 0.3 lists: read piece by piece as the guest asks for it. wasmtime-wasi 48 keeps a thread for each, until
//! the guest has read all of it.

use std::collections::VecDeque;
use std::fs::File;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::fs::FileType;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, StreamProducer, StreamResult, VecBuffer};
use wasmtime_wasi::p3::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use crate::guest::file_listing::{Entry, Unread};
use crate::guest::file_streams_p3::End;
use crate::guest::open_files::Open;
use crate::process::blocking_threads::Pool;

type Piece = (VecDeque<Entry>, Option<Unread>);

/// `read-directory`.
pub(crate) struct Entries {
    coming: Option<Pin<Box<dyn Future<Output = Piece> + Send>>>,
    unread: Option<Unread>,
    read: VecDeque<Entry>,
    /// What could not be listed: it is told when all else was.
    failed: Option<ErrorCode>,
    end: End,
}

impl Entries {
    pub(crate) fn new(folder: Arc<File>, threads: Pool, open: Open, end: End) -> Self {
        let first = async move {
            match Unread::begin(folder, threads, open).await {
                Ok(unread) => unread.read().await,
                Err(error) => (VecDeque::from([Err(error)]), None),
            }
        };
        Self { coming: Some(Box::pin(first)), unread: None, read: VecDeque::new(), failed: None, end }
    }

    /// Waits for entries. Whether there are any.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            while let Some(Err(error)) = self.read.front() {
                let code = ErrorCode::from(error);
                self.failed.get_or_insert(code);
                self.read.pop_front();
            }
            if !self.read.is_empty() {
                return Poll::Ready(true);
            }
            if let Some(unread) = self.unread.take() {
                self.coming = Some(Box::pin(unread.read()));
            }
            let Some(coming) = &mut self.coming else { return Poll::Ready(false) };
            (self.read, self.unread) = ready!(coming.as_mut().poll(cx));
            self.coming = None;
        }
    }

    /// The next entries, up to one that could not be read.
    fn take(&mut self, most: usize) -> Vec<DirectoryEntry> {
        let mut taken = Vec::new();
        while taken.len() < most
            && let Some(Ok((kind, name))) = self.read.pop_front_if(|entry| entry.is_ok())
        {
            taken.push(DirectoryEntry { type_: kind_of(kind), name });
        }
        taken
    }
}

impl<D> StreamProducer<D> for Entries {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut to: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let most = match to.remaining(&mut store) {
            Some(0) => return Poll::Ready(Ok(StreamResult::Completed)),
            asked => asked.unwrap_or(usize::MAX),
        };
        match self.poll_read(cx) {
            // what is read is had by the next read
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
            Poll::Ready(true) => {
                to.set_buffer(self.take(most).into());
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(false) => {
                let end = self.failed.take().map_or(Ok(()), Err);
                self.end.say(end);
                Poll::Ready(Ok(StreamResult::Dropped))
            }
        }
    }
}

fn kind_of(kind: FileType) -> DescriptorType {
    match kind {
        FileType::RegularFile => DescriptorType::RegularFile,
        FileType::Directory => DescriptorType::Directory,
        FileType::Symlink => DescriptorType::SymbolicLink,
        FileType::BlockDevice => DescriptorType::BlockDevice,
        FileType::CharacterDevice => DescriptorType::CharacterDevice,
        FileType::Fifo => DescriptorType::Fifo,
        FileType::Socket => DescriptorType::Socket,
        FileType::Unknown => DescriptorType::Other(None),
    }
}
