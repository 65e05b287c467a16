//! An exchange until its response begins: on its caller's thread first, then on the scheduler's.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use wasmtime_wasi_http::WasiBody;

use crate::app::admission::AdmissionControl;
use crate::app::running::Running;
use crate::app::shared::{Joining, Reservation, SharedInstance, SharedInstances};
use crate::app::slice::{Over, Slice};
use crate::engine::ProcessState;
use crate::error::Error;
use crate::exchange::body_check::BodyRules;
use crate::exchange::guest_body::GuestBody;
use crate::exchange::guest_clock::Wait;
use crate::exchange::handle::ExchangeHandle;
use crate::exchange::phase::Runner;
use crate::exchange::response_body::ResponseSlot;
use crate::guest::prepared::Prepared;
use crate::http::error_code::ErrorCode;
use crate::scheduler::{Newcomer, Run};

/// What its caller has to do with an exchange's guest.
pub(super) enum Part {
    /// To run it, until it has ended or is handed over.
    Alone(Option<Run>),
    /// To run the instance that it is the first in, likewise.
    First { run: Option<Run>, sharing: Arc<SharedInstance>, others: Arc<SharedInstances> },
    /// To have it join others, whose instance somebody runs.
    Joining(Box<Joining>),
}

/// An exchange until its response begins.
pub struct Exchange {
    pub(super) part: Part,
    pub(super) head: oneshot::Receiver<Result<http::Response<WasiBody>, ErrorCode>>,
    pub(super) answer: ResponseSlot,
    pub(super) owner: ExchangeHandle,
    pub(super) process: &'static ProcessState,
    pub(super) prepared: Arc<Prepared>,
    /// Whether its instance is still to be made.
    pub(super) needs_set_up: bool,
    /// It has had what it may on its caller's thread, or guests of its component have lately.
    pub(super) computes: bool,
    pub(super) admission: Arc<AdmissionControl>,
    pub(super) number: u64,
    /// No body follows, whatever its length is said to be (RFC 9110, 9.3.2).
    pub(super) head_only: bool,
    pub(super) response_body: Option<u64>,
}

impl Exchange {
    /// The handle on it: dropped with it, it stops the guest.
    pub fn owner(&self) -> &ExchangeHandle {
        &self.owner
    }

    /// Whether an event loop's thread should not begin it: guests of this component take long to set up, or compute. To be
    /// asked once an exchange: the answer counts.
    pub fn decide_off_loop(&mut self) -> bool {
        self.decide_off(true)
    }

    /// The same of a thread on which only guests of this app have turns: they hold up nobody there but themselves.
    pub fn decide_off_own_thread(&mut self) -> bool {
        self.decide_off(false)
    }

    fn decide_off(&mut self, is_shared: bool) -> bool {
        let (keeps_off, computes) =
            self.admission.history.decide_off_loop(&self.prepared, self.needs_set_up, is_shared);
        self.computes = computes;
        keeps_off
    }

    /// A place in its instance, if it is the first in one that it shares, and has not run.
    #[cfg_attr(not(feature = "python"), expect(dead_code, reason = "only `check_isolation` has exchanges overlap"))]
    pub(crate) fn reserve_beside(&self) -> Option<Reservation> {
        let Part::First { sharing, .. } = &self.part else { return None };
        sharing.shared.open();
        Reservation::new(sharing)
    }

    /// Runs the guest on this thread until it ends, waits, or has had its slice. Returns whether it ended.
    pub fn run_here(&mut self) -> Result<bool, Error> {
        let (run, is_alone) = match &mut self.part {
            Part::Alone(Some(run)) => (run, true),
            Part::First { run: Some(run), .. } => (run, false),
            Part::Alone(None) | Part::First { run: None, .. } => return Ok(true),
            Part::Joining(_) => return Ok(false),
        };
        let exchange = &self.owner.state;
        if self.admission.history.is_unruly(&self.prepared, self.needs_set_up) {
            return Ok(false);
        }
        // none: the process ends
        let Some(_visit) = self.process.scheduler.visit() else { return Ok(false) };
        let _entered = self.process.runtime.handle()?.enter();
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let mut time = Slice::begin(&self.admission.history, exchange.begun);
        // once for all turns of this slice: in between, nothing of the caller's runs
        let _open = crate::process::signals::reclaim();
        if is_alone {
            exchange.clock.enter();
        }
        loop {
            crate::scheduler::begin_turn();
            let ended = run.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
            let over = time.is_over();
            if ended {
                match &mut self.part {
                    Part::Alone(run) | Part::First { run, .. } => *run = None,
                    Part::Joining(_) => {}
                }
                return Ok(true);
            }
            let is_woken = || flag.0.swap(false, Ordering::Relaxed);
            if over == Over::No && is_woken() {
                continue; // it waits for nothing: it has another turn
            }
            if is_alone {
                self.answer.look();
                exchange.clock.leave(None);
            }
            if over != Over::No {
                self.computes |= over == Over::Computed;
                return Ok(false);
            }
            if !is_woken() {
                return Ok(false); // it waits
            }
            exchange.clock.enter();
        }
    }

