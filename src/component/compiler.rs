//! Compiling in a process of its own, whose time and memory are bounded: it is ended when they are used up. This is the side of the
//! process that waits; `compile_child.rs` is the other.
//!
//! No thread is needed for it: there may be none to be had, and one that waits for a pipe would wait for whatever process has
//! inherited the pipe's other end.

use crate::component::limits::ComponentLimits;
use crate::component::loading::{Launcher, Order, Work};
use crate::engine::config::EngineKind;
use crate::error::Error;
use crate::text::{LONGEST, tame};

/// What the child says first, so that a program that is something else is told from it.
pub(crate) const GREETING: &[u8] = b"wasgi compiles\n";

// What its answer is, after the answer's length: so one that was cut off is told from a whole one.

/// Machine code.
pub(crate) const MADE: u8 = 0;
/// Why it is not a component.
pub(crate) const INVALID: u8 = 1;
/// What it needs that the engine does not have.
pub(crate) const UNSUPPORTED: u8 = 2;
/// The system gave no more memory.
pub(crate) const NO_MEMORY: u8 = 3;
/// Any other reason.
pub(crate) const FAILED: u8 = 4;

/// Machine code for an engine of this kind. What is refused has been looked at by the process that compiles, within its bounds.
pub(crate) fn compile(kind: EngineKind, binary: &[u8], order: &Order, work: &Work) -> Result<Vec<u8>, Error> {
    let Some(launcher) = &order.launcher else {
        return Err(Error::Host("no command is configured that starts a process to compile in".into()));
    };
    let mut head = vec![u8::from(kind.features.fuel), u8::from(kind.features.concurrency), u8::from(kind.pooled)];
    head.extend(order.limits.memory.unwrap_or(0).to_le_bytes());
    head.extend(order.limits.timeout.map_or(0, |timeout| timeout.as_secs().saturating_add(1)).to_le_bytes());
    head.extend((binary.len() as u64).to_le_bytes());
    let heard = talk::with_child(launcher, [&head, binary], || work.check(order))?;
    read(heard, launcher, order)
}

/// What came from a process that has ended, or has answered.
#[derive(Default)]
pub(crate) struct Heard {
    answer: Vec<u8>,
    /// The end of what it wrote to stderr.
    said: Vec<u8>,
    /// How it ended, as far as nobody else has asked for it before us (`SIGCHLD` ignored, `os.waitpid(-1)`).
    status: Option<std::process::ExitStatus>,
}

impl Heard {
    /// Whether there is nothing more to wait for: an answer that is whole, or one of something else.
    fn is_complete(&self) -> bool {
        let greeting = self.answer.get(..GREETING.len()).unwrap_or(&self.answer);
        if !GREETING.starts_with(greeting) {
            return true; // it is not listened to: it may go on for ever
        }
        self.content().is_some()
    }

    fn is_greeted(&self) -> bool {
        self.answer.starts_with(GREETING)
    }

    fn content(&self) -> Option<(u8, &[u8])> {
        let (length, rest) = self.answer.strip_prefix(GREETING)?.split_first_chunk::<8>()?;
        let (kind, content) = rest.split_first()?;
        (u64::from_le_bytes(*length) == rest.len() as u64).then_some((*kind, content))
    }

    fn last_words(&self) -> String {
        let said = String::from_utf8_lossy(&self.said);
        // behind its last words Rust's runtime says how to get a backtrace
        let line =
            said.lines().rfind(|line| !line.trim().is_empty() && !line.starts_with("note: ")).unwrap_or_default();
        tame(line, 200).into_owned()
    }

    /// How it ended, in words.
    fn end(&self) -> String {
        let how = self.status.map_or_else(|| "it has ended".to_owned(), |status| status.to_string());
        match self.last_words() {
            words if words.is_empty() => how,
            words => format!("{how}: {words}"),
        }
    }

    /// Whether it ended because it got no memory: it aborts then, and what the system itself ends for want of memory, it kills. A
    /// stack that could not grow is a fault.
    fn is_out_of_memory(&self) -> bool {
        // Rust's, the system's, the C library's (where a thread first uses what it has for itself), Python's
        const WORDS: [&str; 5] = [
            "memory allocation of",
            "out of memory",
            "cannot allocate memory",
            "resource temporarily unavailable",
            "memoryerror",
        ];
        #[cfg(unix)]
        let signal = self.status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
        #[cfg(not(unix))]
        let signal = None;
        let said = String::from_utf8_lossy(&self.said).to_lowercase();
        WORDS.iter().any(|words| said.contains(words)) || matches!(signal, Some(7 | 9 | 11))
    }
}

