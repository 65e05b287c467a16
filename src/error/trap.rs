//! Traps, as wasmtime reports them: the reason, the guest's frames, the last lines of its stderr.

use std::fmt::Write;

use crate::text::{Bounded, LONGEST, LONGEST_NAME, tame, tamed};

/// What is known of a trap.
#[derive(Clone, Debug, Default)]
pub struct Trap {
    /// The whole sentence.
    pub message: String,
    /// Innermost frame first, one line each.
    pub backtrace: Vec<String>,
    /// The last lines that the guest wrote to stderr.
    pub stderr: Vec<String>,
    /// The exchange whose guest it was, if that was another one in the same instance.
    pub culprit: Option<u64>,
}

impl Trap {
    /// The same, of a guest that handled a warm-up request, not its caller's.
    pub fn in_warm_up(&self) -> Self {
        Self { message: format!("a warm-up request (`Reuse.warm`) failed: {}", self.message), ..self.clone() }
    }

    /// Reads a trap from what wasmtime reports; `stderr` is what the guest said last. `has_places`: places in the machine code's component
    /// are those in the one that was loaded.
    pub fn read(error: &wasmtime::Error, stderr: Vec<String>, has_places: bool) -> Self {
        let reason = match error.downcast_ref::<wasmtime::Trap>() {
            Some(trap) => trap.to_string(),
            // a host function ended the guest, say because of a handle dropped while it had children
            None if let Some(reason) = too_much(error) => reason,
            None => tamed(format!("{:#}", error.root_cause()), LONGEST),
        };
        let backtrace: Vec<String> = error
            .downcast_ref::<wasmtime::WasmBacktrace>()
            .map(|backtrace| backtrace.frames().iter().flat_map(|of| frame(of, has_places)).take(MOST_FRAMES).collect())
            .unwrap_or_default();
        let mut message = format!("the guest trapped: {}", reason.strip_prefix("wasm trap: ").unwrap_or(&reason));
        if let Some(frame) = backtrace.iter().find(|frame| !is_runtime(frame)) {
            message.push_str(&format!(" in `{frame}`"));
        }
        if reason == "resource has children" {
            message.push_str("; hint: the guest dropped a handle while one that was made from it still lived");
        }
        // Rust's advice after a panic is about the guest's own environment, not about what happened
        if let Some(line) = stderr.iter().rev().find(|line| !line.starts_with("note: run with `RUST_BACKTRACE")) {
            message.push_str(&format!("; last line of its stderr: {line}"));
        }
        Self { message, backtrace, stderr, culprit: None }
    }

    /// What the other exchanges of an instance are told that one of them has ended.
    pub fn of_sibling(culprit: u64, what: &str) -> Self {
        let message = format!("its instance has ended: exchange {culprit}, which shared it, has failed: {what}");
        Self { message, culprit: Some(culprit), ..Self::default() }
    }
}

/// What a host call was asked for that it does not do, in words that name it. wasmtime tells of both in words only, and
/// `tests/test_host_resources.py` fails if they change.
fn too_much(error: &wasmtime::Error) -> Option<String> {
    let reason = error.root_cause().to_string();
    if reason.contains("fuel allocated for hostcalls") {
        return Some(
            "a host call was given more bytes of strings and lists than it takes: 2 MiB, or twice `Limits.fields` if that is more; \
             hint: hand them over in pieces"
                .into(),
        );
    }
    let asked = reason.strip_prefix("requested len ")?.split_once(" exceeds limit ")?;
    Some(format!("it asked for {} random bytes at once, of at most {}", asked.0, asked.1))
}

/// How many lines a backtrace has: wasmtime tells of 20 frames, each with as many functions as were inlined there.
const MOST_FRAMES: usize = 100;

/// A frame that says nothing about the guest's own code: the panic machinery of Rust and libc.
fn is_runtime(frame: &str) -> bool {
    ["abort", "__rust", "rust_panic", "std::", "core::", "panic", "__wasi", "exit"]
        .iter()
        .any(|prefix| frame.starts_with(prefix))
        // with debug information names have no module, but a place
        || ["library/core/src/", "library/std/src/", "library/alloc/src/", "/libc-top-half/"]
            .iter()
            .any(|place| frame.contains(place))
}

/// Its lines: one for each function that was inlined there and is known by debug information, innermost first.
fn frame(frame: &wasmtime::FrameInfo, has_places: bool) -> Vec<String> {
    let own_name = || match frame.func_name() {
        Some(name) => demangle(name),
        None => format!("wasm function {}", frame.func_index()),
    };
    let symbols = frame.symbols();
    let by_source: Vec<String> = symbols
        .iter()
        .enumerate()
        .filter_map(|(place, symbol)| {
            // the last is the function itself, whose name elsewhere has its module
            let name = match symbol.name() {
                Some(name) if place + 1 < symbols.len() || frame.func_name().is_none() => name.to_owned(),
                _ => own_name(),
            };
            Some(tamed(format!("{name} ({}:{})", symbol.file()?, symbol.line()?), LONGEST_NAME))
        })
        .collect();
    if !by_source.is_empty() {
        return by_source;
    }
    let name = own_name();
    vec![match frame.module_offset().filter(|_| has_places) {
        Some(offset) => format!("{name} (at {offset:#x})"),
        None => name,
    }]
}

fn demangle(name: &str) -> String {
    // a component may name its functions as it likes
    if name.len() > MOST_MANGLED {
        return tame(name, LONGEST_NAME).into_owned();
    }
    match rustc_demangle::try_demangle(name) {
        Ok(demangled) => {
            let mut text = Bounded::new(LONGEST_NAME);
            let _ = write!(text, "{demangled:#}");
            tamed(text.text, LONGEST_NAME)
        }
        Err(_) => tame(name, LONGEST_NAME).into_owned(),
    }
}

/// Longer names are not demangled.
const MOST_MANGLED: usize = 16 << 10;
