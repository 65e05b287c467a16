//! Where the lines go. A log that is slow, or that nobody reads any more, holds up no request.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tracing::Level;

use crate::server::access_log::entry::Entry;
use crate::server::access_log::format::Format;
use crate::server::journal::Journal;
use crate::sync::lock;

/// The most bytes that wait to be written: some thousand lines.
const MOST: usize = 1 << 20;

/// How long the writer waits for more lines before it writes: a wake-up for each would cost more than the line.
const GATHER: Duration = Duration::from_millis(5);

/// What a pipe takes in one piece (POSIX's least is 512; Linux and macOS have 4096 and 512): whole lines of several processes do not mix.
const ATOMIC: usize = libc::PIPE_BUF;

/// Where lines are written.
#[derive(Debug)]
pub enum Destination {
    /// Added to its end; made if it is not there.
    File(PathBuf),
    /// The process's standard output.
    Stdout,
    /// A descriptor.
    Fd(OwnedFd),
}

/// Writes lines from a thread of its own. One of each process: a forked child has no such thread.
#[derive(Debug)]
pub struct AccessLog {
    /// How.
    pub format: Format,
    path: Option<PathBuf>,
    queue: Arc<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// For the writer.
    filled: Condvar,
    /// For whoever waits for the writer.
    written: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<u8>,
    /// Lines that found no room since the writer last took some.
    dropped_lately: u64,
    /// All of those.
    dropped: u64,
    phase: Phase,
    /// What the writer goes on with, after a rotation.
    next: Option<File>,
    /// Nobody reads it any more.
    is_broken: bool,
    is_closed: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Waiting,
    Gathering,
    Writing,
}

impl AccessLog {
    /// Opens it and starts its thread. The journal hears of lines that are lost.
    pub fn open(format: Format, destination: Destination, journal: Journal) -> io::Result<Self> {
        let (file, path) = match destination {
            Destination::File(path) => (open(&path)?, Some(path)),
            Destination::Stdout => (File::from(io::stdout().as_fd().try_clone_to_owned()?), None),
            Destination::Fd(fd) => (File::from(fd), None),
        };
        let queue = Arc::new(Queue::default());
        let thread = std::thread::Builder::new().name("wasgi-access-log".to_owned());
        let of_writer = queue.clone();
        thread.spawn(move || Writer::new(file).run(&of_writer, &journal))?;
        Ok(Self { format, path, queue })
    }

    /// Adds a line; waits for nothing. If too many wait to be written it is dropped, and counted.
    pub fn log(&self, entry: &Entry<'_>) {
        let mut line = Vec::with_capacity(256);
        self.format.write_line(entry, &mut line);
        let mut state = lock(&self.queue.state);
        if state.is_broken {
            return;
        }
        if state.lines.len() + line.len() > MOST {
            state.dropped_lately += 1;
            state.dropped += 1;
            return;
        }
        state.lines.append(&mut line);
        if state.phase == Phase::Waiting || (state.phase == Phase::Gathering && state.lines.len() > MOST / 2) {
            self.queue.filled.notify_one();
        }
    }

    /// How many lines were dropped.
    pub fn dropped(&self) -> u64 {
        lock(&self.queue.state).dropped
    }

