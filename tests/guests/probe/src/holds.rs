//! Has the host keep as many of one thing as it can, or `n`; then fetches `url`, so that whoever looks can, and ends.

use std::collections::HashMap;
use std::mem::forget;

use wasip2::clocks::monotonic_clock;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip2::http::types::{Fields, OutgoingBody, OutgoingRequest, RequestOptions, ResponseOutparam};
use wasip2::io::poll::{Pollable, poll};

use crate::{fetch, text};

/// What a host may take from one write.
const CHUNK: usize = 16 << 10;

pub fn run(what: &str, query: &HashMap<String, String>, out: ResponseOutparam) {
    let n = query.get("n").and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    match what {
        // a piece of a file in each stream, read and not taken
        "reads" => {
            let file = open("file", OpenFlags::empty(), DescriptorFlags::READ);
            for _ in 0..n {
                let stream = file.read_via_stream(0).unwrap();
                let _ = stream.read(64 << 10);
                let ready = stream.subscribe();
                ready.block();
                forget((stream, ready));
            }
        }
        // the same, waited for all at once
        "reads-at-once" => {
            let file = open("file", OpenFlags::empty(), DescriptorFlags::READ);
            let streams: Vec<_> = (0..n).map(|_| file.read_via_stream(0).unwrap()).collect();
            for stream in &streams {
                let _ = stream.read(64 << 10);
            }
            let ready: Vec<Pollable> = streams.iter().map(|stream| stream.subscribe()).collect();
            for ready in &ready {
                ready.block();
            }
            forget((ready, streams));
        }
        // a piece of a file given to each stream, to be written
        "writes" => {
            let file = open("written", OpenFlags::CREATE, DescriptorFlags::WRITE);
            let piece = vec![b'x'; 60 << 10];
            for _ in 0..n {
                let stream = file.write_via_stream(0).unwrap();
                if stream.check_write().unwrap() as usize >= piece.len() {
                    let _ = stream.write(&piece);
                }
                forget(stream);
            }
        }
        // requests that are never sent, with as much of a body as the host takes
        "bodies" => {
            let piece = vec![b'x'; CHUNK];
            for _ in 0..n {
                let request = OutgoingRequest::new(Fields::new());
                let body = request.body().unwrap();
                let stream = body.write().unwrap();
                while stream.check_write().is_ok_and(|room| room as usize >= CHUNK) && stream.write(&piece).is_ok() {}
                forget((stream, body, request));
            }
        }
        // bodies that were finished before their request was sent
        "finished-bodies" => {
            let piece = vec![b'x'; CHUNK];
            for _ in 0..n {
                let request = OutgoingRequest::new(Fields::new());
                let body = request.body().unwrap();
                let stream = body.write().unwrap();
                while stream.check_write().is_ok_and(|room| room as usize >= CHUNK) && stream.write(&piece).is_ok() {}
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
                forget(request);
            }
        }
        "options" => (0..n).for_each(|_| forget(RequestOptions::new())),
        "empty-fields" => (0..n).for_each(|_| forget(Fields::new())),
        "timers" => {
            let timers: Vec<_> = (0..n).map(|_| monotonic_clock::subscribe_duration(u64::MAX / 4)).collect();
            let soon = monotonic_clock::subscribe_duration(1);
            let all: Vec<_> = timers.iter().chain([&soon]).collect();
            poll(&all);
            forget(timers);
        }
        // responses of which nothing is read
        "responses" => (0..n).for_each(|_| {
            let response = fetch(&query.iter().map(|(name, value)| (name.clone(), value.replace("/look", "/big"))).collect());
            let response = response.unwrap();
            let body = response.consume().unwrap();
            forget((body.stream().unwrap(), body, response));
        }),
        "folders" => (0..n).for_each(|_| forget(get_directories())),
        "listings" => (0..n).for_each(|_| {
            let Some((folder, _)) = get_directories().pop() else { return };
            let listing = folder.read_directory().unwrap();
            let _ = listing.read_directory_entry();
            forget((listing, folder));
        }),
        // errors of streams
        "errors" => {
            let file = open("written", OpenFlags::CREATE, DescriptorFlags::WRITE);
            for _ in 0..n {
                let stream = file.read_via_stream(0).unwrap();
                if let Err(error) = stream.blocking_read(1) {
                    forget(error);
                }
            }
        }
        _ => return text(out, 404, "no such thing"),
    }
    let seen = fetch(query).map(|response| response.status());
    text(out, 200, &format!("{seen:?}"));
}

fn open(path: &str, how: OpenFlags, flags: DescriptorFlags) -> Descriptor {
    let (folder, _) = get_directories().pop().unwrap();
    folder.open_at(PathFlags::empty(), path, how, flags).unwrap()
}
