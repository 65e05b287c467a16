//! Who owns a guest: what both sides of an exchange know of each other, and the right to end it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use tokio::sync::SetOnce;

use crate::engine::ProcessState;
use crate::error::Error;
use crate::exchange::guest_clock::Clock;
use crate::exchange::phase::{Ending, Phase, Runner};
use crate::exchange::stdio::Stdio;
use crate::process::fork::ParentsLock;
use crate::telemetry::counters::Outcome;

/// What an exchange costs. The path of each request adds to it, without a lock.
#[derive(Default)]
pub(crate) struct Costs {
    /// The most linear memory that its guest held.
    pub peak: Arc<AtomicU64>,
    /// How many requests its guest has sent out.
    pub outgoing: AtomicU64,
    /// How many exchanges its instance has had before.
    pub earlier: AtomicU64,
    /// What a guest under a limit of fuel has used, when it has ended.
    pub fuel: OnceLock<u64>,
}

/// What the guest's side and the owner's side both know.
pub(crate) struct ExchangeState {
    /// Its number in its process; none if it is no request for a guest, whose end is counted.
    pub number: Option<u64>,
    pub process: &'static ProcessState,
    /// Where it stands. In a forked child a thread of the parent's may hold this lock for ever.
    phase: ParentsLock<Phase>,
    /// Set when nothing is left of the guest: its store, its slot, its place among the exchanges of its app.
    pub finished: SetOnce<()>,
    pub clock: Arc<Clock>,
    pub stdio: Arc<Stdio>,
    pub begun: Instant,
    pub costs: Costs,
    /// How many of the requests that it has sent out, or passed on, are not over.
    pub sent: AtomicU64,
    pub passed_on: AtomicU64,
    /// Whether there is somebody who may still read the body of its request.
    pub has_reader: AtomicBool,
}

impl ExchangeState {
    pub(crate) fn new(process: &'static ProcessState, number: u64, timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self::made(process, Some(number), timeout))
    }

    /// Of a guest that is made ahead of its first request.
    pub(crate) fn ahead(process: &'static ProcessState, timeout: Option<Duration>) -> Arc<Self> {
        Arc::new(Self::made(process, None, timeout))
    }

    /// Of a request that no guest makes.
    pub(crate) fn without_guest(process: &'static ProcessState) -> Arc<Self> {
        Arc::new(Self::made(process, None, None))
    }

    /// Of what its guest does before it: what that prints is the exchange's.
    pub(crate) fn before(&self) -> Arc<Self> {
        Arc::new(Self { stdio: self.stdio.clone(), ..Self::made(self.process, None, None) })
    }

    fn made(process: &'static ProcessState, number: Option<u64>, timeout: Option<Duration>) -> Self {
        Self {
            number,
            process,
            phase: ParentsLock::new(Phase::OnCaller),
            finished: SetOnce::new(),
            clock: Clock::new(timeout),
            stdio: Arc::default(),
            begun: Instant::now(),
            costs: Costs::default(),
            sent: AtomicU64::new(0),
            passed_on: AtomicU64::new(0),
            has_reader: AtomicBool::new(false),
        }
    }

    /// Whether the guest is in the process that forked this one.
    pub(crate) fn is_foreign(&self) -> bool {
        self.phase.is_foreign()
    }

    /// Whether its outcome is known.
    pub(crate) fn has_ended(&self) -> bool {
        self.ending(|_| ()).is_some()
    }

    /// A task runs it from now on. One that has been stopped before gives the task back: to be stopped as soon as it is known to
    /// whoever runs it.
    #[must_use]
    pub(crate) fn hand_over(&self, runner: Runner) -> Option<Runner> {
        match self.phase.lock() {
            Some(mut phase) => phase.hand_over(runner),
            None => Some(runner),
        }
    }

    /// The task that ran it has done its part, and the exchange goes on.
    pub(crate) fn take_back(&self) {
        if let Some(mut phase) = self.phase.lock() {
            phase.take_back();
        }
    }

    /// It ends, if it has not. The first to say how is right. Returns whether it has ended well.
    pub(crate) fn end(&self, outcome: Result<(), Error>) -> bool {
        self.end_as(outcome).0
    }

    /// Ends it, and stops what runs it.
    pub(crate) fn stop(&self, reason: Error) {
        if self.is_foreign() {
            return; // the parent's
        }
        if let (_, Ok(Some(runner))) = self.end_as(Err(reason)) {
            runner.stop();
        }
    }

    /// Nobody wants it any more: stops what runs it. One that has not begun ends when it is dropped.
    fn abandon(&self) {
        if !self.is_foreign() && self.phase.lock().is_some_and(|phase| phase.is_on_task()) {
            self.stop(Error::Cancelled);
        }
    }

