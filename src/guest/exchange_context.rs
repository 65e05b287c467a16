//! What a store has of the exchange that its guest acts for.

use crate::engine::ProcessState;
use crate::exchange::guest_written::WrittenBodies;
use crate::exchange::handle::{ExchangeHandle, ExchangeState, Gone};
use crate::limits::Limits;
use crate::outgoing::hooks::Hooks;
use crate::outgoing::upstream::Upstreams;

/// The exchange that a store acts for while it acts for none: made once, for an instance that is kept needs it after each exchange. It is
/// over when this goes.
pub(crate) struct Nobody(Gone);

impl Nobody {
    pub(crate) fn new(process: &'static ProcessState) -> Self {
        let nobody = ExchangeState::without_guest(process);
        nobody.stdio.finish();
        Self(Gone(nobody))
    }

    /// Whether this is its context.
    pub(crate) fn has(&self, context: &ExchangeContext) -> bool {
        context.hooks.is_of(&self.0.0)
    }

    /// Whether nothing was said for it, which would add up.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.0.stdio.lines() == 0
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
        let hooks = Hooks::new(Upstreams::default(), ExchangeHandle::observer(&nobody.0.0), limits);
        Self::new(hooks, WrittenBodies::default())
    }

    /// Whether anything of the exchange's is left that somebody else takes part in.
    pub(crate) fn is_busy(&self) -> bool {
        self.hooks.is_busy()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_a_guest_does_for_nobody_is_over_with_its_store() {
        let process = crate::engine::process_state().unwrap();
        let nobody = Nobody::new(process);
        let context = ExchangeContext::nobodys(&nobody, &Limits::NONE);
        let (before, warm_up) = context.hooks.before();
        for (hooks, last) in
            [(&context.hooks, Box::new(nobody) as Box<dyn std::any::Any>), (&before, Box::new(warm_up))]
        {
            let mut over = Box::pin(hooks.ended());
            assert!(over.as_mut().now_or_never().is_none());
            drop(last);
            assert!(over.now_or_never().is_some());
        }
    }
}