fn read(mut heard: Heard, launcher: &Launcher, order: &Order) -> Result<Vec<u8>, Error> {
    if !heard.is_greeted() {
        let said = if heard.answer.is_empty() { heard.end() } else { "unexpected output".to_owned() };
        return Err(not_started(launcher, &said));
    }
    let Some((kind, content)) = heard.content() else {
        // its processor time has a bound, too, which is met if this process was stopped for long
        order.check_time()?;
        let end = heard.end();
        return Err(match heard.is_out_of_memory() {
            true => out_of_memory(&order.limits, &end),
            false => {
                Error::Host(format!("the process that compiled the component ended before it was done: {end}").into())
            }
        });
    };
    if kind == MADE {
        return Ok(heard.answer.split_off(heard.answer.len() - content.len()));
    }
    let shown = content.get(..LONGEST).unwrap_or(content);
    let text = String::from_utf8_lossy(shown).into_owned();
    Err(match kind {
        INVALID => Error::InvalidComponent(text.into()),
        UNSUPPORTED => Error::UnsupportedComponent(text.into()),
        NO_MEMORY => out_of_memory(&order.limits, &text),
        _ => Error::Host(format!("compiling the component failed: {}", tame(&text, LONGEST)).into()),
    })
}

fn out_of_memory(limits: &ComponentLimits, how: &str) -> Error {
    match limits.memory {
        Some(memory) => Error::ComponentLimit {
            message: format!(
                "compiling the component took more than {memory} bytes of memory (`ComponentLimits.memory`): {how}"
            ),
            limit: "memory",
            value: memory as f64,
            found: None,
        },
        None => Error::Host(format!(
            "the process that compiled the component ended like one that gets no more memory: {how}; hint: the limits of this process \
             (`ulimit -v`, `ulimit -d`, the control group's `memory.max`) hold for that one, too"
        ).into()),
    }
}

fn not_started(launcher: &Launcher, reason: &str) -> Error {
    Error::Host(format!(
        "cannot compile in a process of its own: `{}` does not start as a Python interpreter ({reason}); hint: without \
         `timeout` and `memory`, `ComponentLimits` needs no such process",
        launcher.program.display()
    ).into())
}