    /// The second: what ran it, or the outcome that came too late, which is dropped without the lock.
    #[allow(clippy::type_complexity)]
    fn end_as(&self, outcome: Result<(), Error>) -> (bool, Result<Option<Runner>, Result<(), Error>>) {
        let Some(mut phase) = self.phase.lock() else { return (false, Ok(None)) };
        let ended = phase.end(outcome, || self.begun.elapsed());
        let outcome = phase.ending().map(|ending| &ending.outcome);
        if let (Ok(_), Some(outcome), true) = (&ended, outcome, self.number.is_some()) {
            self.process.counters.ended(Outcome::of(outcome));
        }
        (matches!(outcome, Some(Ok(()))), ended)
    }

    /// What `look` makes of how it ended; none if it has not, or if that is not to be seen in a forked child.
    fn ending<T>(&self, look: impl FnOnce(&Ending) -> T) -> Option<T> {
        self.phase.lock()?.ending().map(look)
    }
}

/// The last to go of what a guest does for an exchange, or for none: dropped, it tells that nothing is left.
pub(crate) struct Gone(pub Arc<ExchangeState>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.finished.set(());
    }
}

/// What whoever asks for a guest is told in a forked child.
pub(crate) fn in_parent() -> Error {
    Error::Host("its guest is in the parent process; hint: a forked child makes its own exchanges".into())
}

/// What an exchange has cost.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// From the guest's start to its end, or until now if it still runs.
    pub duration: Duration,
    /// The most linear memory that it held, in bytes.
    pub memory: u64,
    /// How many requests it sent out.
    pub outgoing: u64,
    /// How many exchanges its instance has had before.
    pub reused: u64,
    /// How much fuel it used, if that was limited and it has ended.
    pub fuel: Option<u64>,
    /// Whether it still runs.
    pub running: bool,
}

/// The right to a guest's life: dropping it stops the guest, unless it was released. An observer only looks on.
pub struct ExchangeHandle {
    pub(crate) state: Arc<ExchangeState>,
    owns: bool,
}

impl ExchangeHandle {
    pub(crate) fn new(state: Arc<ExchangeState>) -> Self {
        Self { state, owns: true }
    }

    pub(crate) fn observer(state: &Arc<ExchangeState>) -> Self {
        Self { state: state.clone(), owns: false }
    }

    pub(crate) fn observe(&self) -> Self {
        Self::observer(&self.state)
    }

    /// Stops the guest, its outgoing requests and its bodies.
    pub fn stop(&self) {
        self.stop_because(Error::Cancelled);
    }

    /// Stops the guest; readers of its bodies are told why.
    pub fn stop_because(&self, reason: Error) {
        if self.owns {
            self.state.stop(reason);
        }
    }

    /// A way to stop the guest for whoever does not own it.
    pub fn abort_handle(&self) -> ExchangeAbortHandle {
        ExchangeAbortHandle(Arc::downgrade(&self.state))
    }

    /// The guest has no owner any more: it may work on, and only its app and its limits stop it.
    pub fn release(&mut self) {
        self.owns = false;
    }

    /// How the exchange ended, if it has.
    pub fn outcome(&self) -> Option<Result<(), Error>> {
        self.state.ending(|ending| ending.outcome.clone())
    }

    /// What ended the exchange whatever the guest had answered: the caller's own failure, or a request past a limit.
    pub(crate) fn overruled(&self) -> Option<Error> {
        self.state.ending(|ending| match &ending.outcome {
            Err(error @ (Error::Caller(_) | Error::Limited { .. })) => Some(error.clone()),
            _ => None,
        })?
    }

    /// Waits until nothing is left of the guest.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let state = self.state.clone();
        async move {
            state.finished.wait().await;
        }
    }

    /// Why nothing will come from the guest any more, though it has not ended: it is in another process.
    pub(crate) fn out_of_reach(&self) -> Option<Error> {
        self.state.is_foreign().then(in_parent)
    }

    /// What its guest prints.
    pub fn stdio(&self) -> &Arc<Stdio> {
        &self.state.stdio
    }

    /// Counts one more outgoing request; returns how many there were before.
    pub(crate) fn count_outgoing(&self) -> u64 {
        self.state.costs.outgoing.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether there is somebody who may still read the body of its request.
    pub(crate) fn has_reader(&self) -> bool {
        self.state.has_reader.load(Ordering::Relaxed)
    }

    pub(crate) fn process(&self) -> &'static ProcessState {
        self.state.process
    }

    /// What it has cost until now.
    pub fn report(&self) -> Report {
        let took = self.state.ending(|ending| ending.took);
        let costs = &self.state.costs;
        Report {
            duration: took.unwrap_or_else(|| self.state.begun.elapsed()),
            memory: costs.peak.load(Ordering::Relaxed),
            outgoing: costs.outgoing.load(Ordering::Relaxed),
            reused: costs.earlier.load(Ordering::Relaxed),
            fuel: costs.fuel.get().copied(),
            running: took.is_none(),
        }
    }
}

impl Drop for ExchangeHandle {
    fn drop(&mut self) {
        if self.owns {
            self.state.abandon();
        }
    }
}