    /// Goes on with a new file at the same path, when the present one was moved away. On an error the present one is kept. Does nothing if
    /// it is no file of ours.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let file = open(path)?;
        lock(&self.queue.state).next = Some(file);
        self.queue.filled.notify_one();
        Ok(())
    }

    /// Waits until all lines so far are written, and no longer than this. Says whether they are.
    pub fn flush(&self, at_most: Duration) -> bool {
        let end = Instant::now() + at_most;
        let mut state = lock(&self.queue.state);
        while !state.is_broken && (!state.lines.is_empty() || state.next.is_some() || state.phase == Phase::Writing) {
            let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) else {
                return false;
            };
            state = self.queue.written.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Drop for AccessLog {
    /// What waits is still written, if the process lives for long enough ([`AccessLog::flush`]).
    fn drop(&mut self) {
        lock(&self.queue.state).is_closed = true;
        self.queue.filled.notify_one();
    }
}

/// `O_APPEND`, so that several processes may write to one file, and `O_CLOEXEC`.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

struct Writer {
    file: File,
    /// Lines of more than one process may meet there.
    is_pipe: bool,
    /// The last line was cut by an error.
    is_torn: bool,
    /// The last attempt failed, and that was told.
    is_failing: bool,
}

impl Writer {
    fn new(file: File) -> Self {
        let kind = file.metadata().map(|metadata| metadata.file_type());
        let is_pipe = kind.is_ok_and(|kind| kind.is_fifo() || kind.is_socket());
        Self { file, is_pipe, is_torn: false, is_failing: false }
    }

    fn run(mut self, queue: &Queue, journal: &Journal) {
        let mut batch = Vec::new();
        loop {
            let mut state = wait(queue);
            if let Some(file) = state.next.take() {
                self = Self::new(file);
            }
            if state.lines.is_empty() && state.is_closed {
                return;
            }
            batch.clear();
            std::mem::swap(&mut batch, &mut state.lines);
            let dropped = std::mem::take(&mut state.dropped_lately);
            state.phase = Phase::Writing;
            drop(state);
            let result = self.write(&batch);
            let is_broken = matches!(&result, Err(error) if error.kind() == io::ErrorKind::BrokenPipe);
            let mut state = lock(&queue.state);
            state.phase = Phase::Waiting;
            state.is_broken = is_broken;
            drop(state);
            queue.written.notify_all();
            match result {
                _ if is_broken => return,
                Ok(()) => self.is_failing = false,
                Err(error) if !self.is_failing => {
                    self.is_failing = true;
                    journal(
                        Level::WARN,
                        format!("the access log cannot be written: {error}; further failures are suppressed"),
                    );
                }
                Err(_) => {}
            }
            if dropped > 0 {
                journal(Level::WARN, format!("the access log was too slow: {dropped} of its lines were dropped"));
            }
        }
    }

    fn write(&mut self, mut batch: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_all(b"\n")?;
        }
        while !batch.is_empty() {
            let (piece, rest) = batch.split_at(if self.is_pipe { whole_lines(batch) } else { batch.len() });
            self.write_all(piece)?;
            batch = rest;
        }
        Ok(())
    }

    fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    let (written, rest) = bytes.split_at(count.min(bytes.len()));
                    self.is_torn = !written.ends_with(b"\n");
                    bytes = rest;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // a standard output that somebody else has made so
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_for_room(&self.file)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Waits until there is something to do, and then a moment for more.
fn wait(queue: &Queue) -> MutexGuard<'_, State> {
    let has_work = |state: &State| !state.lines.is_empty() || state.next.is_some() || state.is_closed;
    let mut state = lock(&queue.state);
    state = queue.filled.wait_while(state, |state| !has_work(state)).unwrap_or_else(PoisonError::into_inner);
    if state.next.is_none() && !state.is_closed {
        state.phase = Phase::Gathering;
        state = queue.filled.wait_timeout(state, GATHER).unwrap_or_else(PoisonError::into_inner).0;
    }
    state
}

fn wait_for_room(file: &File) -> io::Result<()> {
    let mut one = libc::pollfd { fd: file.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: points to one `pollfd`, which the kernel has back when it returns.
    match unsafe { libc::poll(&raw mut one, 1, -1) } {
        ..0 => Some(io::Error::last_os_error())
            .filter(|error| error.kind() != io::ErrorKind::Interrupted)
            .map_or(Ok(()), Err),
        _ => Ok(()),
    }
}

/// How many bytes a pipe takes in one piece: of whole lines, but for one that is longer.
fn whole_lines(batch: &[u8]) -> usize {
    let end_of = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n').map(|last| last + 1);
    match batch.get(..ATOMIC) {
        None => batch.len(),
        Some(first) => end_of(first)
            .or_else(|| batch.iter().position(|byte| *byte == b'\n').map(|end| end + 1))
            .unwrap_or(batch.len()),
    }
}

#[cfg(test)]
mod tests;
