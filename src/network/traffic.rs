//! What comes on a connection, looked at before it is parsed: how much of it brings nothing, how large heads are, and whether
//! the peer goes away.
//!
//! hyper reads on for as long as a peer sends what is legal and says nothing: interim responses, the zeros before the size of a
//! chunk. And h2 does not say why it has reset a stream: for a head past the limit as for one that is malformed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use crate::network::hpack::Table;
use crate::network::tls::tls_error;
use crate::sync::lock;

/// What a peer sends too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Flood {
    #[error("it sends head after head, and no final response")]
    Heads,
    #[error("it sends trailers without end")]
    Trailers,
    #[error("it keeps sending, but no head or body makes progress")]
    Nothing,
    #[error("it keeps sending frames that carry no data")]
    Frames,
}

/// Bytes of HTTP/2's frames that bring nothing of a response (PING, SETTINGS, WINDOW_UPDATE, RST_STREAM, frames of no known type), as
/// they may come in a row: where a request is under way, and where none is.
const FRAMES: (u64, u64) = (32 << 10, 8 << 10);
/// What of them is forgotten in a second: peers may ask again and again whether we are there.
const FORGOTTEN: u64 = 2 << 10;
/// What of them may come for each byte that we have written of our own: two of WINDOW_UPDATE for the smallest of DATA, or a PING.
const ANSWERS: u64 = 3;
/// And as much of that where no request is under way.
const LATE_ANSWERS: u64 = 64 << 10;
/// Bytes of responses that may come before anything of them is of use: all that flow control lets come, and some more.
const UNREAD: u64 = 40 << 20;
/// Bytes of a body that nobody wants any more: as many as were under way when its stream was reset.
const UNWANTED: u64 = 320 << 10;

/// What a connection's wire sees, for those who use the connection.
#[derive(Default)]
pub(crate) struct Traffic {
    received: AtomicU64,
    /// HTTP/1.1: bytes that may come before something comes that is of use.
    left: AtomicU64,
    most: u64,
    /// HTTP/2: whether the peer goes away, or is left.
    leaves: AtomicBool,
    /// What was written last could not be written at once.
    blocked: AtomicBool,
    /// HTTP/2: requests that are under way.
    users: AtomicUsize,
    /// HTTP/2: bytes of frames that bring nothing, and of such that may bring something, since something came that was of use.
    spent: AtomicU64,
    unread: AtomicU64,
    /// Bytes that were written, since that was looked at.
    written: AtomicU64,
    /// HTTP/2: frames that let us send more.
    windows: AtomicU64,
    /// HTTP/2: heads that were larger than may be.
    oversized: AtomicU64,
    /// HTTP/2: heads without a body that announced the length of one.
    bodiless: AtomicU64,
    flood: AtomicU8,
    /// What TLS has ended the connection with: h2 keeps no more than its words.
    tls: OnceLock<rustls::Error>,
    write_timed_out: AtomicBool,
    /// While it is open.
    socket: Mutex<Option<RawFd>>,
}

impl Traffic {
    /// `most`: bytes of HTTP/1.1 that may come in a row and bring nothing.
    pub(crate) fn new(most: u64) -> Self {
        Self { most, left: AtomicU64::new(most), ..Self::default() }
    }

    /// Bytes that have come.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Whether another request may go on the connection.
    pub(crate) fn is_fit(&self) -> bool {
        !self.leaves.load(Ordering::Relaxed) && self.flood().is_none()
    }

    /// The connection's socket; `None`: it is about to be closed.
    pub(crate) fn on(&self, socket: Option<RawFd>) {
        *lock(&self.socket) = socket;
    }

    /// Whether something has come that the connection's task has not read yet: bytes, an end or an error. Asks the kernel.
    pub(crate) fn has_unread(&self) -> bool {
        // locked until the answer is there, for the socket would be closed meanwhile, and its number be another's
        let socket = lock(&self.socket);
        let Some(descriptor) = *socket else { return true };
        let mut byte = 0_u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: the descriptor is open, because `on(None)` comes before it is closed and waits for the lock; one byte is written.
        let came = unsafe { libc::recv(descriptor, (&raw mut byte).cast(), 1, flags) };
        came >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock
    }

    /// No other request goes on the connection, if its peer does not read what is written.
    pub(crate) fn leave_if_blocked(&self) {
        if self.blocked.load(Ordering::Relaxed) {
            self.leaves.store(true, Ordering::Relaxed);
        }
    }

    /// So many bytes were written; `None`: they could not be.
    pub(crate) fn wrote(&self, bytes: Option<usize>) {
        self.blocked.store(bytes.is_none(), Ordering::Relaxed);
        self.written.fetch_add(bytes.unwrap_or_default() as u64, Ordering::Relaxed);
    }

    /// Requests that are under way on a connection of HTTP/2.
    pub(crate) fn users(&self) -> &AtomicUsize {
        &self.users
    }

    /// How often the peer has let us send more.
    pub(crate) fn windows(&self) -> u64 {
        self.windows.load(Ordering::Relaxed)
    }

    pub(crate) fn oversized(&self) -> u64 {
        self.oversized.load(Ordering::Relaxed)
    }

