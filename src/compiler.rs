//! Compiling in a process of its own, whose time and memory are bounded: it is ended when they are used up.
//!
//! The child reads an order from its stdin and writes the machine code to its stdout. It has no pool of instances, whose
//! reservation would break a limit of memory, and the settings of the engine that will run what it makes: else
//! that engine would refuse it. It ends with its parent, whose end closes its stdin.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wasmtime::Engine;

use crate::component_limits::ComponentLimits;
use crate::engine::{Kind, bare_engine};
use crate::error::{Error, chain};
use crate::loading::{Order, Work};

/// How the process is started.
#[derive(Clone, Debug)]
pub struct Launcher {
    pub program: PathBuf,
    pub args: Vec<OsString>,
}

/// What the child says first, so that a program that is something else is told from it.
const GREETING: &[u8] = b"wasgi compiles\n";
const MADE: u8 = 0;
const REFUSED: u8 = 1;
const FAILED: u8 = 2;

/// What came of it.
pub(crate) enum Outcome {
    Made(Vec<u8>),
    /// The engine's reason.
    Refused(String),
}

/// How often the child, and whether anybody waits for it, is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How long an interpreter may take to start and to load the module, on a machine that is busy.
const LONGEST_START: Duration = Duration::from_secs(60);

/// Machine code for an engine of this kind.
pub(crate) fn compile(kind: Kind, binary: &[u8], order: &Order, work: &Work) -> Result<Outcome, Error> {
    let Some(launcher) = &order.launcher else {
        return Err(Error::Host("there is no way to start a process that compiles".into()));
    };
    let mut command = Command::new(&launcher.program);
    command.args(&launcher.args).env_clear();
    // what programs need to start at all: where libraries are, and on Windows where the system is
    for name in ["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SystemRoot"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // Ctrl-C in a terminal goes to its foreground's group: the parent decides
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut child = command.spawn().map_err(|error| not_started(launcher, &error.to_string()))?;
    let mut given = vec![u8::from(kind.fuel), u8::from(kind.pooled)];
    given.extend(order.limits.memory.unwrap_or(0).to_le_bytes());
    given.extend(order.limits.timeout.map_or(0, |timeout| timeout.as_secs().saturating_add(1)).to_le_bytes());
    given.extend((binary.len() as u64).to_le_bytes());
    let (Some(mut stdin), Some(mut stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(not_started(launcher, "it has no pipes"));
    };
    let begun = Instant::now();
    let greeted = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        // stdin stays open until the child has ended: that it closes says that we have
        let writing = scope.spawn(move || {
            let _ = stdin.write_all(&given).and_then(|()| stdin.write_all(binary));
            stdin
        });
        let reading = scope.spawn(move || {
            let mut answer = vec![0; GREETING.len()];
            // what greets otherwise is not read on: it may go on for ever
            if stdout.read_exact(&mut answer).is_err() || answer != GREETING {
                return answer;
            }
            greeted.store(true, Ordering::Relaxed);
            let _ = stdout.read_to_end(&mut answer);
            answer
        });
        let listening = scope.spawn(move || {
            let mut said = Vec::new();
            // bounded: what it says is shown; the rest is read on, so that it does not wait
            let mut stderr = stderr;
            let _ = stderr.by_ref().take(4096).read_to_end(&mut said);
            let _ = std::io::copy(&mut stderr, &mut std::io::sink());
            said
        });
        let ended = loop {
            if reading.is_finished() {
                break Ok(());
            }
            if !work.is_wanted() {
                break Err(Error::Cancelled);
            }
            // its own time, or that of the one for whom it is done
            if let Err(error) = order.check().or_else(|error| match error {
                // others still wait for it
                Error::Cancelled => Ok(()),
                other => Err(other),
            }) {
                break Err(error);
            }
            if !greeted.load(Ordering::Relaxed) && begun.elapsed() > LONGEST_START {
                break Err(not_started(launcher, "it says nothing"));
            }
            std::thread::sleep(LOOK);
        };
        let status = end(&mut child, ended.is_err());
        drop(writing.join());
        let answer = reading.join().unwrap_or_default();
        let said = listening.join().unwrap_or_default();
        ended?;
        read_answer(&answer, &String::from_utf8_lossy(&said), status, launcher, &order.limits)
    })
}

