//! The connections that a pool has: who may use one, who may make one, who waits. No I/O is done here.
//!
//! Every connection has a [`Permit`] for as long as it is open; there are never more of them than the caps say, for one origin and
//! in all. Whoever asks gets a connection that is free, or the right to make one, or waits in line until somebody gives
//! either back.
//!
//! Several apps may share a pool. Of those who wait, the one comes next whose app has the fewest requests under way; and an app
//! leaves some places to the others, for it may never give any back ([`crate::network::places`]).

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot};

use crate::network::origin::Origin;
use crate::network::places::{App, Apps, Places, Turns};
use crate::sync::lock;

/// A connection, as far as that matters here.
pub trait PooledConnection: Sized + Send + 'static {
    /// Whether a request may be sent on it.
    fn is_usable(&self) -> bool;

    fn born(&self) -> Instant;

    /// Whether many requests may be under way on it at once (HTTP/2).
    fn is_shared(&self) -> bool;

    /// One more handle to it, if there may be one more request.
    fn share(&self) -> Option<Self>;

    /// Whether there are other handles.
    fn is_in_use(&self) -> bool;
}

#[derive(Clone, Copy, Debug)]
pub struct Caps {
    pub total: usize,
    pub per_origin: usize,
    /// How long a connection is kept that nobody uses.
    pub idle: Duration,
    /// How long a connection is used at all.
    pub lifetime: Option<Duration>,
}

pub struct PoolState<K: PooledConnection> {
    caps: Caps,
    /// Who shares it.
    apps: Apps,
    state: Mutex<State<K>>,
    /// Told when nothing lies there any more that whoever reaps would wait for.
    emptied: Notify,
}

struct State<K: PooledConnection> {
    open: usize,
    origins: HashMap<Origin, Kept<K>>,
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

/// Those of one origin.
struct Kept<K> {
    open: usize,
    dialling: usize,
    /// Since when; the one that was used last is the last.
    idle: Vec<(K, Instant)>,
    /// Those that many use, and since when nobody has.
    shared: Vec<(K, Instant)>,
    /// Whether the last connection could be shared.
    shares: Option<bool>,
    /// As in [`State::places`].
    places: Places,
}

impl<K> Kept<K> {
    const NONE: Self =
        Self { open: 0, dialling: 0, idle: Vec::new(), shared: Vec::new(), shares: None, places: Places::NONE };

    fn is_empty(&self) -> bool {
        self.open == 0 && self.dialling == 0 && self.idle.is_empty() && self.shared.is_empty() && self.places.is_empty()
    }
}

struct Waiter<K: PooledConnection> {
    origin: Origin,
    may_share: bool,
    app: App,
    arrived: u64,
    reply: oneshot::Sender<Grant<K>>,
}

pub enum Grant<K: PooledConnection> {
    Use(K, Place<K>),
    Dial(Permit<K>, Dialling<K>, Place<K>),
}

/// What a request takes of what its app may have. Dropped when the request has let go of its connection: whoever waits is served
/// with that.
pub struct Place<K: PooledConnection> {
    stock: Weak<PoolState<K>>,
    origin: Origin,
    app: App,
    /// Whether the connection is for this request alone.
    is_whole: bool,
}

impl<K: PooledConnection> Place<K> {
    /// The connection that was made is one for all.
    pub fn becomes_shared(&mut self) {
        if let Some(stock) = self.stock.upgrade() {
            stock.change(|state, _| self.leave_whole(state));
        }
    }

    fn leave_whole(&mut self, state: &mut State<K>) {
        if std::mem::take(&mut self.is_whole) {
            state.places.give(self.app);
            state.of(&self.origin, |kept| kept.places.give(self.app));
        }
    }

