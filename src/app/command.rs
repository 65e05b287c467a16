//! A command on its way: a guest that runs once, with the process's stdin, stdout and stderr, on a thread of its own.
//!
//! The process is there for it, so no other guest's turn is to be kept: it has the processor for as long as it likes. Its turns end at ticks
//! all the same, so that it can be stopped.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker, ready};
use std::thread::Thread;
use std::time::Instant;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::app::admission::{Admission, Permit};
use crate::app::running::{end_in_time, why_dropped};
use crate::app::{App, Ground};
use crate::engine::ProcessState;
use crate::error::Error;
use crate::exchange::handle::{ExchangeHandle, ExchangeState, Gone};
use crate::exchange::phase::Runner;
use crate::guest::grants::Grants;
use crate::guest::instance::Instance;
use crate::guest::process_stdio::ProcessStdio;
use crate::outgoing::upstream::Upstreams;

/// How a command has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With an exit code: that of its `wasi:cli/exit`, or 0 or 1 as its `run` has returned.
    Code(i32),
    /// It has written into a pipe that nobody reads.
    BrokenPipe,
}

/// A command that runs. Dropping it stops its guest.
pub struct Command {
    owner: ExchangeHandle,
    done: oneshot::Receiver<Result<Ended, Error>>,
}

impl App {
    /// A place for a command, now or when its turn comes.
    pub fn admit_command(&self, process: &'static ProcessState) -> Result<Admission, Error> {
        self.component.check_command()?;
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.admission(process).admit()
    }

    /// Has the command run, with these arguments instead of the app's.
    pub fn run_command(
        &self,
        permit: Permit,
        args: Vec<String>,
        stdio: ProcessStdio,
        upstreams: Upstreams,
    ) -> Result<Command, Error> {
        let (number, admission) = (permit.number, permit.admission.clone());
        let Ground { process, ticking, prepared, exchange, hooks } = self.ground(Some(number), upstreams)?;
        let room = crate::guest::instance_pool::make_room(process);
        let grants = Grants { args, stdio: Some(stdio.clone()), simulation: None, ..self.grants.clone() };
        let instance = Instance::new(prepared, &grants, &self.limits, hooks, &exchange, &admission.share)?;
        let owner = ExchangeHandle::new(exchange.clone());
        let (tell, done) = oneshot::channel();
        let own = exchange.clone();
        let parked = Arc::<Parked>::default();
        let of_thread = parked.clone();
        let work = move || {
            let gone = Gone(own.clone());
            let run = run(Guest { instance, has_returned: false }, room, own.clone());
            let ended = drive(run, &own, &stdio, &of_thread);
            own.stdio.finish();
            drop((ticking, permit, gone));
            let _ = tell.send(ended);
        };
        process.runtime.handle()?;
        // before it runs: one that ends at once finds itself there to be taken off
        let _ = exchange.hand_over(Runner::Shared(Waker::from(parked)));
        admission.enroll(number, &exchange);
        let thread = std::thread::Builder::new().name("wasgi-command".into()).spawn(work);
        thread.map_err(|error| crate::process::fork::no_thread("a command", error))?;
        Ok(Command { owner, done })
    }
}

impl Command {
    /// The handle on it.
    pub fn owner(&self) -> &ExchangeHandle {
        &self.owner
    }

    /// Ready when nothing is left of it.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Ended, Error>> {
        let ended = ready!(Pin::new(&mut self.done).poll(cx));
        Poll::Ready(ended.unwrap_or_else(|_| Err(Error::Host("the host failed while the guest ran".into()))))
    }
}

/// An instance with a command in it. Bodies that it has not finished break off when it goes.
struct Guest {
    instance: Instance,
    has_returned: bool,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.instance.host().abort_bodies(self.has_returned);
    }
}

/// Has the guest run, once there is room for its instance.
async fn run(mut guest: Guest, room: Option<JoinHandle<()>>, exchange: Arc<ExchangeState>) -> Result<Ended, Error> {
    if let Some(room) = room {
        let _ = room.await;
    }
    let instance = &mut guest.instance;
    let (result, code) = match instance.run().await {
        Ok(is_success) => (Ok(()), i32::from(!is_success)),
        Err(error) => (Err(error), 0),
    };
    let outcome = match instance.outcome(result, &exchange) {
        Ok(()) => Ok(Ended::Code(code)),
        Err(Error::GuestExit { code }) => Ok(Ended::Code(code)),
        Err(Error::NoResponse(_)) => Err(Error::NoResponse("the command ended without a result".into())),
        Err(error) => Err(error),
    };
    if let Some(used) = instance.fuel_used() {
        let _ = exchange.costs.fuel.set(used);
    }
    guest.has_returned = outcome.is_ok();
    outcome
}

/// Gives a command its turns, on this thread, until it has ended, is stopped, or has no more time.
fn drive(
    run: impl Future<Output = Result<Ended, Error>>,
    exchange: &Arc<ExchangeState>,
    stdio: &ProcessStdio,
    parked: &Arc<Parked>,
) -> Result<Ended, Error> {
    crate::process::signals::open_here();
    let process = exchange.process;
    let _entered = process.runtime.handle()?.enter();
    parked.is_here();
    let waker = Waker::from(parked.clone());
    let mut run = pin!(run);
    loop {
        // it is stopped by its end, and none may have a turn when the process ends
        let Some(visit) = process.scheduler.visit().filter(|_| !exchange.has_ended()) else { break };
        if exchange.clock.enter().is_some_and(|at| Instant::now() >= at) {
            end_in_time(exchange);
            break;
        }
        crate::scheduler::begin_turn();
        let polled = {
            let _open = crate::process::signals::reclaim();
            catch_unwind(AssertUnwindSafe(|| run.as_mut().poll(&mut Context::from_waker(&waker))))
        };
        drop(visit);
        let failed = |_| Poll::Ready(Err(Error::Host("the host failed while the guest ran".into())));
        match polled.unwrap_or_else(failed) {
            _ if stdio.is_broken() => {
                exchange.end(Ok(()));
                return Ok(Ended::BrokenPipe);
            }
            Poll::Ready(ended) => {
                exchange.end(ended.as_ref().map(|_| ()).map_err(Error::clone));
                return ended;
            }
            Poll::Pending => parked.park(exchange.clock.leave(None)),
        }
    }
    exchange.end(Err(why_dropped(exchange)));
    Err(ExchangeHandle::observer(exchange).outcome().and_then(Result::err).unwrap_or(Error::Cancelled))
}

/// A thread that waits for its guest's waker.
#[derive(Default)]
struct Parked {
    thread: OnceLock<Thread>,
    is_woken: AtomicBool,
}

impl Parked {
    /// It is this thread that waits.
    fn is_here(&self) {
        let _ = self.thread.set(std::thread::current());
    }

    /// Until it is woken, or this time has come.
    fn park(&self, until: Option<Instant>) {
        if self.is_woken.swap(false, Ordering::AcqRel) {
            return;
        }
        match until {
            Some(until) => std::thread::park_timeout(until.saturating_duration_since(Instant::now())),
            None => std::thread::park(),
        }
    }
}

impl Wake for Parked {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.is_woken.store(true, Ordering::Release);
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}
