//! The connections that a pool has: who may use one, who may make one, who waits. No I/O is done here.
//!
//! Every connection has a `Permit` for as long as it is open; there are never more of them than the caps say, for one origin and
//! in all. Whoever asks gets a connection that is free, or the right to make one, or waits in line until somebody gives
//! either back.
//!
//! Several apps may share a pool. Of those who wait, the one comes next whose app has the fewest requests under way; and an app
//! leaves some places to the others, for it may never give any back ([`crate::network::places`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::network::kept::{Kept, Origins, PooledConnection};
use crate::network::options::Caps;
use crate::network::origin::Origin;
use crate::network::places::{App, Apps, Places, Turns};
use crate::sync::lock;

pub(crate) struct PoolState<K: PooledConnection> {
    caps: Caps,
    /// Who shares it.
    apps: Apps,
    state: Mutex<State<K>>,
    /// Told when nothing lies there any more that whoever reaps would wait for.
    emptied: Notify,
}

struct State<K: PooledConnection> {
    open: usize,
    origins: Origins<K>,
    waiting: VecDeque<Waiter<K>>,
    /// How many have waited.
    arrived: u64,
    /// Connections that one request alone has, by app.
    places: Places,
    /// Requests, by app.
    requests: Places,
    turns: Turns,
    /// Those that were made to go and have not gone yet.
    leaving: usize,
    reaping: bool,
}

struct Waiter<K: PooledConnection> {
    origin: Origin,
    may_share: bool,
    app: App,
    arrived: u64,
    reply: oneshot::Sender<Grant<K>>,
}

pub(crate) enum Grant<K: PooledConnection> {
    Use(K, Place<K>),
    Dial(Permit<K>, Dialling<K>, Place<K>),
}

/// What a request takes of what its app may have. Dropped when the request has let go of its connection: whoever waits is served
/// with that.
pub(crate) struct Place<K: PooledConnection> {
    pool: Weak<PoolState<K>>,
    origin: Origin,
    app: App,
    /// Whether the connection is for this request alone.
    is_whole: bool,
}

impl<K: PooledConnection> Place<K> {
    /// The connection that was made is one for all.
    pub(crate) fn becomes_shared(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.change(|state, _| self.leave_whole(state));
        }
    }

    fn leave_whole(&mut self, state: &mut State<K>) {
        if std::mem::take(&mut self.is_whole) {
            state.places.give(self.app);
            state.origins.of(&self.origin, |kept| kept.places.give(self.app));
        }
    }

    fn leave(&mut self, state: &mut State<K>) {
        state.requests.give(self.app);
        self.leave_whole(state);
    }
}

impl<K: PooledConnection> Drop for Place<K> {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        pool.change(|state, left| {
            self.leave(state);
            // that nobody uses one for all any more, it cannot say itself
            state.origins.of(&self.origin, |kept| kept.end_shared(left, |one| !one.is_usable()));
        });
    }
}

/// The right to one connection; given back when it is dropped.
pub(crate) struct Permit<K: PooledConnection> {
    pool: Weak<PoolState<K>>,
    origin: Origin,
}

impl<K: PooledConnection> Drop for Permit<K> {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        pool.change(|state, left| {
            state.open -= 1;
            state.leaving = state.leaving.saturating_sub(1);
            state.origins.of(&self.origin, |kept| {
                kept.open -= 1;
                // one that has ended by itself lies there still
                kept.end_idle(left, |one| !one.is_usable());
                kept.end_shared(left, |one| !one.is_usable());
            });
        });
    }
}

/// While it is there, others may wait to see what the connection will be.
pub(crate) struct Dialling<K: PooledConnection> {
    pool: Weak<PoolState<K>>,
    origin: Origin,
    shares: Option<bool>,
}

impl<K: PooledConnection> Dialling<K> {
    /// The connection is where others find it, if it is one for many.
    pub(crate) fn done(mut self, shares: bool) {
        self.shares = Some(shares);
    }
}

impl<K: PooledConnection> Drop for Dialling<K> {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else { return };
        pool.change(|state, _| {
            state.origins.of(&self.origin, |kept| {
                kept.dialling -= 1;
                kept.shares = self.shares.or(kept.shares);
            });
        });
    }
}

/// A place in the line. What comes after nobody waits any more is passed on.
pub(crate) struct Waiting<K: PooledConnection> {
    pool: Weak<PoolState<K>>,
    grant: oneshot::Receiver<Grant<K>>,
}

impl<K: PooledConnection> Waiting<K> {
    /// `None` if the pool is gone.
    pub(crate) async fn granted(&mut self) -> Option<Grant<K>> {
        (&mut self.grant).await.ok()
    }
}

