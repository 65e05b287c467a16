//! The twin of `keeper` for WASI 0.3: the same routes, parameters and answers.
//!
//! What is another thing here and has the same name:
//! - `/handles` and `/forget` have no timers: those are calls
//! - `/fetch?forget=1` forgets the streams and futures of a body
//! - `/leave` has other kinds of handles

use std::cell::RefCell;
use std::mem::forget;

use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, RequestOptions, Response, Scheme};
use wasip3::random::{insecure, insecure_seed, random};
use wasip3::{wit_future, wit_stream};

#[allow(dead_code)]
#[path = "../../probe_p3/src/message.rs"]
mod message;
#[path = "../../keeper/src/places.rs"]
mod places;

use message::{Answer, Body, Incoming, Out};
use places::{Entry, parse_query};

struct Keeper;
wasip3::http::service::export!(Keeper);

thread_local! {
    static SHELF: RefCell<Option<Fields>> = const { RefCell::new(None) };
}

impl Guest for Keeper {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let entry = Entry::look(&[request.handle()]);
        let (out, answer) = Out::new();
        wasip3::spawn_local(route(request, entry, out));
        answer.await.unwrap_or(Err(ErrorCode::InternalError(Some("the route gave no answer".to_owned()))))
    }
}

async fn route(request: Request, entry: Entry, out: Out) {
    let target = request.get_path_with_query().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = parse_query(query);
    let arg = |name: &str| query.get(name).copied().unwrap_or_default();
    let number = |name: &str| arg(name).parse::<u64>().unwrap_or(0);
    let said = match path {
        "/keep" => {
            let mut said = String::from("kept");
            let mut request = Some(request);
            for place in arg("in").split(',') {
                match place {
                    "body" => {
                        if let Some(request) = request.take() {
                            forget(Incoming::of_request(request).read_all().await.unwrap());
                        }
                    }
                    "field" => forget(request.as_ref().map(|request| request.get_headers().get("x-secret"))),
                    "random" => {
                        let bytes = random::get_random_bytes(24);
                        said = places::say(&bytes);
                        forget(bytes);
                    }
                    place => places::hide(place, &places::masked(arg("secret"))),
                }
            }
            said
        }
        "/find" => {
            let found = places::find(&places::masked(arg("secret")));
            let some = found.iter().take(8).map(usize::to_string).collect::<Vec<_>>().join(" ");
            format!("{} {some}", found.len())
        }
        "/digests" => places::digests(),
        "/handles" => {
            let fields: Vec<_> = (0..number("n")).map(|_| Fields::new()).collect();
            let headers = request.get_headers();
            let (response, _body) = Body::response(Fields::new());
            let numbers: Vec<_> = fields.iter().map(Fields::handle).collect();
            format!("{numbers:?} {} {}", headers.handle(), response.handle())
        }
        "/forget" => {
            (0..number("n")).for_each(|_| forget(Fields::new()));
            "forgotten".to_owned()
        }
        "/leave" => {
            arg("what").split(',').for_each(|what| leave(what, &request));
            "left".to_owned()
        }
        // keeps a set of fields from one exchange to the next: its number, and what is in it; puts the secret into it, or into a new one
        "/shelf" => {
            let mut fields = SHELF.take().unwrap_or_else(Fields::new);
            let said = format!("{} {:?}", fields.handle(), fields.get("x-shelf"));
            if !arg("renew").is_empty() {
                drop(fields);
                fields = Fields::new();
            }
            if !arg("secret").is_empty() {
                fields.append("x-shelf", &places::masked(arg("secret"))).unwrap();
            }
            SHELF.set(Some(fields));
            said
        }
        "/grow" => places::grow(number("pages") as usize).to_string(),
        "/trap" => core::arch::wasm32::unreachable(),
        "/exit" => std::process::exit(0),
        "/loop" => loop {
            std::hint::black_box(());
        },
        "/silent" => return,
        "/sleep" => {
            sleep(number("ms")).await;
            "slept".to_owned()
        }
        "/stream" => {
            let mut body = start(out, &entry);
            let chunk = vec![b's'; number("bytes") as usize];
            let mut whole = true;
            for _ in 0..number("n") {
                whole = whole && body.write(&chunk).await.is_ok();
            }
            if whole {
                body.finish(None).await;
            }
            sleep(number("ms")).await;
            arg("in").split(',').filter(|place| !place.is_empty()).for_each(|place| {
                places::hide(place, &places::masked(arg("secret")));
            });
            println!("went on after {whole}");
            return;
        }
        "/echo" => {
            let mut body = start(out, &entry);
            if message::copy(Incoming::of_request(request), &mut body).await.is_ok() {
                body.finish(None).await;
            }
            return;
        }
        "/collect" => {
            let content = Incoming::of_request(request).read_all().await.unwrap();
            format!("{} {}", content.len(), content.iter().map(|&byte| u64::from(byte)).sum::<u64>())
        }
        "/fetch" => {
            let mut said = String::new();
            for n in 0..number("n").max(1) {
                let (outgoing, body) = Body::request(Fields::new(), None);
                let (authority, path) = arg("url").split_once('/').unwrap_or((arg("url"), ""));
                outgoing.set_scheme(Some(&Scheme::Http)).unwrap();
                outgoing.set_authority(Some(authority)).unwrap();
                outgoing.set_path_with_query(Some(&format!("/{path}?n={n}"))).unwrap();
                let response = Answer::of(outgoing).await;
                body.finish_in_background(None);
                match response.get().await {
                    Ok(response) => {
                        let status = response.get_status_code();
                        let mut incoming = Incoming::of_response(response);
                        let mut content = Vec::new();
                        while let Some(chunk) = incoming.read(4096).await {
                            content.extend(chunk);
                        }
                        said += &format!("{status} {}\n", String::from_utf8_lossy(&content));
                        if !arg("forget").is_empty() {
                            forget(incoming);
                        }
                    }
                    Err(code) => said += &format!("{code:?}\n"),
                }
            }
            said
        }
        "/print" => {
            for n in 0..number("n") {
                println!("{} {n}", arg("line"));
                eprintln!("{} {n}", arg("line"));
            }
            "printed".to_owned()
        }
        "/world" => {
            let wall = system_clock::now();
            let now = monotonic_clock::now();
            let bytes = random::get_random_bytes(8);
            let other = (insecure::get_insecure_random_u64(), insecure_seed::get_insecure_seed(), places::seeded());
            format!("{}.{:09} {now} {bytes:?} {other:?}", wall.seconds, wall.nanoseconds)
        }
        _ => "no such route".to_owned(),
    };
    text(out, &entry, &said).await;
}

