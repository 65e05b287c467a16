//! When an instance that exchanges share ends.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::exchange::handle::ExchangeHandle;
use crate::http::message::empty;
use crate::limits::Limits;
use crate::outgoing::hooks::Hooks;
use crate::outgoing::upstream::Upstreams;

/// One that nobody is in, and whoever drives it.
fn left() -> (Arc<SharedInstance>, Driver) {
    let sharing = Arc::new(SharedInstance {
        shared: Arc::default(),
        process: crate::engine::process_state().unwrap(),
        reuse: Reuse { requests: None, concurrent: 2, idle: None, isolated: false, ready: 0 },
        stage: None,
        peak: Arc::default(),
        held: AtomicU32::new(0),
        members: Mutex::default(),
    });
    sharing.shared.open();
    let driver = Driver { sharing: sharing.clone(), left_over: Vec::new(), is_clean: true, due: Due::default() };
    (sharing, driver)
}

/// A turn of guests that never have done.
fn turn(driver: &mut Driver) -> Poll<Fate> {
    driver.turn(pin!(std::future::pending()), &mut Context::from_waker(Waker::noop()))
}

#[test]
fn an_instance_that_all_have_left_waits_for_whoever_is_on_the_way() {
    let (sharing, mut driver) = left();
    let place = Reservation::new(&sharing).unwrap();
    assert!(turn(&mut driver).is_pending());
    drop(place);
    assert!(matches!(turn(&mut driver), Poll::Ready(Fate::Abandoned)));
    assert!(Reservation::new(&sharing).is_none());
}

#[test]
fn an_instance_ends_though_one_that_has_left_was_never_called() {
    let (sharing, mut driver) = left();
    let exchange = ExchangeState::new(sharing.process, 1, None);
    let hooks = Hooks::new(Upstreams::default(), ExchangeHandle::observer(&exchange), &Limits::NONE);
    let seat = Seat::new(exchange, None, Box::new(|_| ()), sharing.waker());
    sharing.shared.begin(Box::new(Newcomer { request: http::Request::new(empty()), hooks, seat }));
    assert!(matches!(turn(&mut driver), Poll::Ready(Fate::Abandoned)));
}