impl<K: PooledConnection> Drop for Waiting<K> {
    fn drop(&mut self) {
        self.grant.close();
        if let (Ok(Grant::Use(one, place)), Some(pool)) = (self.grant.try_recv(), self.pool.upgrade()) {
            pool.put_back(one, place);
        }
    }
}

pub(crate) enum Checkout<K: PooledConnection> {
    Granted(Grant<K>),
    Wait(Waiting<K>),
}

impl<K: PooledConnection> PoolState<K> {
    pub(crate) fn new(caps: Caps, apps: Apps) -> Arc<Self> {
        let state = State {
            open: 0,
            origins: Origins(HashMap::new()),
            waiting: VecDeque::new(),
            arrived: 0,
            places: Places::NONE,
            requests: Places::NONE,
            turns: Turns::default(),
            leaving: 0,
            reaping: false,
        };
        Arc::new(Self { caps, apps, state: Mutex::new(state), emptied: Notify::new() })
    }

    /// `may_share`: a connection that is being made may be one for all.
    pub(crate) fn ask(self: &Arc<Self>, origin: &Origin, may_share: bool, app: App) -> Checkout<K> {
        self.change(|state, left| {
            if let Some(grant) = self.grant(state, origin, may_share, app, left) {
                return Checkout::Granted(grant);
            }
            let (reply, grant) = oneshot::channel();
            state.arrived += 1;
            let arrived = state.arrived;
            state.waiting.push_back(Waiter { origin: origin.clone(), may_share, app, arrived, reply });
            Checkout::Wait(Waiting { pool: Arc::downgrade(self), grant })
        })
    }

    /// A connection that is free again.
    pub(crate) fn put_back(self: &Arc<Self>, one: K, mut place: Place<K>) {
        self.change(|state, left| {
            place.leave(state);
            match state.origins.0.get_mut(&place.origin) {
                Some(kept) if one.is_usable() && !one.is_shared() && !self.is_old(&one) => {
                    kept.idle.push((one, Instant::now()));
                }
                // of one for many there is another handle
                _ => left.push(one),
            }
        });
        place.pool = Weak::new();
    }

    /// A connection that all may use.
    pub(crate) fn share(self: &Arc<Self>, origin: &Origin, one: K) {
        self.change(|state, left| match state.origins.0.get_mut(origin) {
            Some(kept) => kept.shared.push((one, Instant::now())),
            None => left.push(one),
        });
    }

    /// Ends what nobody has used for long. Says how long to wait before the next time; `None`: there is nothing left to end.
    pub(crate) fn reap(self: &Arc<Self>) -> Option<Duration> {
        let next = self.change(|state, left| {
            let now = Instant::now();
            let is_over =
                |one: &K, since: Instant| now - since >= self.caps.idle || self.is_old(one) || !one.is_usable();
            let next = state.origins.reap(now, is_over, left);
            state.reaping = next.is_some();
            next
        });
        // not more often than a tenth of the time that one may lie
        next.map(|oldest: Instant| self.caps.idle.saturating_sub(oldest.elapsed()).max(self.caps.idle / 10))
    }

    /// Whether somebody is to begin to reap.
    pub(crate) fn begin_reaping(&self) -> bool {
        let state = &mut *lock(&self.state);
        let begins = !state.reaping && state.origins.has_something();
        state.reaping |= begins;
        begins
    }

    /// Nothing lies there any more, so that nobody need wait to reap it.
    pub(crate) async fn emptied(&self) {
        self.emptied.notified().await;
    }

    fn is_old(&self, one: &K) -> bool {
        self.caps.lifetime.is_some_and(|lifetime| one.born().elapsed() >= lifetime)
    }

    /// Changes the state; then serves those who wait. Connections are dropped, and replies sent, when the lock has been released:
    /// either may come back here.
    fn change<R>(self: &Arc<Self>, change: impl FnOnce(&mut State<K>, &mut Vec<K>) -> R) -> R {
        let mut left = Vec::new();
        let mut served = Vec::new();
        let result = {
            let state = &mut *lock(&self.state);
            let result = change(state, &mut left);
            state.waiting.retain(|waiter| !waiter.reply.is_closed());
            if !state.waiting.is_empty() {
                self.serve(state, &mut left, &mut served);
            }
            if state.reaping && !state.origins.has_something() {
                self.emptied.notify_one();
            }
            result
        };
        drop(left);
        for (waiter, grant) in served {
            if let Err(Grant::Use(one, place)) = waiter.reply.send(grant) {
                self.put_back(one, place);
            }
        }
        result
    }

