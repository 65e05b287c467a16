//! One behaviour a route. What a route does is said where it is dispatched; the tests of each room call them.

use std::collections::HashMap;
use std::io::Write as _;

use wasip2::clocks::monotonic_clock;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingBody, IncomingRequest, IncomingResponse,
    Method, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam,
    Scheme,
};
use wasip2::io::poll;
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

mod codes;
mod common;
mod holds;
mod hostile;
mod late;
mod much;
mod network;
mod servers;
mod output;
mod urls;

use common::{deep, parse_query};
// the name that the modules which both generations share know it by
use wasip2::http::types as http_types;

struct Probe;
wasip2::http::proxy::export!(Probe);

impl Guest for Probe {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = parse_query(query);
        let arg = |name: &str| query.get(name).cloned().unwrap_or_default();
        let number = |name: &str| arg(name).parse::<u64>().unwrap_or(0);
        match path {
            "/hello" => text(out, 200, "Hello, World!"),
            // what the guest sees of its request, a fact a line
            "/inspect" => inspect(&request, out),
            // the request's body and trailers come back while they arrive
            "/echo" => echo(request, out),
            // the whole body is read before the answer
            "/collect" => collect(request, out),
            // answers without reading the body
            "/ignore-body" => text(out, 200, "not read"),
            "/env" => env(out),
            "/read-file" => match std::fs::read_to_string(arg("path")) {
                Ok(content) => text(out, 200, &content),
                Err(error) => text(out, 500, &error.to_string()),
            },
            "/write-file" => match std::fs::write(arg("path"), arg("content")) {
                Ok(()) => text(out, 200, "written"),
                Err(error) => text(out, 500, &error.to_string()),
            },
            "/stdio" => {
                for n in 0..number("n") {
                    println!("{} out {n}", arg("tag"));
                    eprintln!("{} err {n}", arg("tag"));
                }
                print!("no newline at the end");
                let _ = std::io::stdout().flush();
                text(out, 200, "printed");
            }
            // more lines than any buffer holds
            "/chatter" => {
                for n in 0..number("n") {
                    println!("line {n} {}", "x".repeat(100));
                }
                text(out, 200, "printed");
            }
            "/trap" => {
                eprintln!("last words");
                named_function_that_traps();
            }
            "/panic" => panic!("no such thing"),
            "/trap-midway" => {
                let (body, stream) = start(out, 200, &[]);
                write(&stream, &vec![b'x'; number("bytes") as usize]);
                eprintln!("trapping midway");
                std::mem::forget((body, stream));
                named_function_that_traps();
            }
            "/overflow" => text(out, 200, &deep(number("n"), 1, 2, 3, 4).to_string()),
            "/out-of-bounds" => {
                let pointer = u32::MAX as usize as *const u8;
                // a read past the end of linear memory
                text(out, 200, &unsafe { pointer.read_volatile() }.to_string());
            }
            "/exit" => std::process::exit(number("code") as i32),
            // returns and never answers
            "/silent" => {}
            "/spin" => loop {
                std::hint::black_box(());
            },
            // what it finds of clocks and randomness, before and after a sleep
            "/world" => {
                let look = || {
                    let wall = wasip2::clocks::wall_clock::now();
                    let random = wasip2::random::random::get_random_bytes(4);
                    format!(
                        "{}.{:09} {} {random:?} {}",
                        wall.seconds,
                        wall.nanoseconds,
                        monotonic_clock::now(),
                        wasip2::random::insecure::get_insecure_random_u64(),
                    )
                };
                let before = look();
                sleep(number("ms"));
                let seed = wasip2::random::insecure_seed::insecure_seed();
                text(out, 200, &format!("{before}\n{}\n{seed:?}", look()));
            }
            // waits for timers of `ms` and of `other-ms`, and for an answer of `url` if there is one: what was first, and when
            "/first" => {
                let answer = (!arg("url").is_empty()).then(|| send(&query).unwrap());
                let timers = ["ms", "other-ms"].map(|name| monotonic_clock::subscribe_duration(number(name) * 1_000_000));
                let pollables: Vec<_> = answer.iter().map(|answer| answer.subscribe()).chain(timers).collect();
                let first = poll::poll(&pollables.iter().collect::<Vec<_>>());
                text(out, 200, &format!("{first:?} at {}", monotonic_clock::now()));
            }
            // waits for a chunk of its request and a timer: which was first, and when
            "/body-or-timer" => {
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                let timer = monotonic_clock::subscribe_duration(number("ms") * 1_000_000);
                let first = poll::poll(&[&stream.subscribe(), &timer]);
                text(out, 200, &format!("{first:?} at {}", monotonic_clock::now()));
            }
            // has an answer, looks at its body once if `look` is said, and sleeps
            "/keep-and-sleep" => {
                let response = fetch(&query).unwrap();
                let body = response.consume().unwrap();
                let stream = body.stream().unwrap();
                if !arg("look").is_empty() {
                    // nothing has come, so the one with no time at all is over
                    poll::poll(&[&stream.subscribe(), &monotonic_clock::subscribe_duration(1)]);
                    sleep(number("ms") - 1);
                    monotonic_clock::subscribe_instant(number("ms") * 1_000_000).block();
                } else {
                    sleep(number("ms"));
                }
                text(out, 200, &format!("slept until {}", monotonic_clock::now()));
            }
            // sends half of a body, sleeps, and sends the rest
            "/send-slowly" => {
                let (request, options) = prepare(&query).unwrap();
                let body = request.body().unwrap();
                let future = outgoing_handler::handle(request, options).unwrap();
                let stream = body.write().unwrap();
                write(&stream, b"first");
                sleep(number("ms"));
                write(&stream, b"last");
                drop(stream);
                OutgoingBody::finish(body, None).unwrap();
                let status = wait(&future).unwrap().status();
                text(out, 200, &format!("{status} at {}", monotonic_clock::now()));
            }
            // makes a timer; the next exchange of the same instance waits for it, and says when that was
            "/keep-timer" => {
                let kept = TIMER.lock().unwrap().take();
                if let Some(timer) = kept {
                    timer.block();
                    return text(out, 200, &monotonic_clock::now().to_string());
                }
                let timer = monotonic_clock::subscribe_duration(number("ms") * 1_000_000);
                *TIMER.lock().unwrap() = Some(timer);
                text(out, 200, "kept");
            }
            // computes for about n million rounds, then answers
            "/work" => {
                let mut x = 1u64;
                for n in 0..number("n") * 1_000_000 {
                    x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(n));
                }
                text(out, 200, &x.to_string());
            }
            "/sleep" => {
                sleep(number("ms"));
                text(out, 200, "slept");
            }
            "/alloc" => {
                let mut kept = Vec::new();
                for _ in 0..number("mib") {
                    kept.push(std::hint::black_box(vec![1u8; 1 << 20]));
                }
                text(out, 200, &kept.len().to_string());
            }
            // asks for the memory, and copes with a refusal
            "/try-alloc" => {
                let mut kept = Vec::<u8>::new();
                match kept.try_reserve_exact((number("mib") as usize) << 20) {
                    Ok(()) => text(out, 200, "got it"),
                    Err(_) => text(out, 200, "refused"),
                }
            }
            // the body's handle leaks: nobody says that it is complete
            "/unfinished" => {
                let (body, stream) = start(out, 200, &[]);
                write(&stream, b"half of it");
                drop(stream);
                std::mem::forget(body);
            }
            // the body is dropped, which wasi:http calls an error
            "/dropped" => {
                let (body, stream) = start(out, 200, &[]);
                write(&stream, b"half of it");
                drop(stream);
                drop(body);
            }
            // says content-length `declared`, writes `written` bytes
            "/length" => {
                let (body, stream) = start(out, 200, &[("content-length", &arg("declared"))]);
                let _ = stream.blocking_write_and_flush(&vec![b'x'; number("written") as usize]);
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "/no-body" => {
                let response = OutgoingResponse::new(Fields::new());
                let _ = response.set_status_code(204);
                ResponseOutparam::set(out, Ok(response));
            }
            "/status" => text(out, number("code") as u16, "as asked"),
            // `chunks` writes of `bytes` each
            "/stream" => {
                let (body, stream) = start(out, 200, &[]);
                for n in 0..number("chunks") {
                    let byte = b'a' + (n % 26) as u8;
                    write(&stream, &vec![byte; number("bytes").max(1) as usize]);
                }
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            // answers, streams for ever
            "/endless" => {
                let (_body, stream) = start(out, 200, &[]);
                loop {
                    write(&stream, &[b'.'; 4096]);
                }
            }
            "/trailers" => {
                let announced = [("trailer", "x-checksum")];
                let (body, stream) = start(out, 200, if query.contains_key("announced") { &announced } else { &[] });
                write(&stream, b"body");
                drop(stream);
                let trailers = Fields::new();
                let _ = trailers.append("x-checksum", b"abc");
                let _ = trailers.append("x-checksum", b"def");
                let _ = OutgoingBody::finish(body, Some(trailers));
            }
            "/headers" => {
                let (body, stream) = start(
                    out,
                    200,
                    &[
                        ("X-One", "1"),
                        ("set-cookie", "a=1"),
                        ("x-two", "2"),
                        ("set-cookie", "b=2"),
                    ],
                );
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            // answers with the error-code of that name
            "/code" => match codes::by_name(&arg("name")) {
                Some(code) => ResponseOutparam::set(out, Err(code)),
                None => text(out, 400, "no such code"),
            },
            // GETs `url` and relays the answer; an error-code becomes 502 with its name and payload
            "/fetch" => match fetch(&query) {
                Ok(response) => relay(response, out),
                Err(code) => text(out, 502, &format!("{code:?}")),
            },
            // sends a request whose `scheme`, `authority` and `target` are set only if they are named
            "/ask" => urls::ask(&query, out),
            // like /fetch, but answers with the very error-code
            "/fetch-or-code" => match fetch(&query) {
                Ok(response) => relay(response, out),
                Err(code) => ResponseOutparam::set(out, Err(code)),
            },
            // `n` requests in flight at once, to url0, url1, …; the answers in order
            "/fetch-many" => fetch_many(&arg("url"), number("n"), out),
            // writes `n` bytes to `url` when the response's head has come, and says how both went
            "/late-body" => text(out, 200, &late::body(&query, number("n"))),
            // the request's body goes out to `url`, the response's body comes back, both streamed
            "/proxy" => proxy(request, &query, out),
            // begins a request's body, drops it when the response's head has come, and relays the response
            "/abandon" => match network::abandon(&query) {
                Ok(response) => relay(response, out),
                Err(code) => ResponseOutparam::set(out, Err(code)),
            },
            // begins a request's body and drops it, with `early` before it sends the request: the status, or why there is none
            "/half" => text(out, 200, &format!("{:?}", network::half(&query))),
            // sends a request and drops its future at once, then answers
            "/fetch-and-forget" => {
                drop(send(&query));
                text(out, 200, "forgotten");
            }
            // sends a request, never waits for it, and traps
            "/fetch-and-trap" => {
                let future = send(&query);
                sleep(number("ms"));
                std::mem::forget(future);
                named_function_that_traps();
            }
            "/print-and-fetch" => {
                println!("before the request");
                match fetch(&query) {
                    Ok(response) => relay(response, out),
                    Err(code) => text(out, 502, &format!("{code:?}")),
                }
            }
            // the answer is complete; then the guest fetches `url` and ends
            "/work-after" => {
                text(out, 200, "done already");
                let _ = fetch(&query);
                println!("worked on");
            }
            // the answer is complete; then it goes on as `then` says
            "/then" => {
                text(out, 200, "done already");
                after(&arg("then"), number("ms"));
            }
            // the head goes out; then it fetches `url` and says how that went
            "/then-fetch" => {
                let (body, stream) = start(out, 200, &[]);
                sleep(number("ms"));
                let words = match fetch(&query) {
                    Ok(response) => response.status().to_string(),
                    Err(ErrorCode::InternalError(Some(text))) => format!("InternalError: {text}"),
                    Err(code) => format!("{code:?}"),
                };
                write(&stream, words.as_bytes());
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            // answers and ends nothing: sleeps, then writes the rest
            "/slow-body" => {
                let (body, stream) = start(out, 200, &[]);
                write(&stream, b"first");
                sleep(number("ms"));
                write(&stream, b"last");
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            // looks once whether a chunk of the request has come, then goes on as `then` says
            "/peek" => {
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                let came = stream.read(1).map(|chunk| chunk.len());
                after(&arg("then"), number("ms"));
                text(out, 200, &format!("{came:?}"));
            }
            // asks for a chunk of the request, lets the body go after a while, works on and answers
            "/let-go" => {
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                let came = stream.read(1).map(|chunk| chunk.len());
                sleep(number("ms"));
                drop(stream);
                drop(body);
                sleep(number("ms"));
                text(out, 200, &format!("{came:?}"));
            }
            // the answer is complete; then it reads its request, and prints how much of it came
            "/answer-then-read" => {
                text(out, 200, "done already");
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                println!("read {:?}", read_all(&stream).map(|content| content.len()));
            }
            // takes its time for each chunk of the request, then says how much came
            "/read-slowly" => {
                let body = request.consume().unwrap();
                let stream = body.stream().unwrap();
                let mut came = 0;
                while let Ok(chunk) = stream.blocking_read(1 << 20) {
                    came += chunk.len();
                    sleep(number("ms"));
                }
                text(out, 200, &came.to_string());
            }
            // what the same instance was told last; and keeps `word`
            "/remember" => {
                let before = LAST.lock().unwrap().replace(arg("word"));
                if !arg("print").is_empty() {
                    println!("before: {before:?}");
                }
                if !arg("url").is_empty() {
                    let _ = fetch(&HashMap::from([("url".to_owned(), format!("{}{}", arg("url"), before.as_deref().unwrap_or("nothing")))]));
                }
                if arg("then") == "break" {
                    let (body, stream) = start(out, 200, &[("x-before", before.as_deref().unwrap_or("nothing"))]);
                    write(&stream, b"half of it");
                    drop(stream);
                    return std::mem::forget(body);
                }
                text(out, 200, if arg("quiet").is_empty() { before.as_deref().unwrap_or("nothing") } else { "quiet" });
            }
            // keeps a handle for ever, and answers
            "/keep" => {
                match arg("what").as_str() {
                    "request" => std::mem::forget(request),
                    "body" => std::mem::forget((request.consume(), request)),
                    "stream" => {
                        let body = request.consume().unwrap();
                        std::mem::forget((body.stream(), body, request));
                    }
                    "trailers" => std::mem::forget((IncomingBody::finish(request.consume().unwrap()), request)),
                    "future" => std::mem::forget(send(&query)),
                    "response" => std::mem::forget(fetch(&query)),
                    "response-body" => std::mem::forget(fetch(&query).map(|response| (response.consume(), response))),
                    "response-stream" => std::mem::forget(fetch(&query).map(|response| {
                        let body = response.consume().unwrap();
                        (body.stream(), body, response)
                    })),
                    "out" => return std::mem::forget(out),
                    "outgoing-response" => {
                        let response = OutgoingResponse::new(Fields::new());
                        std::mem::forget((response.body(), response));
                    }
                    _ => {}
                }
                text(out, 200, "kept it");
            }
            // makes `n` sets of fields and keeps their handles
            "/handles" => {
                for _ in 0..number("n") {
                    std::mem::forget(Fields::new());
                }
                text(out, 200, "kept them");
            }
            // appends fields until that fails, then says how many there are and why
            "/fields" => {
                let fields = Fields::new();
                let mut count = 0u64;
                let why = loop {
                    if count == number("n") {
                        break "enough".to_owned();
                    }
                    match fields.append(&format!("x-{count}"), b"value") {
                        Ok(()) => count += 1,
                        Err(error) => break format!("{error:?}"),
                    }
                };
                text(out, 200, &format!("{count} {why}"));
            }
            // `n` requests to `url`, one after the other; the answers' statuses or codes
            "/fetch-in-turn" => {
                let mut seen = Vec::new();
                for _ in 0..number("n") {
                    seen.push(match fetch(&query) {
                        Ok(response) => response.status().to_string(),
                        Err(code) => format!("{code:?}"),
                    });
                }
                text(out, 200, &seen.join(" "));
            }
            // `n` requests, one after the other, each read to its end; how many bytes that were
            "/fetch-loop" => {
                let mut bytes = 0;
                for _ in 0..number("n") {
                    let read = fetch(&query).map(|response| {
                        let body = response.consume().unwrap();
                        let stream = body.stream().unwrap();
                        read_all(&stream).unwrap_or_default().len()
                    });
                    match read {
                        Ok(length) => bytes += length,
                        Err(code) => return ResponseOutparam::set(out, Err(code)),
                    }
                }
                text(out, 200, &bytes.to_string());
            }
            // a method of `n` characters, in as many requests as `times` says; how many of them were taken
            "/long-method" => {
                let method = Method::Other("M".repeat(number("n") as usize));
                let requests: Vec<_> = (0..number("times")).map(|_| OutgoingRequest::new(Fields::new())).collect();
                let taken = requests.iter().filter(|request| request.set_method(&method).is_ok()).count();
                text(out, 200, &taken.to_string());
            }
            // writes `n` newlines to stdout and does not ask how many it may
            "/flood" => {
                let stdout = wasip2::cli::stdout::get_stdout();
                for _ in 0..number("times") {
                    let _ = stdout.write(&vec![b'\n'; number("n") as usize]);
                }
                text(out, 200, "written");
            }
            // the answer that the query describes: see there
            "/reply" => servers::reply(&query, out),
            // what it sees of the answer of `url`
            "/answer" => servers::answer(fetch(&query), out),
            // the head of an answer to HEAD: a length, and no body
            "/head" => {
                let (body, stream) = start(out, 200, &[("content-length", "1234")]);
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "/long-line" => output::long_line(&query, out),
            "/permits" => output::permits(out),
            // what a tenant does who means harm: see there
            _ if path.starts_with("/hostile/") => hostile::run(&path["/hostile/".len()..], &query, request, out),
            _ if path.starts_with("/holds/") => holds::run(&path["/holds/".len()..], &query, out),
            "/much" => much::much(&request, &query, out),
            _ => text(out, 404, "no such route"),
        }
    }
}

/// What `/keep-timer` has made.
static TIMER: std::sync::Mutex<Option<poll::Pollable>> = std::sync::Mutex::new(None);

/// What `/remember` was told last.
static LAST: std::sync::Mutex<Option<String>> = std::sync::Mutex::new(None);

fn sleep(ms: u64) {
    monotonic_clock::subscribe_duration(ms * 1_000_000).block();
}

fn after(then: &str, ms: u64) {
    match then {
        "sleep" => sleep(ms),
        "trap" => named_function_that_traps(),
        "spin" => loop {
            std::hint::black_box(());
        },
        "exit" => std::process::exit(3),
        _ => {}
    }
}

#[inline(never)]
fn named_function_that_traps() -> ! {
    std::process::abort()
}

fn start(
    out: ResponseOutparam,
    status: u16,
    headers: &[(&str, &str)],
) -> (OutgoingBody, OutputStream) {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    if response.set_status_code(status).is_err() {
        let _ = response.set_status_code(400);
    }
    let body = response.body().unwrap();
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().unwrap();
    (body, stream)
}

fn write(stream: &OutputStream, bytes: &[u8]) {
    for chunk in bytes.chunks(4096) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            return;
        }
    }
}

fn text(out: ResponseOutparam, status: u16, content: &str) {
    let (body, stream) = start(
        out,
        status,
        &[("content-type", "text/plain; charset=utf-8")],
    );
    write(&stream, content.as_bytes());
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}

fn inspect(request: &IncomingRequest, out: ResponseOutparam) {
    let mut lines = vec![
        format!("method: {:?}", request.method()),
        format!("scheme: {:?}", request.scheme()),
        format!("authority: {:?}", request.authority()),
        format!("path: {:?}", request.path_with_query()),
    ];
    for (name, value) in request.headers().entries() {
        lines.push(format!("header {name}: {}", value.escape_ascii()));
    }
    text(out, 200, &lines.join("\n"));
}

fn env(out: ResponseOutparam) {
    let mut lines: Vec<_> = std::env::vars()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    lines.extend(std::env::args().map(|arg| format!("arg {arg}")));
    text(out, 200, &lines.join("\n"));
}

fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().unwrap();
    let source = body.stream().unwrap();
    let (target, sink) = start(out, 200, &[]);
    let whole = copy(&source, &sink);
    drop((source, sink));
    if whole.is_err() {
        return; // the body is dropped: broken off on this side, too
    }
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    match trailers.get() {
        Some(Ok(Ok(trailers))) => {
            let trailers = trailers.map(|fields| Fields::from_list(&fields.entries()).unwrap());
            let _ = OutgoingBody::finish(target, trailers);
        }
        _ => drop(target),
    }
}

fn copy(source: &InputStream, sink: &OutputStream) -> Result<(), ()> {
    loop {
        match source.blocking_read(4096) {
            Ok(chunk) => sink.blocking_write_and_flush(&chunk).map_err(|_| ())?,
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(_)) => return Err(()),
        }
    }
}