#[cfg(unix)]
mod talk {
    use std::io::{ErrorKind, Read, Write};
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command, ExitStatus, Stdio};
    use std::time::{Duration, Instant};

    use super::{Heard, Launcher, not_started};
    use crate::error::Error;

    /// How often the child, and whether anybody waits for it, is looked at.
    const LOOK: Duration = Duration::from_millis(10);

    /// How long an interpreter may take to start and to load the module, on a machine that is busy.
    const LONGEST_START: Duration = Duration::from_secs(60);

    /// So much of the end of what it writes to stderr is kept.
    const MOST_SAID: usize = 4096;

    /// The process that compiles. However its owner leaves, it is killed, with what it has started itself, and reaped.
    struct Process {
        child: Child,
        is_reaped: bool,
    }

    impl Process {
        /// `None`: it goes on, or somebody else has asked for it.
        fn ended(&mut self) -> Option<ExitStatus> {
            let status = self.child.try_wait().ok().flatten();
            self.is_reaped |= status.is_some();
            status
        }

        /// How it ended. One that has answered, or closed its stdout, is about to end.
        fn end(mut self) -> Option<ExitStatus> {
            const GRACE: Duration = Duration::from_secs(2);
            let begun = Instant::now();
            while begun.elapsed() < GRACE {
                match self.child.try_wait() {
                    Ok(None) => std::thread::sleep(LOOK),
                    Ok(status) => {
                        self.is_reaped = true;
                        return status;
                    }
                    Err(_) => break,
                }
            }
            None
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            // one that is gone is not ended again: its number may be another's by now
            if self.is_reaped || !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            if let Ok(group) = libc::pid_t::try_from(self.child.id()) {
                // it is its group's leader; a program that only starts an interpreter leaves that one there
                // SAFETY: sends a signal. The group is that of a child that has not been reaped.
                unsafe { libc::kill(-group, libc::SIGKILL) };
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    /// One end for us, which does not block, and one for the child. Sockets, because what is written to a pipe that nobody reads is a
    /// signal that ends a process whose program does not ignore it.
    fn pair() -> std::io::Result<(UnixStream, Stdio)> {
        let (own, other) = UnixStream::pair()?;
        own.set_nonblocking(true)?;
        Ok((own, Stdio::from(OwnedFd::from(other))))
    }

    /// Starts it, gives it `input`, and listens until it has answered or ended, or `go_on` says why not to.
    pub(super) fn with_child(
        launcher: &Launcher,
        input: [&[u8]; 2],
        go_on: impl Fn() -> Result<(), Error>,
    ) -> Result<Heard, Error> {
        let failed = |error: std::io::Error| not_started(launcher, &error.to_string());
        let mut command = Command::new(&launcher.program);
        command.args(&launcher.args).env_clear();
        // what programs need to start at all: where libraries are
        for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        let ((stdin, its_stdin), (stdout, its_stdout), (stderr, its_stderr)) =
            (pair().map_err(failed)?, pair().map_err(failed)?, pair().map_err(failed)?);
        command.stdin(its_stdin).stdout(its_stdout).stderr(its_stderr);
        // Ctrl-C in a terminal goes to its foreground's group: the parent decides
        command.process_group(0);
        let child = command.spawn().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => crate::process::fork::no_process(error),
            _ => failed(error),
        })?;
        // with it go the child's ends, or we would wait for ourselves
        drop(command);
        let process = Process { child, is_reaped: false };
        let talk = Talk { stdin, stdout, stderr, input, heard: Heard::default() };
        talk.listen(process, launcher, go_on)
    }

    struct Talk<'a> {
        /// Open until the child has ended: that it closes says that we have.
        stdin: UnixStream,
        stdout: UnixStream,
        stderr: UnixStream,
        /// What is still to be written.
        input: [&'a [u8]; 2],
        heard: Heard,
    }

    impl Talk<'_> {
        fn listen(
            mut self,
            mut process: Process,
            launcher: &Launcher,
            go_on: impl Fn() -> Result<(), Error>,
        ) -> Result<Heard, Error> {
            let begun = Instant::now();
            let mut is_open = true;
            loop {
                go_on()?;
                let ended = process.ended();
                // what it said before it ended is there by now
                is_open &= self.read_answer();
                self.read_words();
                if let Some(status) = ended {
                    self.heard.status = Some(status);
                    return Ok(self.heard);
                }
                if !is_open || self.heard.is_complete() {
                    break;
                }
                self.write();
                if !self.heard.is_greeted() && begun.elapsed() > LONGEST_START {
                    return Err(not_started(launcher, "no output"));
                }
                self.wait();
            }
            if is_open && !self.heard.is_greeted() {
                return Ok(self.heard); // something else, which is not waited for
            }
            self.heard.status = process.end();
            self.read_words();
            Ok(self.heard)
        }

        /// Until there is something to do, or for [`LOOK`].
        fn wait(&self) {
            let watched = |stream: &UnixStream, events| libc::pollfd { fd: stream.as_raw_fd(), events, revents: 0 };
            let writes = if self.input.iter().all(|part| part.is_empty()) { 0 } else { libc::POLLOUT };
            let mut all = [
                watched(&self.stdin, writes),
                watched(&self.stdout, libc::POLLIN),
                // what is closed would be told at once
                watched(&self.stderr, libc::POLLIN),
            ];
            // SAFETY: the array lives until the call returns, and its length is given.
            let ready = unsafe { libc::poll(all.as_mut_ptr(), all.len() as libc::nfds_t, LOOK.as_millis() as i32) };
            // an end that has closed is ready at all times
            let is_news = |one: &libc::pollfd| {
                one.revents & (libc::POLLIN | libc::POLLOUT) != 0 && one.revents & libc::POLLHUP == 0
            };
            if ready > 0 && !all.iter().any(is_news) {
                std::thread::sleep(LOOK);
            }
        }

        fn write(&mut self) {
            for part in &mut self.input {
                while !part.is_empty() {
                    match self.stdin.write(part) {
                        Ok(written) => *part = part.get(written..).unwrap_or_default(),
                        Err(error) if error.kind() == ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                        // it reads no more: how it ends says why
                        Err(_) => *part = &[],
                    }
                }
            }
        }

        /// Whether more may come.
        fn read_answer(&mut self) -> bool {
            let mut chunk = [0; 16 << 10];
            loop {
                match self.stdout.read(&mut chunk) {
                    Ok(0) => return false,
                    Ok(read) => self.heard.answer.extend(chunk.get(..read).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return error.kind() == ErrorKind::WouldBlock,
                }
                if self.heard.is_complete() {
                    return true;
                }
            }
        }

        fn read_words(&mut self) {
            let mut chunk = [0; 4 << 10];
            // it may write faster than we read
            for _ in 0..64 {
                match self.stderr.read(&mut chunk) {
                    Ok(0) => return,
                    Ok(read) => {
                        let said = &mut self.heard.said;
                        said.extend(chunk.get(..read).unwrap_or_default());
                        said.drain(..said.len().saturating_sub(MOST_SAID));
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        }
    }
}

#[cfg(not(unix))]
mod talk {
    use super::{Heard, Launcher};
    use crate::error::Error;

    pub(super) fn with_child(_: &Launcher, _: [&[u8]; 2], _: impl Fn() -> Result<(), Error>) -> Result<Heard, Error> {
        Err(Error::Host("`ComponentLimits.timeout` and `memory` are not offered on this system".into()))
    }
}
