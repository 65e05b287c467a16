//! Whether the client of a connection is there, asked of the kernel: hyper notices one that has left only while it reads, which it does
//! not while a guest works and has read all it wants.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use crate::server::watch::Awaits;

/// Whether a client that sends nothing more still takes an answer is found out by sending it this: an interim response that every client
/// of HTTP/1.1 passes over (RFC 9110, 15.2), and that one which has gone answers with a reset.
const PROBE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A probe follows so many looks after the one before.
const PROBE_EACH: u32 = 16;

/// A connection's socket, to be asked about. The descriptor is a copy: the connection itself has the socket.
pub(super) struct Peer {
    socket: OwnedFd,
    /// A probe can be sent: HTTP/1 without TLS, by TCP.
    takes_probe: bool,
    /// How often in a row it was seen that nothing more comes.
    seen: u32,
}

impl Peer {
    pub(super) fn new(socket: BorrowedFd<'_>, takes_probe: bool) -> std::io::Result<Self> {
        Ok(Self { socket: socket.try_clone_to_owned()?, takes_probe, seen: 0 })
    }

    /// It speaks HTTP/2, which has no such thing as a client that sends nothing more and waits.
    pub(super) fn takes_no_probe(&mut self) {
        self.takes_probe = false;
    }

    /// Whether the client has left an exchange that is under way.
    pub(super) fn has_left(&mut self, awaits: &Awaits) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut asked = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        if poll(&mut asked, Some(&now)).is_err() {
            return false;
        }
        let [asked] = &asked;
        let state = asked.revents();
        if state.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
            return true;
        }
        if awaits.exchanges == 0 || !state.contains(PollFlags::RDHUP) {
            self.seen = 0;
            return false;
        }
        self.seen += 1;
        if awaits.missing > 0 && awaits.missing > rustix::io::ioctl_fionread(&self.socket).unwrap_or_default() {
            return true; // the rest of its request will never come
        }
        // it has only shut its sending side down, or it has gone: the kernel says the same of both
        if awaits.answers {
            return false; // a write will tell
        }
        if !self.takes_probe || awaits.is_http10 {
            return self.seen > 2;
        }
        if self.seen % PROBE_EACH != 2 {
            return false;
        }
        let sent = send(self.socket.as_fd(), PROBE, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        !matches!(sent, Ok(_) | Err(Errno::AGAIN | Errno::INTR))
    }
}
