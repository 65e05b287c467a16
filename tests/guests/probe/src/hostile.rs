//! What a tenant does who means harm. Each takes as much of one thing as it can get, without end where `n` is not given;
//! `benches/hostile.py` and `tests/chaos.py` run them beside guests that behave.

use std::collections::HashMap;
use std::hint::black_box;

use wasip2::clocks::monotonic_clock;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip2::http::types::{ErrorCode, Fields, IncomingRequest, OutgoingBody, OutgoingRequest, ResponseOutparam};
use wasip2::io::poll;
use wasip2::random::random::get_random_bytes;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use crate::{common, prepare, send, start, text};

pub fn run(how: &str, query: &HashMap<String, String>, request: IncomingRequest, out: ResponseOutparam) {
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
        "allocate" => return text(out, 200, &common::allocate(size).to_string()),
        "print" => (0..n).for_each(|number| println!("line {number} of a guest that prints without end")),
        // the smallest chunks that there are, as fast as somebody reads them
        "chunks" => {
            let (body, stream) = start(out, 200, &[]);
            for _ in 0..n {
                if stream.blocking_write_and_flush(b".").is_err() {
                    return;
                }
            }
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
            return;
        }
        // writes nothing, again and again
        "empty-writes" => {
            let (body, stream) = start(out, 200, &[]);
            for _ in 0..n {
                if stream.blocking_write_and_flush(&[]).is_err() {
                    return;
                }
            }
            drop(stream);
            let _ = OutgoingBody::finish(body, None);
            return;
        }
        // an error-code whose text is long, has two lines and clears a terminal
        "code" => {
            let text = format!("first\nsecond\u{1b}[2J{}", "x".repeat(size));
            return ResponseOutparam::set(out, Err(ErrorCode::InternalError(Some(text))));
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
                let timers: Vec<_> = (0..n).map(|_| monotonic_clock::subscribe_duration(u64::MAX / 4)).collect();
                let soon = monotonic_clock::subscribe_duration(1);
                let all: Vec<_> = timers.iter().chain([&soon]).collect();
                black_box(poll::poll(&all));
            }
        }
        // requests of which nothing is sent, with long parts, all kept
        "requests" => (0..n).for_each(|_| {
            let request = OutgoingRequest::new(Fields::new());
            let _ = request.set_path_with_query(Some(&format!("/{}", "x".repeat(size))));
            std::mem::forget((request.body(), request));
        }),
        // requests that are dropped as soon as they are sent
        "abandon" => (0..n).for_each(|_| drop(black_box(send(query)))),
        // responses of which nothing is read, all kept; then waits
        "responses" => {
            let kept: Vec<_> = (0..n).filter_map(|_| crate::fetch(query).ok()).map(|one| (one.consume(), one)).collect();
            crate::sleep(number("ms").unwrap_or(0));
            return text(out, 200, &kept.len().to_string());
        }
        // requests whose body never ends and that nobody waits for
        "unsent" => (0..n).for_each(|_| {
            if let Ok((request, options)) = prepare(query) {
                let body = request.body();
                std::mem::forget((wasip2::http::outgoing_handler::handle(request, options), body));
            }
        }),
        // opens `path` until that fails; how often it went well, and why it ends
        "open" => {
            let mut kept = Vec::new();
            let why = loop {
                if kept.len() as u64 == n {
                    break "enough".to_owned();
                }
                match open(arg("path")) {
                    Ok(file) => kept.push(file),
                    Err(error) => break error,
                }
            };
            return text(out, 200, &format!("{} {why}", kept.len()));
        }
        // opens the folder of `path` and lists it; the listings are kept, and none is read
        "list" => {
            let mut kept = Vec::new();
            let why = loop {
                if kept.len() as u64 == n {
                    break "enough".to_owned();
                }
                match granted() {
                    Some(folder) => match folder.read_directory() {
                        Ok(listing) => kept.push((listing, folder)),
                        Err(error) => break format!("{error:?}"),
                    },
                    None => break "nothing is granted".to_owned(),
                }
            };
            return text(out, 200, &format!("{} {why}", kept.len()));
        }
        // makes sockets until that fails, and asks for an address: how many, and why not
        "sockets" => {
            let mut kept = (Vec::new(), Vec::new());
            let tcp = loop {
                match create_tcp_socket(IpAddressFamily::Ipv4) {
                    Ok(_) if kept.0.len() as u64 == n => break "enough".to_owned(),
                    Ok(socket) => kept.0.push(socket),
                    Err(error) => break format!("{error:?}"),
                }
            };
            let udp = loop {
                match create_udp_socket(IpAddressFamily::Ipv4) {
                    Ok(_) if kept.1.len() as u64 == n => break "enough".to_owned(),
                    Ok(socket) => kept.1.push(socket),
                    Err(error) => break format!("{error:?}"),
                }
            };
            let network = instance_network();
            let name = resolve_addresses(&network, "localhost").map(|_| ());
            let text = format!("{} {tcp}\n{} {udp}\n{name:?}", kept.0.len(), kept.1.len());
            return crate::text(out, 200, &text);
        }
        // asks for the request's body and never for a chunk of it
        "unread" => {
            let body = request.consume();
            let stream = body.as_ref().ok().map(|body| body.stream());
            text(out, 200, "not read");
            std::mem::forget((stream, body, request));
            return;
        }
        // what is in memory that nobody has written yet: how many of its bytes are not zero; and writes it
        "look" => return text(out, 200, &common::look(size).to_string()),
        _ => return text(out, 404, "no such harm"),
    }
    text(out, 200, "done");
}

fn granted() -> Option<Descriptor> {
    get_directories().pop().map(|(folder, _)| folder)
}

fn open(path: &str) -> Result<Descriptor, String> {
    let Some(folder) = granted() else { return Err("nothing is granted".to_owned()) };
    folder
        .open_at(PathFlags::empty(), path, OpenFlags::empty(), DescriptorFlags::READ)
        .map_err(|error| format!("{error:?}"))
}
