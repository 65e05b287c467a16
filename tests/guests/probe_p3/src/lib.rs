//! The twin of `probe` for WASI 0.3: the same routes, parameters and answers. One behaviour a route; what a route does is
//! said where it is dispatched.
//!
//! Where 0.2 sets the response-outparam and works on, `handle` returns the response here, and a spawned task works on: it
//! writes the body's stream and the trailers' future.
//!
//! What cannot exist in 0.3 answers 501, and says why:
//! - `/permits`: a stream has no permits, a write takes what there is room for
//! - `/keep?what=response-body`: the body of a message is its stream
//! - `/holds/finished-bodies`: nothing of a body is taken before its request is sent
//! - `/holds/errors`: an error of a stream is a value, and no resource
//!
//! What is another thing here and has the same name:
//! - `/keep-timer` keeps an instant: a timer is a call of the task that waits for it
//! - `/flood` floods: no write can exceed what is permitted
//! - `/late-body`, `/only/request-sent`: a write whose reader has gone says so, `StreamError::Closed`
//! - errors of files and sockets are told by their names in WIT
//!
//! And some are only here: see `only.rs`.

use std::collections::HashMap;
use std::io::Write as _;

use wasip3::clocks::{monotonic_clock, system_clock};
use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme};
use wasip3::random;

#[path = "../../probe/src/codes.rs"]
mod codes;
#[path = "../../probe/src/common.rs"]
mod common;
mod files;
mod holds;
mod hostile;
mod kept;
mod late;
mod message;
mod much;
mod network;
mod only;
mod output;
mod servers;
mod silent;
mod urls;

use common::{deep, parse_query};
use message::{Answer, Body, CHUNK, Incoming, Out, copy, first, now};
// the name that the modules which both generations share know it by
use wasip3::http::types as http_types;

struct Probe;
wasip3::http::service::export!(Probe with_types_in crate::silent);

type Query = HashMap<String, String>;

impl Guest for Probe {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let (out, answer) = Out::new();
        wasip3::spawn_local(route(request, out));
        answer.await.unwrap_or(Err(ErrorCode::InternalError(Some("the route gave no answer".to_owned()))))
    }
}

