//! What a tenant does who means harm. Each takes as much of one thing as it can get, without end where `n` is not given;
//! `benches/hostile.py` and `tests/chaos.py` run them beside guests that behave.

use std::hint::black_box;
use std::pin::Pin;

use wasip3::clocks::monotonic_clock;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::http::types::{ErrorCode, Fields, Request};
use wasip3::random::random::get_random_bytes;
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddressFamily, TcpSocket, UdpSocket};

use crate::message::{Body, Incoming, Out, first};
use crate::{Query, common, kept, name, prepare, send, start, text};

pub async fn run(how: &str, query: &Query, request: Request, out: Out) {
    let number = |name: &str| query.get(name).and_then(|value| value.parse::<u64>().ok());
    let arg = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let n = number("n").unwrap_or(u64::MAX);
    let size = number("bytes").unwrap_or(number("mib").unwrap_or(0) << 20) as usize;
    match how {
        // an instruction that no epoch interrupts, again and again
        "fill" => common::fill(size, n),
        // a host call that takes long
        "random" => (0..n).for_each(|_| drop(black_box(get_random_bytes(size as u64)))),
        // takes memory, touches each page, and ends
        "allocate" => return text(out, 200, &common::allocate(size).to_string()).await,
        "print" => (0..n).for_each(|number| println!("line {number} of a guest that prints without end")),
        // the smallest chunks that there are, as fast as somebody reads them
        "chunks" => {
            let mut body = start(out, 200, &[]);
            for _ in 0..n {
                if body.write(b".").await.is_err() {
                    return;
                }
            }
            return body.finish(None).await;
        }
        // writes nothing, again and again
        "empty-writes" => {
            let mut body = start(out, 200, &[]);
            for _ in 0..n {
                body.stream.write(Vec::new()).await;
            }
            return body.finish(None).await;
        }
        // an error-code whose text is long, has two lines and clears a terminal
        "code" => {
            let text = format!("first\nsecond\u{1b}[2J{}", "x".repeat(size));
            return out.set(Err(ErrorCode::InternalError(Some(text))));
        }
        // sets of fields that are as large as they may be, all kept
        "fields" => {
            let value = vec![b'x'; size];
            for _ in 0..n {
                let fields = Fields::new();
                let mut at = 0;
                while at < number("each").unwrap_or(1) && fields.append(&format!("x-{at}"), &value).is_ok() {
                    at += 1;
                }
                std::mem::forget(fields);
            }
        }
        // timers that never come, all waited for at once, and dropped
        "timers" => {
            for _ in 0..number("times").unwrap_or(u64::MAX) {
                let mut timers: Vec<Pin<Box<dyn Future<Output = ()>>>> = Vec::new();
                for _ in 0..n {
                    timers.push(Box::pin(monotonic_clock::wait_for(u64::MAX / 4)));
                }
                timers.push(Box::pin(monotonic_clock::wait_for(1)));
                black_box(first(timers).await);
            }
        }
        // requests of which nothing is sent, with long parts, all kept
        "requests" => (0..n).for_each(|_| {
            let (request, body) = Body::request(Fields::new(), None);
            let _ = request.set_path_with_query(Some(&format!("/{}", "x".repeat(size))));
            std::mem::forget((body, request));
        }),
        // requests that are dropped as soon as they are sent
        "abandon" => {
            for _ in 0..n {
                drop(black_box(send(query).await));
            }
        }
        // responses of which nothing is read, all kept; then waits
        "responses" => {
            let mut kept = Vec::new();
            for _ in 0..n {
                kept.extend(crate::fetch(query).await.ok().map(Incoming::of_response));
            }
            crate::sleep(number("ms").unwrap_or(0)).await;
            return text(out, 200, &kept.len().to_string()).await;
        }
        // requests whose body never ends and that nobody waits for
        "unsent" => (0..n).for_each(|_| drop(prepare(query).map(kept::sent))),
        // opens `path` until that fails; how often it went well, and why it ends
        "open" => {
            let mut kept = Vec::new();
            let why = loop {
                if kept.len() as u64 == n {
                    break "enough".to_owned();
                }
                match open(arg("path")).await {
                    Ok(file) => kept.push(file),
                    Err(error) => break error,
                }
            };
            return text(out, 200, &format!("{} {why}", kept.len())).await;
        }
        // opens the folder of `path` and lists it; the listings are kept, and none is read
        "list" => {
            let mut kept = Vec::new();
            let why = loop {
                if kept.len() as u64 == n {
                    break "enough";
                }
                match granted() {
                    Some(folder) => kept.push((folder.read_directory(), folder)),
                    None => break "nothing is granted",
                }
            };
            return text(out, 200, &format!("{} {why}", kept.len())).await;
        }
        // makes sockets until that fails, and asks for an address: how many, and why not
        "sockets" => {
            let mut kept = (Vec::new(), Vec::new());
            let tcp = loop {
                match TcpSocket::create(IpAddressFamily::Ipv4) {
                    Ok(_) if kept.0.len() as u64 == n => break "enough".to_owned(),
                    Ok(socket) => kept.0.push(socket),
                    Err(error) => break name(error),
                }
            };
            let udp = loop {
                match UdpSocket::create(IpAddressFamily::Ipv4) {
                    Ok(_) if kept.1.len() as u64 == n => break "enough".to_owned(),
                    Ok(socket) => kept.1.push(socket),
                    Err(error) => break name(error),
                }
            };
            let found = resolve_addresses("localhost".to_owned()).await.map(|_| ()).map_err(name);
            let said = format!("{} {tcp}\n{} {udp}\n{found:?}", kept.0.len(), kept.1.len());
            return text(out, 200, &said).await;
        }
        // asks for the request's body and never for a chunk of it
        "unread" => {
            let body = Incoming::of_request(request);
            text(out, 200, "not read").await;
            return std::mem::forget(body);
        }
        // what is in memory that nobody has written yet: how many of its bytes are not zero; and writes it
        "look" => return text(out, 200, &common::look(size).to_string()).await,
        _ => return text(out, 404, "no such harm").await,
    }
    text(out, 200, "done").await;
}

fn granted() -> Option<Descriptor> {
    get_directories().pop().map(|(folder, _)| folder)
}

async fn open(path: &str) -> Result<Descriptor, String> {
    let Some(folder) = granted() else { return Err("nothing is granted".to_owned()) };
    folder
        .open_at(PathFlags::empty(), path.to_owned(), OpenFlags::empty(), DescriptorFlags::READ)
        .await
        .map_err(name)
}