    /// Gives the guest, if it has not ended, to the scheduler's threads.
    pub fn hand_over(&mut self) -> Result<(), Error> {
        let (run, sharing) = match &mut self.part {
            Part::Alone(run) => (run.take(), None),
            Part::First { run, sharing, others } => {
                let run = run.take();
                if run.is_some() {
                    others.add(sharing);
                }
                (run, Some(sharing.clone()))
            }
            Part::Joining(joining) => {
                joining.join(|driver| {
                    let exchange = &self.owner.state;
                    // one that was stopped before is met by the driver as one that has ended
                    let _ = exchange.hand_over(Runner::Shared(driver));
                    self.admission.enroll(self.number, exchange);
                });
                return Ok(());
            }
        };
        let Some(run) = run else { return Ok(()) };
        let exchange = self.owner.state.clone();
        // before it runs: one that ends at once must find itself there to be taken off
        self.admission.enroll(self.number, &exchange);
        let computes = self.computes || self.admission.history.is_unruly(&self.prepared, self.needs_set_up);
        let run: Run = match &sharing {
            None => Box::pin(Running::new(run, exchange.clone(), self.answer.clone())),
            Some(_) => run,
        };
        let mut late = None;
        let told = |task| {
            late = exchange.hand_over(match &sharing {
                None => Runner::Guest(task),
                Some(sharing) => Runner::Shared(sharing.waker()),
            });
        };
        let guest =
            Newcomer { run, lane: &self.admission.lane, computes, long_turns: self.admission.history.long_turns() };
        self.process.scheduler.spawn(&self.process.runtime, guest, told)?;
        if let Some(late) = late {
            late.stop();
        }
        Ok(())
    }

    /// The head of the response, at the end of the turn in which the guest has set it; its body follows.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<http::Response<GuestBody>, Error>> {
        let head = match self.head.try_recv() {
            Ok(head) => Ok(head),
            Err(TryRecvError::Closed) => Err(()),
            Err(TryRecvError::Empty) => {
                let waker = Waker::from(Wait::begin(None, cx.waker()));
                ready!(Pin::new(&mut self.head).poll(&mut Context::from_waker(&waker))).map_err(drop)
            }
        };
        Poll::Ready(match head {
            // the guest may have answered in the moment in which its caller failed: the caller's exception comes first
            Ok(_) if let Some(error) = self.owner.overruled() => Err(error),
            Ok(Ok(response)) => {
                let observer = self.owner.observe();
                let owner = std::mem::replace(&mut self.owner, observer);
                let (parts, body) = response.into_parts();
                let rules = BodyRules::of_response(self.head_only, parts.status, &parts.headers);
                let rules = BodyRules { limit: self.response_body, ..rules };
                if let Err(violation) = rules.check_announced() {
                    let error = violation.into_error();
                    owner.stop_because(error.clone());
                    return Poll::Ready(Err(error));
                }
                Ok(http::Response::from_parts(parts, GuestBody::new(body, rules, owner)))
            }
            Ok(Err(code)) => Err(Error::Code(code.into())),
            Err(()) => Err(match self.owner.outcome() {
                Some(Err(error)) => error,
                Some(Ok(())) => Error::NoResponse("the guest returned without setting a response".into()),
                None => {
                    Error::NoResponse("the guest dropped its `response-outparam` without setting a response".into())
                }
            }),
        })
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}