/// How it ended, as far as somebody else has not asked for it before us (`SIGCHLD` ignored, `os.waitpid(-1)`). One that has
/// closed its stdout is about to end.
fn end(child: &mut Child, at_once: bool) -> Option<std::process::ExitStatus> {
    const GRACE: Duration = Duration::from_secs(2);
    let begun = Instant::now();
    while !at_once && begun.elapsed() < GRACE {
        match child.try_wait() {
            Ok(None) => std::thread::sleep(LOOK),
            Ok(status) => return status,
            Err(_) => return None,
        }
    }
    let _ = child.kill();
    child.wait().ok()
}

fn not_started(launcher: &Launcher, reason: &str) -> Error {
    Error::Host(format!(
        "cannot compile in a process of its own: `{}` does not start as a Python interpreter ({reason}); hint: without \
         `timeout` and `memory`, `ComponentLimits` needs no such process",
        launcher.program.display()
    ))
}

fn read_answer(
    answer: &[u8],
    said: &str,
    status: Option<std::process::ExitStatus>,
    launcher: &Launcher,
    limits: &ComponentLimits,
) -> Result<Outcome, Error> {
    let Some(answer) = answer.strip_prefix(GREETING) else {
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said something else");
        return Err(not_started(launcher, &last.chars().take(200).collect::<String>()));
    };
    // the length comes first, so that an answer that was cut off is told from a whole one
    if let Some((length, rest)) = answer.split_first_chunk::<8>()
        && u64::from_le_bytes(*length) == rest.len() as u64
        && let Some((kind, content)) = rest.split_first()
    {
        let text = || String::from_utf8_lossy(content).into_owned();
        return match *kind {
            MADE => Ok(Outcome::Made(content.to_vec())),
            REFUSED => Ok(Outcome::Refused(text())),
            _ => Err(Error::Host(format!("compiling the component failed: {}", text()))),
        };
    }
    match limits.memory {
        // it aborts where it gets no memory
        Some(memory) if is_out_of_memory(said, status) => Err(Error::ComponentLimit {
            message: format!(
                "compiling the component took more than {memory} bytes of memory (`ComponentLimits.memory`)"
            ),
            limit: "memory",
            value: memory as f64,
            found: None,
        }),
        _ => {
            let how = status.map_or_else(|| "it has ended".to_owned(), |status| status.to_string());
            let said: String = said.lines().last().unwrap_or_default().chars().take(200).collect();
            Err(Error::Host(format!("the process that compiled the component ended before it was done: {how}; {said}")))
        }
    }
}

fn is_out_of_memory(said: &str, status: Option<std::process::ExitStatus>) -> bool {
    const WORDS: [&str; 5] = [
        "memory allocation of",
        "Cannot allocate memory",
        "cannot allocate memory", // the C library's, where a thread first uses what it has for itself
        "Resource temporarily unavailable",
        "MemoryError",
    ];
    #[cfg(unix)]
    let by_signal = status.and_then(|status| std::os::unix::process::ExitStatusExt::signal(&status));
    #[cfg(not(unix))]
    let by_signal = status.and_then(|status| status.code());
    // what the system itself ends for want of memory, it kills; a stack that could not grow is a fault
    WORDS.iter().any(|words| said.contains(words)) || by_signal == Some(9) || by_signal == Some(11)
}

