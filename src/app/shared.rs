//! An instance that several exchanges of an app share, and whoever drives it for all of them.
//!
//! The first exchange makes the driver and gives it its first turns; from then on the scheduler does, whatever becomes of that exchange.
//! One that ends before its guest has done with it (it was cancelled, or had no more time) leaves its guest's task behind, which wasmtime
//! cannot cancel: nobody joins any more, and the instance goes with the last of the others.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::app::running::{Due, Place, drop_instance, end_in_time, tell_not_reusable, why_dropped};
use crate::engine::ProcessState;
use crate::error::Error;
use crate::error::trap::Trap;
use crate::exchange::handle::ExchangeState;
use crate::exchange::response_body::ResponseSlot;
use crate::guest::instance::{Instance, Reuse};
use crate::guest::instance_pool::InstancePool;
use crate::guest::seat::Seat;
use crate::guest::shared::{Newcomer, Shared};
use crate::simulation::environment::Stage;
use crate::sync::lock;

/// For so long the guest of an exchange that is over may keep the others from the store; then the instance ends.
const RUNS_ON: Duration = Duration::from_millis(100);

/// A guest that has kept the store for so many turns in a row computes: nobody joins it. One turn may be over because of another process.
const HELD: u32 = 3;

/// An instance that several exchanges share.
pub(crate) struct SharedInstance {
    pub shared: Arc<Shared>,
    process: &'static ProcessState,
    reuse: Reuse,
    /// Where each of them begins, in a simulation.
    pub stage: Option<Stage>,
    /// The most memory that it has held.
    peak: Arc<AtomicU64>,
    /// How many turns in a row were over before the guest that had the store gave it back.
    held: AtomicU32,
    members: Mutex<Members>,
}

#[derive(Default)]
struct Members {
    seated: Vec<Member>,
    /// How many exchanges there have been.
    served: u64,
    /// Nobody joins any more.
    closed: bool,
}

/// One of the exchanges.
pub(super) struct Member {
    pub seat: Arc<Seat>,
    pub answer: ResponseSlot,
    pub place: Place,
}

impl Member {
    fn exchange(&self) -> &Arc<ExchangeState> {
        &self.seat.exchange
    }
}

impl SharedInstance {
    pub(super) fn new(reuse: Reuse, instance: &mut Instance, first: &ExchangeState) -> Arc<Self> {
        Arc::new(Self {
            shared: Arc::default(),
            process: first.process,
            reuse,
            stage: instance.host().staged().map(|staged| staged.stage().clone()),
            peak: first.costs.peak.clone(),
            held: AtomicU32::new(0),
            members: Mutex::new(Members { served: instance.served(), ..Members::default() }),
        })
    }

    /// The first exchange in it, which nobody can be before.
    pub(super) fn begin(&self, member: Member, newcomer: Box<Newcomer>) {
        self.shared.begin(newcomer);
        let mut members = lock(&self.members);
        members.served += 1;
        members.seated.push(member);
    }

    /// Whether one more may come.
    fn has_place(&self, members: &Members) -> bool {
        let coming = members.seated.len() + self.shared.reserved();
        !members.closed
            && coming < self.reuse.concurrent
            && self.reuse.requests.is_none_or(|most| members.served < most)
            && self.held.load(Ordering::Relaxed) < HELD
    }

    /// Whether nobody joins any more.
    pub(super) fn is_closed(&self) -> bool {
        lock(&self.members).closed
    }

    fn close(&self) {
        lock(&self.members).closed = true;
    }

    /// Nobody drives it any more. Returns those who are left.
    fn abandon(&self) -> Vec<Arc<Seat>> {
        let waiting = {
            // under the lock: whoever comes now is among those who are left, or is told
            let mut members = lock(&self.members);
            members.closed = true;
            self.shared.close()
        };
        drop(waiting);
        self.members()
    }

    /// Whether nobody is in it, and nobody is on the way: then nobody comes any more.
    fn close_if_left(&self) -> bool {
        let members = lock(&self.members);
        members.seated.is_empty() && self.shared.close_if_unreserved()
    }

    /// Has whoever drives it look who has ended, and what can go on.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(self.shared.clone())
    }

    fn members(&self) -> Vec<Arc<Seat>> {
        lock(&self.members).seated.iter().map(|member| member.seat.clone()).collect()
    }

    fn remove(&self, seat: &Arc<Seat>) -> Option<Member> {
        let mut members = lock(&self.members);
        let at = members.seated.iter().position(|member| Arc::ptr_eq(&member.seat, seat))?;
        Some(members.seated.swap_remove(at))
    }
}

/// Those of an app that exchanges share, and that may be joined.
#[derive(Default)]
pub(crate) struct SharedInstances(Mutex<Vec<Arc<SharedInstance>>>);

impl SharedInstances {
    /// A place in an instance that others are in, if there is one.
    pub(super) fn reserve(&self) -> Option<Reservation> {
        let mut shared = lock(&self.0);
        shared.retain(|sharing| !sharing.is_closed());
        shared.iter().find_map(Reservation::new)
    }

