//! A connection of HTTP/1 as hyper reads it: one checked head at a time, each with its body. What comes after a head that is refused is
//! never read as a request.
//!
//! hyper takes requests that are ambiguous (RFC 9112, 11.2) and answers malformed ones without telling anybody. So a head stays here
//! until it is whole. One that is refused becomes a plain request in its place, whose answer [`super::service`] gives: so answers keep
//! their order, and each has its line in the access log.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::server::head::{Framing, Head, MOST_FIELDS, chunk_size};
use crate::server::refusal::Refusal;
use crate::server::watch::Watch;

/// How long the line before a chunk may be, its extensions included.
const CHUNK_LINE: usize = 1 << 10;

/// How many bytes of trailers hyper takes: what is more would end a request without an answer.
const TRAILERS: usize = (16 << 10) - 64;

/// How much is read at once where hyper has not said how much it takes.
const READ: usize = 8 << 10;

/// How much of a body is read at once.
const READ_BODY: usize = 256 << 10;

/// What hyper gets in place of a head that is refused.
const STAND_IN: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// The same of HEAD, whose answer has no content (RFC 9110, 9.3.2).
const STAND_IN_OF_HEAD: &[u8] = b"HEAD / HTTP/1.1\r\nhost: refused\r\nconnection: close\r\n\r\n";

/// What hyper gets in place of a line of a chunked body that is refused: no size of a chunk.
const NO_CHUNK: &[u8] = b"!\r\n";

/// What is read next.
#[derive(Debug)]
enum Stage {
    Head,
    Body(u64),
    /// The line with the size of the next chunk.
    Size,
    /// So many bytes of a chunk.
    Chunk(u64),
    /// The end of a chunk's line.
    ChunkEnd,
    /// Lines after the last chunk: how many of them, and their bytes, have passed.
    Trailers(usize, usize),
    /// Nothing more is read.
    Refused,
}

/// See the module.
pub(super) struct Guarded<T> {
    inner: T,
    stage: Stage,
    /// What was read and not looked at.
    raw: BytesMut,
    /// How much of it has been searched for the end of a head.
    searched: usize,
    /// What has been looked at and not been given to hyper.
    checked: Bytes,
    /// How many bytes a head may have.
    most: usize,
    watch: Arc<Watch>,
    ended: bool,
}

impl<T> Guarded<T> {
    /// `raw`: what was read of it already.
    pub(super) fn new(inner: T, raw: BytesMut, most: usize, watch: Arc<Watch>) -> Self {
        let (stage, checked) = (Stage::Head, Bytes::new());
        Self { inner, stage, raw, searched: 0, checked, most, watch, ended: false }
    }

    /// What it reads from, and whether the client may send what nobody reads.
    pub(super) fn into_inner(self) -> (T, bool) {
        let is_done = matches!(self.stage, Stage::Head) && self.raw.is_empty() && self.checked.is_empty();
        (self.inner, !is_done && !self.ended)
    }

    /// Looks at what was read. Whether there is something for hyper now.
    fn look(&mut self) -> bool {
        if let Some(refusal) = self.watch.take_refusal() {
            self.refuse(refusal);
            return true;
        }
        while self.checked.is_empty() {
            let went_on = match self.stage {
                Stage::Head => self.look_at_head(),
                Stage::Body(left) => {
                    let taken = self.take_body(left);
                    if taken.is_some_and(|taken| taken == left) {
                        self.next_request();
                    } else if let Some(taken) = taken {
                        self.stage = Stage::Body(left - taken);
                    }
                    taken.is_some()
                }
                Stage::Chunk(left) => {
                    let taken = self.take_body(left);
                    if let Some(taken) = taken {
                        self.stage = if taken == left { Stage::ChunkEnd } else { Stage::Chunk(left - taken) };
                    }
                    taken.is_some()
                }
                Stage::Size | Stage::ChunkEnd | Stage::Trailers(..) => self.look_at_line(),
                Stage::Refused => return true,
            };
            if !went_on {
                return false;
            }
        }
        true
    }

    fn take_body(&mut self, left: u64) -> Option<u64> {
        let here = self.raw.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if here == 0 {
            return None;
        }
        self.checked = self.raw.split_to(here).freeze();
        Some(here as u64)
    }