async fn route(request: Request, out: Out) {
    let target = request.get_path_with_query().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query = parse_query(query);
    let arg = |name: &str| query.get(name).cloned().unwrap_or_default();
    let number = |name: &str| arg(name).parse::<u64>().unwrap_or(0);
    match path {
        "/hello" => text(out, 200, "Hello, World!").await,
        // what the guest sees of its request, a fact a line
        "/inspect" => inspect(&request, out).await,
        // the request's body and trailers come back while they arrive
        "/echo" => echo(request, out).await,
        // the whole body is read before the answer
        "/collect" => collect(request, out).await,
        // answers without reading the body
        "/ignore-body" => text(out, 200, "not read").await,
        "/env" => env(out).await,
        "/read-file" => match files::read(&arg("path")).await {
            Ok(content) => text(out, 200, &content).await,
            Err(error) => text(out, 500, &error).await,
        },
        "/write-file" => match files::write(&arg("path"), &arg("content")).await {
            Ok(()) => text(out, 200, "written").await,
            Err(error) => text(out, 500, &error).await,
        },
        "/stdio" => {
            for n in 0..number("n") {
                println!("{} out {n}", arg("tag"));
                eprintln!("{} err {n}", arg("tag"));
            }
            print!("no newline at the end");
            let _ = std::io::stdout().flush();
            text(out, 200, "printed").await;
        }
        // more lines than any buffer holds
        "/chatter" => {
            for n in 0..number("n") {
                println!("line {n} {}", "x".repeat(100));
            }
            text(out, 200, "printed").await;
        }
        "/trap" => {
            eprintln!("last words");
            named_function_that_traps();
        }
        "/panic" => panic!("no such thing"),
        "/trap-midway" => {
            let mut body = start(out, 200, &[]);
            let _ = body.write(&vec![b'x'; number("bytes") as usize]).await;
            eprintln!("trapping midway");
            std::mem::forget(body);
            named_function_that_traps();
        }
        "/overflow" => text(out, 200, &deep(number("n"), 1, 2, 3, 4).to_string()).await,
        "/out-of-bounds" => {
            let pointer = u32::MAX as usize as *const u8;
            // a read past the end of linear memory
            text(out, 200, &unsafe { pointer.read_volatile() }.to_string()).await;
        }
        "/exit" => std::process::exit(number("code") as i32),
        // `/silent` is dealt with before: see `silent.rs`
        "/spin" => loop {
            std::hint::black_box(());
        },
        // what it finds of clocks and randomness, before and after a sleep
        "/world" => {
            let look = || {
                let wall = system_clock::now();
                let bytes = random::random::get_random_bytes(4);
                format!(
                    "{}.{:09} {} {bytes:?} {}",
                    wall.seconds,
                    wall.nanoseconds,
                    monotonic_clock::now(),
                    random::insecure::get_insecure_random_u64(),
                )
            };
            let before = look();
            sleep(number("ms")).await;
            let seed = random::insecure_seed::get_insecure_seed();
            text(out, 200, &format!("{before}\n{}\n{seed:?}", look())).await;
        }
        // waits for timers of `ms` and of `other-ms`, and for an answer of `url` if there is one: what was first, and when
        "/first" => {
            let mut futures: Vec<std::pin::Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
            if !arg("url").is_empty() {
                let answer = send(&query).await.unwrap();
                futures.push(Box::pin(async { drop(answer.get().await) }));
            }
            for name in ["ms", "other-ms"] {
                let timer = monotonic_clock::wait_for(number(name) * 1_000_000);
                futures.push(Box::pin(timer));
            }
            let first = first(futures).await;
            text(out, 200, &format!("{first:?} at {}", monotonic_clock::now())).await;
        }
        // waits for a chunk of its request and a timer: which was first, and when
        "/body-or-timer" => {
            let mut body = Incoming::of_request(request);
            let timer = monotonic_clock::wait_for(number("ms") * 1_000_000);
            let first = first(vec![Box::pin(async { drop(body.read(CHUNK).await) }), Box::pin(timer)]).await;
            text(out, 200, &format!("{first:?} at {}", monotonic_clock::now())).await;
        }
        // has an answer, looks at its body once if `look` is said, and sleeps
        "/keep-and-sleep" => {
            let response = fetch(&query).await.unwrap();
            let mut body = Incoming::of_response(response);
            if !arg("look").is_empty() {
                // nothing has come, so the one with no time at all is over
                let timer = monotonic_clock::wait_for(1);
                first(vec![Box::pin(async { drop(body.read(CHUNK).await) }), Box::pin(timer)]).await;
                sleep(number("ms") - 1).await;
                monotonic_clock::wait_until(number("ms") * 1_000_000).await;
            } else {
                sleep(number("ms")).await;
            }
            text(out, 200, &format!("slept until {}", monotonic_clock::now())).await;
        }
        // sends half of a body, sleeps, and sends the rest
        "/send-slowly" => {
            let (request, mut body) = prepare(&query).unwrap();
            let answer = Answer::of(request).await;
            let _ = body.write(b"first").await;
            sleep(number("ms")).await;
            let _ = body.write(b"last").await;
            body.finish_in_background(None);
            let status = answer.get().await.unwrap().get_status_code();
            text(out, 200, &format!("{status} at {}", monotonic_clock::now())).await;
        }
        // says until when; the next exchange of the same instance waits for that, and says when it was. A timer is a call of
        // its own task here, and cannot be kept.
        "/keep-timer" => {
            let kept = TIMER.lock().unwrap().take();
            if let Some(until) = kept {
                monotonic_clock::wait_until(until).await;
                return text(out, 200, &monotonic_clock::now().to_string()).await;
            }
            *TIMER.lock().unwrap() = Some(monotonic_clock::now() + number("ms") * 1_000_000);
            text(out, 200, "kept").await;
        }
        // computes for about n million rounds, then answers
        "/work" => {
            let mut x = 1u64;
            for n in 0..number("n") * 1_000_000 {
                x = std::hint::black_box(x.wrapping_mul(31).wrapping_add(n));
            }
            text(out, 200, &x.to_string()).await;
        }
        "/sleep" => {
            sleep(number("ms")).await;
            text(out, 200, "slept").await;
        }
        "/alloc" => {
            let mut kept = Vec::new();
            for _ in 0..number("mib") {
                kept.push(std::hint::black_box(vec![1u8; 1 << 20]));
            }
            text(out, 200, &kept.len().to_string()).await;
        }
        // asks for the memory, and copes with a refusal
        "/try-alloc" => {
            let mut kept = Vec::<u8>::new();
            match kept.try_reserve_exact((number("mib") as usize) << 20) {
                Ok(()) => text(out, 200, "got it").await,
                Err(_) => text(out, 200, "refused").await,
            }
        }
        // the trailers' handle leaks: nobody says that the body is complete
        "/unfinished" => {
            let mut body = start(out, 200, &[]);
            let _ = body.write(b"half of it").await;
            drop(body.stream);
            std::mem::forget(body.end);
        }
        // the body is dropped: its trailers are an error
        "/dropped" => {
            let mut body = start(out, 200, &[]);
            let _ = body.write(b"half of it").await;
            drop(body);
        }
        // says content-length `declared`, writes `written` bytes
        "/length" => {
            let mut body = start(out, 200, &[("content-length", &arg("declared"))]);
            body.stream.write_all(vec![b'x'; number("written") as usize]).await;
            body.finish(None).await;
        }
        "/no-body" => {
            let response = empty(Fields::new());
            let _ = response.set_status_code(204);
            out.set(Ok(response));
        }
        "/status" => text(out, number("code") as u16, "as asked").await,
        // `chunks` writes of `bytes` each
        "/stream" => {
            let mut body = start(out, 200, &[]);
            for n in 0..number("chunks") {
                let byte = b'a' + (n % 26) as u8;
                let _ = body.write(&vec![byte; number("bytes").max(1) as usize]).await;
            }
            body.finish(None).await;
        }
        // answers, streams for ever
        "/endless" => {
            let mut body = start(out, 200, &[]);
            loop {
                let _ = body.write(&[b'.'; CHUNK]).await;
            }
        }
        "/trailers" => {
            let announced = [("trailer", "x-checksum")];
            let mut body = start(out, 200, if query.contains_key("announced") { &announced } else { &[] });
            let _ = body.write(b"body").await;
            let trailers = Fields::new();
            let _ = trailers.append("x-checksum", b"abc");
            let _ = trailers.append("x-checksum", b"def");
            body.finish(Some(trailers)).await;
        }
        "/headers" => {
            let fields = [("X-One", "1"), ("set-cookie", "a=1"), ("x-two", "2"), ("set-cookie", "b=2")];
            start(out, 200, &fields).finish(None).await;
        }
        // answers with the error-code of that name
        "/code" => match codes::by_name(&arg("name")) {
            Some(code) => out.set(Err(code)),
            None => text(out, 400, "no such code").await,
        },
        // GETs `url` and relays the answer; an error-code becomes 502 with its name and payload
        "/fetch" => match fetch(&query).await {
            Ok(response) => relay(response, out).await,
            Err(code) => text(out, 502, &format!("{code:?}")).await,
        },
        // sends a request whose `scheme`, `authority` and `target` are set only if they are named
        "/ask" => urls::ask(&query, out).await,
        // like /fetch, but answers with the very error-code
        "/fetch-or-code" => match fetch(&query).await {
            Ok(response) => relay(response, out).await,
            Err(code) => out.set(Err(code)),
        },
        // `n` requests in flight at once, to url0, url1, …; the answers in order
        "/fetch-many" => fetch_many(&arg("url"), number("n"), out).await,
        // writes `n` bytes to `url` when the response's head has come, and says how both went
        "/late-body" => {
            let said = late::body(&query, number("n")).await;
            text(out, 200, &said).await;
        }
        // the request's body goes out to `url`, the response's body comes back, both streamed
        "/proxy" => proxy(request, &query, out).await,
        // begins a request's body, drops it when the response's head has come, and relays the response
        "/abandon" => match network::abandon(&query).await {
            Ok(response) => relay(response, out).await,
            Err(code) => out.set(Err(code)),
        },
        // begins a request's body and drops it, with `early` before it sends the request: the status, or why there is none
        "/half" => {
            let said = network::half(&query).await;
            text(out, 200, &format!("{said:?}")).await;
        }
        // sends a request and drops its future at once, then answers
        "/fetch-and-forget" => {
            drop(send(&query).await);
            text(out, 200, "forgotten").await;
        }
        // sends a request, never waits for it, and traps
        "/fetch-and-trap" => {
            let answer = send(&query).await;
            sleep(number("ms")).await;
            std::mem::forget(answer);
            named_function_that_traps();
        }
        "/print-and-fetch" => {
            println!("before the request");
            match fetch(&query).await {
                Ok(response) => relay(response, out).await,
                Err(code) => text(out, 502, &format!("{code:?}")).await,
            }
        }
        // the answer is complete; then the guest fetches `url` and ends
        "/work-after" => {
            text(out, 200, "done already").await;
            let _ = fetch(&query).await;
            println!("worked on");
        }
        // the answer is complete; then it goes on as `then` says
        "/then" => {
            text(out, 200, "done already").await;
            wasip3::wit_bindgen::yield_async().await; // its turn is over
            after(&arg("then"), number("ms")).await;
        }
        // the head goes out; then it fetches `url` and says how that went
        "/then-fetch" => {
            let mut body = start(out, 200, &[]);
            sleep(number("ms")).await;
            let words = match fetch(&query).await {
                Ok(response) => response.get_status_code().to_string(),
                Err(ErrorCode::InternalError(Some(text))) => format!("InternalError: {text}"),
                Err(code) => format!("{code:?}"),
            };
            let _ = body.write(words.as_bytes()).await;
            body.finish(None).await;
        }
        // answers and ends nothing: sleeps, then writes the rest
        "/slow-body" => {
            let mut body = start(out, 200, &[]);
            let _ = body.write(b"first").await;
            sleep(number("ms")).await;
            let _ = body.write(b"last").await;
            body.finish(None).await;
        }
        // looks once whether a chunk of the request has come, then goes on as `then` says
        "/peek" => {
            let mut body = Incoming::of_request(request);
            let came = now(body.read(1)).await;
            after(&arg("then"), number("ms")).await;
            text(out, 200, &looked(came)).await;
        }
        // asks for a chunk of the request, lets the body go after a while, works on and answers
        "/let-go" => {
            let mut body = Incoming::of_request(request);
            let mut read = Box::pin(body.read(1));
            let came = now(read.as_mut()).await;
            sleep(number("ms")).await;
            drop(read);
            drop(body);
            sleep(number("ms")).await;
            text(out, 200, &looked(came)).await;
        }
        // the answer is complete; then it reads its request, and prints how much of it came
        "/answer-then-read" => {
            text(out, 200, "done already").await;
            let read = Incoming::of_request(request).read_all().await;
            println!("read {:?}", read.map(|content| content.len()));
        }
        // takes its time for each chunk of the request, then says how much came
        "/read-slowly" => {
            let mut body = Incoming::of_request(request);
            let mut came = 0;
            while let Some(chunk) = body.read(1 << 20).await {
                came += chunk.len();
                sleep(number("ms")).await;
            }
            text(out, 200, &came.to_string()).await;
        }
        // what the same instance was told last; and keeps `word`
        "/remember" => {
            let before = LAST.lock().unwrap().replace(arg("word"));
            if !arg("print").is_empty() {
                println!("before: {before:?}");
            }
            let before = before.as_deref().unwrap_or("nothing");
            if !arg("url").is_empty() {
                let _ = fetch(&HashMap::from([("url".to_owned(), format!("{}{before}", arg("url")))])).await;
            }
            if arg("then") == "break" {
                let mut body = start(out, 200, &[("x-before", before)]);
                let _ = body.write(b"half of it").await;
                drop(body.stream);
                return std::mem::forget(body.end);
            }
            text(out, 200, if arg("quiet").is_empty() { before } else { "quiet" }).await;
        }
        // keeps a handle for ever, and answers
        "/keep" => {
            match arg("what").as_str() {
                "request" => std::mem::forget(request),
                "body" => std::mem::forget(Incoming::of_request(request)), // its stream and the future of its trailers
                "stream" => std::mem::forget(Incoming::of_request(request).stream),
                "trailers" => std::mem::forget(Incoming::of_request(request).end),
                "future" => kept::sent(prepare(&query).unwrap()),
                "response" => std::mem::forget(fetch(&query).await),
                "response-body" => return only_in_2(out, "the body of a message is its stream").await,
                "response-stream" => std::mem::forget(fetch(&query).await.map(Incoming::of_response)),
                // `out` is dealt with before: see `silent.rs`
                "outgoing-response" => std::mem::forget(Body::response(Fields::new())),
                _ => {}
            }
            text(out, 200, "kept it").await;
        }
        // makes `n` sets of fields and keeps their handles
        "/handles" => {
            for _ in 0..number("n") {
                std::mem::forget(Fields::new());
            }
            text(out, 200, "kept them").await;
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
            text(out, 200, &format!("{count} {why}")).await;
        }
        // `n` requests to `url`, one after the other; the answers' statuses or codes
        "/fetch-in-turn" => {
            let mut seen = Vec::new();
            for _ in 0..number("n") {
                seen.push(match fetch(&query).await {
                    Ok(response) => response.get_status_code().to_string(),
                    Err(code) => format!("{code:?}"),
                });
            }
            text(out, 200, &seen.join(" ")).await;
        }
        // `n` requests, one after the other, each read to its end; how many bytes that were
        "/fetch-loop" => {
            let mut bytes = 0;
            for _ in 0..number("n") {
                match fetch(&query).await {
                    Ok(response) => bytes += Incoming::of_response(response).read_all().await.unwrap_or_default().len(),
                    Err(code) => return out.set(Err(code)),
                }
            }
            text(out, 200, &bytes.to_string()).await;
        }
        // a method of `n` characters, in as many requests as `times` says; how many of them were taken
        "/long-method" => {
            let method = Method::Other("M".repeat(number("n") as usize));
            let requests: Vec<_> = (0..number("times")).map(|_| Body::request(Fields::new(), None)).collect();
            let taken = requests.iter().filter(|(request, _)| request.set_method(&method).is_ok()).count();
            text(out, 200, &taken.to_string()).await;
        }
        // writes `n` newlines to stdout, so many times; nobody has to ask how many it may
        "/flood" => {
            output::flood(&query).await;
            text(out, 200, "written").await;
        }
        // the answer that the query describes: see there
        "/reply" => servers::reply(&query, out).await,
        // what it sees of the answer of `url`
        "/answer" => servers::answer(fetch(&query).await, out).await,
        // the head of an answer to HEAD: a length, and no body
        "/head" => start(out, 200, &[("content-length", "1234")]).finish(None).await,
        "/long-line" => output::long_line(&query, out).await,
        "/permits" => only_in_2(out, "a stream has no permits").await,
        // what a tenant does who means harm: see there
        _ if path.starts_with("/hostile/") => hostile::run(&path["/hostile/".len()..], &query, request, out).await,
        _ if path.starts_with("/holds/") => holds::run(&path["/holds/".len()..], &query, out).await,
        "/much" => much::much(request, &query, out).await,
        // what there is in WASI 0.3 alone: see there
        _ if path.starts_with("/only/") => only::run(&path["/only/".len()..], &query, request, out).await,
        _ => text(out, 404, "no such route").await,
    }
}