    fn leave(&mut self, state: &mut State<K>) {
        state.requests.give(self.app);
        self.leave_whole(state);
    }
}

impl<K: PooledConnection> Drop for Place<K> {
    fn drop(&mut self) {
        let Some(stock) = self.stock.upgrade() else { return };
        stock.change(|state, left| {
            self.leave(state);
            // that nobody uses one for all any more, it cannot say itself
            state.of(&self.origin, |kept| {
                left.extend(kept.shared.extract_if(.., |(one, _)| !one.is_usable()).map(|(one, _)| one));
            });
        });
    }
}

/// The right to one connection; given back when it is dropped.
pub struct Permit<K: PooledConnection> {
    stock: Weak<PoolState<K>>,
    origin: Origin,
}

impl<K: PooledConnection> Drop for Permit<K> {
    fn drop(&mut self) {
        let Some(stock) = self.stock.upgrade() else { return };
        stock.change(|state, left| {
            state.open -= 1;
            state.leaving = state.leaving.saturating_sub(1);
            state.of(&self.origin, |kept| {
                kept.open -= 1;
                // one that has ended by itself lies there still
                left.extend(kept.idle.extract_if(.., |(one, _)| !one.is_usable()).map(|(one, _)| one));
                left.extend(kept.shared.extract_if(.., |(one, _)| !one.is_usable()).map(|(one, _)| one));
            });
        });
    }
}

/// While it is there, others may wait to see what the connection will be.
pub struct Dialling<K: PooledConnection> {
    stock: Weak<PoolState<K>>,
    origin: Origin,
    shares: Option<bool>,
}

impl<K: PooledConnection> Dialling<K> {
    /// The connection is where others find it, if it is one for many.
    pub fn done(mut self, shares: bool) {
        self.shares = Some(shares);
    }
}

impl<K: PooledConnection> Drop for Dialling<K> {
    fn drop(&mut self) {
        let Some(stock) = self.stock.upgrade() else { return };
        stock.change(|state, _| {
            state.of(&self.origin, |kept| {
                kept.dialling -= 1;
                kept.shares = self.shares.or(kept.shares);
            });
        });
    }
}

/// A place in the line. What comes after nobody waits any more is passed on.
pub struct Waiting<K: PooledConnection> {
    stock: Weak<PoolState<K>>,
    grant: oneshot::Receiver<Grant<K>>,
}

impl<K: PooledConnection> Waiting<K> {
    /// `None` if the stock is gone.
    pub async fn granted(&mut self) -> Option<Grant<K>> {
        (&mut self.grant).await.ok()
    }
}

impl<K: PooledConnection> Drop for Waiting<K> {
    fn drop(&mut self) {
        self.grant.close();
        if let (Ok(Grant::Use(one, place)), Some(stock)) = (self.grant.try_recv(), self.stock.upgrade()) {
            stock.put_back(one, place);
        }
    }
}

pub enum Checkout<K: PooledConnection> {
    Granted(Grant<K>),
    Wait(Waiting<K>),
}

impl<K: PooledConnection> PoolState<K> {
    pub fn new(caps: Caps, apps: Apps) -> Arc<Self> {
        let state = State {
            open: 0,
            origins: HashMap::new(),
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
    pub fn ask(self: &Arc<Self>, origin: &Origin, may_share: bool, app: App) -> Checkout<K> {
        self.change(|state, left| {
            if let Some(grant) = self.grant(state, origin, may_share, app, left) {
                return Checkout::Granted(grant);
            }
            let (reply, grant) = oneshot::channel();
            state.arrived += 1;
            let arrived = state.arrived;
            state.waiting.push_back(Waiter { origin: origin.clone(), may_share, app, arrived, reply });
            Checkout::Wait(Waiting { stock: Arc::downgrade(self), grant })
        })
    }

    /// A connection that is free again.
    pub fn put_back(self: &Arc<Self>, one: K, mut place: Place<K>) {
        self.change(|state, left| {
            place.leave(state);
            match state.origins.get_mut(&place.origin) {
                Some(kept) if one.is_usable() && !one.is_shared() && !self.is_old(&one) => {
                    kept.idle.push((one, Instant::now()));
                }
                // of one for many there is another handle
                _ => left.push(one),
            }
        });
        place.stock = Weak::new();
    }

    /// A connection that all may use.
    pub fn share(self: &Arc<Self>, origin: &Origin, one: K) {
        self.change(|state, left| match state.origins.get_mut(origin) {
            Some(kept) => kept.shared.push((one, Instant::now())),
            None => left.push(one),
        });
    }

    /// Ends what nobody has used for long. Says how long to wait before the next time; `None`: there is nothing left to end.
    pub fn reap(self: &Arc<Self>) -> Option<Duration> {
        let next = self.change(|state, left| {
            let mut next = None;
            let now = Instant::now();
            let is_over =
                |one: &K, since: Instant| now - since >= self.caps.idle || self.is_old(one) || !one.is_usable();
            for kept in state.origins.values_mut() {
                left.extend(kept.idle.extract_if(.., |(one, since)| is_over(one, *since)).map(|(one, _)| one));
                for (one, since) in &mut kept.shared {
                    if one.is_in_use() {
                        *since = now;
                    }
                }
                left.extend(kept.shared.extract_if(.., |(one, since)| is_over(one, *since)).map(|(one, _)| one));
                let oldest = kept.idle.iter().chain(&kept.shared).map(|(_, since)| *since).min();
                next = [next, oldest].into_iter().flatten().min();
            }
            state.origins.retain(|_, kept| !kept.is_empty());
            state.reaping = next.is_some();
            next
        });
        // not more often than a tenth of the time that one may lie
        next.map(|oldest: Instant| self.caps.idle.saturating_sub(oldest.elapsed()).max(self.caps.idle / 10))
    }

    /// Whether somebody is to begin to reap.
    pub fn begin_reaping(&self) -> bool {
        let state = &mut *lock(&self.state);
        let begins = !state.reaping && state.has_something();
        state.reaping |= begins;
        begins
    }

    /// Nothing lies there any more, so that nobody need wait to reap it.
    pub async fn emptied(&self) {
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
            if state.reaping && !state.has_something() {
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
                let Some(one) = state.evict() else { break };
                state.leaving += 1;
                left.push(one);
            }
        }
        state.waiting = waiting.into();
    }

    /// Whether one more connection there may be but for all the others.
    fn is_short_of_room(&self, state: &State<K>, origin: &Origin, app: App) -> bool {
        let may_be = |kept: &Kept<K>| kept.open < self.caps.per_origin && kept.dialling == 0;
        let kept = state.origins.get(origin);
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
    pub fn is_full(&self, origin: &Origin, app: App) -> bool {
        let state = lock(&self.state);
        let kept = state.origins.get(origin);
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
        let may_have_one = self.leaves_room(state, state.origins.get(origin), app);
        let State { origins, places, requests, turns, open, .. } = state;
        let kept = match origins.get_mut(origin) {
            Some(kept) => kept,
            None if *open < self.caps.total && may_have_one => origins.entry(origin.clone()).or_insert(Kept::NONE),
            None => return None,
        };
        let place = |is_whole| Place { stock: Arc::downgrade(self), origin: origin.clone(), app, is_whole };
        let is_over = |(one, _): &mut (K, Instant)| !one.is_usable() || self.is_old(one);
        left.extend(kept.shared.extract_if(.., is_over).map(|(one, _)| one));
        for (shared, since) in &mut kept.shared {
            if let Some(one) = shared.share() {
                *since = Instant::now();
                requests.take(app);
                turns.take(app, requests);
                return Some(Grant::Use(one, place(false)));
            }
        }
        if !may_have_one {
            return None;
        }
        while let Some((one, _)) = kept.idle.pop() {
            if one.is_usable() && !self.is_old(&one) {
                requests.take(app);
                turns.take(app, requests);
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
        requests.take(app);
        turns.take(app, requests);
        places.take(app);
        kept.places.take(app);
        kept.open += 1;
        kept.dialling += 1;
        let stock = Arc::downgrade(self);
        let permit = Permit { stock: stock.clone(), origin: origin.clone() };
        Some(Grant::Dial(permit, Dialling { stock, origin: origin.clone(), shares: None }, place(true)))
    }
}

impl<K: PooledConnection> State<K> {
    /// Whether connections lie there that may have to be ended some time.
    fn has_something(&self) -> bool {
        self.origins.values().any(|kept| !kept.idle.is_empty() || !kept.shared.is_empty())
    }

    fn of(&mut self, origin: &Origin, change: impl FnOnce(&mut Kept<K>)) {
        let Some(kept) = self.origins.get_mut(origin) else { return };
        change(kept);
        if kept.is_empty() {
            self.origins.remove(origin);
        }
    }

    /// The one that has been idle for longest.
    fn evict(&mut self) -> Option<K> {
        let mut oldest: Option<(Instant, Origin, bool, usize)> = None;
        for (origin, kept) in &self.origins {
            let idle = kept.idle.iter().enumerate().map(|(place, (_, since))| (*since, false, place));
            let free = kept.shared.iter().enumerate().filter(|(_, (one, _))| !one.is_in_use());
            for (since, is_shared, place) in idle.chain(free.map(|(place, (_, since))| (*since, true, place))) {
                if oldest.as_ref().is_none_or(|(than, ..)| since < *than) {
                    oldest = Some((since, origin.clone(), is_shared, place));
                }
            }
        }
        let (_, origin, is_shared, place) = oldest?;
        let kept = self.origins.get_mut(&origin)?;
        let from = if is_shared { &mut kept.shared } else { &mut kept.idle };
        (place < from.len()).then(|| from.remove(place).0)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;

    use super::*;

    /// A connection that is open until its peer closes it, or nobody has a handle to it any more.
    struct Line {
        permit: Mutex<Option<Permit<Fake>>>,
        works: AtomicBool,
    }

    impl Line {
        fn close(&self) {
            self.works.store(false, Ordering::Relaxed);
            let permit = lock(&self.permit).take();
            drop(permit);
        }
    }

    #[derive(Clone)]
    struct Fake {
        line: Arc<Line>,
        shares: bool,
    }

    /// Requests that one of them takes at once.
    const STREAMS: usize = 3;

    impl PooledConnection for Fake {
        fn is_usable(&self) -> bool {
            self.line.works.load(Ordering::Relaxed)
        }

        fn born(&self) -> Instant {
            Instant::now()
        }

        fn is_shared(&self) -> bool {
            self.shares
        }

        fn share(&self) -> Option<Self> {
            (self.shares && Arc::strong_count(&self.line) <= STREAMS).then(|| self.clone())
        }

        fn is_in_use(&self) -> bool {
            Arc::strong_count(&self.line) > 1
        }
    }

    fn origin(number: usize) -> Origin {
        Origin { secure: true, host: url::Host::Domain(format!("host{number}")), port: 443 }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(usize, Option<u64>),
        /// Those who may dial have connected, or have failed.
        Connect(usize, bool),
        Fail(usize),
        /// A request is done, or given up; or a peer has closed a connection, whoever has it.
        Finish(usize),
        Drop(usize),
        Close(usize),
        /// A request is given up, and nobody is to begin to use its connection.
        Retire(usize),
        /// Somebody in line has gone away.
        Leave(usize),
        Reap,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..3usize, 0..2u64).prop_map(|(of, app)| Step::Ask(of, Some(app))),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(which, shares)| Step::Connect(which, shares)),
            1 => any::<usize>().prop_map(Step::Fail),
            3 => any::<usize>().prop_map(Step::Finish),
            1 => any::<usize>().prop_map(Step::Drop),
            1 => any::<usize>().prop_map(Step::Close),
            1 => any::<usize>().prop_map(Step::Retire),
            1 => any::<usize>().prop_map(Step::Leave),
            1 => Just(Step::Reap),
        ];
        prop::collection::vec(step, 0..80)
    }

    const CAPS: Caps = Caps { total: 4, per_origin: 2, idle: Duration::from_secs(3600), lifetime: None };

    /// A connection to an origin that is being made.
    type Dialled = (usize, Permit<Fake>, Dialling<Fake>, Place<Fake>);

    #[derive(Default)]
    struct World {
        dialling: Vec<Dialled>,
        used: Vec<(usize, Fake, Place<Fake>)>,
        lines: Vec<Weak<Line>>,
        waiting: Vec<(usize, App, Waiting<Fake>)>,
    }

    impl World {
        fn take(&mut self, of: usize, grant: Grant<Fake>) {
            match grant {
                Grant::Use(one, place) => self.used.push((of, one, place)),
                Grant::Dial(permit, dialling, place) => self.dialling.push((of, permit, dialling, place)),
            }
        }

        /// Those in line look whether it is their turn.
        fn look(&mut self) {
            for (of, app, mut waiting) in std::mem::take(&mut self.waiting) {
                match waiting.grant.try_recv() {
                    Ok(grant) => self.take(of, grant),
                    Err(_) => self.waiting.push((of, app, waiting)),
                }
            }
        }

        fn step(&mut self, stock: &Arc<PoolState<Fake>>, step: Step) {
            let pick = |which: usize, of: usize| (of > 0).then(|| which % of);
            match step {
                Step::Ask(of, app) => match stock.ask(&origin(of), true, app) {
                    Checkout::Granted(grant) => self.take(of, grant),
                    Checkout::Wait(waiting) => self.waiting.push((of, app, waiting)),
                },
                Step::Connect(which, shares) => {
                    let Some(which) = pick(which, self.dialling.len()) else { return };
                    let (of, permit, dialling, mut place) = self.dialling.swap_remove(which);
                    let line = Arc::new(Line { permit: Mutex::new(Some(permit)), works: true.into() });
                    self.lines.push(Arc::downgrade(&line));
                    let one = Fake { line, shares };
                    if shares {
                        stock.share(&origin(of), one.clone());
                        place.becomes_shared();
                    }
                    dialling.done(shares);
                    self.used.push((of, one, place));
                }
                Step::Fail(which) => {
                    let Some(which) = pick(which, self.dialling.len()) else { return };
                    self.dialling.swap_remove(which);
                }
                Step::Finish(which) => {
                    let Some(which) = pick(which, self.used.len()) else { return };
                    let (_, one, place) = self.used.swap_remove(which);
                    if one.shares {
                        drop((one, place));
                    } else {
                        stock.put_back(one, place);
                    }
                }
                Step::Drop(which) => {
                    let Some(which) = pick(which, self.used.len()) else { return };
                    let (_, one, place) = self.used.swap_remove(which);
                    drop((one, place));
                }
                Step::Retire(which) => {
                    let Some(which) = pick(which, self.used.len()) else { return };
                    let (_, one, place) = self.used.swap_remove(which);
                    one.line.works.store(false, Ordering::Relaxed);
                    drop((one, place));
                }
                Step::Close(which) => {
                    self.lines.retain(|line| line.strong_count() > 0);
                    let Some(which) = pick(which, self.lines.len()) else { return };
                    let line = self.lines[which].upgrade().unwrap();
                    line.close();
                    drop(line);
                }
                Step::Leave(which) => {
                    let Some(which) = pick(which, self.waiting.len()) else { return };
                    self.waiting.swap_remove(which);
                }
                Step::Reap => {
                    stock.reap();
                }
            }
        }

        /// What must be true at any time.
        fn check(&self, stock: &Arc<PoolState<Fake>>) {
            let state = lock(&stock.state);
            let open = self.lines.iter().filter_map(Weak::upgrade).filter(|line| lock(&line.permit).is_some()).count();
            assert_eq!(state.open, open + self.dialling.len(), "each open one is counted once");
            let all_kept = || state.origins.values().flat_map(|kept| kept.idle.iter().chain(&kept.shared));
            assert!(all_kept().all(|(one, _)| one.is_usable()), "nothing dead is kept");
            assert!(state.open <= CAPS.total);
            assert_eq!(state.open, state.origins.values().map(|kept| kept.open).sum::<usize>());
            for kept in state.origins.values() {
                assert!(kept.open <= CAPS.per_origin && !kept.is_empty());
            }
            for of in 0..3 {
                let dialling = self.dialling.iter().filter(|(other, ..)| *other == of).count();
                assert_eq!(state.origins.get(&origin(of)).map_or(0, |kept| kept.dialling), dialling);
            }
            for (of, app, _) in &self.waiting {
                let kept = state.origins.get(&origin(*of));
                let is_full = state.open == CAPS.total || kept.is_some_and(|kept| kept.open == CAPS.per_origin);
                let one_may_come = kept.is_some_and(|kept| kept.dialling > 0 && kept.shares != Some(false));
                let may_have_one = stock.leaves_room(&state, kept, *app);
                assert!(is_full || one_may_come || !may_have_one, "nobody waits without a reason");
                let can_share = |one: &Fake| Arc::strong_count(&one.line) <= STREAMS;
                let nothing_lies = kept.is_none_or(|kept| {
                    (kept.idle.is_empty() || !may_have_one) && !kept.shared.iter().any(|(one, _)| can_share(one))
                });
                assert!(nothing_lies, "nobody waits for what lies there");
            }
            let is_in_the_way = |(of, app, _): &(usize, App, _)| {
                let kept = state.origins.get(&origin(*of));
                kept.is_none() && stock.leaves_room(&state, None, *app)
            };
            if state.open == CAPS.total && self.waiting.iter().any(is_in_the_way) {
                assert!(all_kept().all(|(one, _)| one.is_in_use()), "nothing idle is in the way");
            }
            assert!(state.leaving <= state.open);
            let of_requests =
                self.dialling.iter().map(|(.., place)| place).chain(self.used.iter().map(|(.., place)| place));
            for app in 0..2 {
                let app = Some(app);
                let own = of_requests.clone().filter(|place| place.app == app);
                assert_eq!(state.requests.of(app), own.clone().count());
                let whole = own.filter(|place| place.is_whole).count();
                assert_eq!(state.places.of(app), whole);
                assert!(!stock.apps.are_several() || whole < CAPS.total, "no app has all places");
            }
        }
    }

    proptest! {
        #[test]
        fn permits_are_given_back_once_and_nobody_is_forgotten(steps in steps(), several in any::<bool>()) {
            let apps = Apps::default();
            let _members = (apps.join(0), several.then(|| apps.join(1)));
            let stock = PoolState::new(CAPS, apps);
            let mut process = World::default();
            for step in steps {
                process.step(&stock, step);
                process.look();
                process.check(&stock);
            }
            // everybody in line has their turn when the others are done
            while !process.dialling.is_empty() || !process.used.is_empty() {
                process.step(&stock, Step::Fail(0));
                process.step(&stock, Step::Finish(0));
                process.look();
                process.check(&stock);
            }
            prop_assert!(process.waiting.is_empty());
        }
    }

    #[test]
    fn who_waits_comes_next_whose_app_has_fewest() {
        let stock = PoolState::new(Caps { total: 2, ..CAPS }, Apps::default());
        let mut process = World::default();
        for _ in 0..4 {
            process.step(&stock, Step::Ask(0, Some(1)));
        }
        for _ in 0..2 {
            process.step(&stock, Step::Connect(0, false));
            process.look();
        }
        assert_eq!(process.used.len(), 2, "one app alone has all places");
        process.step(&stock, Step::Ask(0, Some(2)));
        for next in [2, 1] {
            process.step(&stock, Step::Finish(0));
            process.look();
            assert_eq!(process.used.last().unwrap().2.app, Some(next));
        }
    }

    #[test]
    fn apps_that_have_as_much_take_turns() {
        let stock = PoolState::new(Caps { total: 1, ..CAPS }, Apps::default());
        let mut process = World::default();
        for app in [1, 1, 1, 1, 2, 2] {
            process.step(&stock, Step::Ask(0, Some(app)));
        }
        process.step(&stock, Step::Connect(0, false));
        let mut served = Vec::new();
        while !process.used.is_empty() {
            served.push(process.used[0].2.app);
            process.step(&stock, Step::Finish(0));
            process.look();
        }
        assert_eq!(served, [1, 2, 1, 2, 1, 1].map(Some));
    }

    #[test]
    fn whoever_reaps_hears_that_nothing_is_left() {
        let stock = PoolState::new(CAPS, Apps::default());
        let mut process = World::default();
        process.step(&stock, Step::Ask(0, None));
        process.step(&stock, Step::Connect(0, false));
        process.step(&stock, Step::Finish(0));
        assert!(stock.begin_reaping() && stock.reap().is_some());
        let mut emptied = Box::pin(stock.emptied());
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(emptied.as_mut().poll(&mut cx).is_pending());
        process.step(&stock, Step::Close(0));
        assert!(emptied.as_mut().poll(&mut cx).is_ready() && stock.reap().is_none());
    }

    #[test]
    fn what_is_idle_for_too_long_or_too_old_is_ended() {
        for caps in [Caps { idle: Duration::ZERO, ..CAPS }, Caps { lifetime: Some(Duration::ZERO), ..CAPS }] {
            let stock = PoolState::new(caps, Apps::default());
            let mut process = World::default();
            process.step(&stock, Step::Ask(0, None));
            process.step(&stock, Step::Connect(0, false));
            process.step(&stock, Step::Finish(0));
            stock.reap();
            let state = lock(&stock.state);
            assert_eq!((state.open, state.origins.len()), (0, 0));
        }
    }
}
