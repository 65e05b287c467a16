//! What a guest prints, line by line: kept apart for each exchange, bounded, and never lost when the guest dies.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use tokio::sync::Notify;

use crate::exchange::refusals::{Refusals, Refused};
use crate::sync::lock;
use crate::text::{LONGEST, tame, tamed};

/// A line longer than this is cut into several.
const LONGEST_LINE: usize = 64 << 10;
/// How much may wait to be fetched before the guest has to.
pub(super) const MOST_WAITING: usize = 256 << 10;
/// How many warnings of the host's about one guest are kept.
const MOST_WARNINGS: usize = 10;
/// How many of the last lines of stderr an error tells, and how many bytes of each.
const LAST_LINES: usize = 20;
const LAST_BYTES: usize = 1024;

/// The most that one write takes. Each of its bytes may end a line, and a line takes more to keep than its bytes.
pub(super) const PERMIT: usize = 4 << 10;
/// When handles are permitted to write so much together, the next ones are permitted less each: a guest may have very many, and
/// one whose garbage is collected late does.
pub(super) const WELL_PERMITTED: usize = 64 << 10;
pub(super) const SMALL_PERMIT: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// Who says a line, and where.
pub enum Stream {
    /// The guest, to its stdout.
    Stdout,
    /// The guest, to its stderr.
    Stderr,
    /// Not the guest: what its host says of requests that the guest has sent out.
    Outgoing,
    /// What else its host says of it.
    Host,
    /// What its host says of the machine, where nothing is wrong.
    News,
}

/// One line of a guest's, without its newline; bytes that are no UTF-8 are replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it was said.
    pub stream: Stream,
    /// What was said.
    pub text: String,
    /// Whether the line was too long, and goes on in the next one of its stream.
    pub cut: bool,
}

/// Told, from any thread, that there are lines to fetch. Must not block.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// The output of one exchange.
#[derive(Default)]
pub struct Stdio {
    state: Mutex<State>,
    pub(super) room: Notify,
    /// Its app's number, and what that has said of refused requests lately.
    app: OnceLock<(u64, Arc<Refusals>)>,
}

#[derive(Default)]
struct State {
    out: Vec<u8>,
    err: Vec<u8>,
    warnings: usize,
    waiting: VecDeque<Line>,
    bytes: usize,
    /// How many lines there have been.
    lines: u64,
    /// Bytes that streams have been permitted to write, and have not written.
    permitted: usize,
    last: VecDeque<String>,
    bell: Option<Bell>,
    finished: bool,
}

impl Stdio {
    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes lines that are complete, the first ones, and no more than so many.
    pub fn take(&self, most: usize) -> VecDeque<Line> {
        let lines = {
            let mut state = self.lock();
            let lines: VecDeque<Line> = if state.waiting.len() <= most {
                std::mem::take(&mut state.waiting)
            } else {
                state.waiting.drain(..most).collect()
            };
            let bytes: usize = lines.iter().map(Line::size).sum();
            state.bytes = state.bytes.saturating_sub(bytes);
            lines
        };
        if !lines.is_empty() {
            self.room.notify_waiters();
        }
        lines
    }

    /// Those that were taken and not delivered, and come before all others.
    pub fn put_back(&self, lines: VecDeque<Line>) {
        let mut state = self.lock();
        state.bytes += lines.iter().map(Line::size).sum::<usize>();
        for line in lines.into_iter().rev() {
            state.waiting.push_front(line);
        }
    }

    /// Whether no line waits.
    pub fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// The streams of the lines that wait.
    pub fn streams(&self) -> Vec<Stream> {
        let mut streams = Vec::with_capacity(1);
        for line in &self.lock().waiting {
            if !streams.contains(&line.stream) {
                streams.push(line.stream);
            }
        }
        streams
    }

    /// How many lines there have been.
    pub fn lines(&self) -> u64 {
        self.lock().lines
    }

    pub(crate) fn set_app(&self, number: u64, refusals: &Arc<Refusals>) {
        let _ = self.app.set((number, refusals.clone()));
    }

    /// The number of the app whose guest it is; `None`: no guest's.
    pub(crate) fn app(&self) -> Option<u64> {
        self.app.get().map(|(number, _)| *number)
    }

