//! Whoever drives an instance that exchanges share, for all of them.
//!
//! The first exchange makes the driver and gives it its first turns; from then on the scheduler does, whatever becomes of that exchange.
//! One that ends before its guest has done with it (it was cancelled, or had no more time) leaves its guest's task behind, which wasmtime
//! cannot cancel: nobody joins any more, and the instance goes with the last of the others.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::app::running::{Due, Place, drop_instance, end_in_time, tell_not_reusable, why_dropped};
use crate::app::shared::{Member, SharedInstance};
use crate::error::Error;
use crate::error::trap::Trap;
use crate::guest::instance::Instance;
use crate::guest::instance_pool::InstancePool;
use crate::guest::seat::Seat;
use crate::sync::lock;

/// For so long the guest of an exchange that is over may keep the others from the store; then the instance ends.
const RUNS_ON: Duration = Duration::from_millis(100);

/// For so long the guest of an exchange that is over may hold all others back that are left; then the instance ends. wasmtime cannot end a
/// task alone, and what it waits for may never come.
const HOLDS_BACK: Duration = Duration::from_secs(1);

/// How it ends.
enum Fate {
    /// The store has nothing more to do, or something in it has failed.
    Returned(wasmtime::Result<()>),
    /// No exchange is left, and guests' tasks are.
    Abandoned,
    /// The guest of an exchange that is over keeps the others from the store.
    Held(Arc<Seat>),
    /// Its guest waits for something, and lets nobody in meanwhile.
    HeldBack(Arc<Seat>),
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
    let mut driver = Driver {
        sharing: sharing.clone(),
        left_over: Vec::new(),
        held_back: None,
        is_clean: true,
        due: Due::default(),
    };
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
    /// Since when nobody has been let in of all who are there.
    held_back: Option<Instant>,
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
        if let Some(seat) = self.holds_back(began) {
            return Poll::Ready(Fate::HeldBack(seat));
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

    /// Whose guest's tasks, of those that are left behind, have held all others back for too long.
    fn holds_back(&mut self, now: Instant) -> Option<Arc<Seat>> {
        let seat = self.left_over.first()?;
        let is_held = {
            let members = lock(&self.sharing.members);
            !members.seated.is_empty() && members.seated.iter().all(|member| !member.seat.has_run())
        };
        if !is_held {
            self.held_back = None;
            return None;
        }
        let since = *self.held_back.get_or_insert(now);
        (now.saturating_duration_since(since) >= HOLDS_BACK).then(|| seat.clone())
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
        self.sharing.members().iter().for_each(|seat| seat.look_whether_it_passes_on());
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
        let held_back = self.held_back.map(|since| since + HOLDS_BACK);
        let Some(next) = next.into_iter().chain(held_back).min() else { return Poll::Pending };
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
            Fate::HeldBack(seat) => {
                let why = "it waited on when it was over, and let nobody else in";
                (Some(seat), Err(Error::Host(why.to_owned().into())))
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
