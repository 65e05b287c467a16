//! Who may begin an exchange of an app, who waits for a place, and how an app closes.

use std::any::Any;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, TryAcquireError};
use tokio::task::JoinHandle;

use crate::app::history::History;
use crate::engine::ProcessState;
use crate::error::Error;
use crate::exchange::handle::ExchangeState;
use crate::guest::app_share::AppShare;
use crate::guest::grants::DirGrant;
use crate::guest::instance::Reuse;
use crate::guest::instance_pool::InstancePool;
use crate::limits::Limits;
use crate::scheduler::Lane;
use crate::sync::lock;

/// How many exchanges an app may have for each slot that is free: 819 of 1024 where it is alone.
const SHARE: usize = 4;

/// What one process counts of an app; a forked child has none of its parent's guests, and counts anew.
pub(crate) struct AdmissionControl {
    pub generation: u64,
    process: &'static ProcessState,
    places: Option<Arc<Semaphore>>,
    limits: Limits,
    /// The instances that wait for an exchange, if instances are kept.
    pub(crate) idle: Option<Arc<InstancePool>>,
    /// The share that its guests have of the threads.
    pub(crate) lane: Arc<Lane>,
    /// How they have behaved.
    pub(crate) history: History,
    /// What its guests have together: open files, and the bytes that `Limits.memory_per_app` counts.
    pub(crate) share: AppShare,
    queued: AtomicUsize,
    live: AtomicUsize,
    emptied: Notify,
    roster: Mutex<Roster>,
}

/// The guests that are not run by the thread that asked for them.
#[derive(Default)]
struct Roster {
    guests: HashMap<u64, Weak<ExchangeState>>,
    /// No more of them: the app has closed, and their time to finish is over.
    ended: bool,
}

impl AdmissionControl {
    pub(crate) fn new(
        process: &'static ProcessState,
        limits: &Limits,
        dirs: &[DirGrant],
        reuse: Option<Reuse>,
        reusable: &Arc<AtomicBool>,
    ) -> Arc<Self> {
        Arc::new(Self {
            generation: process.generation,
            process,
            places: limits.concurrency.map(|most| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)))),
            limits: *limits,
            idle: reuse.map(|reuse| InstancePool::new(process, reuse, reusable.clone())),
            lane: Arc::default(),
            history: History::default(),
            share: AppShare::new(dirs),
            queued: AtomicUsize::new(0),
            live: AtomicUsize::new(0),
            emptied: Notify::new(),
            roster: Mutex::default(),
        })
    }

    /// Refuses what this app has no share for. The slots of the pool are the process's, and an app alone could fill them with guests
    /// that wait: so the fewer are free, the fewer an app may hold. Each that asks for all it can get ends with the same share, and
    /// leaves a quarter of that to whoever comes next.
    fn leaves_room(&self) -> Result<(), Error> {
        let free = (self.process.slots() as usize).saturating_sub(self.process.live());
        let live = self.live();
        if live <= free.saturating_mul(SHARE) {
            return Ok(());
        }
        Err(Error::Overloaded(format!(
            "this app has {live} exchanges, and the {free} free instance slots of this process are reserved for other apps; \
             hint: set `Limits.concurrency` lower"
        )))
    }

    /// Whether nobody has to wait if what an exchange has taken up is given back a moment after its answer: half of it is free.
    pub(crate) fn has_room(&self) -> bool {
        let has_places =
            |places: &Arc<Semaphore>| self.limits.concurrency.is_none_or(|most| places.available_permits() > most / 2);
        self.limits.memory_per_app.is_none()
            && self.places.as_ref().is_none_or(has_places)
            && self.process.live() <= self.process.slots() as usize / 2
    }

    /// A place, if there is one; else a place in the queue, if there is one.
    pub(crate) fn admit(self: &Arc<Self>) -> Result<Admission, Error> {
        self.leaves_room()?;
        let Some(places) = &self.places else { return Ok(Admission::Permit(Permit::new(self, None))) };
        // whoever waits already comes first: the semaphore is fair, and has none to give while there is a queue
        match places.clone().try_acquire_owned() {
            Ok(place) => return Ok(Admission::Permit(Permit::new(self, Some(place)))),
            Err(TryAcquireError::Closed) => return Err(Error::Closed),
            Err(TryAcquireError::NoPermits) => {}
        }
        let most = self.limits.concurrency.unwrap_or(usize::MAX);
        let Some(queued) = InQueue::join(self) else {
            let queue = match self.limits.queue {
                0 => "(`Limits.concurrency`; there is no queue: `Limits.queue`)".to_owned(),
                queue => format!("(`Limits.concurrency`), and so are the {queue} places in the queue (`Limits.queue`)"),
            };
            return Err(Error::Overloaded(format!("all {most} concurrent exchanges of this app are in use {queue}")));
        };
        let (places, admission, limit) = (places.clone(), self.clone(), self.limits.queue_timeout);
        let wait = self.process.runtime.within(async move {
            let _queued = queued;
            let place = places.acquire_owned();
            let place = match limit {
                None => place.await,
                Some(limit) => match tokio::time::timeout(limit, place).await {
                    Ok(place) => place,
                    Err(_) => {
                        return Err(Error::Overloaded(format!(
                            "timed out after {} s in the queue (`Limits.queue_timeout`); this app may have {most} at \
                             once (`Limits.concurrency`)",
                            limit.as_secs_f64()
                        )));
                    }
                },
            };
            match place {
                Ok(place) => Ok(Permit::new(&admission, Some(place))),
                Err(_) => Err(Error::Closed),
            }
        })?;
        Ok(Admission::Queued(Queued(Box::pin(wait))))
    }

    /// A guest is given to the runtime. One that comes too late is stopped.
    pub(crate) fn enroll(&self, number: u64, exchange: &Arc<ExchangeState>) {
        let ended = {
            let mut roster = lock(&self.roster);
            roster.guests.insert(number, Arc::downgrade(exchange));
            roster.ended
        };
        if ended {
            exchange.stop(Error::Closed);
        }
    }

    /// How many exchanges are under way.
    pub(crate) fn live(&self) -> usize {
        self.live.load(Ordering::SeqCst)
    }

    /// Nobody in the queue any more, and no instance that waits; the task gives back what those hold.
    pub(crate) fn close(&self) -> Option<JoinHandle<()>> {
        if let Some(places) = &self.places {
            places.close();
        }
        self.idle.as_ref()?.close()
    }

    /// Stops what is left.
    fn end(&self) {
        let guests = {
            let mut roster = lock(&self.roster);
            roster.ended = true;
            std::mem::take(&mut roster.guests)
        };
        for exchange in guests.into_values().filter_map(|guest| guest.upgrade()) {
            exchange.stop(Error::Closed);
        }
    }

    async fn empty(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.live.load(Ordering::SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }

    /// Waits until all exchanges have ended; after `drain` it ends them.
    pub(crate) fn drained(self: Arc<Self>, drain: Option<Duration>) -> Result<impl Future<Output = ()> + Send, Error> {
        let runtime = &self.process.runtime;
        runtime.within(async move {
            let Some(drain) = drain else { return self.empty().await };
            if tokio::time::timeout(drain, self.empty()).await.is_err() {
                self.end();
                self.empty().await;
            }
        })
    }
}

