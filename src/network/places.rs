//! What each of several apps has of a pool that they share, and what it leaves to the others.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// An app's number; none: whoever asks without a guest.
pub(crate) type App = Option<u64>;

/// How many places an app may have for each that it leaves to the others: 204 of 256, one of two.
const SHARE: usize = 4;

/// The apps that share a pool.
#[derive(Clone, Debug, Default)]
pub struct Apps(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    /// How many of them there are: what is read while requests are under way, without the lock.
    number: AtomicUsize,
    /// How often each has joined.
    joined: Mutex<HashMap<u64, usize>>,
}

/// An app's mark among [`Apps`], for as long as there is that app.
#[derive(Debug)]
pub struct Membership {
    apps: Apps,
    app: u64,
}

impl Apps {
    /// Of a thread that holds the GIL, as a fork does: so no child finds this lock taken.
    pub fn join(&self, app: u64) -> Membership {
        self.change(app, |joined| joined + 1);
        Membership { apps: self.clone(), app }
    }

    /// Whether there is more than one.
    pub fn are_several(&self) -> bool {
        self.0.number.load(Ordering::Relaxed) > 1
    }

    /// Whether they are the same apps.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn change(&self, app: u64, change: impl FnOnce(usize) -> usize) {
        let mut known = lock(&self.0.joined);
        match change(known.remove(&app).unwrap_or(0)) {
            0 => {}
            joined => _ = known.insert(app, joined),
        }
        self.0.number.store(known.len(), Ordering::Relaxed);
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.apps.change(self.app, |joined| joined.saturating_sub(1));
    }
}

/// How many of something each app has.
pub(crate) struct Places {
    of: Option<HashMap<App, usize>>,
    all: usize,
}

impl Places {
    pub(crate) const NONE: Self = Self { of: None, all: 0 };

    pub(crate) fn is_empty(&self) -> bool {
        self.all == 0
    }

    /// How many apps have any.
    fn apps(&self) -> usize {
        self.of.as_ref().map_or(0, HashMap::len)
    }

    pub(crate) fn of(&self, app: App) -> usize {
        self.of.as_ref().and_then(|of| of.get(&app)).copied().unwrap_or(0)
    }

    pub(crate) fn take(&mut self, app: App) {
        self.all += 1;
        *self.of.get_or_insert_default().entry(app).or_default() += 1;
    }

    pub(crate) fn give(&mut self, app: App) {
        let Some(of) = &mut self.of else { return };
        let Some(has) = of.get_mut(&app) else { return };
        *has -= 1;
        self.all -= 1;
        if *has == 0 {
            of.remove(&app);
        }
    }

    /// Whether enough of `most` is left to others when an app takes one more. Its first one leaves nothing, perhaps.
    pub(crate) fn leaves_room(&self, app: App, most: usize) -> bool {
        let has = self.of(app);
        has == 0 || has < most.saturating_sub(self.all + 1).saturating_mul(SHARE)
    }
}

/// When each app was served last, for those that have waited as long as others.
#[derive(Default)]
pub(crate) struct Turns {
    last: HashMap<App, u64>,
    now: u64,
}

/// As many apps are remembered whether they ask for anything or not.
const FEW: usize = 64;

impl Turns {
    pub(crate) fn of(&self, app: App) -> u64 {
        self.last.get(&app).copied().unwrap_or(0)
    }

    /// An app is served. `requests`: what each has; those without any are forgotten some time.
    pub(crate) fn take(&mut self, app: App, requests: &Places) {
        self.now += 1;
        self.last.insert(app, self.now);
        if self.last.len() > FEW + 2 * requests.apps() {
            self.last.retain(|app, _| requests.of(*app) > 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_several_that_take_all_they_can_leaves_something() {
        for (most, expected) in [(1, vec![1, 0]), (2, vec![1, 1]), (8, vec![6, 1]), (256, vec![204, 41, 8])] {
            let mut places = Places::NONE;
            let mut taken = Vec::new();
            for app in 0..expected.len() as u64 {
                let begun = places.all;
                while places.all < most && places.leaves_room(Some(app), most) {
                    places.take(Some(app));
                }
                taken.push(places.all - begun);
            }
            assert_eq!(taken, expected, "of {most}");
        }
    }

    #[test]
    fn apps_that_are_gone_are_forgotten() {
        let (mut turns, mut requests) = (Turns::default(), Places::NONE);
        for app in 0..10_000 {
            requests.take(Some(app));
            turns.take(Some(app), &requests);
            assert!(turns.of(Some(app)) > turns.of(app.checked_sub(1)));
            if app != 0 {
                requests.give(Some(app));
            }
        }
        assert!(turns.last.len() <= FEW + 3 && turns.of(Some(0)) == 1);
    }
}
