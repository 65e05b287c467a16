//! A connection's bytes, whatever carries them: watched as they come, and timed as they go.

use std::io;
use std::os::fd::RawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use crate::network::error::Unread;
use crate::network::traffic::{Flood, Frames, Traffic};

pub(super) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// What has come on a connection already, and the connection.
pub(super) struct Early {
    pub early: Vec<u8>,
    pub given: usize,
    pub io: Box<dyn Io>,
}

impl AsyncRead for Early {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = this.early.get(this.given..).unwrap_or_default();
        if left.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buffer);
        }
        let (next, _) = left.split_at(left.len().min(buffer.remaining()));
        buffer.put_slice(next);
        this.given += next.len();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Early {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Bytes of TLS in a row that bring nothing of what it carries: a handshake, tickets for sessions, keys.
const BENEATH: u64 = 512 << 10;

/// What comes below TLS, which reads on for as long as what comes is legal.
pub(super) struct Beneath {
    pub io: Box<dyn Io>,
    /// Bytes that have come since there was something of what is carried.
    pub since: Arc<AtomicU64>,
}

impl AsyncRead for Beneath {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buffer);
        let came = (buffer.filled().len() - before) as u64;
        if self.since.fetch_add(came, Ordering::Relaxed) + came > BENEATH {
            return Poll::Ready(Err(io::Error::other(Flood::Nothing)));
        }
        polled
    }
}

impl AsyncWrite for Beneath {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// A connection's bytes. It fails when its peer leaves unread for too long what is written to it.
pub(crate) struct MonitoredStream {
    io: Box<dyn Io>,
    /// What is told of what comes, and what of it is looked at.
    traffic: Option<(Arc<Traffic>, Option<Frames>)>,
    /// Too much of it brings nothing.
    flood: Option<Flood>,
    unread: Option<Duration>,
    /// Its peer reads no more of what is written.
    unheard: bool,
    /// Since something could not be written, and what lay before the peer then.
    pause: Option<(Pin<Box<Sleep>>, Option<u64>)>,
    socket: RawFd,
    /// Under TLS: bytes that have come since something of them was ours.
    pub(super) beneath: Option<Arc<AtomicU64>>,
    /// Dropped with the connection, not sooner.
    kept: Option<Box<dyn Send>>,
}

impl MonitoredStream {
    pub(super) fn new(io: Box<dyn Io>, socket: RawFd, unread: Option<Duration>) -> Self {
        Self { io, traffic: None, flood: None, unread, unheard: false, pause: None, socket, beneath: None, kept: None }
    }

    /// Has what comes looked at: bytes of HTTP/1.1, or `frames` of HTTP/2. Too much of what brings nothing ends the connection.
    pub(crate) fn watch(&mut self, traffic: Arc<Traffic>, frames: Option<Frames>) {
        traffic.on(Some(self.socket));
        self.traffic = Some((traffic, frames));
    }

    /// Keeps something for as long as there is the connection.
    pub(crate) fn keep(&mut self, kept: impl Send + 'static) {
        self.kept = Some(Box::new(kept));
    }

    /// A peer may answer and close before it has read a request to its end (RFC 9112, 9.5). Its answer lies in our buffers then, and
    /// hyper would not look at it, because writing fails. So what is written after that goes nowhere, and reading tells what became
    /// of the connection. A peer of HTTP/2 need not close for that, but may: its last words are GOAWAY, or an answer.
    fn heard<T>(&mut self, written: Poll<io::Result<T>>, all: T) -> Poll<io::Result<T>> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
        if let (Poll::Ready(Err(error)), Some(_)) = (&written, &self.traffic)
            && matches!(error.kind(), BrokenPipe | ConnectionReset | ConnectionAborted)
        {
            self.unheard = true;
            return Poll::Ready(Ok(all));
        }
        written
    }

    fn told(&self, written: &Poll<io::Result<usize>>) {
        let Some((traffic, _)) = &self.traffic else { return };
        match written {
            Poll::Ready(Ok(bytes)) => traffic.wrote(Some(*bytes)),
            Poll::Ready(Err(_)) => {}
            Poll::Pending => traffic.wrote(None),
        }
    }

    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        let Some(limit) = self.unread else { return written };
        if written.is_ready() {
            self.pause = None;
            return written;
        }
        loop {
            let lies = unread(self.socket);
            let (pause, before) = self.pause.get_or_insert_with(|| (Box::pin(tokio::time::sleep(limit)), lies));
            if pause.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            // it says that it can be written to only when much has been read: less may have been
            if lies.is_none() || lies >= *before {
                if let Some((traffic, _)) = &self.traffic {
                    traffic.is_unread();
                }
                return Poll::Ready(Err(io::Error::other(Unread(limit))));
            }
            self.pause = None;
        }
    }
}

