//! The core by itself. `wit/` cannot promise what the linker lacks: a component that imports everything in its world is
//! loaded and runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use _wasgi::component::Component;
use _wasgi::error::Error;
use _wasgi::host::{Grants, Limits};
use _wasgi::incoming::App;
use _wasgi::outline::{Outline, PROVIDED};
use http_body_util::{BodyExt, Empty};

/// A component of the world in `wit/` that imports all of it; its handler is `unreachable`.
const EVERYTHING: &[u8] = include_bytes!("guests/components/everything.wasm");

#[test]
fn a_component_that_imports_the_whole_world_is_instantiated() {
    let component = Component::new(EVERYTHING).expect("the world promises what the linker lacks");
    let limits = Limits { memory: None, timeout: None, concurrency: None };
    let app = App::new(component, Grants::default(), limits);
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::get("http://example.com/").body(body).unwrap();
    let mut exchange = app.start(request, None).unwrap();
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

#[test]
fn a_dropped_exchange_leaves_nothing_behind() {
    let component = Component::new(include_bytes!("guests/components/probe.wasm")).unwrap();
    let limits = Limits { memory: None, timeout: None, concurrency: Some(1) };
    let app = Arc::new(App::new(component, Grants::default(), limits));
    let start = || {
        let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
        app.start(http::Request::get("http://example.com/spin").body(body).unwrap(), None)
    };
    let mut exchange = start().unwrap();
    assert!(!exchange.run_here().unwrap());
    assert!(matches!(start(), Err(Error::Overloaded(_))));
    drop(exchange);
    assert!(start().is_ok());
}