/// Counted while it waits.
struct InQueue(Arc<AdmissionControl>);

impl InQueue {
    fn join(admission: &Arc<AdmissionControl>) -> Option<Self> {
        admission.process.counters.queued.fetch_add(1, Ordering::Relaxed);
        let before = admission.queued.fetch_add(1, Ordering::AcqRel);
        let joined = Self(admission.clone());
        (before < admission.limits.queue).then_some(joined)
    }
}

impl Drop for InQueue {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::AcqRel);
        self.0.process.counters.queued.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether an exchange may begin now.
pub enum Admission {
    /// It may.
    Permit(Permit),
    /// When an earlier one has ended.
    Queued(Queued),
}

/// A place in the queue. Dropping it leaves the queue.
pub struct Queued(Pin<Box<dyn Future<Output = Result<Permit, Error>> + Send>>);

impl Queued {
    /// Ready when it may begin, or may no more.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Permit, Error>> {
        self.0.as_mut().poll(cx)
    }
}

/// A place among the exchanges of one app, until it is dropped.
pub struct Permit {
    pub(crate) admission: Arc<AdmissionControl>,
    /// The number of its exchange in the process.
    pub(crate) number: u64,
    place: Option<OwnedSemaphorePermit>,
    witness: Option<Witness>,
}

/// What is dropped when nothing is left of an exchange, before the app counts it as ended.
pub type Witness = Arc<dyn Any + Send + Sync>;

impl Permit {
    fn new(admission: &Arc<AdmissionControl>, place: Option<OwnedSemaphorePermit>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        admission.live.fetch_add(1, Ordering::SeqCst);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { admission: admission.clone(), number, place, witness: None }
    }
}

impl Permit {
    /// From now on the exchange has a witness.
    pub fn is_seen_by(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        drop(self.witness.take());
        lock(&self.admission.roster).guests.remove(&self.number);
        drop(self.place.take());
        if self.admission.live.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.admission.emptied.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn admission(concurrency: usize, queue: usize) -> Arc<AdmissionControl> {
        let limits = Limits { concurrency: Some(concurrency), queue, ..Limits::NONE };
        AdmissionControl::new(
            crate::engine::process_state().unwrap(),
            &limits,
            &[],
            None,
            &Arc::new(AtomicBool::new(true)),
        )
    }

    fn refusal(admitted: Result<Admission, Error>) -> Error {
        admitted.err().unwrap()
    }

    /// Between the look whether an app is closed and this one it may have been.
    #[test]
    fn one_that_comes_to_a_closed_app_is_told_that_it_is_closed() {
        for (concurrency, queue) in [(1, 0), (1, 5), (2, 0)] {
            let admission = admission(concurrency, queue);
            let _permit = admission.admit().unwrap();
            drop(admission.close());
            assert!(matches!(refusal(admission.admit()), Error::Closed), "{concurrency} {queue}");
        }
    }

    #[test]
    fn one_that_finds_no_place_is_told_so() {
        let admission = admission(1, 0);
        let _permit = admission.admit().unwrap();
        assert!(matches!(refusal(admission.admit()), Error::Overloaded(_)));
    }

    fn permit(admission: &Arc<AdmissionControl>) -> Permit {
        match admission.admit() {
            Ok(Admission::Permit(permit)) => permit,
            other => unreachable!("{:?}", other.err()),
        }
    }

    fn queued(admission: &Arc<AdmissionControl>) -> Queued {
        match admission.admit() {
            Ok(Admission::Queued(queued)) => queued,
            other => unreachable!("{:?}", other.err()),
        }
    }

    fn wait(mut queued: Queued) -> Result<Permit, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(std::future::poll_fn(|cx| queued.poll(cx)))
    }

