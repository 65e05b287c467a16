//! How far a server has come with its end: one value, which requests look at and tasks wait for.

use std::pin::pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// For so long a connection on which nothing is under way may still send a request when the server drains.
pub(super) const GRACE: Duration = Duration::from_millis(500);

/// In their order, after it has served: none is left for one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// Takes no new connections; answers end theirs.
    Drains = 1,
    /// Everything ends at once.
    Ends = 2,
}

/// See the module.
#[derive(Default)]
pub(super) struct Progress {
    stage: AtomicU8,
    told: Notify,
}

impl Progress {
    /// Whether it has come so far. Costs a read.
    pub(super) fn has_reached(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::SeqCst) >= stage as u8
    }

    pub(super) fn reach(&self, stage: Stage) {
        if self.stage.fetch_max(stage as u8, Ordering::SeqCst) < stage as u8 {
            self.told.notify_waiters();
        }
    }

    /// Waits until it has come so far.
    pub(super) async fn reached(&self, stage: Stage) {
        loop {
            let mut told = pin!(self.told.notified());
            // before the look: what comes between that and the wait is not missed
            told.as_mut().enable();
            if self.has_reached(stage) {
                return;
            }
            told.await;
        }
    }

    /// Waits until a connection on which nothing is under way has to end.
    pub(super) async fn grace_is_over(&self) {
        self.reached(Stage::Drains).await;
        tokio::time::sleep(GRACE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stage_is_waited_for_and_never_left() {
        let progress = Progress::default();
        assert!(!progress.has_reached(Stage::Drains));
        tokio::join!(progress.reached(Stage::Drains), async { progress.reach(Stage::Ends) });
        progress.reach(Stage::Drains);
        assert!(progress.has_reached(Stage::Ends));
        progress.reached(Stage::Ends).await;
    }
}