fn read_all(source: &InputStream) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    loop {
        match source.blocking_read(65536) {
            Ok(chunk) => content.extend(chunk),
            Err(StreamError::Closed) => return Ok(content),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(format!(
                    "{:?}",
                    wasip2::http::types::http_error_code(&error)
                ));
            }
        }
    }
}

fn collect(request: IncomingRequest, out: ResponseOutparam) {
    let body = request.consume().unwrap();
    let stream = body.stream().unwrap();
    match read_all(&stream) {
        Ok(content) => text(
            out,
            200,
            &format!(
                "{} bytes: {}",
                content.len(),
                String::from_utf8_lossy(&content)
            ),
        ),
        Err(error) => text(out, 400, &error),
    }
}

/// The request that `query` describes: url, method, body, header, first-byte-ms, between-bytes-ms.
fn send(query: &HashMap<String, String>) -> Result<FutureIncomingResponse, ErrorCode> {
    let (request, options) = prepare(query)?;
    let content = query.get("body").cloned().unwrap_or_default();
    let body = request.body().unwrap();
    let future = outgoing_handler::handle(request, options)?;
    let stream = body.write().unwrap();
    write(&stream, content.as_bytes());
    drop(stream);
    OutgoingBody::finish(body, None)?;
    Ok(future)
}

