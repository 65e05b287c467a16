//! The core by itself. `wit/` cannot promise what the linker lacks: a component that imports everything in its world is
//! loaded and runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use _wasgi::app::App;
use _wasgi::app::admission::Admission;
use _wasgi::app::exchange::Exchange;
use _wasgi::component::Component;
use _wasgi::component::inspect::{ComponentInfo, Wasi};
use _wasgi::component::limits::ComponentLimits;
use _wasgi::component::loading::Order;
use _wasgi::component::variant::Variant;
use _wasgi::error::Error;
use _wasgi::guest::grants::Grants;
use _wasgi::guest::{PROVIDED, PROVIDED_P3};
use _wasgi::limits::Limits;
use _wasgi::outgoing::upstream::Upstreams;
use http_body_util::{BodyExt, Empty};

/// A component of the world in `wit/` that imports all of it; its handler is `unreachable`.
const EVERYTHING: &[u8] = include_bytes!("guests/components/everything.wasm");
/// The same of WASI 0.3.
const EVERYTHING_P3: &[u8] = include_bytes!("guests/components/everything_p3.wasm");

fn load(source: &[u8]) -> Result<Arc<Component>, Error> {
    Component::new(source, &Order::new(Variant::PLAIN, ComponentLimits::NONE, None))
}

#[test]
fn a_component_that_imports_the_whole_world_is_instantiated() {
    is_instantiated(EVERYTHING);
}

#[test]
fn a_component_that_imports_the_whole_world_of_0_3_is_instantiated() {
    is_instantiated(EVERYTHING_P3);
}

fn is_instantiated(everything: &[u8]) {
    let component = load(everything).expect("the world promises what the linker lacks");
    let app = App::new(component, Grants::default(), Limits::NONE, None);
    match answer(&app, "/") {
        // it got as far as the dummy's handler, which is `unreachable`
        Err(Error::Trap(trap)) => {
            assert!(trap.message.contains("unreachable"), "{}", trap.message);
            assert!(!trap.backtrace.is_empty());
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a dummy answered"),
    }
}

/// The interfaces that a component imports of a track of WASI.
fn imported(info: &ComponentInfo, track: &str) -> Vec<String> {
    let names = info.imports.iter().filter_map(|name| name.split_once('@'));
    let mut names: Vec<String> =
        names.filter(|(_, version)| version.starts_with(track)).map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
}

#[test]
fn the_world_is_what_is_provided() {
    let info = ComponentInfo::read(EVERYTHING).unwrap();
    assert_eq!(info.wasi(), Wasi::P2);
    assert_eq!(imported(&info, "0.2."), PROVIDED);
    assert_eq!(info.imports.len(), PROVIDED.len());
    assert_eq!(info.missing(false), Vec::<String>::new());
}

#[test]
fn the_world_of_0_3_is_what_is_provided() {
    let info = ComponentInfo::read(EVERYTHING_P3).unwrap();
    assert_eq!(info.wasi(), Wasi::P3);
    assert_eq!(imported(&info, "0.2."), PROVIDED);
    assert_eq!(imported(&info, "0.3."), PROVIDED_P3);
    assert_eq!(info.imports.len(), PROVIDED.len() + PROVIDED_P3.len());
    assert_eq!(info.missing(false), Vec::<String>::new());
}

fn probe(limits: Limits) -> App {
    let component = load(include_bytes!("guests/components/probe.wasm")).unwrap();
    App::new(component, Grants::default(), limits, None)
}

fn request(route: &str) -> http::Request<wasmtime_wasi_http::WasiBody> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    http::Request::get(format!("http://example.com{route}")).body(body).unwrap()
}

fn start(app: &App, route: &str) -> Result<Exchange, Error> {
    let permit = match app.admit(_wasgi::engine::process_state().unwrap())? {
        Admission::Permit(permit) => permit,
        Admission::Queued(_) => panic!("there is a queue"),
    };
    app.start(permit, request(route), Upstreams::default())
}

