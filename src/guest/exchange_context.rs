//! What a store has of the exchange that its guest acts for.

use std::sync::Arc;

use crate::engine::ProcessState;
use crate::exchange::guest_written::WrittenBodies;
use crate::exchange::handle::{ExchangeHandle, ExchangeState};
use crate::limits::Limits;
use crate::outgoing::hooks::Hooks;
use crate::outgoing::upstream::Upstreams;

/// The exchange that a store acts for while it acts for none: made once, for an instance that is kept needs it after each exchange.
pub(crate) struct Nobody(Arc<ExchangeState>);

impl Nobody {
    pub(crate) fn new(process: &'static ProcessState) -> Self {
        let nobody = ExchangeState::without_guest(process);
        nobody.stdio.finish();
        Self(nobody)
    }

    /// Whether nothing was said for it, which would add up.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.stdio.lines() == 0
    }
}

/// What is one exchange's alone.
pub(crate) struct ExchangeContext {
    pub(super) hooks: Hooks,
    /// What its guest writes, if that is of WASI 0.3.
    pub(super) written: WrittenBodies,
    /// Whether it was said that a set of fields is full.
    pub(super) told_of_fields: bool,
}

impl ExchangeContext {
    pub(crate) fn new(hooks: Hooks, written: WrittenBodies) -> Self {
        Self { hooks, written, told_of_fields: false }
    }

    /// That of no exchange.
    pub(crate) fn nobodys(nobody: &Nobody, limits: &Limits) -> Self {
        let hooks = Hooks::new(Upstreams::default(), ExchangeHandle::observer(&nobody.0), limits);
        Self::new(hooks, WrittenBodies::default())
    }

    /// Whether anything of the exchange's is left that somebody else takes part in.
    pub(crate) fn is_busy(&self) -> bool {
        self.hooks.is_busy()
    }
}