fn prepare(
    query: &HashMap<String, String>,
) -> Result<(OutgoingRequest, Option<RequestOptions>), ErrorCode> {
    let url = query.get("url").cloned().unwrap_or_default();
    let (scheme, rest) = url
        .split_once("://")
        .ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let headers = Fields::new();
    // a field a line
    let lines = query.get("header").map(|lines| lines.split('\n'));
    for (name, value) in lines.into_iter().flatten().filter_map(|line| line.split_once(':')) {
        headers
            .append(name, value.as_bytes())
            .map_err(|_| ErrorCode::ConfigurationError)?;
    }
    let request = OutgoingRequest::new(headers);
    let method = match query.get("method").map(String::as_str) {
        None | Some("GET") => Method::Get,
        Some("POST") => Method::Post,
        Some(other) => Method::Other(other.to_owned()),
    };
    let scheme = match scheme {
        "http" => Some(Scheme::Http),
        "https" => Some(Scheme::Https),
        "none" => None,
        other => Some(Scheme::Other(other.to_owned())),
    };
    request
        .set_method(&method)
        .map_err(|()| ErrorCode::HttpRequestMethodInvalid)?;
    request
        .set_scheme(scheme.as_ref())
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request
        .set_authority(Some(authority))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request
        .set_path_with_query(Some(path))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let millis = |name: &str| {
        query
            .get(name)
            .and_then(|v| v.parse::<u64>().ok())
            .map(|ms| ms * 1_000_000)
    };
    let options = RequestOptions::new();
    options.set_connect_timeout(millis("connect-ms")).unwrap();
    options
        .set_first_byte_timeout(millis("first-byte-ms"))
        .unwrap();
    options
        .set_between_bytes_timeout(millis("between-bytes-ms"))
        .unwrap();
    Ok((request, Some(options)))
}