/// What the child does. Returns its exit status.
pub fn serve(mut input: impl Read + Send + 'static, mut output: impl Write) -> u8 {
    let done = (|| {
        output.write_all(GREETING)?;
        output.flush()?;
        let mut head = [0; 26];
        input.read_exact(&mut head)?;
        let [fuel, pooled, rest @ ..] = head;
        let numbers: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let [memory, seconds, length] = numbers.as_slice() else { return Err(std::io::ErrorKind::InvalidData.into()) };
        let kind = Kind { fuel: fuel == 1, pooled: pooled == 1 };
        let engine = warmed_engine(kind);
        // where it gets no memory it aborts: that is no reason to leave a core file each time
        #[cfg(unix)]
        let _ = set_limit(libc::RLIMIT_CORE, 0);
        if *memory > 0
            && let Err(error) = bound_memory(*memory)
        {
            return answer(&mut output, FAILED, format!("its memory cannot be limited: {error}").as_bytes());
        }
        if *seconds > 0 {
            bound_time(*seconds);
        }
        let mut binary = Vec::new();
        input.by_ref().take(*length).read_to_end(&mut binary)?;
        if (binary.len() as u64) < *length {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        // Nothing more comes. That it closes says that the parent has ended, however it did.
        std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let mut byte = [0];
            while input.read(&mut byte).is_ok_and(|read| read > 0) {}
            std::process::exit(1);
        })?;
        let made = engine.and_then(|engine| engine.precompile_component(&binary));
        match made {
            Ok(code) => answer(&mut output, MADE, &code),
            Err(error) => answer(&mut output, REFUSED, chain(&error).as_bytes()),
        }
    })();
    if let Err(error) = &done {
        eprintln!("{error}");
    }
    u8::from(done.is_err())
}

fn answer(output: &mut impl Write, kind: u8, content: &[u8]) -> std::io::Result<()> {
    output.write_all(&(content.len() as u64 + 1).to_le_bytes())?;
    output.write_all(&[kind])?;
    output.write_all(content)?;
    output.flush()
}

/// An engine that has compiled something: its threads are there before memory is limited, and count as what was there.
fn warmed_engine(kind: Kind) -> wasmtime::Result<Engine> {
    const SMALLEST: &[u8] = b"\0asm\x0d\0\x01\0";
    let engine = bare_engine(kind)?;
    engine.precompile_component(SMALLEST)?;
    Ok(engine)
}

/// So much more than it has by now. What counts is memory that can be written (`RLIMIT_DATA`): addresses alone are no
/// memory, and an allocator reserves plenty of them for each thread.
#[cfg(target_os = "linux")]
fn bound_memory(bytes: u64) -> std::io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let now = status
        .lines()
        .find_map(|line| line.strip_prefix("VmData:"))
        .and_then(|line| line.trim().strip_suffix("kB"))
        .and_then(|kilobytes| kilobytes.trim().parse::<u64>().ok())
        .ok_or(std::io::ErrorKind::InvalidData)?;
    let most = now.saturating_mul(1024).saturating_add(bytes);
    set_limit(libc::RLIMIT_DATA, most)
}

#[cfg(all(unix, not(target_os = "linux")))]
fn bound_memory(bytes: u64) -> std::io::Result<()> {
    set_limit(libc::RLIMIT_AS, bytes)
}

#[cfg(not(unix))]
fn bound_memory(_: u64) -> std::io::Result<()> {
    Err(std::io::ErrorKind::Unsupported.into())
}

/// Should its parent be stopped and not end it: as many seconds on each core.
fn bound_time(seconds: u64) {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    #[cfg(unix)]
    let _ = set_limit(libc::RLIMIT_CPU, seconds.saturating_mul(cores));
    #[cfg(not(unix))]
    let _ = (seconds, cores);
}

#[cfg(target_os = "linux")]
type Resource = libc::__rlimit_resource_t;
#[cfg(all(unix, not(target_os = "linux")))]
type Resource = libc::c_int;

#[cfg(unix)]
fn set_limit(resource: Resource, most: u64) -> std::io::Result<()> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the structure is whole, and lives until the call returns.
    if unsafe { libc::getrlimit(resource, &raw mut limits) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let most = (most as libc::rlim_t).min(limits.rlim_max);
    let limits = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: likewise; it is only read.
    if unsafe { libc::setrlimit(resource, &raw const limits) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
