//! A file's content, or a part of it, as a body.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::task::JoinHandle;

/// How much is read at once.
const PIECE: u64 = 64 << 10;

/// Reads when it is asked to, on tokio's threads for what blocks. A file that has become shorter breaks it off: a response is never as long
/// as it was announced and filled with something else. What is added to the file meanwhile is left out.
#[derive(Debug)]
pub struct FileBody {
    /// `None` if there is nothing to read.
    file: Option<Arc<File>>,
    next: u64,
    left: u64,
    reading: Option<JoinHandle<io::Result<Bytes>>>,
}

impl FileBody {
    pub(super) fn empty() -> Self {
        Self { file: None, next: 0, left: 0, reading: None }
    }

    /// `length` bytes from the one at `first` on.
    pub(super) fn part(file: File, first: u64, length: u64) -> Self {
        Self { file: Some(Arc::new(file)), next: first, left: length, reading: None }
    }
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Some(file) = self.file.clone().filter(|_| self.left > 0) else { return Poll::Ready(None) };
        let (place, length) = (self.next, self.left.min(PIECE));
        let reading = self.reading.get_or_insert_with(|| {
            tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; usize::try_from(length).unwrap_or_default()];
                file.read_exact_at(&mut piece, place)?;
                Ok(piece.into())
            })
        });
        let read = ready!(Pin::new(reading).poll(cx));
        self.reading = None;
        let read = read.map_err(io::Error::other).and_then(|read| read);
        match &read {
            Ok(_) => (self.next, self.left) = (place + length, self.left - length),
            // nothing comes after an error
            Err(_) => (self.file, self.left) = (None, 0),
        }
        Poll::Ready(Some(read.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use http_body_util::BodyExt;

    use super::*;
    use crate::server::testing::Folder;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    fn whole(body: FileBody) -> io::Result<Vec<u8>> {
        run(async { Ok(body.collect().await?.to_bytes().to_vec()) })
    }

    #[test]
    fn pieces_are_the_file() {
        let folder = Folder::new();
        let content: Vec<u8> = (0..200_001_u32).map(|number| (number % 251) as u8).collect();
        std::fs::write(folder.path("a"), &content).unwrap();
        let open = || File::open(folder.path("a")).unwrap();
        for (first, length) in [(0, 200_001), (0, 1), (200_000, 1), (1, 65_536), (1, 65_537), (7, 131_072), (5, 0)] {
            let body = FileBody::part(open(), first, length);
            assert_eq!((body.size_hint().exact(), body.is_end_stream()), (Some(length), length == 0));
            let wanted = content.iter().skip(first as usize).take(length as usize).copied().collect::<Vec<_>>();
            assert!(whole(body).unwrap() == wanted, "{first} {length}");
        }
        assert!(FileBody::empty().is_end_stream());
        assert!(whole(FileBody::empty()).unwrap().is_empty());
    }

    #[test]
    fn a_file_that_shrinks_breaks_off_and_one_that_grows_does_not() {
        let folder = Folder::new();
        std::fs::write(folder.path("a"), [b'a'; 100_000]).unwrap();
        let file = File::options().write(true).open(folder.path("a")).unwrap();
        let body = |length| FileBody::part(File::open(folder.path("a")).unwrap(), 0, length);
        run(async {
            let mut body = body(100_000);
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap().len(), 65_536);
            file.set_len(99_999).unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert!(body.frame().await.is_none());
        });
        file.set_len(300_000).unwrap();
        assert_eq!(whole(body(99_999)).unwrap().len(), 99_999);
    }
}
