//! Stdout and stderr as a guest's `wasi:cli` sees them: it waits while nobody fetches what it has printed.

use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::exchange::stdio::{PERMIT, Stdio, Stream};
use crate::sync::lock;

/// Where the streams of an instance lead: to the output of the exchange that it is about.
#[derive(Clone)]
pub struct Outlet(Arc<Mutex<Lead>>);

struct Lead {
    stdio: Arc<Stdio>,
    /// Several exchanges share the instance.
    is_shared: bool,
}

impl Outlet {
    /// Leads to the output of a first exchange.
    pub fn new(stdio: &Arc<Stdio>) -> Self {
        Self(Arc::new(Mutex::new(Lead { stdio: stdio.clone(), is_shared: false })))
    }

    /// From now on to that of another one.
    pub fn lead_to(&self, stdio: &Arc<Stdio>) {
        lock(&self.0).stdio = stdio.clone();
    }

    /// From now on it leads to whoever has the instance's turn: a stream that is read outside of turns stays with whoever has made it.
    pub fn is_shared(&self) {
        lock(&self.0).is_shared = true;
    }

    /// How many streams there are that lead here.
    pub fn streams(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(1)
    }

    fn stdio(&self) -> Arc<Stdio> {
        lock(&self.0).stdio.clone()
    }

    /// Of the one who makes a stream now, if it is to stay with him.
    fn own_stdio(&self) -> Option<Arc<Stdio>> {
        let lead = lock(&self.0);
        lead.is_shared.then(|| lead.stdio.clone())
    }
}

/// One of the two streams, as the guest's `wasi:cli` sees it.
pub struct GuestStream {
    outlet: Outlet,
    stream: Stream,
    /// What `check-write` has permitted, and whose lines that was for. It is a reservation: what is written into another stream
    /// meanwhile takes nothing from it.
    permit: Option<(Weak<Stdio>, usize)>,
}

impl GuestStream {
    /// Whose lines go where the outlet leads.
    pub fn new(outlet: &Outlet, stream: Stream) -> Self {
        Self { outlet: outlet.clone(), stream, permit: None }
    }

    /// What it may write for this exchange; an earlier one's was given back.
    fn take_permit(&mut self, stdio: &Arc<Stdio>) -> usize {
        match self.permit.take() {
            Some((of, permit)) if std::ptr::eq(of.as_ptr(), Arc::as_ptr(stdio)) => permit,
            other => {
                self.permit = other;
                self.give_back();
                0
            }
        }
    }

    fn give_back(&mut self) {
        if let Some((of, permit)) = self.permit.take()
            && let Some(stdio) = of.upgrade()
        {
            stdio.used(permit);
        }
    }
}

/// Another handle has permits of its own.
impl Clone for GuestStream {
    fn clone(&self) -> Self {
        Self::new(&self.outlet, self.stream)
    }
}

impl Drop for GuestStream {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[async_trait]
impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        // the host function leaves this to the stream: a guest that does not ask how much it may write never waits
        let stdio = self.outlet.stdio();
        let permit = self.take_permit(&stdio);
        let is_permitted = bytes.len() <= permit;
        if is_permitted {
            stdio.used(bytes.len());
            if permit > bytes.len() {
                self.permit = Some((Arc::downgrade(&stdio), permit - bytes.len()));
            }
        } else {
            stdio.used(permit);
        }
        if !is_permitted && (bytes.len() > PERMIT || !stdio.has_room()) {
            return Err(StreamError::trap("a write to stdout or stderr exceeded what `check-write` permits"));
        }
        stdio.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        let stdio = self.outlet.stdio();
        let before = self.take_permit(&stdio);
        let permit = stdio.permit(before);
        if permit > 0 {
            self.permit = Some((Arc::downgrade(&stdio), permit));
        }
        Ok(permit)
    }
}

#[async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {
        let stdio = self.outlet.stdio();
        loop {
            let room = stdio.room.notified();
            if self.permit.is_some() || stdio.has_room() {
                return;
            }
            room.await;
        }
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        let (outlet, own) = (self.outlet.clone(), self.outlet.own_stdio());
        Box::new(AsyncStream { outlet, own, stream: self.stream, room: None })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