    /// Others may join this one.
    pub(super) fn add(&self, sharing: &Arc<SharedInstance>) {
        lock(&self.0).push(sharing.clone());
    }
}

/// A place in an instance, which does not end meanwhile for want of exchanges.
pub(crate) struct Reservation {
    sharing: Arc<SharedInstance>,
    used: bool,
}

impl Reservation {
    pub(super) fn new(sharing: &Arc<SharedInstance>) -> Option<Self> {
        let members = lock(&sharing.members);
        let reserved = sharing.has_place(&members) && sharing.shared.reserve();
        reserved.then(|| Self { sharing: sharing.clone(), used: false })
    }

    pub(super) fn sharing(&self) -> &Arc<SharedInstance> {
        &self.sharing
    }

    /// One more exchange is in it.
    pub(super) fn join(mut self, member: Member, newcomer: Box<Newcomer>) {
        self.used = true;
        let mut members = lock(&self.sharing.members);
        member.exchange().costs.earlier.store(members.served, Ordering::Relaxed);
        if self.sharing.shared.is_closed() {
            drop(members);
            let trap = Trap { message: "its instance has ended as it came into it".into(), ..Trap::default() };
            member.exchange().end(Err(Error::Trap(Arc::new(trap))));
            return;
        }
        members.served += 1;
        members.seated.push(member);
        // the driver's waker is called under the lock, which another thread takes; one that has ended meanwhile looks once more
        self.sharing.shared.join(newcomer);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.used {
            self.sharing.shared.give_up();
        }
    }
}

/// An exchange that has a place in an instance, and has not come into it yet.
pub(super) struct Joining(Option<(Reservation, Member, Box<Newcomer>)>);

impl Joining {
    pub(super) fn new(reservation: Reservation, member: Member, newcomer: Box<Newcomer>) -> Self {
        Self(Some((reservation, member, newcomer)))
    }

    /// It comes into it. `told` gets the waker of whoever drives it before.
    pub(super) fn join(&mut self, told: impl FnOnce(Waker)) {
        if let Some((reservation, member, newcomer)) = self.0.take() {
            told(reservation.sharing.waker());
            reservation.join(member, newcomer);
        }
    }
}

/// One that does not come has ended.
impl Drop for Joining {
    fn drop(&mut self) {
        if let Some((_, member, _)) = &self.0 {
            let exchange = member.exchange();
            exchange.end(Err(why_dropped(exchange)));
            exchange.stdio.finish();
        }
    }
}

/// How it ends.
enum Fate {
    /// The store has nothing more to do, or something in it has failed.
    Returned(wasmtime::Result<()>),
    /// No exchange is left, and guests' tasks are.
    Abandoned,
    /// The guest of an exchange that is over keeps the others from the store.
    Held(Arc<Seat>),
}

/// Gives all of them their turns, until none is left.
pub(super) async fn drive(
    sharing: Arc<SharedInstance>,
    instance: Instance,
    room: Option<JoinHandle<()>>,
    idle: Option<Arc<InstancePool>>,
) {
    let mut instance = instance;
    // after the instance, so that it goes before: whoever is left is told while the store lives
    let mut driver = Driver { sharing: sharing.clone(), left_over: Vec::new(), is_clean: true, due: Due::default() };
    let mut places = Vec::new();
    let fate = {
        let run = async {
            if let Some(room) = room {
                let _ = room.await;
            }
            instance.share(&sharing.shared).await
        };
        let mut run = pin!(run);
        poll_fn(|cx| driver.turn(run.as_mut(), cx)).await
    };
    driver.end(fate, &mut instance, &mut places);
    let served = lock(&sharing.members).served;
    let is_clean = instance.stop_sharing(served) && driver.is_clean && driver.left_over.is_empty();
    let over = match idle {
        Some(idle) if is_clean => idle.keep(instance),
        _ => Some(instance),
    };
    if let Some(instance) = over {
        return drop_instance(sharing.process, instance, places);
    }
    // whoever takes the place of the last finds the instance
    drop(places);
}

struct Driver {
    sharing: Arc<SharedInstance>,
    /// Whose guest's tasks are left behind.
    left_over: Vec<Arc<Seat>>,
    /// Whether all have ended well.
    is_clean: bool,
    /// When the time of one of them is up.
    due: Due,
}

impl Driver {
    fn turn(&mut self, run: Pin<&mut impl Future<Output = wasmtime::Result<()>>>, cx: &mut Context<'_>) -> Poll<Fate> {
        let shared = self.sharing.shared.clone();
        shared.is_driven_by(cx);
        let began = Instant::now();
        self.look(began);
        if self.sharing.close_if_left() {
            return Poll::Ready(Fate::Abandoned);
        }
        let seats = self.sharing.members();
        let gap = shared.begin_turn(began);
        let polled = run.poll(&mut Context::from_waker(&self.sharing.waker()));
        let ended = Instant::now();
        let holder = shared.end_turn(ended);
        match holder {
            Some(_) => self.sharing.held.fetch_add(1, Ordering::Relaxed),
            None => self.sharing.held.swap(0, Ordering::Relaxed),
        };
        let took = gap + ended.saturating_duration_since(began);
        for seat in seats.iter().chain(&self.left_over) {
            let ran = seat.take_ran();
            seat.exchange.clock.spare(took.saturating_sub(ran));
        }
        if let Poll::Ready(result) = polled {
            return Poll::Ready(Fate::Returned(result));
        }
        match holder {
            Some(holder) if holder.is_over() && holder.ran_on() > RUNS_ON => return Poll::Ready(Fate::Held(holder)),
            None if shared.is_at_rest() => self.see_who_is_done(),
            _ => {} // it goes on
        }
        self.wait(cx)
    }

