//! The state of a pool under any order of events, without a connection.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::*;

/// A connection that is open until its peer closes it, or nobody has a handle to it any more.
struct Line {
    permit: Mutex<Option<Permit<Fake>>>,
    works: AtomicBool,
    has_spoken: AtomicBool,
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

    fn is_quiet(&self) -> bool {
        !self.line.has_spoken.load(Ordering::Relaxed)
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
struct Process {
    dialling: Vec<Dialled>,
    used: Vec<(usize, Fake, Place<Fake>)>,
    lines: Vec<Weak<Line>>,
    waiting: Vec<(usize, App, Waiting<Fake>)>,
}

impl Process {
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

    fn step(&mut self, pool: &Arc<PoolState<Fake>>, step: Step) {
        let pick = |which: usize, of: usize| (of > 0).then(|| which % of);
        match step {
            Step::Ask(of, app) => match pool.ask(&origin(of), true, app) {
                Checkout::Granted(grant) => self.take(of, grant),
                Checkout::Wait(waiting) => self.waiting.push((of, app, waiting)),
            },
            Step::Connect(which, shares) => {
                let Some(which) = pick(which, self.dialling.len()) else { return };
                let (of, permit, dialling, mut place) = self.dialling.swap_remove(which);
                let line =
                    Arc::new(Line { permit: Mutex::new(Some(permit)), works: true.into(), has_spoken: false.into() });
                self.lines.push(Arc::downgrade(&line));
                let one = Fake { line, shares };
                if shares {
                    pool.share(&origin(of), one.clone());
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
                    pool.put_back(one, place);
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
                pool.reap();
            }
        }
    }

    /// What must be true at any time.
    fn check(&self, pool: &Arc<PoolState<Fake>>) {
        let state = lock(&pool.state);
        let open = self.lines.iter().filter_map(Weak::upgrade).filter(|line| lock(&line.permit).is_some()).count();
        assert_eq!(state.open, open + self.dialling.len(), "each open one is counted once");
        let all_kept = || state.origins.0.values().flat_map(|kept| kept.idle.iter().chain(&kept.shared));
        assert!(all_kept().all(|(one, _)| one.is_usable()), "nothing dead is kept");
        assert!(state.open <= CAPS.total);
        assert_eq!(state.open, state.origins.0.values().map(|kept| kept.open).sum::<usize>());
        for kept in state.origins.0.values() {
            assert!(kept.open <= CAPS.per_origin && !kept.is_empty());
        }
        for of in 0..3 {
            let dialling = self.dialling.iter().filter(|(other, ..)| *other == of).count();
            assert_eq!(state.origins.0.get(&origin(of)).map_or(0, |kept| kept.dialling), dialling);
        }
        for (of, app, _) in &self.waiting {
            let kept = state.origins.0.get(&origin(*of));
            let is_full = state.open == CAPS.total || kept.is_some_and(|kept| kept.open == CAPS.per_origin);
            let one_may_come = kept.is_some_and(|kept| kept.dialling > 0 && kept.shares != Some(false));
            let may_have_one = pool.leaves_room(&state, kept, *app);
            assert!(is_full || one_may_come || !may_have_one, "nobody waits without a reason");
            let can_share = |one: &Fake| Arc::strong_count(&one.line) <= STREAMS;
            let nothing_lies = kept.is_none_or(|kept| {
                (kept.idle.is_empty() || !may_have_one) && !kept.shared.iter().any(|(one, _)| can_share(one))
            });
            assert!(nothing_lies, "nobody waits for what lies there");
        }
        let is_in_the_way = |(of, app, _): &(usize, App, _)| {
            let kept = state.origins.0.get(&origin(*of));
            kept.is_none() && pool.leaves_room(&state, None, *app)
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
            assert!(!pool.apps.are_several() || whole < CAPS.total, "no app has all places");
        }
    }
}

proptest! {
    #[test]
    fn permits_are_given_back_once_and_nobody_is_forgotten(steps in steps(), several in any::<bool>()) {
        let apps = Apps::default();
        let _members = (apps.join(0), several.then(|| apps.join(1)));
        let pool = PoolState::new(CAPS, apps);
        let mut process = Process::default();
        for step in steps {
            process.step(&pool, step);
            process.look();
            process.check(&pool);
        }
        // everybody in line has their turn when the others are done
        while !process.dialling.is_empty() || !process.used.is_empty() {
            process.step(&pool, Step::Fail(0));
            process.step(&pool, Step::Finish(0));
            process.look();
            process.check(&pool);
        }
        prop_assert!(process.waiting.is_empty());
    }
}

#[test]
fn who_waits_comes_next_whose_app_has_fewest() {
    let pool = PoolState::new(Caps { total: 2, ..CAPS }, Apps::default());
    let mut process = Process::default();
    for _ in 0..4 {
        process.step(&pool, Step::Ask(0, Some(1)));
    }
    for _ in 0..2 {
        process.step(&pool, Step::Connect(0, false));
        process.look();
    }
    assert_eq!(process.used.len(), 2, "one app alone has all places");
    process.step(&pool, Step::Ask(0, Some(2)));
    for next in [2, 1] {
        process.step(&pool, Step::Finish(0));
        process.look();
        assert_eq!(process.used.last().unwrap().2.app, Some(next));
    }
}

#[test]
fn apps_that_have_as_much_take_turns() {
    let pool = PoolState::new(Caps { total: 1, ..CAPS }, Apps::default());
    let mut process = Process::default();
    for app in [1, 1, 1, 1, 2, 2] {
        process.step(&pool, Step::Ask(0, Some(app)));
    }
    process.step(&pool, Step::Connect(0, false));
    let mut served = Vec::new();
    while !process.used.is_empty() {
        served.push(process.used[0].2.app);
        process.step(&pool, Step::Finish(0));
        process.look();
    }
    assert_eq!(served, [1, 2, 1, 2, 1, 1].map(Some));
}

#[test]
fn whoever_reaps_hears_that_nothing_is_left() {
    let pool = PoolState::new(CAPS, Apps::default());
    let mut process = Process::default();
    process.step(&pool, Step::Ask(0, None));
    process.step(&pool, Step::Connect(0, false));
    process.step(&pool, Step::Finish(0));
    assert!(pool.begin_reaping() && pool.reap().is_some());
    let mut emptied = Box::pin(pool.emptied());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(emptied.as_mut().poll(&mut cx).is_pending());
    process.step(&pool, Step::Close(0));
    assert!(emptied.as_mut().poll(&mut cx).is_ready() && pool.reap().is_none());
}

#[test]
fn what_is_idle_for_too_long_or_too_old_is_ended() {
    for caps in [Caps { idle: Duration::ZERO, ..CAPS }, Caps { lifetime: Some(Duration::ZERO), ..CAPS }] {
        let pool = PoolState::new(caps, Apps::default());
        let mut process = Process::default();
        process.step(&pool, Step::Ask(0, None));
        process.step(&pool, Step::Connect(0, false));
        process.step(&pool, Step::Finish(0));
        pool.reap();
        let state = lock(&pool.state);
        assert_eq!((state.open, state.origins.0.len()), (0, 0));
    }
}

fn pool_of(total: usize, per_origin: usize) -> (Arc<PoolState<Fake>>, Process) {
    (PoolState::new(Caps { total, per_origin, ..CAPS }, Apps::default()), Process::default())
}

/// So many connections to an origin, for one request each; what is idle of them.
fn connected(pool: &Arc<PoolState<Fake>>, process: &mut Process, of: usize, used: usize, idle: usize) {
    for _ in 0..used + idle {
        process.step(pool, Step::Ask(of, Some(1)));
        process.step(pool, Step::Connect(0, false));
    }
    for _ in 0..idle {
        process.step(pool, Step::Finish(process.used.len() - 1));
    }
}

fn idle(pool: &PoolState<Fake>, of: usize) -> usize {
    lock(&pool.state).origins.0.get(&origin(of)).map_or(0, |kept| kept.idle.len())
}

#[test]
fn one_connection_for_all_is_used_by_those_who_wait_for_it() {
    let (pool, mut process) = pool_of(4, 2);
    for _ in 0..STREAMS {
        process.step(&pool, Step::Ask(0, Some(1)));
    }
    assert_eq!((process.dialling.len(), process.waiting.len()), (1, 2), "what comes may be one for all");
    process.step(&pool, Step::Connect(0, true));
    process.look();
    assert_eq!((process.used.len(), process.waiting.len()), (3, 0));
    assert!(process.used.iter().all(|(_, one, _)| Arc::ptr_eq(&one.line, &process.used[0].1.line)));
    assert_eq!(lock(&pool.state).places.of(Some(1)), 0, "nobody has it alone");
    // one that is dead and has not said so yet
    process.used.truncate(1);
    process.used[0].1.line.works.store(false, Ordering::Relaxed);
    process.step(&pool, Step::Ask(0, Some(1)));
    assert_eq!((process.dialling.len(), process.used.len()), (1, 1));
}

#[test]
fn nobody_waits_for_a_connection_that_will_be_for_one() {
    let (pool, mut process) = pool_of(4, 4);
    process.step(&pool, Step::Ask(0, Some(1)));
    assert!(matches!(pool.ask(&origin(0), false, Some(1)), Checkout::Granted(Grant::Dial(..))), "it cannot use it");
    process.step(&pool, Step::Connect(0, false));
    for dialling in [1, 2] {
        process.step(&pool, Step::Ask(0, Some(1)));
        assert_eq!(process.dialling.len(), dialling, "the last one was for one");
    }
}

#[test]
fn what_comes_for_one_who_has_gone_lies_there_for_the_next() {
    let (pool, mut process) = pool_of(1, 1);
    connected(&pool, &mut process, 0, 1, 0);
    process.step(&pool, Step::Ask(0, Some(1)));
    process.step(&pool, Step::Finish(0));
    assert_eq!(idle(&pool, 0), 0, "it is on its way");
    process.waiting.clear();
    assert_eq!((idle(&pool, 0), lock(&pool.state).open), (1, 1));
}

#[test]
fn whoever_waits_is_told() {
    let (pool, mut process) = pool_of(1, 1);
    connected(&pool, &mut process, 0, 1, 0);
    process.step(&pool, Step::Ask(0, Some(1)));
    process.step(&pool, Step::Finish(0));
    let mut granted = Box::pin(process.waiting[0].2.granted());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(matches!(granted.as_mut().poll(&mut cx), std::task::Poll::Ready(Some(Grant::Use(..)))));
}

#[test]
fn what_nobody_uses_makes_room_for_who_waits_for_nothing_else() {
    // another origin's, all of them; one more is not ended for nothing
    let (pool, mut process) = pool_of(2, 2);
    connected(&pool, &mut process, 0, 0, 2);
    process.step(&pool, Step::Ask(1, Some(1)));
    process.look();
    assert_eq!((idle(&pool, 0), process.dialling.len()), (1, 1));
    // an origin that has one, and may have another
    let (pool, mut process) = pool_of(2, 2);
    connected(&pool, &mut process, 0, 1, 0);
    connected(&pool, &mut process, 1, 0, 1);
    process.step(&pool, Step::Ask(0, Some(1)));
    process.look();
    assert_eq!((idle(&pool, 1), process.dialling.len()), (0, 1));
}

#[test]
fn nothing_is_ended_for_one_that_it_would_not_help() {
    // the origin has as many as it may have
    for total in [3, 4] {
        let (pool, mut process) = pool_of(total, 2);
        connected(&pool, &mut process, 0, 2, 0);
        connected(&pool, &mut process, 1, 0, 1);
        process.step(&pool, Step::Ask(0, Some(1)));
        assert_eq!((idle(&pool, 1), process.waiting.len()), (1, 1));
    }
    // one is being made that may be for all
    let (pool, mut process) = pool_of(2, 2);
    connected(&pool, &mut process, 1, 0, 1);
    process.step(&pool, Step::Ask(0, Some(1)));
    process.step(&pool, Step::Ask(0, Some(1)));
    assert_eq!((idle(&pool, 1), process.dialling.len(), process.waiting.len()), (1, 1, 1));
}

#[test]
fn a_pool_is_full_by_origin_and_in_all() {
    let (pool, mut process) = pool_of(3, 2);
    let are_full = || [0, 1].map(|of| pool.is_full(&origin(of), Some(1)));
    assert_eq!(are_full(), [false, false]);
    connected(&pool, &mut process, 0, 1, 0);
    assert_eq!(are_full(), [false, false]);
    connected(&pool, &mut process, 0, 1, 0);
    assert_eq!(are_full(), [true, false]);
    connected(&pool, &mut process, 1, 1, 0);
    assert_eq!(are_full(), [true, true]);
    process.step(&pool, Step::Ask(2, Some(1)));
    assert_eq!(lock(&pool.state).origins.0.len(), 2, "nothing is noted of an origin that has nothing");
}

#[test]
fn an_app_that_has_its_share_finds_the_pool_full() {
    let apps = Apps::default();
    let _members = (apps.join(1), apps.join(2));
    let pool = PoolState::new(Caps { total: 2, ..CAPS }, apps);
    let mut process = Process::default();
    process.step(&pool, Step::Ask(0, Some(1)));
    assert!(pool.is_full(&origin(1), Some(1)) && !pool.is_full(&origin(1), Some(2)));
}

#[test]
fn one_at_a_time_reaps_while_something_lies_there() {
    let (pool, mut process) = pool_of(2, 2);
    assert!(!pool.begin_reaping(), "there is nothing");
    connected(&pool, &mut process, 0, 0, 1);
    assert!(pool.begin_reaping());
    assert!(!pool.begin_reaping(), "somebody does");
    let next = pool.reap().unwrap();
    assert!(next <= CAPS.idle && next >= CAPS.idle / 10);
    // one that is dead and has not said so yet
    let state = lock(&pool.state);
    state.origins.0[&origin(0)].idle[0].0.line.works.store(false, Ordering::Relaxed);
    drop(state);
    assert!(pool.reap().is_none());
    assert_eq!(lock(&pool.state).open, 0);
    assert!(!pool.begin_reaping());
}

#[test]
fn one_that_has_died_while_it_lay_there_is_not_given_to_anybody() {
    let (pool, mut process) = pool_of(2, 2);
    connected(&pool, &mut process, 0, 0, 1);
    let state = lock(&pool.state);
    state.origins.0[&origin(0)].idle[0].0.line.works.store(false, Ordering::Relaxed);
    drop(state);
    process.step(&pool, Step::Ask(0, Some(1)));
    assert_eq!((process.dialling.len(), process.used.len()), (1, 0));
}

#[test]
fn a_connection_on_which_something_has_come_meanwhile_is_ended_and_not_granted() {
    let pool = PoolState::new(CAPS, Apps::default());
    let mut process = Process::default();
    for (step, open) in [(Step::Ask(0, Some(0)), 1), (Step::Connect(0, false), 1), (Step::Finish(0), 1)] {
        process.step(&pool, step);
        assert_eq!(process.dialling.len() + process.lines.len(), open);
    }
    process.step(&pool, Step::Ask(0, Some(0)));
    assert_eq!((process.used.len(), process.dialling.len()), (1, 0), "a quiet one is used again");
    process.used[0].1.line.has_spoken.store(true, Ordering::Relaxed);
    let line = Arc::downgrade(&process.used[0].1.line);
    process.step(&pool, Step::Finish(0));
    process.step(&pool, Step::Ask(0, Some(0)));
    assert_eq!((process.used.len(), process.dialling.len()), (0, 1));
    assert!(line.upgrade().is_none());
}