    pub(crate) fn bodiless(&self) -> u64 {
        self.bodiless.load(Ordering::Relaxed)
    }

    /// Reading has failed.
    pub(crate) fn failed(&self, error: &io::Error) {
        if let Some(tls) = tls_error(error) {
            let _ = self.tls.set(tls.clone());
        }
    }

    /// Writing has timed out.
    pub(crate) fn is_unread(&self) {
        self.write_timed_out.store(true, Ordering::Relaxed);
    }

    /// Whether that has ended the connection: hyper tells readers of HTTP/1.1 only that it has ended.
    pub(crate) fn write_timed_out(&self) -> bool {
        self.write_timed_out.load(Ordering::Relaxed)
    }

    /// What TLS has ended the connection with, if it has.
    pub(crate) fn tls(&self) -> Option<&rustls::Error> {
        self.tls.get()
    }

    /// What has ended the connection, if it is that.
    pub(crate) fn flood(&self) -> Option<Flood> {
        match self.flood.load(Ordering::Relaxed) {
            1 => Some(Flood::Heads),
            2 => Some(Flood::Trailers),
            3 => Some(Flood::Nothing),
            4 => Some(Flood::Frames),
            _ => None,
        }
    }

    /// A request is about to be sent; or its head, or a part of its body, has come.
    pub(crate) fn is_of_use(&self) {
        self.left.store(self.most, Ordering::Relaxed);
        self.spent.store(0, Ordering::Relaxed);
        self.unread.store(0, Ordering::Relaxed);
    }

    fn is_idle(&self) -> bool {
        self.users.load(Ordering::Relaxed) == 0
    }

    /// A frame comes that brings nothing.
    fn spend(&self, bytes: usize, account: &mut Account) -> Result<(), Flood> {
        let now = Instant::now();
        let since = account.last.replace(now).map_or(0, |last| now.duration_since(last).as_millis());
        let forgotten = u64::try_from(since).unwrap_or(u64::MAX).saturating_mul(FORGOTTEN) / 1000;
        let written = self.written.swap(0, Ordering::Relaxed);
        let own = written.saturating_sub(account.owed);
        account.owed = account.owed.saturating_sub(written);
        account.answers = account.answers.saturating_add(own.saturating_mul(ANSWERS));
        if self.is_idle() {
            account.answers = account.answers.min(LATE_ANSWERS);
        }
        let is_answer = account.answers.min(bytes as u64);
        account.answers -= is_answer;
        let spent = self.spent.load(Ordering::Relaxed).saturating_sub(forgotten);
        let spent = spent.saturating_add(bytes as u64 - is_answer);
        self.spent.store(spent, Ordering::Relaxed);
        let most = if self.is_idle() { FRAMES.1 } else { FRAMES.0 };
        if spent > most { Err(Flood::Frames) } else { Ok(()) }
    }

    /// A frame comes that may bring something.
    fn pass(&self, bytes: usize) -> Result<(), Flood> {
        let unread = self.unread.fetch_add(bytes as u64, Ordering::Relaxed).saturating_add(bytes as u64);
        if unread > UNREAD { Err(Flood::Frames) } else { Ok(()) }
    }

    fn drowns(&self, flood: Flood) -> Flood {
        let number = match flood {
            Flood::Heads => 1,
            Flood::Trailers => 2,
            Flood::Nothing => 3,
            Flood::Frames => 4,
        };
        self.flood.store(number, Ordering::Relaxed);
        flood
    }

    /// Looks at bytes that have come; `frames` if they are HTTP/2's.
    pub(crate) fn read(&self, bytes: &[u8], frames: Option<&mut Frames>) -> Result<(), Flood> {
        let size = bytes.len() as u64;
        self.received.fetch_add(size, Ordering::Relaxed);
        if let Some(frames) = frames {
            return frames.read(bytes, self).map_err(|flood| self.drowns(flood));
        }
        // only the connection's task counts down; one that sets it meanwhile allows as much again
        let left = self.left.load(Ordering::Relaxed);
        if left < size {
            return Err(self.drowns(Flood::Nothing));
        }
        let _ = self.left.compare_exchange(left, left - size, Ordering::Relaxed, Ordering::Relaxed);
        Ok(())
    }
}

/// RFC 9113, 4.1.
const HEADER: usize = 9;
/// RFC 9113, 6.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;
/// Streams whose heads are counted; the oldest are forgotten.
const STREAMS: usize = 512;

/// The frames of HTTP/2 that come, as they come.
pub(crate) struct Frames {
    header: [u8; HEADER],
    have: usize,
    /// Of the payload, what has not come.
    left: usize,
    /// Bytes of all heads and trailers of one stream, as they come.
    most: usize,
    /// Bytes of a head, as it is decoded.
    head: u64,
    streams: BTreeMap<u32, Stream>,
    account: Account,
    /// The block that has begun.
    block: Vec<u8>,
    table: Table,
}

/// Of the frames that bring nothing.
#[derive(Default)]
struct Account {
    /// When one came last.
    last: Option<Instant>,
    /// Bytes that we write because something has come: no reason for more to come.
    owed: u64,
    /// Bytes that may come in answer to what we have written.
    answers: u64,
}

