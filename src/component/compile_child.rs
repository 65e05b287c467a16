//! What a process that compiles does: it reads an order from its stdin and writes its answer to its stdout.
//!
//! It has no pool of instances, whose reservation would break a limit of memory, and the settings of the engine that will run what it
//! makes: else that engine would refuse it. It ends with its parent, whose end closes its stdin. What it refuses it has looked at
//! itself: validation takes time and memory, too, which are bounded here and not in its parent.

use std::io::{Read, Write};

use wasmtime::Engine;

use crate::component::compiler::{FAILED, GREETING, INVALID, MADE, NO_MEMORY, UNSUPPORTED};
use crate::engine::config::{EngineKind, Features, bare_engine};
use crate::error::{Error, refused_by_system};
use crate::text::{LONGEST, tame};

/// What the child does. Returns its exit status.
pub fn serve(mut input: impl Read + Send + 'static, mut output: impl Write) -> u8 {
    let done = (|| {
        output.write_all(GREETING)?;
        output.flush()?;
        let mut head = [0; 27];
        input.read_exact(&mut head)?;
        let [fuel, concurrency, pooled, rest @ ..] = head;
        let numbers: Vec<u64> = rest.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        let [memory, seconds, length] = numbers.as_slice() else { return Err(std::io::ErrorKind::InvalidData.into()) };
        let features = Features { fuel: fuel == 1, concurrency: concurrency == 1 };
        let kind = EngineKind { features, pooled: pooled == 1 };
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
        let watching = std::thread::Builder::new().stack_size(64 << 10).spawn(move || {
            let mut byte = [0];
            while input.read(&mut byte).is_ok_and(|read| read > 0) {}
            std::process::exit(1);
        });
        if watching.is_err() {
            end_with_parent();
        }
        match engine.and_then(|engine| engine.precompile_component(&binary)) {
            Ok(code) => answer(&mut output, MADE, &code),
            Err(error) => {
                let (kind, reason) = refusal(&error, &binary);
                answer(&mut output, kind, tame(&reason, LONGEST).as_bytes())
            }
        }
    })();
    if let Err(error) = &done {
        // where memory is missing this may be all that can still be said
        eprintln!("{error}");
    }
    u8::from(done.is_err())
}

fn refusal(error: &wasmtime::Error, binary: &[u8]) -> (u8, String) {
    if let Some(reason) = refused_by_system(error) {
        return (NO_MEMORY, reason);
    }
    match crate::component::refusal::refusal(error, binary) {
        Error::InvalidComponent(reason) => (INVALID, reason.to_string()),
        Error::UnsupportedComponent(reason) => (UNSUPPORTED, reason.to_string()),
        other => (FAILED, other.to_string()),
    }
}

fn answer(output: &mut impl Write, kind: u8, content: &[u8]) -> std::io::Result<()> {
    output.write_all(&(content.len() as u64 + 1).to_le_bytes())?;
    output.write_all(&[kind])?;
    output.write_all(content)?;
    output.flush()
}

/// An engine that has compiled something: its threads are there before memory is limited, and count as what was there.
fn warmed_engine(kind: EngineKind) -> wasmtime::Result<Engine> {
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

/// Where no thread is to be had: ends it with the thread that has started it, which waits for it.
#[cfg(target_os = "linux")]
fn end_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
}

/// Elsewhere its bound of time does that.
#[cfg(not(target_os = "linux"))]
fn end_with_parent() {}

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
