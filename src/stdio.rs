//! What a guest prints, line by line: kept apart for each exchange, bounded, and never lost when the guest dies.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use tokio::sync::Notify;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};

use crate::sync::lock;

/// A line longer than this is cut into several.
const LONGEST_LINE: usize = 64 << 10;
/// How much may wait to be fetched before the guest has to.
const MOST_WAITING: usize = 256 << 10;
/// How many notes of the host's about one guest are kept.
const MOST_NOTES: usize = 10;
/// How many of the last lines of stderr an error tells.
const LAST_LINES: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    /// Not the guest: what its host did to it.
    Host,
}

/// One line of a guest's, without its newline; bytes that are no UTF-8 are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub stream: Stream,
    pub text: String,
}

/// Told, from any thread, that there are lines to fetch. Must not block.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// The output of one exchange.
#[derive(Default)]
pub struct Stdio {
    state: Mutex<State>,
    room: Notify,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    err: Vec<u8>,
    notes: usize,
    waiting: VecDeque<Line>,
    bytes: usize,
    last: VecDeque<String>,
    bell: Option<Bell>,
    finished: bool,
}

impl Stdio {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes the lines that are complete.
    pub fn take(&self) -> VecDeque<Line> {
        let lines = {
            let mut state = self.lock();
            state.bytes = 0;
            std::mem::take(&mut state.waiting)
        };
        if !lines.is_empty() {
            self.room.notify_waiters();
        }
        lines
    }

    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// From now on, until the guest ends, somebody is to be told of lines: of those that wait, and of new ones.
    pub fn set_bell(&self, bell: Bell) {
        let mut state = self.lock();
        if state.finished {
            return;
        }
        state.bell = Some(bell);
        state.ring();
    }

    /// The guest has ended: what it wrote last is a line, newline or not.
    pub fn finish(&self) {
        let bell = {
            let mut state = self.lock();
            for stream in [Stream::Stdout, Stream::Stderr] {
                let rest = std::mem::take(state.partial(stream));
                if !rest.is_empty() {
                    state.push(stream, &rest);
                }
            }
            state.ring();
            state.finished = true;
            state.bell.take()
        };
        drop(bell);
    }

    /// A line of the host's own about this guest. A guest that provokes many is told on so often and no more.
    pub fn note(&self, text: String) {
        let mut state = self.lock();
        state.notes += 1;
        match state.notes.cmp(&MOST_NOTES) {
            std::cmp::Ordering::Less => state.push(Stream::Host, text.as_bytes()),
            std::cmp::Ordering::Equal => {
                state.push(Stream::Host, format!("{text}; no more is said of this").as_bytes())
            }
            std::cmp::Ordering::Greater => {}
        }
        state.ring();
    }

    /// The last lines of stderr.
    pub fn last_words(&self) -> Vec<String> {
        let state = self.lock();
        let mut last: Vec<String> = state.last.iter().cloned().collect();
        let partial = &state.err;
        if !partial.is_empty() {
            last.push(String::from_utf8_lossy(partial).into_owned());
        }
        last
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        let mut state = self.lock();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            let mut whole = std::mem::take(state.partial(stream));
            if whole.is_empty() {
                state.push(stream, line);
            } else {
                whole.extend_from_slice(line);
                state.push(stream, &whole);
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        if !bytes.is_empty() {
            state.partial(stream).extend_from_slice(bytes);
            if state.partial(stream).len() >= LONGEST_LINE {
                let whole = std::mem::take(state.partial(stream));
                state.push(stream, &whole);
            }
        }
        state.ring();
    }

    fn has_room(&self) -> bool {
        self.lock().bytes < MOST_WAITING
    }
}

impl State {
    /// What has come of a line that is not complete.
    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout | Stream::Host => &mut self.out,
            Stream::Stderr => &mut self.err,
        }
    }

    fn push(&mut self, stream: Stream, line: &[u8]) {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let text = String::from_utf8_lossy(line).into_owned();
        if stream == Stream::Stderr {
            if self.last.len() == LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(text.chars().take(1024).collect());
        }
        self.bytes += text.len() + size_of::<Line>();
        self.waiting.push_back(Line { stream, text });
    }

    fn ring(&self) {
        if let (Some(bell), false) = (&self.bell, self.waiting.is_empty()) {
            bell();
        }
    }
}

/// Where the streams of an instance lead: to the output of the exchange that it is about.
#[derive(Clone)]
pub struct Outlet(Arc<Mutex<Arc<Stdio>>>);

impl Outlet {
    pub fn new(stdio: &Arc<Stdio>) -> Self {
        Self(Arc::new(Mutex::new(stdio.clone())))
    }

    pub fn lead_to(&self, stdio: &Arc<Stdio>) {
        *lock(&self.0) = stdio.clone();
    }

    fn stdio(&self) -> Arc<Stdio> {
        lock(&self.0).clone()
    }
}

/// One of the two streams, as the guest's `wasi:cli` sees it.
#[derive(Clone)]
pub struct GuestStream {
    pub outlet: Outlet,
    pub stream: Stream,
}

/// The most that one write takes. Each of its bytes may end a line, and a line takes more to keep than its bytes.
const PERMIT: usize = 4 << 10;

#[async_trait]
impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        // the host function leaves this to the stream: a guest that does not ask how much it may write never waits
        let stdio = self.outlet.stdio();
        if bytes.len() > PERMIT || !stdio.has_room() {
            return Err(StreamError::trap("a write to stdout or stderr exceeded what `check-write` permits"));
        }
        stdio.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(if self.outlet.stdio().has_room() { PERMIT } else { 0 })
    }
}

#[async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {
        let stdio = self.outlet.stdio();
        loop {
            let room = stdio.room.notified();
            if stdio.has_room() {
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
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

/// What 0.3 guests write to; unlike the stream above it does not hold the guest up.
impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.outlet.stdio().write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
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
    use super::*;

    fn texts(stdio: &Stdio) -> Vec<(Stream, String)> {
        stdio.take().into_iter().map(|line| (line.stream, line.text)).collect()
    }

    #[test]
    fn lines_are_cut_at_newlines_whatever_the_writes() {
        let stdio = Stdio::default();
        stdio.write(Stream::Stdout, b"one\ntw");
        stdio.write(Stream::Stderr, b"error\r\n");
        stdio.write(Stream::Stdout, b"o\n\nrest");
        assert_eq!(
            texts(&stdio),
            [
                (Stream::Stdout, "one".to_owned()),
                (Stream::Stderr, "error".to_owned()),
                (Stream::Stdout, "two".to_owned()),
                (Stream::Stdout, String::new()),
            ]
        );
        stdio.finish();
        assert_eq!(texts(&stdio), [(Stream::Stdout, "rest".to_owned())]);
        assert_eq!(stdio.last_words(), ["error"]);
    }

    #[test]
    fn a_line_without_end_is_cut_and_the_buffer_is_bounded() {
        let stdio = Stdio::default();
        for _ in 0..8 {
            stdio.write(Stream::Stdout, &[b'x'; LONGEST_LINE]);
        }
        assert!(!stdio.has_room());
        assert_eq!(stdio.take().len(), 8);
        assert!(stdio.has_room());
    }
}
