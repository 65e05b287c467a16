//! When an instance that exchanges share ends, and what is left of it.

#![allow(clippy::unwrap_used)]
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, Weak};
use std::task::Waker;

use super::*;
use crate::app::App;
use crate::app::admission::Admission;
use crate::app::exchange::Part;
use crate::app::shared::Reservation;
use crate::component::Component;
use crate::component::limits::ComponentLimits;
use crate::component::loading::Order;
use crate::component::variant::Variant;
use crate::exchange::handle::{ExchangeHandle, ExchangeState};
use crate::guest::grants::Grants;
use crate::guest::instance::Reuse;
use crate::guest::shared::{Newcomer, Shared};
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
    let driver = Driver {
        sharing: sharing.clone(),
        left_over: Vec::new(),
        held_back: None,
        is_clean: true,
        due: Due::default(),
    };
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

/// One exchange in an instance that others may come into. Returns its seat, and what the instance's store and its driver both know.
fn shared_by_one(reuse: Reuse) -> (Weak<Seat>, Weak<Shared>) {
    let component = std::fs::read("tests/guests/components/hello_p3.wasm").unwrap();
    let order = Order::new(Variant::PLAIN, ComponentLimits::NONE, None);
    let app = App::new(Component::new(&component, &order).unwrap(), Grants::default(), Limits::NONE, Some(reuse));
    let Ok(Admission::Permit(permit)) = app.admit(crate::engine::process_state().unwrap()) else { unreachable!() };
    let mut exchange = app.start(permit, http::Request::new(empty()), Upstreams::default()).unwrap();
    let Part::First { sharing, .. } = &exchange.part else { unreachable!() };
    let seat = Arc::downgrade(&lock(&sharing.members).seated.first().unwrap().seat);
    let shared = Arc::downgrade(&sharing.shared);
    while !exchange.run_here().unwrap() {}
    (seat, shared)
}

#[test]
fn nothing_is_left_of_an_exchange_in_an_instance_that_is_kept() {
    let idle = Some(Duration::from_secs(60));
    let (seat, _) = shared_by_one(Reuse { requests: None, concurrent: 2, idle, isolated: false, ready: 0 });
    assert_eq!(seat.strong_count(), 0);
}

#[test]
fn nothing_is_left_of_an_instance_that_has_ended() {
    let (seat, shared) =
        shared_by_one(Reuse { requests: Some(1), concurrent: 2, idle: None, isolated: false, ready: 0 });
    assert_eq!((seat.strong_count(), shared.strong_count()), (0, 0));
}