fn leave(what: &str, request: &Request) {
    #[link(wasm_import_module = "$root")]
    unsafe extern "C" {
        #[link_name = "[waitable-set-new]"]
        fn waitable_set_new() -> u32;
    }
    match what {
        "fields" => forget(Fields::new()),
        "headers" => forget(request.get_headers()),
        "response" => forget(Body::response(Fields::new())),
        "request" => forget(Body::request(Fields::new(), None)),
        "options" => forget(RequestOptions::new()),
        // nobody has the other end of it
        "reader" => forget(wit_stream::new::<u8>().1),
        "stream" => forget(wit_stream::new::<u8>()),
        "future" => forget(wit_future::new::<Result<(), ErrorCode>>(|| Ok(()))),
        // SAFETY: it takes nothing and returns a number
        "set" => {
            unsafe { waitable_set_new() };
        }
        _ => panic!("what is {what}?"),
    }
}

fn start(out: Out, entry: &Entry) -> Body {
    let fields = Fields::new();
    fields.append("x-entry", entry.text().as_bytes()).unwrap();
    let (response, body) = Body::response(fields);
    out.set(Ok(response));
    body
}

async fn text(out: Out, entry: &Entry, content: &str) {
    let mut body = start(out, entry);
    let _ = body.write(content.as_bytes()).await;
    body.finish(None).await;
}

async fn sleep(ms: u64) {
    monotonic_clock::wait_for(ms * 1_000_000).await;
}
