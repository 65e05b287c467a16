//! The process's own stdin, stdout and stderr, as a command has them: bytes as they are, when they are written.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, retry_on_intr};
use tokio::io::AsyncWrite;
use tokio::task::JoinHandle;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError};
use wasmtime_wasi::{WasiCtxBuilder, async_trait};

use crate::engine::ProcessState;

/// The most that one write takes. A pipe that is ready has room for so much (PIPE_BUF), so that the write does not block.
const PERMIT: usize = 4 << 10;

/// How long a thread waits for room at a time, before it looks whether anybody waits for it still.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Which of them a guest gets, and whether anybody reads what it writes.
#[derive(Clone, Debug)]
pub struct ProcessStdio {
    /// Whether the process was started with a stdin. The number of one that was not belongs to some other file.
    stdin: bool,
    /// Whether it was with a stdout. Without one, what the guest writes is discarded.
    stdout: bool,
    /// The same of its stderr.
    stderr: bool,
    is_broken: Arc<AtomicBool>,
}

impl ProcessStdio {
    /// Those that the process was started with.
    pub fn new(stdin: bool, stdout: bool, stderr: bool) -> Self {
        Self { stdin, stdout, stderr, is_broken: Arc::default() }
    }

    /// Whether the guest has written into a pipe that nobody reads.
    pub(crate) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }

    /// Gives them to a guest.
    pub(crate) fn attach(&self, wasi: &mut WasiCtxBuilder, process: &'static ProcessState) {
        let output = |which| Output { which, is_broken: self.is_broken.clone(), process };
        if self.stdin {
            wasi.stdin(io::stdin()); // read by a thread, and only when the guest reads
        }
        if self.stdout {
            wasi.stdout(output(Which::Stdout));
        }
        if self.stderr {
            wasi.stderr(output(Which::Stderr));
        }
    }
}

#[derive(Clone, Copy)]
enum Which {
    Stdout,
    Stderr,
}

impl AsFd for Which {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the process was started with it (see `ProcessStdio`), and nobody closes it.
        unsafe {
            BorrowedFd::borrow_raw(match self {
                Self::Stdout => libc::STDOUT_FILENO,
                Self::Stderr => libc::STDERR_FILENO,
            })
        }
    }
}

impl Which {
    /// Waits for room, but not longer than this. A file whose reader has gone is ready, too: the write says so.
    fn waits(self, most: &Timespec) -> bool {
        let mut polled = [PollFd::new(&self, PollFlags::OUT)];
        // what cannot be polled is written to at once
        !matches!(poll(&mut polled, Some(most)), Ok(0) | Err(Errno::INTR))
    }

    fn has_room(self) -> bool {
        self.waits(&Timespec { tv_sec: 0, tv_nsec: 0 })
    }
}

/// Stdout or stderr. No buffer lies in between.
#[derive(Clone)]
struct Output {
    which: Which,
    is_broken: Arc<AtomicBool>,
    process: &'static ProcessState,
}

impl Output {
    /// Writes some of the bytes. None: the reader has gone, and with it the guest.
    fn write_some(&self, bytes: &[u8]) -> Option<Result<usize, Errno>> {
        loop {
            match retry_on_intr(|| rustix::io::write(self.which, bytes)) {
                // others may have set `O_NONBLOCK`: the file is the terminal's, or that of whoever has started the process
                Err(Errno::AGAIN) => _ = self.which.waits(&WAIT),
                Err(Errno::PIPE) => {
                    self.is_broken.store(true, Ordering::Relaxed);
                    return None;
                }
                written => return Some(written),
            }
        }
    }

    /// A thread waits for room; none if there is some, or no thread.
    fn wait(&self) -> Option<JoinHandle<()>> {
        let which = self.which;
        if which.has_room() {
            return None;
        }
        self.process.runtime.block(move || _ = which.waits(&WAIT))
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        match self.which {
            Which::Stdout => io::IsTerminal::is_terminal(&io::stdout()),
            Which::Stderr => io::IsTerminal::is_terminal(&io::stderr()),
        }
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(AsyncOutput { output: self.clone(), waiting: None })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> Result<(), StreamError> {
        // the host function leaves this to the stream
        if bytes.len() > PERMIT {
            return Err(StreamError::trap("a write to stdout or stderr exceeded what `check-write` permits"));
        }
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            match self.write_some(rest) {
                Some(Ok(written)) => rest = rest.get(written..).unwrap_or_default(),
                Some(Err(error)) => return Err(StreamError::LastOperationFailed(io::Error::from(error).into())),
                None => return Err(StreamError::trap("nobody reads what it writes")),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StreamError> {
        Ok(())
    }

    fn check_write(&mut self) -> Result<usize, StreamError> {
        Ok(if self.which.has_room() { PERMIT } else { 0 })
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        while let Some(waiting) = self.wait() {
            let _ = waiting.await;
        }
    }
}

/// The same for guests of WASI 0.3.
struct AsyncOutput {
    output: Output,
    waiting: Option<JoinHandle<()>>,
}

impl AsyncWrite for AsyncOutput {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                let _ = ready!(Pin::new(waiting).poll(cx));
            }
            self.waiting = self.output.wait();
            if self.waiting.is_none() {
                let piece = bytes.get(..PERMIT).unwrap_or(bytes);
                return match self.output.write_some(piece) {
                    Some(written) => Poll::Ready(written.map_err(Into::into)),
                    None => Poll::Pending, // its driver looks after each of its turns
                };
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