/// The head of what a guest answers.
fn answer(app: &App, route: &str) -> Result<(), Error> {
    let mut exchange = start(app, route)?;
    if !exchange.run_here()? {
        exchange.hand_over()?; // its turn is over, or it has none here
    }
    loop {
        match exchange.poll_head(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(head) => return head.map(drop),
            Poll::Pending => std::thread::yield_now(),
        }
    }
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

/// Takes long to instantiate; its handler does nothing.
const HEAVY: &str = r#"
(component
  (import "wasi:http/types@0.2.0" (instance $types
    (export "incoming-request" (type (sub resource)))
    (export "response-outparam" (type (sub resource)))))
  (alias export $types "incoming-request" (type $request))
  (alias export $types "response-outparam" (type $outparam))
  (core module $guest
    (func $spin (local i32)
      (loop
        (br_if 0 (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 20000000)))))
    (start $spin)
    (func (export "handle") (param i32 i32)))
  (core instance $guest (instantiate $guest))
  (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))
    (canon lift (core func $guest "handle")))
  (component $handler
    (import "request" (type $request (sub resource)))
    (import "outparam" (type $outparam (sub resource)))
    (import "handle" (func $handle (param "request" (own $request)) (param "response-out" (own $outparam))))
    (export "handle" (func $handle)))
  (instance $handler (instantiate $handler
    (with "request" (type $request)) (with "outparam" (type $outparam)) (with "handle" (func $handle))))
  (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;

/// Says on which thread it is dropped.
struct Witness(std::sync::mpsc::Sender<std::thread::ThreadId>);

impl Drop for Witness {
    fn drop(&mut self) {
        let _ = self.0.send(std::thread::current().id());
    }
}

/// What big guests hold takes long to give back, and the caller's thread may be an event loop's.
#[test]
fn what_a_heavy_guest_holds_is_given_back_on_another_thread() {
    let app = App::new(load(HEAVY.as_bytes()).unwrap(), Grants::default(), Limits::NONE, None);
    let (tell, told) = std::sync::mpsc::channel();
    let Admission::Permit(mut permit) = app.admit(_wasgi::engine::process_state().unwrap()).unwrap() else {
        panic!("there is a queue")
    };
    permit.is_seen_by(std::sync::Arc::new(Witness(tell)));
    let mut exchange = app.start(permit, request("/"), Upstreams::default()).unwrap();
    // until it is instantiated; then it has no more turns here, and is given up
    for _ in 0..1000 {
        exchange.run_here().unwrap();
    }
    drop(exchange);
    assert_ne!(told.recv().unwrap(), std::thread::current().id());
}

#[test]
fn guests_that_compute_keep_off_event_loops() {
    // by a custom section another one than the other tests', of whose guests this would know
    let mut other = include_bytes!("guests/components/probe.wasm").to_vec();
    other.extend_from_slice(b"\x00\x05\x04mine");
    let app = App::new(load(&other).unwrap(), Grants::default(), Limits::NONE, None);
    assert!(start(&app, "/hello").unwrap().decide_off_loop(), "nobody knows yet how long setting it up takes");
    assert!(becomes_light(&app));
    // the first seems to, so the next is measured
    for _ in 0..2 {
        assert!(!start(&app, "/spin").unwrap().run_here().unwrap());
    }
    assert!(start(&app, "/hello").unwrap().decide_off_loop());
    assert!(becomes_light(&app), "kept off for ever");
}

/// Whether a guest of an app is to begin on an event loop, if its first turns do: one that took long to set up, on a busy machine, counts
/// as heavy, too, so some try is not.
fn becomes_light(app: &App) -> bool {
    (0..1000).any(|_| {
        start(app, "/hello").unwrap().run_here().unwrap();
        !start(app, "/hello").unwrap().decide_off_loop()
    })
}

/// Of two tenants with one component, the one that fills memory leaves event loops, the other stays.
#[test]
fn what_one_app_does_is_not_held_against_another_of_the_same_component() {
    for component in
        [&include_bytes!("guests/components/probe.wasm")[..], include_bytes!("guests/components/probe_p3.wasm")]
    {
        let component = load(component).unwrap();
        let [one, other] = [(); 2].map(|()| App::new(component.clone(), Grants::default(), Limits::NONE, None));
        for _ in 0..3 {
            answer(&one, "/hostile/fill?mib=64&n=2").unwrap();
        }
        let keeps_off = |app| start(app, "/hello").unwrap().decide_off_loop();
        assert!((0..40).all(|_| keeps_off(&one)));
        assert!(becomes_light(&other));
    }
}
