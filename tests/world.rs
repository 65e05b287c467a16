//! The core by itself. `wit/` cannot promise what the linker lacks: a component that imports everything in its world is
//! loaded and runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::task::{Context, Poll, Waker};

use _wasgi::component::Component;
use _wasgi::error::Error;
use _wasgi::gate::Admission;
use _wasgi::host::Grants;
use _wasgi::incoming::{App, Exchange};
use _wasgi::limits::Limits;
use _wasgi::outline::{Outline, PROVIDED};
use http_body_util::{BodyExt, Empty};

/// A component of the world in `wit/` that imports all of it; its handler is `unreachable`.
const EVERYTHING: &[u8] = include_bytes!("guests/components/everything.wasm");

#[test]
fn a_component_that_imports_the_whole_world_is_instantiated() {
    let component = Component::new(EVERYTHING).expect("the world promises what the linker lacks");
    let app = App::new(component, Grants::default(), Limits::NONE, None);
    let mut exchange = start(&app, "/").unwrap();
    assert!(exchange.run_here().unwrap());
    match exchange.poll_head(&mut Context::from_waker(Waker::noop())) {
        // it got as far as the dummy's handler, which is `unreachable`
        Poll::Ready(Err(Error::Trap(trap))) => {
            assert!(trap.message.contains("unreachable"), "{}", trap.message);
            assert!(!trap.backtrace.is_empty());
        }
        Poll::Ready(Err(other)) => panic!("{other}"),
        Poll::Ready(Ok(_)) => panic!("a dummy answered"),
        Poll::Pending => panic!("a dummy waits"),
    }
}

#[test]
fn the_world_is_what_is_provided() {
    let outline = Outline::read(EVERYTHING).unwrap();
    let mut names: Vec<&str> =
        outline.imports.iter().map(|name| name.split_once('@').map_or(name.as_str(), |(name, _)| name)).collect();
    names.sort_unstable();
    assert_eq!(names, PROVIDED);
    assert_eq!(outline.missing(), Vec::<String>::new());
}

fn probe(limits: Limits) -> App {
    let component = Component::new(include_bytes!("guests/components/probe.wasm")).unwrap();
    App::new(component, Grants::default(), limits, None)
}

fn start(app: &App, route: &str) -> Result<Exchange, Error> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let permit = match app.admit()? {
        Admission::Permit(permit) => permit,
        Admission::Queued(_) => panic!("there is a queue"),
    };
    app.start(permit, http::Request::get(format!("http://example.com{route}")).body(body).unwrap(), None)
}

#[test]
fn a_dropped_exchange_leaves_nothing_behind() {
    let app = probe(Limits { concurrency: Some(1), ..Limits::NONE });
    let mut exchange = start(&app, "/spin").unwrap();
    assert!(!exchange.run_here().unwrap());
    assert!(matches!(start(&app, "/spin"), Err(Error::Overloaded(_))));
    drop(exchange);
    assert!(start(&app, "/spin").is_ok());
}

#[test]
fn guests_that_compute_keep_off_event_loops() {
    let app = probe(Limits::NONE);
    assert!(start(&app, "/hello").unwrap().keep_off_loop(), "nobody knows yet how long setting it up takes");
    // one that took long to set up, on a busy machine, counts as heavy, too: some try is not
    let becomes_light = || {
        (0..1000).any(|_| {
            start(&app, "/hello").unwrap().run_here().unwrap();
            !start(&app, "/hello").unwrap().keep_off_loop()
        })
    };
    assert!(becomes_light());
    assert!(!start(&app, "/spin").unwrap().run_here().unwrap());
    assert!(start(&app, "/hello").unwrap().keep_off_loop());
    assert!(becomes_light(), "kept off for ever");
}