    fn next_request(&mut self) {
        self.stage = Stage::Head;
        self.searched = 0;
        self.watch.body_is_whole();
    }

    /// Whether the head is whole, or refused.
    fn look_at_head(&mut self) -> bool {
        // RFC 9112, 2.2: an empty line before a request is not looked at
        while self.raw.starts_with(b"\r\n") {
            self.raw.advance(2);
            self.searched = 0;
        }
        if self.raw.is_empty() {
            return false;
        }
        self.watch.head_begins();
        let from = self.searched;
        let found = self.raw.get(from..).unwrap_or_default().iter().enumerate().filter(|(_, byte)| **byte == b'\n');
        for (at, _) in found {
            let at = from + at;
            match self.raw.get(..at).unwrap_or_default() {
                before if !before.ends_with(b"\r") => {
                    self.refuse(Refusal::bad("a line of the head ends without CR")); // RFC 9112, 2.2
                    return true;
                }
                before if before.ends_with(b"\r\n\r") => {
                    self.take_head(at + 1);
                    return true;
                }
                _ => {}
            }
        }
        self.searched = self.raw.len();
        if self.raw.len() > self.most {
            self.refuse(Refusal::new(431, "the head of the request is too large"));
            return true;
        }
        false
    }

    fn take_head(&mut self, bytes: usize) {
        if bytes > self.most {
            return self.refuse(Refusal::new(431, "the head of the request is too large"));
        }
        let head = self.raw.split_to(bytes).freeze();
        match Head::read(&head) {
            Err(refusal) => self.refuse_head(&head, refusal),
            Ok(read) if read.framing == Framing::Chunked && begins_malformed(&self.raw, self.most.min(TRAILERS)) => {
                // before a guest has begun with it
                self.refuse_head(&head, Refusal::bad("the body is malformed"));
            }
            Ok(read) => {
                self.stage = match read.framing {
                    Framing::Length(0) => Stage::Head,
                    Framing::Length(left) => Stage::Body(left),
                    Framing::Chunked => Stage::Size,
                };
                self.searched = 0;
                self.checked = head;
                self.watch.head_ends(read, matches!(self.stage, Stage::Head));
            }
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let read = std::mem::take(&mut self.raw).freeze();
        self.refuse_head(&read, refusal);
    }

    /// Nothing of it is read as a request, nor anything after it.
    fn refuse_head(&mut self, read: &Bytes, refusal: Refusal) {
        let line = read.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
        let line = read.slice_ref(line.get(..line.len().min(self.most)).unwrap_or_default());
        self.checked = Bytes::from_static(if line.starts_with(b"HEAD ") { STAND_IN_OF_HEAD } else { STAND_IN });
        self.watch.head_ends(Head::refused(line, refusal), true);
        self.stage = Stage::Refused;
    }

    /// Whether a line of a chunked body is whole, or refused.
    fn look_at_line(&mut self) -> bool {
        let most = match self.stage {
            Stage::Trailers(_, passed) => self.most.min(TRAILERS).saturating_sub(passed),
            _ => CHUNK_LINE,
        };
        let Some(end) = self.raw.iter().position(|byte| *byte == b'\n') else {
            if self.raw.len() <= most {
                return false;
            }
            self.refuse_line();
            return true;
        };
        let line = match self.raw.get(..end).and_then(|line| line.strip_suffix(b"\r")) {
            Some(line) if end <= most && !line.contains(&b'\r') => line,
            _ => {
                self.refuse_line(); // RFC 9112, 7.1: a line that ends without CR, say
                return true;
            }
        };
        let mut bare = None;
        let next = match self.stage {
            Stage::Size => {
                let size = chunk_size(line);
                if let (Some(size), true) = (size, line.contains(&b';')) {
                    // hyper ends a body whose extensions are 16 KiB together, though nobody reads them (RFC 9112, 7.1.1)
                    bare = Some(format!("{size:x}\r\n"));
                }
                size.map(|size| if size == 0 { Stage::Trailers(0, 0) } else { Stage::Chunk(size) })
            }
            Stage::ChunkEnd => line.is_empty().then_some(Stage::Size),
            Stage::Trailers(..) if line.is_empty() => Some(Stage::Head),
            Stage::Trailers(MOST_FIELDS.., _) => None,
            Stage::Trailers(lines, passed) => Some(Stage::Trailers(lines + 1, passed + end + 1)),
            _ => None,
        };
        match next {
            None => self.refuse_line(),
            Some(next) => {
                let line = self.raw.split_to(end + 1).freeze();
                self.checked = bare.map_or(line, Bytes::from);
                let is_over = matches!(next, Stage::Head);
                self.stage = next;
                if is_over {
                    self.next_request();
                }
            }
        }
        true
    }

    fn refuse_line(&mut self) {
        self.watch.body_is_malformed();
        self.raw.clear();
        self.checked = Bytes::from_static(NO_CHUNK);
        self.stage = Stage::Refused;
    }
}

/// Whether what has come of a chunked body already is none.
fn begins_malformed(mut raw: &[u8], trailers: usize) -> bool {
    while let Some(end) = raw.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = raw.split_at(end + 1);
        let Some(size) = line.strip_suffix(b"\r\n").and_then(chunk_size) else { return true };
        if size == 0 {
            return trailers_are_malformed(rest, trailers);
        }
        let Some(rest) = usize::try_from(size).ok().and_then(|size| rest.get(size..)) else { return false };
        match rest.get(..2) {
            Some(b"\r\n") => raw = rest.get(2..).unwrap_or_default(),
            Some(_) => return true,
            None => return false,
        }
    }
    raw.len() > CHUNK_LINE
}