impl Drop for MonitoredStream {
    fn drop(&mut self) {
        if let Some((traffic, _)) = &self.traffic {
            traffic.on(None);
        }
    }
}

/// Bytes that have been written to a socket and that its peer has not taken; `None` if nobody can say.
fn unread(socket: RawFd) -> Option<u64> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is that of the `TcpStream` inside the `Wire` that asks, so it is open; Linux's SIOCOUTQ, which is
    // TIOCOUTQ, writes one c_int.
    let result = unsafe { libc::ioctl(socket, libc::TIOCOUTQ, &mut bytes) };
    if result == 0 { u64::try_from(bytes).ok() } else { None }
}

impl AsyncRead for MonitoredStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(flood) = this.flood {
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.io).poll_read(cx, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        if let (Some(beneath), false) = (&this.beneath, came.is_empty()) {
            beneath.store(0, Ordering::Relaxed);
        }
        // what came with the last straw is for others, perhaps: the next read fails
        if let Some((traffic, frames)) = &mut this.traffic {
            this.flood = traffic.read(came, frames.as_mut()).err();
            if let Poll::Ready(Err(error)) = &polled {
                traffic.failed(error);
            }
        }
        polled
    }
}

impl AsyncWrite for MonitoredStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        if self.unheard {
            return Poll::Ready(Ok(buffer.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(cx, buffer);
        self.told(&written);
        let written = self.timed(cx, written);
        self.heard(written, buffer.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = buffers.iter().map(|buffer| buffer.len()).sum();
        if self.unheard {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, buffers);
        self.told(&written);
        let written = self.timed(cx, written);
        self.heard(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unheard {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        // TLS takes what is written before its socket does
        if let Some((traffic, _)) = &self.traffic {
            traffic.wrote(flushed.is_ready().then_some(0));
        }
        let flushed = self.timed(cx, flushed);
        self.heard(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// The end of a connection whose peer has answered, and has closed it before it had read all of the request.
    struct Closed(&'static [u8]);

    impl AsyncRead for Closed {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buffer.put_slice(std::mem::take(&mut self.0));
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Closed {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// RFC 9113, 6.8.
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn what_a_peer_has_said_before_it_closed_is_read_though_writing_fails() {
        for frames in [None, Some(Frames::new(100, 100))] {
            let mut wire = MonitoredStream::new(Box::new(Closed(GOAWAY)), -1, None);
            wire.watch(Arc::new(Traffic::new(1000)), frames);
            let mut cx = Context::from_waker(std::task::Waker::noop());
            let mut wire = Pin::new(&mut wire);
            assert!(matches!(wire.as_mut().poll_flush(&mut cx), Poll::Ready(Ok(()))));
            assert!(matches!(wire.as_mut().poll_write(&mut cx, b"more"), Poll::Ready(Ok(4))));
            let (mut bytes, mut read) = ([0; 20], Vec::new());
            for _ in 0..2 {
                let mut buffer = ReadBuf::new(&mut bytes);
                assert!(matches!(wire.as_mut().poll_read(&mut cx, &mut buffer), Poll::Ready(Ok(()))));
                read.extend_from_slice(buffer.filled());
            }
            assert_eq!(read, GOAWAY);
        }
    }
    #[test]
    fn what_has_come_is_known_before_it_is_read() {
        for bytes in [None, Some(b"HTTP/1.1 200 OK\r\n\r\n")] {
            let (mut peer, socket) = std::os::unix::net::UnixStream::pair().unwrap();
            let traffic = Arc::new(Traffic::new(1000));
            let descriptor = std::os::fd::AsRawFd::as_raw_fd(&socket);
            let mut wire = MonitoredStream::new(Box::new(tokio::io::empty()), descriptor, None);
            wire.watch(traffic.clone(), None);
            wire.keep(socket);
            assert!(!traffic.has_unread());
            match bytes {
                Some(bytes) => io::Write::write_all(&mut peer, bytes).unwrap(),
                None => drop(peer),
            }
            assert!(traffic.has_unread());
            assert!(traffic.has_unread(), "it was not taken");
        }
    }

    #[test]
    fn a_connection_that_has_been_closed_is_not_asked_about() {
        let (_peer, socket) = std::os::unix::net::UnixStream::pair().unwrap();
        let traffic = Arc::new(Traffic::new(1000));
        let mut wire =
            MonitoredStream::new(Box::new(tokio::io::empty()), std::os::fd::AsRawFd::as_raw_fd(&socket), None);
        wire.watch(traffic.clone(), None);
        drop(wire);
        // its number is open still: another's, perhaps
        assert!(traffic.has_unread());
    }
}
