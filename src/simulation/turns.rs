//! Whose time passes when the guests of an instance have nothing to do: each exchange has a clock, and the instance has the turns.
//!
//! One of an exchange alone knows whose turn it is. Those that share an instance are driven together: while anything in it runs, no time
//! passes for any of them, and then it does for each as its own guest and its own upstreams have it.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use crate::simulation::virtual_time::{Clock, Time};
use crate::sync::lock;

/// The clocks of those whose guests are in one instance.
#[derive(Default)]
pub(crate) struct Clocks(Mutex<Known>);

#[derive(Default)]
struct Known {
    clocks: Vec<Weak<Time>>,
    /// The latest time that any of them was seen to have.
    latest: u64,
}

impl Clocks {
    /// One more, until nobody has it any more.
    pub(super) fn add(&self, clock: &Clock) {
        lock(&self.0).clocks.push(Arc::downgrade(&clock.0));
    }

    /// Those that somebody has.
    fn live(&self) -> Vec<Arc<Time>> {
        let mut known = lock(&self.0);
        known.clocks.retain(|time| time.strong_count() > 0);
        let live: Vec<_> = known.clocks.iter().filter_map(Weak::upgrade).collect();
        known.latest = live.iter().map(|time| lock(&time.state).now).fold(known.latest, u64::max);
        live
    }

    /// The instance is as it was when it began: its time is, too.
    pub(super) fn restart(&self) {
        *lock(&self.0) = Known::default();
    }

    /// Nanoseconds since the instance began, by the clock that is the furthest.
    pub(super) fn latest(&self) -> u64 {
        drop(self.live());
        lock(&self.0).latest
    }

    /// What runs the instance's guests, by whose turns the time is told when they wait.
    pub(crate) fn turns<F: Future<Output = ()> + Send>(
        self: &Arc<Self>,
        run: F,
    ) -> impl Future<Output = ()> + Send + use<F> {
        Turns { run: Box::pin(run), clocks: self.clone() }
    }
}

/// See [`Clocks::turns`].
struct Turns<F> {
    run: Pin<Box<F>>,
    clocks: Arc<Clocks>,
}

/// The waker of one turn.
struct Told {
    clocks: Arc<Clocks>,
    woken: AtomicBool,
    waker: Waker,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // first: whoever ends the turn looks at it with the lock of each
        self.woken.store(true, Ordering::SeqCst);
        for time in self.clocks.live() {
            lock(&time.state).turn = true;
        }
        self.waker.wake_by_ref();
    }
}

impl<F: Future<Output = ()>> Future for Turns<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let told =
            Arc::new(Told { clocks: this.clocks.clone(), woken: AtomicBool::new(false), waker: cx.waker().clone() });
        let waker = Waker::from(told.clone());
        let begun = this.clocks.live();
        for time in &begun {
            let mut state = lock(&time.state);
            state.turn = true;
            state.guest = waker.clone();
        }
        let polled = this.run.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_pending() {
            // one that was woken meanwhile has only paused, or is about to go on. Who has come meanwhile has his turn before him.
            for time in &begun {
                time.change(|state| state.turn = told.woken.load(Ordering::SeqCst));
            }
            drop(begun);
            drop(this.clocks.live()); // how far they are, for who comes next
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        #[allow(clippy::unwrap_used)]
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn begin(clocks: &Clocks) -> Clock {
        let clock = Clock::new(clocks.latest());
        clocks.add(&clock);
        clock
    }

    #[test]
    fn each_has_a_time_of_its_own() {
        let clocks = Arc::new(Clocks::default());
        let (one, other) = (begin(&clocks), begin(&clocks));
        let (sleeps, works) = (one.clone(), other.clone());
        let work = other.work(true); // an upstream of the other's is at it
        block_on(clocks.turns(async move { sleeps.after(HOUR).await }));
        assert_eq!((one.elapsed(), other.elapsed()), (HOUR, Duration::ZERO));
        drop(work);
        block_on(clocks.turns(async move { works.after(HOUR * 2).await }));
        assert_eq!((one.elapsed(), other.elapsed()), (HOUR, HOUR * 2));
    }

    #[test]
    fn none_passes_for_anybody_while_one_of_them_runs() {
        let clocks = Arc::new(Clocks::default());
        let (one, other) = (begin(&clocks), begin(&clocks));
        let mut waits = Box::pin(one.after(HOUR));
        let mut turns = 0;
        block_on(clocks.turns(async move {
            std::future::poll_fn(|cx| {
                let over = waits.as_mut().poll(cx).is_ready();
                turns += 1;
                if turns < 3 {
                    assert!(!over);
                    cx.waker().wake_by_ref();
                }
                if over { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            assert!(turns > 3);
        }));
        assert_eq!((one.elapsed(), other.elapsed()), (HOUR, Duration::ZERO));
    }

    #[test]
    fn whoever_comes_later_begins_where_the_furthest_is() {
        let clocks = Arc::new(Clocks::default());
        let first = begin(&clocks);
        let sleeps = first.clone();
        block_on(clocks.turns(async move { sleeps.after(HOUR).await }));
        let then = first.now();
        drop(first);
        assert_eq!(clocks.latest(), then, "though nobody has its clock any more");
        let next = begin(&clocks);
        assert_eq!((next.now(), next.elapsed()), (then, Duration::ZERO));
    }
}
