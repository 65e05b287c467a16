//! An instance that several exchanges of an app share: who is in it, and who may come. [`drive`](super::driver::drive) gives it its turns.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use crate::app::running::{Place, why_dropped};
use crate::engine::ProcessState;
use crate::error::Error;
use crate::error::trap::Trap;
use crate::exchange::handle::ExchangeState;
use crate::exchange::response_body::ResponseSlot;
use crate::guest::instance::{Instance, Reuse};
use crate::guest::seat::Seat;
use crate::guest::shared::{Newcomer, Shared};
use crate::simulation::environment::Stage;
use crate::sync::lock;

/// A guest that has kept the store for so many turns in a row computes: nobody joins it. One turn may be over because of another process.
const HELD: u32 = 3;

/// An instance that several exchanges share.
pub(crate) struct SharedInstance {
    pub shared: Arc<Shared>,
    pub(super) process: &'static ProcessState,
    pub(super) reuse: Reuse,
    /// Where each of them begins, in a simulation.
    pub stage: Option<Stage>,
    /// The most memory that it has held.
    pub(super) peak: Arc<AtomicU64>,
    /// How many turns in a row were over before the guest that had the store gave it back.
    pub(super) held: AtomicU32,
    pub(super) members: Mutex<Members>,
}

#[derive(Default)]
pub(super) struct Members {
    pub(super) seated: Vec<Member>,
    /// How many exchanges there have been.
    pub(super) served: u64,
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
    pub(super) fn exchange(&self) -> &Arc<ExchangeState> {
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

    pub(super) fn close(&self) {
        lock(&self.members).closed = true;
    }

    /// Nobody drives it any more. Returns those who are left.
    pub(super) fn abandon(&self) -> Vec<Arc<Seat>> {
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
    pub(super) fn close_if_left(&self) -> bool {
        let members = lock(&self.members);
        members.seated.is_empty() && self.shared.close_if_unreserved()
    }

    /// Has whoever drives it look who has ended, and what can go on.
    pub(super) fn waker(&self) -> Waker {
        Waker::from(self.shared.clone())
    }

    pub(super) fn members(&self) -> Vec<Arc<Seat>> {
        lock(&self.members).seated.iter().map(|member| member.seat.clone()).collect()
    }

    pub(super) fn remove(&self, seat: &Arc<Seat>) -> Option<Member> {
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
