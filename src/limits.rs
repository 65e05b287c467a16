//! What a guest may use up.

use std::time::Duration;

/// `None` lifts a limit. The Python class says the defaults.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes: all linear memories of an instance, and what the host holds behind its handles.
    pub memory: Option<u64>,
    /// The same of all instances of one app.
    pub memory_per_app: Option<u64>,
    /// Elements, all tables of an instance together.
    pub table_elements: Option<u64>,
    /// Core instances in one component's instance.
    pub instances: Option<u64>,
    /// Handles that a guest has at once.
    pub handles: Option<u64>,
    /// Files that an exchange has open at once.
    pub files: Option<u64>,
    /// Files that all exchanges of one app have open at once.
    pub files_per_app: Option<u64>,
    /// The guest's own time, see [`crate::exchange::guest_clock`].
    pub timeout: Option<Duration>,
    /// Units of wasmtime's fuel.
    pub fuel: Option<u64>,
    /// Bytes of one set of fields, counted as [`crate::http::fields::size`] does.
    pub fields: Option<u64>,
    /// Bytes.
    pub request_body: Option<u64>,
    /// Bytes.
    pub response_body: Option<u64>,
    /// Requests that one exchange may send out.
    pub outgoing: Option<u64>,
    /// Requests of one exchange that wait for their answer at once.
    pub outgoing_concurrency: Option<u64>,
    /// Exchanges of one app at once.
    pub concurrency: Option<usize>,
    /// Exchanges that may wait for a place.
    pub queue: usize,
    /// How long they wait.
    pub queue_timeout: Option<Duration>,
    /// Writes of a guest that may lie between it and its reader.
    pub chunks: usize,
}

impl Limits {
    /// Nothing is limited; what has to have a bound has a small one.
    pub const NONE: Self = Self {
        memory: None,
        memory_per_app: None,
        table_elements: None,
        instances: None,
        handles: None,
        files: None,
        files_per_app: None,
        timeout: None,
        fuel: None,
        fields: None,
        request_body: None,
        response_body: None,
        outgoing: None,
        outgoing_concurrency: None,
        concurrency: None,
        queue: 0,
        queue_timeout: None,
        chunks: 8,
    };
}

/// The most bytes of strings and lists that one host call takes, if `Limits.fields` asks for no more. To copy them takes less than a
/// millisecond.
const MOST_LIFTED: u64 = 2 << 20;

/// The most random bytes that one host call gives: 0.7 ms.
pub(crate) const MOST_RANDOM: u64 = 256 << 10;

impl Limits {
    /// The most bytes of strings and lists that one host call takes.
    pub(crate) fn lifted(&self) -> usize {
        let most = self.fields.map(|fields| MOST_LIFTED.max(fields.saturating_mul(2)));
        most.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
    }

    /// The most handles, of the guest's own resources, too.
    pub(crate) fn most_handles(&self) -> usize {
        self.handles.and_then(|most| usize::try_from(most).ok()).unwrap_or(usize::MAX)
    }
}

/// The limits that a guest meets inside its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Bytes of all memories of an instance, and of what the host keeps for it.
    Memory,
    /// The same for all guests of an app together.
    MemoryPerApp,
    /// Elements of all tables of an instance.
    TableElements,
    /// Core instances of a component instance.
    Instances,
    /// Handles that a guest holds.
    Handles,
    /// Bytes of a set of fields.
    Fields,
    /// Fuel, which each instruction uses.
    Fuel,
}

impl Limit {
    /// Its name among `Limits`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::MemoryPerApp => "memory_per_app",
            Self::TableElements => "table_elements",
            Self::Instances => "instances",
            Self::Handles => "handles",
            Self::Fields => "fields",
            Self::Fuel => "fuel",
        }
    }

    /// What it counts.
    pub fn unit(self) -> &'static str {
        match self {
            Self::Memory => "bytes",
            Self::MemoryPerApp => "bytes for all exchanges of its app",
            Self::Fields => "bytes of fields",
            Self::TableElements => "table elements",
            Self::Instances => "core instances",
            Self::Handles => "handles",
            Self::Fuel => "units of fuel",
        }
    }
}
