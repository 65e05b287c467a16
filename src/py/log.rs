//! The core's events in Python's log: those of its target `wasgi` become records of the logger `wasgi`.
//!
//! The core emits them where it is, without the GIL and maybe on a thread that must not run Python. So they wait here until the next
//! caller that loads a component has done so, and tells them.

use std::fmt;
use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::process::fork::PerFork;
use crate::py::lock;
use crate::telemetry::TARGET;

/// What waits to be told. A forked child leaves its parent's to it.
static WAITING: PerFork<Mutex<Vec<(Level, String)>>> = PerFork::new();

fn waiting() -> Arc<Mutex<Vec<(Level, String)>>> {
    WAITING.get(Mutex::default)
}

/// Subscribes to the core's events; those of its dependencies stay switched off.
pub(crate) fn subscribe() {
    // of several it is the first that is heard, and this is done once, when the module is first imported
    let _ = tracing::subscriber::set_global_default(Events);
}

/// Logs the events that wait.
pub(crate) fn tell_events(py: Python<'_>) -> PyResult<()> {
    let events = std::mem::take(&mut *lock(&waiting()));
    for (level, line) in events {
        write(py, TARGET, level, &line)?;
    }
    Ok(())
}

/// One record of a logger.
pub(crate) fn write(py: Python<'_>, logger: &str, level: Level, line: &str) -> PyResult<()> {
    let method = match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        _ => "debug",
    };
    py.import("logging")?.call_method1("getLogger", (logger,))?.call_method1(method, ("%s", line))?;
    Ok(())
}

/// The one subscriber of this module.
struct Events;

impl Events {
    fn wants(metadata: &Metadata<'_>) -> bool {
        metadata.target() == TARGET && *metadata.level() <= Level::INFO
    }
}

impl Subscriber for Events {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if Self::wants(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        Self::wants(metadata)
    }

    /// What dependencies emit below this costs them a comparison, as without any subscriber.
    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::INFO)
    }

    fn event(&self, event: &Event<'_>) {
        let mut message = Message::default();
        event.record(&mut message);
        lock(&waiting()).push((*event.metadata().level(), message.0));
    }

    // the core has no spans
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// An event's message.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}