    /// Takes out those who have ended, and ends those whose time is up.
    fn look(&mut self, now: Instant) {
        let is_over = |member: &&Member| {
            let clock = &member.exchange().clock;
            member.exchange().has_ended() || member.seat.is_begun() && clock.enter().is_some_and(|at| now >= at)
        };
        let over: Vec<_> =
            lock(&self.sharing.members).seated.iter().filter(is_over).map(|member| member.seat.clone()).collect();
        for seat in over {
            let exchange = &seat.exchange;
            if !exchange.has_ended() {
                if seat.is_held_back() {
                    exchange
                        .stdio
                        .warn("the guest had not begun when its time was up: its component holds requests back".into());
                }
                end_in_time(exchange);
            }
            self.sharing.close();
            if let Some(member) = self.sharing.remove(&seat) {
                drop(self.let_go(member, Err(Error::Cancelled))); // its outcome is known
                if seat.is_called() {
                    self.left_over.push(seat);
                }
            }
        }
    }

    /// Those of whose guests nothing is known that is still to be done. One that is alone is done when the store is: that is known for sure.
    fn see_who_is_done(&mut self) {
        let seats = self.sharing.members();
        if seats.len() + self.left_over.len() < 2 {
            return;
        }
        for seat in seats {
            if seat.seems_done()
                && let Some(member) = self.sharing.remove(&seat)
            {
                drop(self.let_go(member, Ok(())));
            }
        }
    }

    /// Until somebody's time is up; the store wakes it before.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Fate> {
        if self.sharing.close_if_left() {
            return Poll::Ready(Fate::Abandoned);
        }
        let mut next = None;
        {
            let members = lock(&self.sharing.members);
            for member in &members.seated {
                member.answer.look();
                if !member.seat.is_begun() {
                    continue;
                }
                let due = member.exchange().clock.leave(Some(cx.waker()));
                next = next.into_iter().chain(due).min();
            }
        }
        let Some(next) = next else { return Poll::Pending };
        if self.due.poll(next, cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The store is done with all of them.
    fn end(&mut self, fate: Fate, instance: &mut Instance, places: &mut Vec<Place>) {
        let seats = self.sharing.abandon();
        let (culprit, outcome) = match fate {
            Fate::Abandoned => (None, Ok(())),
            Fate::Returned(Ok(())) => {
                instance.host().turn.end();
                (None, Ok(()))
            }
            Fate::Returned(result) => {
                let culprit = self.sharing.shared.culprit();
                let told = culprit.as_ref().or(seats.first()).map(|seat| seat.exchange.clone());
                (culprit, told.map_or(Ok(()), |exchange| instance.outcome(result, &exchange)))
            }
            Fate::Held(seat) => {
                let error = Error::Host("it went on computing when it was over".to_owned().into());
                (Some(seat), Err(error))
            }
        };
        for seat in seats {
            let own = match (&culprit, &outcome) {
                (Some(culprit), Err(error)) if !Arc::ptr_eq(culprit, &seat) => Err(Error::Trap(Arc::new(
                    Trap::of_sibling(culprit.exchange.number.unwrap_or_default(), &error.to_string()),
                ))),
                _ => outcome.clone(),
            };
            if let Some(member) = self.sharing.remove(&seat) {
                places.push(self.let_go(member, own));
            }
        }
    }

    /// One exchange is over: its output and its bodies end. Returns its place, which is to be free.
    #[must_use]
    fn let_go(&mut self, member: Member, outcome: Result<(), Error>) -> Place {
        let Member { seat, answer, place } = member;
        let exchange = &seat.exchange;
        if let Some(used) = seat.fuel_used() {
            let _ = exchange.costs.fuel.set(used);
        }
        exchange.costs.peak.fetch_max(self.sharing.peak.load(Ordering::Relaxed), Ordering::Relaxed);
        let ended_well = exchange.end(outcome);
        let answered = answer.is_answered();
        if ended_well && !answered {
            tell_not_reusable(&place, exchange);
        }
        exchange.stdio.finish();
        let broke_off = seat.written.close(ended_well);
        seat.leave();
        self.is_clean &= ended_well && answered && !broke_off;
        // before the place is free: whoever waits for that came later
        crate::scheduler::wake_now();
        place
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        for seat in self.sharing.abandon() {
            if let Some(member) = self.sharing.remove(&seat) {
                let why = why_dropped(&seat.exchange);
                drop(self.let_go(member, Err(why)));
            }
        }
    }
}

#[cfg(test)]
mod tests;