fn wait(future: &FutureIncomingResponse) -> Result<IncomingResponse, ErrorCode> {
    future.subscribe().block();
    future.get().unwrap().unwrap()
}

fn fetch(query: &HashMap<String, String>) -> Result<IncomingResponse, ErrorCode> {
    wait(&send(query)?)
}

fn relay(response: IncomingResponse, out: ResponseOutparam) {
    let fields = Fields::new();
    for (name, value) in response.headers().entries() {
        // what follows may be longer, by the words about a broken body
        if name != "content-length" {
            let _ = fields.append(&name, &value);
        }
    }
    let answer = OutgoingResponse::new(fields);
    let _ = answer.set_status_code(response.status());
    let target = answer.body().unwrap();
    let body = response.consume().unwrap();
    let source = body.stream().unwrap();
    ResponseOutparam::set(out, Ok(answer));
    let sink = target.write().unwrap();
    let failure = loop {
        match source.blocking_read(4096) {
            Ok(chunk) => {
                if sink.blocking_write_and_flush(&chunk).is_err() {
                    break None;
                }
            }
            Err(StreamError::Closed) => break None,
            Err(StreamError::LastOperationFailed(error)) => {
                break Some(format!(
                    "[broken: {:?}]",
                    wasip2::http::types::http_error_code(&error)
                ));
            }
        }
    };
    if let Some(message) = failure {
        write(&sink, message.as_bytes());
    }
    drop((source, sink));
    let trailers = IncomingBody::finish(body);
    trailers.subscribe().block();
    let trailers = match trailers.get() {
        Some(Ok(Ok(Some(fields)))) => Fields::from_list(&fields.entries()).ok(),
        _ => None,
    };
    let _ = OutgoingBody::finish(target, trailers);
}