/// Until when `/keep-timer` has said to wait.
static TIMER: std::sync::Mutex<Option<monotonic_clock::Mark>> = std::sync::Mutex::new(None);

/// What `/remember` was told last.
static LAST: std::sync::Mutex<Option<String>> = std::sync::Mutex::new(None);

async fn only_in_2(out: Out, why: &str) {
    text(out, 501, &format!("no such thing in WASI 0.3: {why}")).await;
}

/// The name that WIT has for a case: both generations print it so.
fn name(error: impl std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let mut name = String::new();
    for letter in text.rsplit("::").next().unwrap_or_default().chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(letter.to_lowercase());
    }
    name
}

async fn sleep(ms: u64) {
    monotonic_clock::wait_for(ms * 1_000_000).await;
}

async fn after(then: &str, ms: u64) {
    match then {
        "sleep" => sleep(ms).await,
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

/// What was there at once, in the words of WASI 0.2.
fn looked(came: Option<Option<Vec<u8>>>) -> String {
    match came {
        None => "Ok(0)".to_owned(),
        Some(Some(chunk)) => format!("Ok({})", chunk.len()),
        Some(None) => format!("Err({:?})", message::Closed),
    }
}

fn start(out: Out, status: u16, headers: &[(&str, &str)]) -> Body {
    let fields = Fields::new();
    for (name, value) in headers {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let (response, body) = Body::response(fields);
    if response.set_status_code(status).is_err() {
        let _ = response.set_status_code(400);
    }
    out.set(Ok(response));
    body
}

/// A response without a stream.
fn empty(fields: Fields) -> Response {
    let (_, trailers) = wasip3::wit_future::new(|| Ok(None));
    Response::new(fields, None, trailers).0
}

async fn text(out: Out, status: u16, content: &str) {
    let mut body = start(out, status, &[("content-type", "text/plain; charset=utf-8")]);
    let _ = body.write(content.as_bytes()).await;
    body.finish(None).await;
}

async fn inspect(request: &Request, out: Out) {
    let mut lines = vec![
        format!("method: {:?}", request.get_method()),
        format!("scheme: {:?}", request.get_scheme()),
        format!("authority: {:?}", request.get_authority()),
        format!("path: {:?}", request.get_path_with_query()),
    ];
    for (name, value) in request.get_headers().copy_all() {
        lines.push(format!("header {name}: {}", value.escape_ascii()));
    }
    text(out, 200, &lines.join("\n")).await;
}

async fn env(out: Out) {
    let mut lines: Vec<_> = std::env::vars().map(|(name, value)| format!("{name}={value}")).collect();
    lines.extend(std::env::args().map(|arg| format!("arg {arg}")));
    text(out, 200, &lines.join("\n")).await;
}

async fn echo(request: Request, out: Out) {
    let mut target = start(out, 200, &[]);
    // without trailers, the body is dropped: broken off on this side, too
    if let Ok(Ok(trailers)) = copy(Incoming::of_request(request), &mut target).await {
        target.finish(trailers).await;
    }
}

async fn collect(request: Request, out: Out) {
    match Incoming::of_request(request).read_all().await {
        Ok(content) => {
            let said = format!("{} bytes: {}", content.len(), String::from_utf8_lossy(&content));
            text(out, 200, &said).await;
        }
        Err(error) => text(out, 400, &error).await,
    }
}

/// The request that `query` describes: url, method, body, header, first-byte-ms, between-bytes-ms.
async fn send(query: &Query) -> Result<Answer, ErrorCode> {
    let (request, mut body) = prepare(query)?;
    let content = query.get("body").cloned().unwrap_or_default();
    let answer = Answer::of(request).await;
    let _ = body.write(content.as_bytes()).await;
    body.finish_in_background(None);
    Ok(answer)
}

fn prepare(query: &Query) -> Result<(Request, Body), ErrorCode> {
    let url = query.get("url").cloned().unwrap_or_default();
    let (scheme, rest) = url.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let headers = Fields::new();
    // a field a line
    let lines = query.get("header").map(|lines| lines.split('\n'));
    for (name, value) in lines.into_iter().flatten().filter_map(|line| line.split_once(':')) {
        headers.append(name, value.as_bytes()).map_err(|_| ErrorCode::ConfigurationError)?;
    }
    let millis = |name: &str| query.get(name).and_then(|v| v.parse::<u64>().ok()).map(|ms| ms * 1_000_000);
    let options = RequestOptions::new();
    options.set_connect_timeout(millis("connect-ms")).unwrap();
    options.set_first_byte_timeout(millis("first-byte-ms")).unwrap();
    options.set_between_bytes_timeout(millis("between-bytes-ms")).unwrap();
    let (request, body) = Body::request(headers, Some(options));
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
    request.set_method(&method).map_err(|()| ErrorCode::HttpRequestMethodInvalid)?;
    request.set_scheme(scheme.as_ref()).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request.set_authority(Some(authority)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    request.set_path_with_query(Some(path)).map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    Ok((request, body))
}

async fn fetch(query: &Query) -> Result<Response, ErrorCode> {
    send(query).await?.get().await
}

async fn relay(response: Response, out: Out) {
    let fields = Fields::new();
    for (name, value) in response.get_headers().copy_all() {
        // what follows may be longer, by the words about a broken body
        if name != "content-length" {
            let _ = fields.append(&name, &value);
        }
    }
    let (answer, mut target) = Body::response(fields);
    let _ = answer.set_status_code(response.get_status_code());
    out.set(Ok(answer));
    let trailers = match copy(Incoming::of_response(response), &mut target).await {
        Ok(Ok(trailers)) => trailers,
        Ok(Err(code)) => {
            let _ = target.write(format!("[broken: {:?}]", Some(code)).as_bytes()).await;
            None
        }
        Err(_) => None,
    };
    target.finish(trailers).await;
}

async fn fetch_many(url: &str, n: u64, out: Out) {
    let mut answers = Vec::new();
    for i in 0..n {
        let query = HashMap::from([("url".to_owned(), format!("{url}{i}"))]);
        answers.push(send(&query).await.unwrap());
    }
    let read = answers.into_iter().map(|answer| async {
        match answer.get().await {
            Ok(response) => {
                let content = Incoming::of_response(response).read_all().await;
                String::from_utf8_lossy(&content.unwrap_or_default()).into_owned()
            }
            Err(code) => format!("{code:?}"),
        }
    });
    text(out, 200, &futures::future::join_all(read).await.join(",")).await;
}

async fn proxy(request: Request, query: &Query, out: Out) {
    let (upstream, mut target) = match prepare(query) {
        Ok(prepared) => prepared,
        Err(code) => return out.set(Err(code)),
    };
    let _ = upstream.set_method(&request.get_method());
    let answer = Answer::of(upstream).await;
    match copy(Incoming::of_request(request), &mut target).await {
        Ok(Ok(trailers)) => drop(target.finish_in_background(trailers)),
        _ => drop(target), // broken off on that side, too
    }
    match answer.get().await {
        Ok(response) => relay(response, out).await,
        Err(code) => out.set(Err(code)),
    }
}
