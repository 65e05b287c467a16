//! What there is in WASI 0.3 alone: streams that are handed on, results of transmission, several requests in one instance.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{Either, select};
use wasip3::cli::stdout;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::{self, StreamResult};
use wasip3::{wit_future, wit_stream};

use crate::message::{Answer, Body, Incoming, Out, Trailers, now};
use crate::{Query, after, codes, fetch, files, kept, prepare, relay, sleep, start, text};

/// How many `/meet` have begun.
static MET: AtomicU64 = AtomicU64::new(0);

/// As whose `/whose` acts.
static CALLER: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());

pub async fn run(what: &str, query: &Query, request: Request, out: Out) {
    let arg = |name: &str| query.get(name).cloned().unwrap_or_default();
    let number = |name: &str| arg(name).parse::<u64>().unwrap_or(0);
    match what {
        // the response's body is the request's own stream, of which `read` bytes were read before, and if it is to `look`
        // none; the trailers are the request's own too, or `own` ones, which may say what the request's are
        "forward" => {
            let mut body = Incoming::of_request(request);
            let taken = begin(&mut body, query).await;
            let fields = Fields::new();
            let _ = fields.append("x-read", &taken);
            let response = if query.contains_key("own") {
                let (end, trailers) = wit_future::new(|| Ok(None));
                let own = Fields::new();
                let Incoming { stream, end: of_request, handled } = body;
                let tells = arg("own") == "told";
                wasip3::spawn_local(async move {
                    let said = if tells { told(of_request.await) } else { "nothing".to_owned() };
                    let _ = own.append("x-own", said.as_bytes());
                    let _ = end.write(Ok(Some(own))).await;
                    drop(handled);
                });
                Response::new(fields, Some(stream), trailers).0
            } else {
                Response::new(fields, Some(body.stream), body.end).0
            };
            out.set(Ok(response));
        }
        // the request's own stream goes to `url`, after `read` bytes of it were read; the response's comes back
        "forward-to" => {
            let (template, _) = prepare(query).unwrap();
            let mut body = Incoming::of_request(request);
            let taken = begin(&mut body, query).await;
            let fields = Fields::new();
            let _ = fields.append("x-read", &taken);
            let (forwarded, _) = Request::new(fields, Some(body.stream), body.end, None);
            let _ = forwarded.set_method(&template.get_method());
            let _ = forwarded.set_scheme(template.get_scheme().as_ref());
            let _ = forwarded.set_authority(template.get_authority().as_deref());
            let _ = forwarded.set_path_with_query(template.get_path_with_query().as_deref());
            match Answer::of(forwarded).await.get().await {
                Ok(response) => hand_on(response, &[], &Query::new(), out).await,
                Err(code) => out.set(Err(code)),
            }
        }
        // has the host go on with a file, and returns
        "leave-file" => match files::leave(&arg("path"), &arg("to")).await {
            Ok(()) => text(out, 200, "left").await,
            Err(name) => text(out, 500, &name).await,
        },
        // the request is sent on as it is
        "send-on" => match Answer::of(request).await.get().await {
            Ok(response) => out.set(Ok(response)),
            Err(code) => out.set(Err(code)),
        },
        // the response of `url` is answered with as it is
        "answer-on" => out.set(fetch(query).await),
        // the stream of the response of `url` is answered with, under fields of its own, after `read` bytes of it were read
        "hand-on" => match fetch(query).await {
            Ok(response) => hand_on(response, &[("x-handed-on", "1")], query, out).await,
            Err(code) => out.set(Err(code)),
        },
        // writes `bytes`, and prints what became of the response
        "sent" => {
            let mut body = start(out, 200, &[]);
            let written = body.write(&vec![b'x'; number("bytes") as usize]).await;
            drop(body.stream);
            let _ = body.end.write(Ok(None)).await;
            println!("written: {written:?}, sent: {:?}", body.sent.await);
        }
        // writes `bytes` to `url`, and says what came of it and what became of the request
        "request-sent" => {
            let (request, mut body) = prepare(query).unwrap();
            let answer = Answer::of(request).await;
            let written = body.write(&vec![b'x'; number("bytes") as usize]).await;
            let sent = body.finish_in_background(None);
            let status = answer.get().await.map(|response| response.get_status_code());
            text(out, 200, &format!("{status:?}, written: {written:?}, sent: {:?}", sent.await)).await;
        }
        // a response that is dropped and never given: what becomes of it
        "response-dropped" => {
            let (response, body) = Body::response(Fields::new());
            drop(response);
            text(out, 200, &format!("{:?}", body.sent.await)).await;
        }
        // the stream's writer leaks, and nobody will ever write again
        "leak-writer" => {
            let mut body = start(out, 200, &[]);
            let _ = body.write(b"partial").await;
            std::mem::forget(body);
        }
        // the body's stream ends in good order, and its trailers are the error-code of `name`
        "broken-trailers" => {
            let length = arg("length");
            let declared = [("content-length", length.as_str())];
            let mut body = start(out, 200, if length.is_empty() { &[] } else { &declared });
            let _ = body.write(b"whole").await;
            drop(body.stream);
            let code = codes::by_name(&arg("name")).unwrap_or(ErrorCode::HttpProtocolError);
            let _ = body.end.write(Err(code)).await;
        }
        // the request to `url` has a body that ends with the error-code of `name`
        "broken-trailers-to" => {
            let (request, mut body) = prepare(query).unwrap();
            let answer = Answer::of(request).await;
            let _ = body.write(b"whole").await;
            let Body { stream, end, sent } = body;
            drop(stream);
            let _ = end.write(Err(codes::by_name(&arg("name")).unwrap())).await;
            let status = answer.get().await.map(|response| response.get_status_code());
            text(out, 200, &format!("{status:?}, sent: {:?}", sent.await)).await;
        }
        // the answer is complete; in the same turn it goes on as `then` says, after it has computed for `ms`
        "then-at-once" => {
            text(out, 200, "done already").await;
            let until = wasip3::clocks::monotonic_clock::now() + number("ms") * 1_000_000;
            while wasip3::clocks::monotonic_clock::now() < until {}
            after(&arg("then"), 0).await;
        }
        // writes of nothing before, between and after what there is
        "empty-writes" => {
            let mut body = start(out, 200, &[]);
            for piece in ["", "first", "", "last", ""] {
                body.stream.write(piece.as_bytes().to_vec()).await;
            }
            body.finish(None).await;
        }
        // the same in a request to `url`, whose response is relayed
        "empty-writes-to" => {
            let (request, mut body) = prepare(query).unwrap();
            let answer = Answer::of(request).await;
            for piece in ["", "first", "", "last", ""] {
                body.stream.write(piece.as_bytes().to_vec()).await;
            }
            body.finish_in_background(None);
            match answer.get().await {
                Ok(response) => relay(response, out).await,
                Err(code) => out.set(Err(code)),
            }
        }
        // `bytes` in one write, and what is left in another: prints how much each write took
        "one-write" => {
            let mut body = start(out, 200, &[]);
            let mut takes = Vec::new();
            let (mut result, mut left) = body.stream.write(vec![b'x'; number("bytes") as usize]).await;
            loop {
                match result {
                    StreamResult::Complete(taken) => takes.push(taken),
                    _ => break,
                }
                if left.remaining() == 0 {
                    break;
                }
                (result, left) = body.stream.write_buf(left).await;
            }
            println!("{takes:?}");
            body.finish(None).await;
        }
        // writes pieces of 1000 bytes, each called off if it waits, and says how much was taken
        "cancel-writes" => {
            let mut body = start(out, 200, &[]);
            let mut taken = 0;
            for n in 0..number("n") {
                let mut write = pin!(body.stream.write(vec![b'a' + (n % 26) as u8; 1000]));
                taken += match now(write.as_mut()).await {
                    Some((_, left)) => 1000 - left.remaining(),
                    None => 1000 - write.as_mut().cancel().1.remaining(),
                };
                if n % 3 == 0 {
                    wit_bindgen::yield_async().await;
                }
            }
            println!("taken: {taken}");
            body.finish(None).await;
        }
        // sends a request to `url`, and calls it off after `ms`
        "cancel-send" => {
            let answer = Answer::of(prepare(query).unwrap().0).await;
            let timer = pin!(sleep(number("ms")));
            let said = match select(pin!(answer.get()), timer).await {
                Either::Left((Ok(response), _)) => response.get_status_code().to_string(),
                Either::Left((Err(code), _)) => format!("{code:?}"),
                Either::Right(_) => "called off".to_owned(),
            };
            text(out, 200, &said).await;
        }
        // waits for a future of its own that nobody writes
        "waits-for-itself" => {
            let (end, never) = wit_future::new::<Result<Option<Fields>, ErrorCode>>(|| Ok(None));
            let _ = never.await;
            drop(end);
            text(out, 200, "came back").await;
        }
        // writes the trailers before it sends the request to `url`
        "trailers-first" => {
            let (request, body) = prepare(query).unwrap();
            drop(body.stream);
            let _ = body.end.write(Ok(None)).await;
            let status = Answer::of(request).await.get().await.map(|response| response.get_status_code());
            text(out, 200, &format!("{status:?}")).await;
        }
        // says of its request that the error-code of `name` came of it
        "not-handled" => {
            let mut body = Incoming::of_request(request);
            body.read(1).await;
            if let Some(code) = codes::by_name(&arg("name")) {
                let _ = body.handled.write(Err(code)).await;
            }
            text(out, 200, "said so").await;
        }
        // the timeouts that came with the request, in ms
        "options" => {
            let options = request.get_options();
            let ms = |of: fn(&wasip3::http::types::RequestOptions) -> Option<u64>| {
                options.as_ref().and_then(of).map(|duration| duration / 1_000_000)
            };
            let said = [
                ms(|options| options.get_connect_timeout()),
                ms(|options| options.get_first_byte_timeout()),
                ms(|options| options.get_between_bytes_timeout()),
            ];
            text(out, 200, &format!("{said:?}")).await;
        }
        // prints `n` lines with the stdout of WASI 0.3, each in two halves with `ms` between them; the last one has no end
        "print" => {
            let (mut stream, content) = wit_stream::new();
            let printed = stdout::write_via_stream(content);
            for n in 0..number("n") {
                stream.write_all(format!("{} ", arg("tag")).into_bytes()).await;
                sleep(number("ms")).await;
                stream.write_all(format!("{n}\n").into_bytes()).await;
            }
            stream.write_all(format!("{} end", arg("tag")).into_bytes()).await;
            if arg("then") == "trap" {
                crate::named_function_that_traps();
            }
            drop(stream);
            let _ = printed.await;
            text(out, 200, "printed").await;
        }
        // the whole task stands for `ms`, each time in another way
        "block" => {
            match arg("how").as_str() {
                // a call that is lowered without `async`
                "call" => kept::block(number("ms")),
                // a wait for a set of waitables
                "wait" => wit_bindgen::block_on(sleep(number("ms"))),
                // a thread that yields
                "yield" => {
                    let until = wasip3::clocks::monotonic_clock::now() + number("ms") * 1_000_000;
                    while wasip3::clocks::monotonic_clock::now() < until {
                        wit_bindgen::yield_blocking();
                    }
                }
                // a poll of WASI 0.2
                "poll" => wasip2::clocks::monotonic_clock::subscribe_duration(number("ms") * 1_000_000).block(),
                _ => return text(out, 400, "no such way").await,
            }
            text(out, 200, "stood").await;
        }
        // keeps who its caller is where all requests find it, waits for `ms` and for `url` if there is one, and answers who that is then
        "whose" => {
            *CALLER.lock().unwrap() = arg("as");
            sleep(number("ms")).await;
            if query.contains_key("url") {
                let _ = fetch(query).await;
            }
            let found = std::mem::take(&mut *CALLER.lock().unwrap());
            text(out, 200, &found).await;
        }
        // makes `n` streams, and forgets both ends of each: they stay in the instance
        "leak" => {
            for _ in 0..number("n") {
                std::mem::forget(wit_stream::new::<u8>());
            }
            text(out, 200, "leaked").await;
        }
        // waits until `n` requests have met in this instance, and answers with its own `word`
        "meet" => {
            let before = MET.fetch_add(1, Ordering::Relaxed);
            let whole = (before / number("n").max(1) + 1) * number("n").max(1);
            while MET.load(Ordering::Relaxed) < whole {
                sleep(1).await;
            }
            text(out, 200, &arg("word")).await;
        }
        // answers, waits for `ms`, and goes on as `then` says
        "then-later" => {
            text(out, 200, "done already").await;
            sleep(number("ms")).await;
            after(&arg("then"), number("ms")).await;
        }
        // sends the head and a piece of the body, waits for `ms`, and goes on as `then` says
        "midway" => {
            let mut body = start(out, 200, &[]);
            let _ = body.write(b"partial").await;
            sleep(number("ms")).await;
            after(&arg("then"), number("ms")).await;
            body.finish(None).await;
        }
        // takes no other request for `ms`; none any more if it `stays` so
        "full" => {
            wit_bindgen::backpressure_inc();
            sleep(number("ms")).await;
            if !query.contains_key("stays") {
                wit_bindgen::backpressure_dec();
            }
            text(out, 200, "had room again").await;
        }
        // a file's own stream is the body; the guest's last task is over when it `leaves` it
        "send-file" => files::send(&arg("path"), query.contains_key("leaves"), out).await,
        // the stream of the file `path` is written to the end of `to`, `n` times
        "append-file" => text(out, 200, &format!("{:?}", files::append(&arg("path"), &arg("to"), number("n")).await)).await,
        // how often a read was called off because it waited, and how many bytes came
        "read-impatiently" => text(out, 200, &format!("{:?}", files::read_impatiently(&arg("path")).await)).await,
        // opens the file `path` `n` times, each of which is called off soon; then asks `url`
        "open-impatiently" => {
            files::open_impatiently(&arg("path"), number("n")).await;
            out.set(fetch(query).await);
        }
        _ => text(out, 404, "no such route").await,
    }
}