/// Ends an exchange, and does not own it.
pub struct ExchangeAbortHandle(Weak<ExchangeState>);

impl ExchangeAbortHandle {
    /// Stops the guest, for this reason.
    pub fn stop_because(&self, reason: Error) {
        if let Some(state) = self.0.upgrade() {
            state.stop(reason);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state() -> Arc<ExchangeState> {
        ExchangeState::new(crate::engine::process_state().unwrap(), 1, None)
    }

    fn on_task() -> Arc<ExchangeState> {
        let state = state();
        assert!(state.hand_over(Runner::Guest(Weak::new())).is_none());
        state
    }

    #[test]
    fn an_owner_that_is_dropped_stops_what_runs() {
        let state = on_task();
        let observer = ExchangeHandle::observer(&state);
        drop(ExchangeHandle::new(state));
        assert!(matches!(observer.outcome(), Some(Err(Error::Cancelled))));
        assert!(!observer.report().running);
    }

    #[test]
    fn an_owner_that_is_dropped_before_the_guest_is_handed_over_leaves_its_end_to_the_guest() {
        let state = state();
        let observer = ExchangeHandle::observer(&state);
        drop(ExchangeHandle::new(state.clone()));
        assert!(observer.outcome().is_none());
        assert!(state.end(Ok(())));
    }

    #[test]
    fn an_observer_stops_nothing() {
        let state = on_task();
        let observer = ExchangeHandle::observer(&state);
        observer.stop();
        drop(observer);
        assert!(ExchangeHandle::observer(&state).report().running);
    }

    #[test]
    fn one_that_was_released_works_on_until_its_app_stops_it() {
        let state = on_task();
        let mut owner = ExchangeHandle::new(state.clone());
        owner.release();
        owner.stop();
        let abort = owner.abort_handle();
        drop(owner);
        assert!(ExchangeHandle::observer(&state).outcome().is_none());
        abort.stop_because(Error::Closed);
        assert!(matches!(ExchangeHandle::observer(&state).outcome(), Some(Err(Error::Closed))));
    }

    #[test]
    fn one_that_is_stopped_before_it_is_handed_over_gives_its_task_back() {
        let state = state();
        state.stop(Error::Closed);
        assert!(state.hand_over(Runner::Guest(Weak::new())).is_some());
        assert!(!state.end(Ok(())), "the first outcome stays");
        assert!(matches!(ExchangeHandle::observer(&state).outcome(), Some(Err(Error::Closed))));
    }

    #[test]
    fn the_callers_failure_and_a_limit_overrule_what_the_guest_answers() {
        let limited =
            Error::Limited { code: crate::http::message::Side::Request.body_size(2), limit: "request_body", value: 1 };
        for (outcome, overrules) in [(Ok(()), false), (Err(Error::Cancelled), false), (Err(limited), true)] {
            let state = state();
            state.end(outcome);
            assert_eq!(ExchangeHandle::observer(&state).overruled().is_some(), overrules);
        }
    }

    #[test]
    fn the_duration_stands_still_when_it_has_ended() {
        let state = state();
        let observer = ExchangeHandle::observer(&state);
        assert!(observer.report().running);
        state.end(Ok(()));
        let took = observer.report().duration;
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(observer.report().duration, took);
    }

    #[test]
    fn an_owner_stops_its_guest_for_a_reason() {
        let (one, other) = (on_task(), on_task());
        ExchangeHandle::new(one.clone()).stop_because(Error::Closed);
        assert!(matches!(ExchangeHandle::observer(&one).outcome(), Some(Err(Error::Closed))));
        let owner = ExchangeHandle::new(other);
        owner.stop();
        assert!(matches!(owner.outcome(), Some(Err(Error::Cancelled))));
    }

    #[test]
    fn one_whose_task_has_done_its_part_is_not_ended_by_its_owners_going() {
        let state = on_task();
        state.take_back();
        drop(ExchangeHandle::new(state.clone()));
        assert!(ExchangeHandle::observer(&state).outcome().is_none());
    }

    #[test]
    fn what_has_an_outcome_has_ended() {
        let state = state();
        assert!(!state.has_ended() && !state.is_foreign());
        state.end(Ok(()));
        assert!(state.has_ended() && ExchangeHandle::observer(&state).out_of_reach().is_none());
    }

    #[test]
    fn what_a_guest_prints_before_its_exchange_is_the_exchanges() {
        let state = state();
        let before = state.before();
        assert!(Arc::ptr_eq(&before.stdio, &state.stdio));
        assert_eq!(before.number, None);
    }

    #[test]
    fn outgoing_requests_are_counted() {
        let observer = ExchangeHandle::observer(&state());
        assert_eq!((observer.count_outgoing(), observer.count_outgoing()), (0, 1));
        assert_eq!(observer.report().outgoing, 2);
        assert!(Arc::ptr_eq(observer.stdio(), &observer.state.stdio));
    }
}