#[derive(Default)]
struct Stream {
    /// Of its heads and trailers.
    bytes: usize,
    /// Of its body, while no request is under way.
    unwanted: u64,
    has_data: bool,
    is_last: bool,
}

impl Frames {
    pub(crate) fn new(head: u64, most: usize) -> Self {
        let (streams, block, table) = (BTreeMap::new(), Vec::new(), Table::default());
        Self { header: [0; HEADER], have: 0, left: 0, most, head, streams, account: Account::default(), block, table }
    }

    fn read(&mut self, mut bytes: &[u8], traffic: &Traffic) -> Result<(), Flood> {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let (taken, rest) = bytes.split_at((HEADER - self.have).min(bytes.len()));
                if let Some(free) = self.header.get_mut(self.have..self.have + taken.len()) {
                    free.copy_from_slice(taken);
                }
                self.have += taken.len();
                bytes = rest;
                if self.have < HEADER {
                    return Ok(());
                }
                self.begin(traffic)?;
            }
            let (payload, rest) = bytes.split_at(self.left.min(bytes.len()));
            self.left -= payload.len();
            bytes = rest;
            if matches!(self.kind(), kind::HEADERS | kind::CONTINUATION) {
                self.block.extend_from_slice(payload);
            }
            if self.left == 0 {
                self.have = 0;
                self.end(traffic);
            }
        }
        Ok(())
    }

    fn kind(&self) -> u8 {
        self.header[3]
    }

    fn has(&self, flag: u8) -> bool {
        self.header[4] & flag != 0
    }

    fn stream(&self) -> u32 {
        let [.., a, b, c, d] = self.header;
        u32::from_be_bytes([a & 0x7f, b, c, d])
    }

    /// The header of a frame is there.
    fn begin(&mut self, traffic: &Traffic) -> Result<(), Flood> {
        let [a, b, c, ..] = self.header;
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let (stream, size) = (self.stream(), HEADER + self.left);
        self.account.owed += match self.kind() {
            kind::WINDOW_UPDATE => 0,
            kind::PING => 17,
            // RST_STREAM, or WINDOW_UPDATE twice
            _ => 26,
        };
        match (self.kind(), self.streams.get_mut(&stream)) {
            (kind::DATA, Some(stream)) if traffic.is_idle() => {
                stream.unwanted += size as u64;
                if stream.unwanted > UNWANTED {
                    return Err(Flood::Frames);
                }
            }
            (kind::DATA | kind::HEADERS | kind::CONTINUATION, _) if !traffic.is_idle() => traffic.pass(size)?,
            _ => traffic.spend(size, &mut self.account)?,
        }
        match self.kind() {
            kind::DATA if self.has(END_STREAM) => _ = self.streams.remove(&stream),
            kind::DATA => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.has_data = true;
                }
            }
            kind::WINDOW_UPDATE => _ = traffic.windows.fetch_add(1, Ordering::Relaxed),
            kind::RST_STREAM => _ = self.streams.remove(&stream),
            kind::GOAWAY => traffic.leaves.store(true, Ordering::Relaxed),
            kind::HEADERS | kind::CONTINUATION => {
                let is_last = self.kind() == kind::HEADERS && self.has(END_STREAM);
                if self.kind() == kind::HEADERS {
                    self.block.clear();
                }
                let of = self.streams.entry(stream).or_default();
                of.bytes += size;
                of.is_last |= is_last;
                // the stream may have been forgotten meanwhile, its block not
                if of.bytes.max(self.block.len() + self.left) > self.most {
                    return Err(if of.has_data { Flood::Trailers } else { Flood::Heads });
                }
                if self.streams.len() > STREAMS {
                    self.streams.pop_first();
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A frame is whole.
    fn end(&mut self, traffic: &Traffic) {
        if self.kind() == kind::HEADERS {
            self.strip();
        }
        if matches!(self.kind(), kind::HEADERS | kind::CONTINUATION) && self.has(END_HEADERS) {
            let fields = self.table.read(&self.block);
            self.block.clear();
            let stream = self.stream();
            if let Some(of) = self.streams.get(&stream) {
                if fields.size > self.head && !of.has_data {
                    traffic.oversized.fetch_add(1, Ordering::Relaxed);
                }
                if fields.has_length && of.is_last && !of.has_data {
                    traffic.bodiless.fetch_add(1, Ordering::Relaxed);
                }
                if of.is_last {
                    self.streams.remove(&stream);
                }
            }
        }
    }

    /// Leaves of a HEADERS frame what is of the block (RFC 9113, 6.2).
    fn strip(&mut self) {
        let padding = if self.has(PADDED) { self.block.first().map_or(0, |size| usize::from(*size)) } else { 0 };
        let before = usize::from(self.has(PADDED)) + if self.has(PRIORITY) { 5 } else { 0 };
        self.block.truncate(self.block.len().saturating_sub(padding));
        self.block.drain(..before.min(self.block.len()));
    }
}

#[cfg(test)]
mod tests;