fn fetch_many(url: &str, n: u64, out: ResponseOutparam) {
    let futures: Vec<_> = (0..n)
        .map(|i| {
            let query = HashMap::from([("url".to_owned(), format!("{url}{i}"))]);
            send(&query).unwrap()
        })
        .collect();
    let mut answers = vec![String::new(); futures.len()];
    let mut waiting: Vec<usize> = (0..futures.len()).collect();
    while !waiting.is_empty() {
        let pollables: Vec<_> = waiting.iter().map(|&i| futures[i].subscribe()).collect();
        let mut ready = poll::poll(&pollables.iter().collect::<Vec<_>>());
        ready.sort_unstable(); // they come in any order
        drop(pollables);
        for &position in ready.iter().rev() {
            let i = waiting.remove(position as usize);
            answers[i] = match futures[i].get().unwrap().unwrap() {
                Ok(response) => {
                    let body = response.consume().unwrap();
                    let stream = body.stream().unwrap();
                    String::from_utf8_lossy(&read_all(&stream).unwrap_or_default()).into_owned()
                }
                Err(code) => format!("{code:?}"),
            };
        }
    }
    text(out, 200, &answers.join(","));
}

fn proxy(request: IncomingRequest, query: &HashMap<String, String>, out: ResponseOutparam) {
    let (upstream, options) = match prepare(query) {
        Ok(prepared) => prepared,
        Err(code) => return ResponseOutparam::set(out, Err(code)),
    };
    let _ = upstream.set_method(&request.method());
    let target = upstream.body().unwrap();
    let future = match outgoing_handler::handle(upstream, options) {
        Ok(future) => future,
        Err(code) => return ResponseOutparam::set(out, Err(code)),
    };
    let body = request.consume().unwrap();
    let source = body.stream().unwrap();
    let sink = target.write().unwrap();
    let whole = copy(&source, &sink);
    drop((source, sink));
    if whole.is_ok() {
        let trailers = IncomingBody::finish(body);
        trailers.subscribe().block();
        let trailers = match trailers.get() {
            Some(Ok(Ok(Some(fields)))) => Fields::from_list(&fields.entries()).ok(),
            _ => None,
        };
        let _ = OutgoingBody::finish(target, trailers);
    } else {
        drop(target);
    }
    match wait(&future) {
        Ok(response) => relay(response, out),
        Err(code) => ResponseOutparam::set(out, Err(code)),
    }
}
