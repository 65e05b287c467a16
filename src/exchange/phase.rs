//! Where an exchange stands, and what may follow. The lock around it is its owner's (`ExchangeState` in `handle.rs`).

use std::sync::Weak;
use std::task::Waker;
use std::time::Duration;

use tokio::task::AbortHandle;

use crate::error::Error;
use crate::scheduler::Task;

/// What runs an exchange that is not polled by its caller's thread.
pub(crate) enum Runner {
    /// A guest on the scheduler's threads.
    Guest(Weak<Task>),
    /// An instance that it shares with others: whoever drives that is to look who has ended.
    Shared(Waker),
    /// The task of a request that no guest makes.
    Request(AbortHandle),
}

impl Runner {
    pub(crate) fn stop(self) {
        match self {
            Self::Guest(task) => {
                if let Some(task) = task.upgrade() {
                    task.stop();
                }
            }
            Self::Shared(driver) => driver.wake(),
            Self::Request(task) => task.abort(),
        }
    }
}

/// How an exchange ended, and after how long.
pub(crate) struct Ending {
    pub outcome: Result<(), Error>,
    pub took: Duration,
}

/// Where an exchange stands. That nothing is left of its guest is told apart from this, to those who wait for it.
pub(crate) enum Phase {
    /// It has not begun, or its caller's thread polls it: whoever stops it has nothing to tell.
    OnCaller,
    /// A task runs it.
    OnTask(Runner),
    /// Its outcome is known. A guest that was stopped may still be on its way out.
    Ended(Ending),
}

impl Phase {
    /// `OnCaller` -> `OnTask`. One that has ended stays so, and returns the runner, which is to be stopped.
    #[must_use]
    pub(crate) fn hand_over(&mut self, runner: Runner) -> Option<Runner> {
        match self {
            Self::OnCaller => {
                *self = Self::OnTask(runner);
                None
            }
            Self::OnTask(_) | Self::Ended(_) => Some(runner),
        }
    }

    /// `OnTask` -> `OnCaller`: the task has done its part.
    pub(crate) fn take_back(&mut self) {
        if matches!(self, Self::OnTask(_)) {
            *self = Self::OnCaller;
        }
    }

    /// Any but `Ended` -> `Ended`. Returns what ran it, which is to be stopped unless it is what says so. One that has ended stays as it
    /// is, and returns the outcome: whoever holds the phase's lock drops that after it.
    pub(crate) fn end(
        &mut self,
        outcome: Result<(), Error>,
        took: impl FnOnce() -> Duration,
    ) -> Result<Option<Runner>, Result<(), Error>> {
        if matches!(self, Self::Ended(_)) {
            return Err(outcome);
        }
        match std::mem::replace(self, Self::Ended(Ending { outcome, took: took() })) {
            Self::OnTask(runner) => Ok(Some(runner)),
            Self::OnCaller | Self::Ended(_) => Ok(None),
        }
    }

    pub(crate) fn is_on_task(&self) -> bool {
        matches!(self, Self::OnTask(_))
    }

    pub(crate) fn ending(&self) -> Option<&Ending> {
        match self {
            Self::Ended(ending) => Some(ending),
            Self::OnCaller | Self::OnTask(_) => None,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TOOK: Duration = Duration::from_millis(5);

    fn runner() -> Runner {
        Runner::Guest(Weak::new())
    }

    fn on_task() -> Phase {
        let mut phase = Phase::OnCaller;
        assert!(phase.hand_over(runner()).is_none());
        phase
    }

    fn ended(outcome: Result<(), Error>) -> Phase {
        let mut phase = Phase::OnCaller;
        assert!(phase.end(outcome, || TOOK).is_ok());
        phase
    }

    #[test]
    fn a_guest_that_ends_on_its_callers_thread_has_no_runner() {
        let mut phase = Phase::OnCaller;
        assert!(phase.ending().is_none());
        assert!(phase.end(Ok(()), || TOOK).unwrap().is_none());
        let ending = phase.ending().unwrap();
        assert!(ending.outcome.is_ok());
        assert_eq!(ending.took, TOOK);
    }

    #[test]
    fn what_runs_it_is_returned_to_whoever_ends_it() {
        let mut phase = on_task();
        assert!(phase.is_on_task());
        assert!(phase.end(Err(Error::Cancelled), || TOOK).unwrap().is_some());
        assert!(!phase.is_on_task());
    }

    #[test]
    fn the_first_outcome_stays() {
        let mut phase = ended(Err(Error::Closed));
        let late = phase.end(Ok(()), || unreachable!("no clock is asked for an outcome that comes late"));
        assert!(matches!(late, Err(Ok(()))));
        assert!(matches!(phase.ending().unwrap().outcome, Err(Error::Closed)));
    }

    #[test]
    fn one_that_was_stopped_before_its_task_was_known_gives_the_task_back() {
        let mut phase = ended(Err(Error::Cancelled));
        assert!(phase.hand_over(runner()).is_some());
        assert!(phase.ending().is_some());
    }

    #[test]
    fn one_that_runs_takes_no_second_task() {
        let mut phase = on_task();
        assert!(phase.hand_over(runner()).is_some());
        assert!(phase.is_on_task());
    }

    #[test]
    fn a_task_that_has_done_its_part_is_not_stopped_later() {
        let mut phase = on_task();
        phase.take_back();
        assert!(phase.end(Err(Error::Cancelled), || TOOK).unwrap().is_none());
    }

    #[test]
    fn nothing_is_taken_back_of_one_that_has_ended() {
        let mut phase = ended(Ok(()));
        phase.take_back();
        assert!(phase.ending().is_some());
    }

    #[test]
    fn the_task_of_a_request_without_a_guest_is_stopped() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let task = runtime.spawn(std::future::pending::<()>());
        Runner::Request(task.abort_handle()).stop();
        assert!(runtime.block_on(task).unwrap_err().is_cancelled());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        HandOver,
        TakeBack,
        End(bool),
    }

    proptest! {
        /// Whatever comes in whatever order: there is one outcome, the first; each runner is returned once, or was taken back.
        #[test]
        fn there_is_one_outcome_and_each_runner_is_accounted_for(
            steps in prop::collection::vec(
                prop_oneof![Just(Step::HandOver), Just(Step::TakeBack), any::<bool>().prop_map(Step::End)],
                0..12,
            ),
        ) {
            let mut phase = Phase::OnCaller;
            let mut outcome = None;
            let (mut given, mut returned, mut taken_back) = (0, 0, 0);
            for step in steps {
                match step {
                    Step::HandOver => {
                        given += 1;
                        returned += usize::from(phase.hand_over(runner()).is_some());
                    }
                    Step::TakeBack => {
                        taken_back += usize::from(phase.is_on_task());
                        phase.take_back();
                    }
                    Step::End(well) => {
                        let end = if well { Ok(()) } else { Err(Error::Cancelled) };
                        let is_first = outcome.is_none();
                        match phase.end(end, || TOOK) {
                            Ok(runner) => {
                                prop_assert!(is_first);
                                returned += usize::from(runner.is_some());
                                outcome = Some(well);
                            }
                            Err(late) => {
                                prop_assert!(!is_first);
                                prop_assert_eq!(late.is_ok(), well);
                            }
                        }
                    }
                }
                prop_assert_eq!(phase.ending().map(|ending| ending.outcome.is_ok()), outcome);
                prop_assert_eq!(given, returned + taken_back + usize::from(phase.is_on_task()));
            }
        }
    }
}