/// The same of the lines after the last chunk.
fn trailers_are_malformed(raw: &[u8], most: usize) -> bool {
    let (mut number, mut bytes) = (0, 0);
    for line in raw.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
        if line == b"\r\n" {
            return false;
        }
        (number, bytes) = (number + 1, bytes + line.len());
        if number > MOST_FIELDS || bytes > most || !line.ends_with(b"\r\n") {
            return true;
        }
    }
    raw.len() > most
}

impl<T: AsyncRead + Unpin> Guarded<T> {
    /// Of a body nothing is looked at: it goes where hyper wants it.
    fn poll_body(&mut self, left: u64, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buf.remaining()).min(READ_BODY);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(most));
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut part))?;
        let read = part.filled().len();
        buf.advance(read);
        self.ended = read == 0;
        let rest = left.saturating_sub(read as u64);
        match (&self.stage, rest) {
            (Stage::Body(_), 0) => self.next_request(),
            (Stage::Body(_), rest) => self.stage = Stage::Body(rest),
            (_, 0) => self.stage = Stage::ChunkEnd,
            (_, rest) => self.stage = Stage::Chunk(rest),
        }
        Poll::Ready(Ok(()))
    }

    /// How many bytes have to come until the body is whole; one, where it is not known.
    fn missing(&self) -> u64 {
        match self.stage {
            Stage::Head | Stage::Refused => 0,
            Stage::Body(left) => left.saturating_sub(self.raw.len() as u64),
            // what is here already may be all of it: that is seen when its guest reads on
            Stage::Size | Stage::Chunk(_) | Stage::ChunkEnd | Stage::Trailers(..) => u64::from(self.raw.is_empty()),
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.checked.is_empty()
                && this.raw.is_empty()
                && !this.ended
                && let Stage::Body(left) | Stage::Chunk(left) = this.stage
            {
                ready!(this.poll_body(left, cx, buf))?;
                this.watch.body_misses(this.missing());
                return Poll::Ready(Ok(()));
            }
            if this.look() {
                let part = this.checked.split_to(this.checked.len().min(buf.remaining()));
                buf.put_slice(&part);
                this.watch.body_misses(this.missing());
                return Poll::Ready(Ok(()));
            }
            if this.ended {
                return Poll::Ready(Ok(()));
            }
            this.watch.reads(cx.waker());
            this.raw.reserve(READ);
            let read = ready!(std::pin::pin!(this.inner.read_buf(&mut this.raw)).poll(cx))?;
            this.ended = read == 0;
        }
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch.writes(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.watch.writes(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes what its client does not
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch.writes(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