/// What guests of WASI 0.3 write to: it takes no more than the stream above permits at once, and waits as that does.
struct AsyncStream {
    outlet: Outlet,
    /// Of the exchange whose it is, in an instance that several share.
    own: Option<Arc<Stdio>>,
    stream: Stream,
    /// Until there is room again.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl AsyncWrite for AsyncStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        let stdio = self.own.clone().unwrap_or_else(|| self.outlet.stdio());
        loop {
            if let Some(room) = &mut self.room {
                std::task::ready!(room.as_mut().poll(cx));
                self.room = None;
            }
            if stdio.has_room() {
                let taken = bytes.len().min(PERMIT);
                stdio.write(self.stream, bytes.get(..taken).unwrap_or_default());
                return Poll::Ready(Ok(taken));
            }
            let waiting = stdio.clone();
            let mut room: Pin<Box<dyn Future<Output = ()> + Send + Sync>> =
                Box::pin(async move { waiting.room.notified().await });
            // registered before it is looked again: what makes room in between is heard
            if room.as_mut().poll(cx).is_pending() && !stdio.has_room() {
                self.room = Some(room);
                return Poll::Pending;
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::exchange::stdio::{Line, MOST_WAITING, SMALL_PERMIT, WELL_PERMITTED};

    fn stream(outlet: &Outlet, stream: Stream) -> GuestStream {
        GuestStream::new(outlet, stream)
    }

    #[test]
    fn a_permit_is_a_reservation() {
        let stdio = Arc::new(Stdio::default());
        let outlet = Outlet::new(&stdio);
        let (mut out, mut err) = (stream(&outlet, Stream::Stdout), stream(&outlet, Stream::Stderr));
        stdio.write(Stream::Stdout, &[b'\n'; MOST_WAITING / size_of::<Line>() - 1]);
        let full = Bytes::from_static(&[b'\n'; PERMIT]);
        assert_eq!((out.check_write().unwrap(), err.check_write().unwrap()), (PERMIT, PERMIT));
        assert!(out.write(full.clone()).is_ok() && err.write(full.clone()).is_ok());
        assert_eq!((out.check_write().unwrap(), err.check_write().unwrap()), (0, 0));
        assert!(out.write(full.clone()).is_err(), "no permit, and no room");
        stdio.take(usize::MAX);
        assert!(err.write(full).is_ok(), "no permit, but room");
        assert_eq!(stdio.permitted(), 0);
    }

    #[test]
    fn a_permit_lasts_until_it_is_used_and_ends_with_its_handle() {
        let stdio = Arc::new(Stdio::default());
        let outlet = Outlet::new(&stdio);
        let mut out = stream(&outlet, Stream::Stdout);
        assert_eq!(out.check_write().unwrap(), PERMIT);
        assert!(out.write(Bytes::from_static(b"x")).is_ok());
        assert_eq!(stdio.permitted(), PERMIT - 1);
        assert_eq!(out.check_write().unwrap(), PERMIT);
        let next = Arc::new(Stdio::default());
        outlet.lead_to(&next);
        assert!(out.write(Bytes::from_static(b"x")).is_ok());
        assert_eq!((stdio.permitted(), next.permitted()), (0, 0));
        assert_eq!(out.check_write().unwrap(), PERMIT);
        drop(out);
        assert_eq!(next.permitted(), 0);
    }

    /// Its handles are collected late, say.
    #[test]
    fn a_guest_with_very_many_handles_can_still_print_and_has_little_kept() {
        let stdio = Arc::new(Stdio::default());
        let outlet = Outlet::new(&stdio);
        let mut handles: Vec<_> = (0..10_000).map(|_| stream(&outlet, Stream::Stdout)).collect();
        let permitted: usize = handles.iter_mut().map(|out| out.check_write().unwrap()).sum();
        assert!(handles.iter_mut().all(|out| out.check_write().unwrap() >= SMALL_PERMIT));
        assert!(permitted < 2 * WELL_PERMITTED + 10_000 * SMALL_PERMIT);
        assert_eq!(stdio.permitted(), permitted);
    }
}