    /// Grants what there is to those who wait. The next is whose app has the fewest requests under way, and of
    /// those whose was served longest ago; of one app, who came first.
    fn serve(self: &Arc<Self>, state: &mut State<K>, left: &mut Vec<K>, served: &mut Vec<(Waiter<K>, Grant<K>)>) {
        let mut waiting: Vec<_> = std::mem::take(&mut state.waiting).into();
        let mut short = 0;
        let mut next = 0;
        let mut is_sorted = false;
        while next < waiting.len() {
            if !is_sorted {
                if let Some(rest) = waiting.get_mut(next..) {
                    rest.sort_by_key(|waiter| {
                        (state.requests.of(waiter.app), state.turns.of(waiter.app), waiter.arrived)
                    });
                }
                is_sorted = true;
            }
            let Some(waiter) = waiting.get(next) else { break };
            let (origin, app) = (waiter.origin.clone(), waiter.app);
            match self.grant(state, &origin, waiter.may_share, app, left) {
                Some(grant) => {
                    served.push((waiting.remove(next), grant));
                    is_sorted = false;
                }
                None => {
                    short += usize::from(self.is_short_of_room(state, &origin, app));
                    next += 1;
                }
            }
            // what nobody uses makes room for who waits for nothing else, before somebody who came later uses it
            while state.leaving < short {
                let Some(one) = state.origins.evict() else { break };
                state.leaving += 1;
                left.push(one);
            }
        }
        state.waiting = waiting.into();
    }

    /// Whether one more connection there may be but for all the others.
    fn is_short_of_room(&self, state: &State<K>, origin: &Origin, app: App) -> bool {
        let may_be = |kept: &Kept<K>| kept.open < self.caps.per_origin && kept.dialling == 0;
        let kept = state.origins.0.get(origin);
        state.open >= self.caps.total && kept.is_none_or(may_be) && self.leaves_room(state, kept, app)
    }

    /// Whether an app leaves enough to others when it takes one more for itself, of all and of those of an origin.
    fn leaves_room(&self, state: &State<K>, kept: Option<&Kept<K>>, app: App) -> bool {
        if !self.apps.are_several() {
            return true;
        }
        let has_room = |places: &Places, of: usize| places.leaves_room(app, of);
        has_room(&state.places, self.caps.total)
            && kept.is_none_or(|kept| has_room(&kept.places, self.caps.per_origin.min(self.caps.total)))
    }

    /// Whether there can be no more connections there, for now.
    pub(crate) fn is_full(&self, origin: &Origin, app: App) -> bool {
        let state = lock(&self.state);
        let kept = state.origins.0.get(origin);
        let is_full = |kept: &Kept<K>| kept.open >= self.caps.per_origin;
        state.open >= self.caps.total || kept.is_some_and(is_full) || !self.leaves_room(&state, kept, app)
    }

    fn grant(
        self: &Arc<Self>,
        state: &mut State<K>,
        origin: &Origin,
        may_share: bool,
        app: App,
        left: &mut Vec<K>,
    ) -> Option<Grant<K>> {
        let may_have_one = self.leaves_room(state, state.origins.0.get(origin), app);
        let State { origins, places, requests, turns, open, .. } = state;
        let mut count_request = || {
            requests.take(app);
            turns.take(app, requests);
        };
        let kept = match origins.0.get_mut(origin) {
            Some(kept) => kept,
            None if *open < self.caps.total && may_have_one => origins.0.entry(origin.clone()).or_insert(Kept::NONE),
            None => return None,
        };
        let place = |is_whole| Place { pool: Arc::downgrade(self), origin: origin.clone(), app, is_whole };
        kept.end_shared(left, |one| !one.is_usable() || self.is_old(one));
        for (shared, since) in &mut kept.shared {
            if let Some(one) = shared.share() {
                *since = Instant::now();
                count_request();
                return Some(Grant::Use(one, place(false)));
            }
        }
        if !may_have_one {
            return None;
        }
        while let Some((one, _)) = kept.idle.pop() {
            if one.is_usable() && one.is_quiet() && !self.is_old(&one) {
                count_request();
                places.take(app);
                kept.places.take(app);
                return Some(Grant::Use(one, place(true)));
            }
            left.push(one);
        }
        let may_come = may_share && kept.shares != Some(false) && kept.dialling > 0;
        if may_come || kept.open >= self.caps.per_origin || *open >= self.caps.total {
            return None;
        }
        *open += 1;
        count_request();
        places.take(app);
        kept.places.take(app);
        kept.open += 1;
        kept.dialling += 1;
        let pool = Arc::downgrade(self);
        let permit = Permit { pool: pool.clone(), origin: origin.clone() };
        Some(Grant::Dial(permit, Dialling { pool, origin: origin.clone(), shares: None }, place(true)))
    }
}

#[cfg(test)]
mod tests;
