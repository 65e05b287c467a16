#![allow(clippy::unwrap_used)]

use std::sync::mpsc;

use super::*;
use crate::engine::ProcessState;

fn process() -> &'static ProcessState {
    crate::engine::process_state().unwrap()
}

/// Has guests run, and waits for the end of each.
struct Guests {
    lane: Arc<Lane>,
    long_turns: Arc<LongTurns>,
    ended: mpsc::Receiver<()>,
    end: mpsc::Sender<()>,
}

/// Tells that its guest is gone, by its end or because it was dropped.
struct Gone(mpsc::Sender<()>);

impl Drop for Gone {
    fn drop(&mut self) {
        let _ = self.0.send(());
    }
}

impl Guests {
    fn new() -> Self {
        let (end, ended) = mpsc::channel();
        Self { lane: Arc::default(), long_turns: Arc::default(), ended, end }
    }

    fn run(&self, computes: bool, run: impl Future<Output = ()> + Send + 'static) -> Arc<Task> {
        let gone = Gone(self.end.clone());
        let run: Run = Box::pin(async move {
            let _gone = gone;
            run.await;
        });
        let mut task = None;
        let guest = Newcomer { run, lane: &self.lane, computes, long_turns: &self.long_turns };
        process().scheduler.spawn(&process().runtime, guest, |told| task = told.upgrade()).unwrap();
        // it may have ended already, and then nothing can stop it
        task.unwrap()
    }

    fn wait(&self) {
        self.ended.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn a_guest_that_is_woken_has_another_turn() {
    let guests = Guests::new();
    for (computes, is_unruly) in [(false, false), (true, false), (false, true)] {
        if is_unruly {
            guests.long_turns.add(Duration::from_secs(1));
        }
        guests.run(computes, async {
            for _ in 0..100 {
                tokio::time::sleep(Duration::from_micros(100)).await;
                tokio::task::yield_now().await;
            }
        });
    }
    (0..3).for_each(|_| guests.wait());
}

#[test]
fn no_wake_up_is_lost_at_the_end_of_a_turn() {
    let guests = Guests::new();
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    guests.run(false, async move {
        for expected in 0..100_000 {
            assert_eq!(receiver.recv().await, Some(expected));
        }
    });
    let sends = async move {
        for number in 0..100_000 {
            sender.send(number).await.unwrap();
        }
    };
    process().runtime.handle().unwrap().spawn(sends);
    guests.wait();
}

/// Notes what its guest has had done when it is woken.
struct Noted {
    of_guest: Arc<AtomicUsize>,
    seen: mpsc::Sender<usize>,
}

impl std::task::Wake for Noted {
    fn wake(self: Arc<Self>) {
        let _ = self.seen.send(self.of_guest.load(Ordering::SeqCst));
    }
}

#[test]
fn who_waits_for_what_a_guest_writes_is_woken_once_it_has_written_all() {
    let guests = Guests::new();
    let (seen, told) = mpsc::channel();
    let of_guest = Arc::<AtomicUsize>::default();
    let waker = Waker::from(Arc::new(Noted { of_guest: of_guest.clone(), seen }));
    for computes in [false, true] {
        let (of_guest, waker) = (of_guest.clone(), waker.clone());
        of_guest.store(0, Ordering::SeqCst);
        guests.run(computes, async move {
            wake_at_end_of_turn(&waker);
            of_guest.store(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        });
        guests.wait();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), 1);
    }
}

#[test]
fn a_guest_that_is_stopped_is_dropped_where_it_stands() {
    let guests = Guests::new();
    let waits = guests.run(false, std::future::pending());
    let spins = guests.run(true, async {
        loop {
            tokio::task::yield_now().await;
        }
    });
    waits.stop();
    spins.stop();
    (0..2).for_each(|_| guests.wait());
}

#[test]
fn a_panic_ends_one_guest() {
    let guests = Guests::new();
    #[allow(clippy::panic)]
    guests.run(false, async { panic!("as asked") });
    guests.wait();
    guests.run(false, async {});
    guests.wait();
}

#[test]
fn turns_without_an_end_keep_no_other_app_from_its_own() {
    let _ticking = process().tick().unwrap();
    let (hostile, other) = (Guests::new(), Guests::new());
    let is_done = Arc::new(AtomicBool::new(false));
    let processors = std::thread::available_parallelism().unwrap().get();
    for _ in 0..processors * 4 {
        let is_done = is_done.clone();
        hostile.run(true, async move {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !is_done.load(Ordering::Relaxed) && Instant::now() < deadline {
                std::hint::spin_loop();
            }
            assert!(is_done.load(Ordering::Relaxed));
        });
    }
    other.run(true, async {});
    other.wait();
    is_done.store(true, Ordering::Relaxed);
    (0..processors * 4).for_each(|_| hostile.wait());
}

fn thread() -> String {
    std::thread::current().name().unwrap_or_default().to_owned()
}

/// Computes for so long, as far as a processor is there for it.
fn compute(time: Duration) {
    let begun = crate::scheduler::thread_priority::ThreadTime::now();
    while crate::scheduler::thread_priority::ThreadTime::now().since(begun) < time {
        std::hint::spin_loop();
    }
}

#[test]
fn what_guests_begin_belongs_to_the_runtime_whose_workers_no_guest_occupies() {
    let guests = Guests::new();
    let (tell, told) = mpsc::channel();
    for computes in [false, true] {
        let tell = tell.clone();
        guests.run(computes, async move {
            tell.send((thread(), tokio::runtime::Handle::current().id())).unwrap();
        });
        guests.wait();
    }
    let found: Vec<_> = told.try_iter().collect();
    let all = process().runtime.handle().unwrap().id();
    assert_eq!(found, [("wasgi-guest".to_owned(), all), ("wasgi-compute".to_owned(), all)]);
}

#[test]
fn guests_of_a_component_that_no_tick_ends_have_no_turn_on_prompt_threads() {
    let guests = Guests::new();
    guests.long_turns.add(Duration::from_secs(1));
    let (tell, told) = mpsc::channel();
    guests.run(false, async move { tell.send(thread()).unwrap() });
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), "wasgi-compute");
}

#[test]
fn an_app_whose_guests_have_computed_enough_has_no_turn_on_prompt_threads() {
    let (much, little) = (Guests::new(), Guests::new());
    much.lane.was_prompt(Duration::from_secs(3600)); // all of them together: none has computed itself
    let (tell, told) = mpsc::channel();
    for guests in [&much, &little] {
        let tell = tell.clone();
        guests.run(false, async move { tell.send(thread()).unwrap() });
        guests.wait();
    }
    assert_eq!(told.try_iter().collect::<Vec<_>>(), ["wasgi-compute", "wasgi-guest"]);
}

#[test]
fn turns_on_prompt_threads_are_their_apps() {
    let guests = Guests::new();
    guests.run(false, async { compute(Duration::from_micros(100)) });
    guests.wait();
    let deadline = Instant::now() + Duration::from_secs(60);
    while lock(&guests.lane.credit).is_whole() {
        assert!(Instant::now() < deadline, "it is charged when its turn is over");
        std::thread::yield_now();
    }
}
