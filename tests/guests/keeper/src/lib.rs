//! A guest that keeps secrets in every place that it has, and looks for them: the tests of isolated instances ask it.
//!
//! Each answer tells in the field `x-entry` what its handler found when it began: a digest of all memory, the numbers of the
//! handles that it was given, and what it keeps of earlier exchanges.

use std::cell::RefCell;
use std::mem::forget;

use wasip2::cli::stdout;
use wasip2::clocks::{monotonic_clock, wall_clock};
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};
use wasip2::random::{insecure, insecure_seed, random};

mod places;

use places::{Entry, parse_query};

struct Keeper;
wasip2::http::proxy::export!(Keeper);

thread_local! {
    static SHELF: RefCell<Option<Fields>> = const { RefCell::new(None) };
}

impl Guest for Keeper {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let entry = Entry::look(&[request.handle(), out.handle()]);
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = parse_query(query);
        let arg = |name: &str| query.get(name).copied().unwrap_or_default();
        let number = |name: &str| arg(name).parse::<u64>().unwrap_or(0);
        let said = match path {
            // hides a secret in each of the places `in`
            "/keep" => {
                let mut said = String::from("kept");
                for place in arg("in").split(',') {
                    match place {
                        // these are written by the host alone
                        "body" => forget(read_all(&request)),
                        "field" => forget(request.headers().get("x-secret")),
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
            // in how many places of its memory a secret lies, and where some of them are
            "/find" => {
                let found = places::find(&places::masked(arg("secret")));
                let some = found.iter().take(8).map(usize::to_string).collect::<Vec<_>>().join(" ");
                format!("{} {some}", found.len())
            }
            "/digests" => places::digests(),
            // makes handles of some kinds, and says which numbers they have
            "/handles" => {
                let fields: Vec<_> = (0..number("n")).map(|_| Fields::new()).collect();
                let timer = monotonic_clock::subscribe_duration(1);
                let headers = request.headers();
                let response = OutgoingResponse::new(Fields::new());
                let numbers: Vec<_> = fields.iter().map(Fields::handle).collect();
                format!("{numbers:?} {} {} {}", timer.handle(), headers.handle(), response.handle())
            }
            // forgets `n` sets of fields and `n` timers
            "/forget" => {
                for _ in 0..number("n") {
                    forget(Fields::new());
                    forget(monotonic_clock::subscribe_duration(1));
                }
                "forgotten".to_owned()
            }
            // leaves handles of each kind that is said
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
                sleep(number("ms"));
                "slept".to_owned()
            }
            // answers `n` chunks of `bytes`, and then goes on: hides a secret and prints a line
            "/stream" => {
                let (body, stream) = start(out, &entry);
                let chunk = vec![b's'; number("bytes") as usize];
                let whole = (0..number("n")).all(|_| write(&stream, &chunk));
                drop(stream);
                if whole {
                    let _ = OutgoingBody::finish(body, None);
                }
                sleep(number("ms"));
                arg("in").split(',').filter(|place| !place.is_empty()).for_each(|place| {
                    places::hide(place, &places::masked(arg("secret")));
                });
                println!("went on after {whole}");
                return;
            }
            "/echo" => {
                let (body, sink) = start(out, &entry);
                let source = request.consume().unwrap();
                let stream = source.stream().unwrap();
                while let Some(chunk) = read(&stream) {
                    if !write(&sink, &chunk) {
                        return;
                    }
                }
                drop((stream, sink));
                let _ = OutgoingBody::finish(body, None);
                return;
            }
            // reads the whole body before it answers
            "/collect" => {
                let content = read_all(&request);
                format!("{} {}", content.len(), content.iter().map(|&byte| u64::from(byte)).sum::<u64>())
            }
            // asks `url` `n` times, and answers what came; forgets the handles of the last if `forget` is said
            "/fetch" => {
                let mut said = String::new();
                for n in 0..number("n").max(1) {
                    let outgoing = OutgoingRequest::new(Fields::new());
                    let (authority, path) = arg("url").split_once('/').unwrap_or((arg("url"), ""));
                    outgoing.set_scheme(Some(&Scheme::Http)).unwrap();
                    outgoing.set_authority(Some(authority)).unwrap();
                    outgoing.set_path_with_query(Some(&format!("/{path}?n={n}"))).unwrap();
                    let future = outgoing_handler::handle(outgoing, None).unwrap();
                    future.subscribe().block();
                    match future.get().unwrap().unwrap() {
                        Ok(response) => {
                            let body = response.consume().unwrap();
                            let stream = body.stream().unwrap();
                            let mut content = Vec::new();
                            while let Some(chunk) = read(&stream) {
                                content.extend(chunk);
                            }
                            said += &format!("{} {}\n", response.status(), String::from_utf8_lossy(&content));
                            if !arg("forget").is_empty() {
                                forget((stream, body, response, future));
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
            // what it finds of clocks and randomness
            "/world" => {
                let wall = wall_clock::now();
                let now = monotonic_clock::now();
                let bytes = random::get_random_bytes(8);
                let other = (insecure::get_insecure_random_u64(), insecure_seed::insecure_seed(), places::seeded());
                format!("{}.{:09} {now} {bytes:?} {other:?}", wall.seconds, wall.nanoseconds)
            }
            _ => "no such route".to_owned(),
        };
        text(out, &entry, &said);
    }
}

fn leave(what: &str, request: &IncomingRequest) {
    let response = || OutgoingResponse::new(Fields::new());
    match what {
        "fields" => forget(Fields::new()),
        "timer" => forget(monotonic_clock::subscribe_duration(1)),
        "stdout" => forget(stdout::get_stdout()),
        "headers" => forget(request.headers()),
        "response" => forget(response()),
        "request" => forget(OutgoingRequest::new(Fields::new())),
        "options" => forget(RequestOptions::new()),
        // one that was finished
        "finished" => {
            let response = response();
            let body = response.body().unwrap();
            OutgoingBody::finish(body, None).unwrap();
            forget(response);
        }
        // one that was not
        "body" => {
            let response = response();
            let body = response.body().unwrap();
            let stream = body.write().unwrap();
            forget((stream.subscribe(), stream, body, response));
        }
        "incoming" => {
            let body: IncomingBody = request.consume().unwrap();
            let stream = body.stream().unwrap();
            forget((stream.subscribe(), stream, body));
        }
        "trailers" => forget(IncomingBody::finish(request.consume().unwrap())),
        _ => panic!("what is {what}?"),
    }
}

fn start(out: ResponseOutparam, entry: &Entry) -> (OutgoingBody, OutputStream) {
    let fields = Fields::new();
    fields.append("x-entry", entry.text().as_bytes()).unwrap();
    let response = OutgoingResponse::new(fields);
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    (body, stream)
}

fn text(out: ResponseOutparam, entry: &Entry, content: &str) {
    let (body, stream) = start(out, entry);
    write(&stream, content.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn write(stream: &OutputStream, bytes: &[u8]) -> bool {
    bytes.chunks(4096).all(|chunk| stream.blocking_write_and_flush(chunk).is_ok())
}

fn read(stream: &InputStream) -> Option<Vec<u8>> {
    match stream.blocking_read(65536) {
        Ok(chunk) => Some(chunk),
        Err(StreamError::Closed) => None,
        Err(StreamError::LastOperationFailed(error)) => panic!("{}", error.to_debug_string()),
    }
}

fn read_all(request: &IncomingRequest) -> Vec<u8> {
    let body: IncomingBody = request.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut content = Vec::new();
    while let Some(chunk) = read(&stream) {
        content.extend(chunk);
    }
    content
}

fn sleep(ms: u64) {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
}