    /// A request of the guest's was refused. Told, unless the same was told lately.
    pub(crate) fn refused(&self, refused: &Refused<'_>) {
        let text = match self.app.get() {
            Some((_, refusals)) => refusals.told(refused),
            None => Some(refused.sentence("", false)),
        };
        if let Some(text) = text {
            self.warn(text);
        }
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

    /// The exchange is over: what its guest wrote last is a line, newline or not. What comes later is nobody's, and is dropped.
    pub fn finish(&self) {
        let bell = {
            let mut state = self.lock();
            for stream in [Stream::Stdout, Stream::Stderr] {
                let rest = std::mem::take(state.partial(stream));
                if !rest.is_empty() {
                    state.push(stream, &rest, false);
                }
            }
            state.ring();
            state.finished = true;
            state.bell.take()
        };
        self.room.notify_waiters();
        drop(bell);
    }

    /// A line of the host's own about requests of this guest's. A guest that provokes many is told on so often and no more.
    pub fn warn(&self, text: String) {
        let text = tamed(text, LONGEST); // it may repeat what the guest said
        let mut state = self.lock();
        state.warnings += 1;
        match state.warnings.cmp(&MOST_WARNINGS) {
            std::cmp::Ordering::Less => state.push(Stream::Outgoing, text.as_bytes(), false),
            std::cmp::Ordering::Equal => {
                state.push(Stream::Outgoing, format!("{text}; further messages suppressed").as_bytes(), false)
            }
            std::cmp::Ordering::Greater => {}
        }
        state.ring();
    }

    #[cfg(test)]
    pub(super) fn permitted(&self) -> usize {
        self.lock().permitted
    }

    /// A line of the host's own about this guest, which no guest can provoke more than once.
    pub(crate) fn tell(&self, text: &str) {
        let mut state = self.lock();
        state.push(Stream::Host, text.as_bytes(), false);
        state.ring();
    }

    /// A line of the host's own that is no fault of anybody's.
    pub(crate) fn tell_news(&self, text: &str) {
        let mut state = self.lock();
        state.push(Stream::News, text.as_bytes(), false);
        state.ring();
    }

    /// The last lines of stderr.
    pub fn last_words(&self) -> Vec<String> {
        let state = self.lock();
        let mut last: Vec<String> = state.last.iter().cloned().collect();
        let partial = &state.err;
        if !partial.is_empty() {
            last.push(tame(&String::from_utf8_lossy(partial), LAST_BYTES).into_owned());
        }
        last
    }

    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.lock();
        if !state.finished {
            state.write(stream, bytes);
            state.ring();
        }
    }

    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.bytes < MOST_WAITING || state.finished
    }

    /// Permits a stream to write, if there is room. Returns how much it may write then, what it was permitted before included.
    pub(super) fn permit(&self, before: usize) -> usize {
        let mut state = self.lock();
        if state.bytes >= MOST_WAITING && !state.finished {
            return before;
        }
        let others = state.permitted.saturating_sub(before);
        let permit = before.max(if others < WELL_PERMITTED { PERMIT } else { SMALL_PERMIT });
        state.permitted = others + permit;
        permit
    }

    /// So much of what was permitted has been written, or never will be.
    pub(super) fn used(&self, permit: usize) {
        let mut state = self.lock();
        state.permitted = state.permitted.saturating_sub(permit);
    }
}

impl Line {
    /// What it takes to keep it.
    fn size(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

/// Where to cut bytes that are at least so long: before a character of UTF-8 that would be torn.
fn boundary(bytes: &[u8], most: usize) -> usize {
    let is_inside = |at: usize| bytes.get(at).is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000);
    // a character has four bytes at the most; what has more of the kind that follows a first one is none
    (most.saturating_sub(3)..=most).rev().find(|at| !is_inside(*at)).unwrap_or(most)
}

impl State {
    /// What has come of a line that is not complete.
    fn partial(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stderr => &mut self.err,
            _ => &mut self.out,
        }
    }

    fn write(&mut self, stream: Stream, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            if self.partial(stream).is_empty() && line.len() <= LONGEST_LINE {
                self.push(stream, line.strip_suffix(b"\r").unwrap_or(line), false);
            } else {
                self.add(stream, line);
                let whole = std::mem::take(self.partial(stream));
                self.push(stream, whole.strip_suffix(b"\r").unwrap_or(&whole), false);
            }
            bytes = rest.get(1..).unwrap_or_default();
        }
        self.add(stream, bytes);
    }

    /// Adds to the line that is not complete, and cuts off what is too long.
    fn add(&mut self, stream: Stream, bytes: &[u8]) {
        let partial = self.partial(stream);
        partial.extend_from_slice(bytes);
        if partial.len() <= LONGEST_LINE {
            return;
        }
        let whole = std::mem::take(partial);
        let mut rest = whole.as_slice();
        while rest.len() > LONGEST_LINE {
            let (piece, after) = rest.split_at(boundary(rest, LONGEST_LINE));
            self.push(stream, piece, true);
            rest = after;
        }
        *self.partial(stream) = rest.to_vec();
    }

    fn push(&mut self, stream: Stream, line: &[u8], cut: bool) {
        let text = String::from_utf8_lossy(line).into_owned();
        if stream == Stream::Stderr {
            if self.last.len() == LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(tame(&text, LAST_BYTES).into_owned());
        }
        let line = Line { stream, text, cut };
        self.bytes += line.size();
        self.lines += 1;
        self.waiting.push_back(line);
    }

    fn ring(&self) {
        if let (Some(bell), false) = (&self.bell, self.waiting.is_empty()) {
            bell();
        }
    }
}

#[cfg(test)]
mod tests;