async fn read_exactly(body: &mut Incoming, size: u64) -> Vec<u8> {
    let mut taken = Vec::new();
    while let left @ 1.. = size as usize - taken.len() {
        let Some(chunk) = body.read(left).await else { break };
        taken.extend(chunk);
    }
    taken
}

/// The first bytes of a body, as many as `read` says. A read of none comes before that if it is to `look`.
async fn begin(body: &mut Incoming, query: &Query) -> Vec<u8> {
    if query.contains_key("look") {
        let _ = body.stream.read(Vec::new()).await;
    }
    let size = query.get("read").and_then(|size| size.parse().ok()).unwrap_or(0);
    read_exactly(body, size).await
}

/// How a body ended, in a field.
fn told(end: Trailers) -> String {
    match end {
        Ok(Some(fields)) => fields.copy_all().into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" "),
        Ok(None) => "none".to_owned(),
        Err(code) => format!("{code:?}"),
    }
}

async fn hand_on(response: Response, headers: &[(&str, &str)], query: &Query, out: Out) {
    let fields = Fields::new();
    for (name, value) in headers {
        let _ = fields.append(name, value.as_bytes());
    }
    let status = response.get_status_code();
    let mut body = Incoming::of_response(response);
    let taken = begin(&mut body, query).await;
    let _ = fields.append("x-read", &taken);
    let (response, _) = Response::new(fields, Some(body.stream), body.end);
    let _ = response.set_status_code(status);
    out.set(Ok(response));
}
