//! The one error enum of the core. Traps, error-codes and faults of the caller are kept apart here, and stay apart
//! on their way to Python, where each has a class of its own (`python/wasgi/errors.py`).

pub mod reason;
pub mod trap;

use std::sync::Arc;

use crate::error::reason::{CodeError, Reason};
use crate::error::trap::Trap;
use crate::limits::Limit;
use crate::text::{LONGEST, tame, tamed};

/// Why something did not work. Cheap to clone: the outcome of an exchange is told to each of its readers.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The source is not a component, or not a valid one.
    #[error(transparent)]
    InvalidComponent(Reason),

    /// The component imports what no host function here provides.
    #[error("{message}")]
    MissingImports {
        /// Names them, with a hint.
        message: String,
        /// Their names.
        missing: Vec<String>,
    },

    /// A valid component that this version cannot serve.
    #[error(transparent)]
    UnsupportedComponent(Reason),

    /// A component that costs more at load than it may.
    #[error("{message}")]
    ComponentLimit {
        /// The whole sentence.
        message: String,
        /// The limit's name among `ComponentLimits`.
        limit: &'static str,
        /// Its value.
        value: f64,
        /// What was found, if that has an end.
        found: Option<u64>,
    },

    /// The guest trapped.
    #[error("{}", .0.message)]
    Trap(Arc<Trap>),

    /// The guest called `wasi:cli/exit`.
    #[error("the guest exited with code {code}")]
    GuestExit {
        /// With which code.
        code: i32,
    },

    /// The guest ended without a response.
    #[error("{0}")]
    NoResponse(String),

    /// The guest had no more time.
    #[error("the guest timed out after {limit} s (`Limits.timeout`)")]
    Timeout {
        /// `Limits.timeout`, in seconds.
        limit: f64,
    },

    /// The guest ran into a limit inside its store.
    #[error("the guest ran into its limit of {value} {} (`Limits.{}`)", .limit.unit(), .limit.name())]
    Limit {
        /// Which one.
        limit: Limit,
        /// Its value.
        value: u64,
        /// Where the guest was, if it trapped.
        trap: Option<Arc<Trap>>,
    },

    /// A message that is larger than a limit allows.
    #[error("{code}: the limit is {value} bytes (`Limits.{limit}`)")]
    Limited {
        /// The code for that.
        code: crate::http::error_code::ErrorCode,
        /// The limit's name among `Limits`.
        limit: &'static str,
        /// Its value.
        value: u64,
    },

    /// No place, or no room, for one more exchange.
    #[error("{0}")]
    Overloaded(String),

    /// The guest answered with an error-code instead of a response.
    #[error(transparent)]
    Code(CodeError),

    /// A body that broke off.
    #[error("the body failed after {received} bytes: {reason}")]
    Body {
        /// Bytes that came before.
        received: u64,
        /// In words.
        reason: String,
        /// How its guest ended, if that is why.
        #[source]
        cause: Option<Box<Error>>,
    },

    /// The caller's own failure, say of its request body: handed back as it is.
    #[error(transparent)]
    Caller(Arc<dyn std::error::Error + Send + Sync>),

    /// The exchange was cancelled or its response was closed.
    #[error("the exchange was cancelled: its caller or client has gone")]
    Cancelled,

    /// Nothing begins in an app that is closed.
    #[error("the app is closed")]
    Closed,

    /// A fault of the host's own.
    #[error(transparent)]
    Host(Reason),
}

impl Error {
    /// What the system has refused to the host, if that is what the error is about: no fault of the component's or its guest's.
    pub fn refused_by_system(error: &wasmtime::Error) -> Option<Self> {
        if error.downcast_ref::<wasmtime::WasmBacktrace>().is_some() {
            return None; // a guest ran
        }
        let root = error.root_cause();
        let number = match (root.downcast_ref::<rustix::io::Errno>(), root.downcast_ref::<std::io::Error>()) {
            (Some(number), _) => number.raw_os_error(),
            (None, Some(error)) => error.raw_os_error()?,
            (None, None) => return None,
        };
        let hint = match rustix::io::Errno::from_raw_os_error(number) {
            rustix::io::Errno::NOMEM | rustix::io::Errno::AGAIN => {
                "limits of addresses and memory (`ulimit -v`, `ulimit -l`, the control group's `memory.max`), or the memory itself"
            }
            rustix::io::Errno::FBIG => "the limit of file sizes (`ulimit -f`), which holds for memory files, too",
            rustix::io::Errno::MFILE | rustix::io::Errno::NFILE => "the limit of open files (`ulimit -n`)",
            rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => {
                "a sandbox that forbids to run code that was made in memory (`MemoryDenyWriteExecute=` with systemd, SELinux), or a \
                 seccomp profile"
            }
            _ => "the limits of this process",
        };
        let text = format!("the system has refused what the host needs: {}; hint: {hint}", chain(error));
        Some(Self::Host(Reason::new(text, std::io::Error::from_raw_os_error(number))))
    }

    /// What is said of it to Python. Components name what is in them as they like, and errors repeat that.
    pub fn sentence(&self) -> String {
        let text = self.to_string();
        match self {
            // a drawing of where the text is wrong, with that line of it
            Self::InvalidComponent(_) if text.contains("in text form") => {
                let lines: Vec<_> = text.lines().take(MOST_LINES).map(|line| tame(line, LONGEST)).collect();
                lines.join("\n")
            }
            Self::InvalidComponent(_) | Self::UnsupportedComponent(_) | Self::MissingImports { .. } => {
                tamed(text, LONGEST)
            }
            _ => text,
        }
    }

    /// Something was counted in a component, and is more than it may be.
    pub fn component_limit(limit: &'static str, unit: &str, value: u64, found: u64) -> Self {
        // what has no end has no number
        let number = if found == u64::MAX { "endlessly many".to_owned() } else { grouped(found) };
        let message = format!(
            "the component has {number} {unit}: more than its limit of {} (`ComponentLimits.{limit}`)",
            grouped(value)
        );
        Self::ComponentLimit { message, limit, value: value as f64, found: (found < u64::MAX).then_some(found) }
    }

    /// A component's fault with the file that it is in.
    pub fn of_file(self, file: &str) -> Self {
        let named = |message: &str| format!("`{file}`: {message}");
        match self {
            Self::InvalidComponent(reason) => Self::InvalidComponent(reason.worded(named)),
            Self::UnsupportedComponent(reason) => Self::UnsupportedComponent(reason.worded(named)),
            Self::MissingImports { message, missing } => Self::MissingImports { message: named(&message), missing },
            Self::ComponentLimit { message, limit, value, found } => {
                Self::ComponentLimit { message: named(&message), limit, value, found }
            }
            other => other,
        }
    }
}

/// With a comma before each three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// How many lines an error in a component's text has.
const MOST_LINES: usize = 20;

/// What the system refused, if it is that that an error came from: memory, or addresses, that the host has no more of.
pub fn refused_by_system(error: &wasmtime::Error) -> Option<String> {
    let is_full = error.chain().any(|link| {
        link.is::<wasmtime::OutOfMemory>()
            || link.downcast_ref::<rustix::io::Errno>() == Some(&rustix::io::Errno::NOMEM)
            || link
                .downcast_ref::<std::io::Error>()
                .is_some_and(|error| error.kind() == std::io::ErrorKind::OutOfMemory)
    });
    is_full.then(|| chain(error))
}

/// The sentence with each link of an error's chain, outermost first.
pub fn chain(error: &wasmtime::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for link in error.chain() {
        let text = link.to_string();
        if parts.last() != Some(&text) {
            parts.push(text);
        }
    }
    parts.join(": ")
}