    #[test]
    fn a_place_that_is_given_back_goes_to_whoever_waits() {
        let admission = admission(1, 1);
        let (first, next) = (permit(&admission), queued(&admission));
        assert!(matches!(refusal(admission.admit()), Error::Overloaded(_)), "the queue is full");
        drop(first);
        let _second = wait(next).unwrap();
        let _third = queued(&admission);
        assert_eq!(admission.live(), 1);
    }

    #[test]
    fn whoever_leaves_the_queue_leaves_its_place_in_it() {
        let admission = admission(1, 1);
        let _permit = permit(&admission);
        drop(queued(&admission));
        drop(queued(&admission));
        assert_eq!(admission.queued.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn whoever_waits_is_told_that_the_app_has_closed() {
        let admission = admission(1, 1);
        let (_permit, next) = (permit(&admission), queued(&admission));
        drop(admission.close());
        assert!(matches!(wait(next).err(), Some(Error::Closed)));
    }

    #[test]
    fn a_guest_that_is_enrolled_when_all_have_been_ended_is_stopped() {
        let admission = admission(2, 0);
        let state = || ExchangeState::new(crate::engine::process_state().unwrap(), 1, None);
        let (early, late) = (state(), state());
        admission.enroll(1, &early);
        admission.end();
        admission.enroll(2, &late);
        for exchange in [early, late] {
            let outcome = crate::exchange::handle::ExchangeHandle::observer(&exchange).outcome();
            assert!(matches!(outcome, Some(Err(Error::Closed))));
        }
    }

    #[test]
    fn what_sees_an_exchange_is_dropped_before_its_app_counts_it_as_ended() {
        struct Seen(Weak<AdmissionControl>, Arc<AtomicUsize>);

        impl Drop for Seen {
            fn drop(&mut self) {
                self.1.store(self.0.upgrade().unwrap().live(), Ordering::SeqCst);
            }
        }

        let (admission, live) = (admission(2, 0), Arc::new(AtomicUsize::new(0)));
        let mut permit = permit(&admission);
        permit.is_seen_by(Arc::new(Seen(Arc::downgrade(&admission), live.clone())));
        assert_eq!(live.load(Ordering::SeqCst), 0, "it sees the whole exchange");
        drop(permit);
        assert_eq!((live.load(Ordering::SeqCst), admission.live()), (1, 0));
    }

    #[test]
    fn an_app_leaves_slots_to_others() {
        let admission = admission(usize::MAX, 0);
        let under_way = admission.process.slots() as usize * SHARE;
        admission.live.store(under_way + 1, Ordering::SeqCst);
        assert!(matches!(refusal(admission.admit()), Error::Overloaded(_)));
        admission.live.store(1, Ordering::SeqCst);
        assert!(admission.admit().is_ok());
    }

    fn is_ready(future: &mut (impl Future<Output = ()> + Unpin)) -> bool {
        Pin::new(future).poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready()
    }

    #[test]
    fn whoever_closes_an_app_waits_for_the_last_exchange() {
        let admission = admission(2, 0);
        assert!(is_ready(&mut Box::pin(admission.clone().drained(None).unwrap())));
        let (one, other) = (permit(&admission), permit(&admission));
        let mut drained = Box::pin(admission.clone().drained(None).unwrap());
        assert!(!is_ready(&mut drained));
        drop(one);
        assert!(!is_ready(&mut drained));
        drop(other);
        assert!(is_ready(&mut drained));
    }

    #[test]
    fn exchanges_that_have_not_ended_in_time_are_stopped() {
        let admission = admission(1, 0);
        let permit = permit(&admission);
        let exchange = ExchangeState::new(admission.process, 1, None);
        admission.enroll(permit.number, &exchange);
        let drained = admission.clone().drained(Some(Duration::ZERO)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let observer = crate::exchange::handle::ExchangeHandle::observer(&exchange);
        let mut drained = Box::pin(drained);
        runtime.block_on(std::future::poll_fn(|cx| match drained.as_mut().poll(cx) {
            Poll::Pending if observer.outcome().is_none() => Poll::Pending,
            _ => Poll::Ready(()),
        }));
        assert!(matches!(observer.outcome(), Some(Err(Error::Closed))));
        assert!(!is_ready(&mut drained), "it has its place until nothing is left of it");
        drop(permit);
        assert!(is_ready(&mut drained));
    }
}
