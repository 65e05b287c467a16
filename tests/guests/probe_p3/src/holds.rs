//! Has the host keep as many of one thing as it can, or `n`; then fetches `url`, so that whoever looks can, and ends.

use std::mem::forget;

use futures::future::join_all;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::http::types::{Fields, RequestOptions};
use wasip3::wit_stream;

use crate::message::{Body, Incoming, Out, now};
use crate::{Query, fetch, kept, only_in_2, text};

/// What a host may take from one write.
const CHUNK: usize = 16 << 10;

pub async fn run(what: &str, query: &Query, out: Out) {
    let n = query.get("n").and_then(|n| n.parse().ok()).unwrap_or(u64::MAX);
    match what {
        // a piece of a file in each stream, of which a byte is taken
        "reads" => {
            let file = open("file", OpenFlags::empty(), DescriptorFlags::READ).await;
            for _ in 0..n {
                let (mut stream, end) = file.read_via_stream(0);
                stream.next().await;
                forget((stream, end));
            }
        }
        // the same, waited for all at once
        "reads-at-once" => {
            let file = open("file", OpenFlags::empty(), DescriptorFlags::READ).await;
            let mut streams: Vec<_> = (0..n).map(|_| file.read_via_stream(0)).collect();
            join_all(streams.iter_mut().map(|(stream, _)| stream.next())).await;
            forget(streams);
        }
        // a piece of a file given to each stream, to be written
        "writes" => {
            let file = open("written", OpenFlags::CREATE, DescriptorFlags::WRITE).await;
            let piece = vec![b'x'; 60 << 10];
            for _ in 0..n {
                let (mut stream, content) = wit_stream::new();
                let written = file.write_via_stream(content, 0);
                now(stream.write(piece.clone())).await;
                forget((stream, written));
            }
        }
        // requests that are never sent, with as much of a body as the host takes
        "bodies" => {
            let piece = vec![b'x'; CHUNK];
            for _ in 0..n {
                let (request, mut body) = Body::request(Fields::new(), None);
                while now(body.stream.write(piece.clone())).await.is_some() {}
                forget((body, request));
            }
        }
        "finished-bodies" => return only_in_2(out, "nothing of a body is taken before its request is sent").await,
        "options" => (0..n).for_each(|_| forget(RequestOptions::new())),
        "empty-fields" => (0..n).for_each(|_| forget(Fields::new())),
        "timers" => (0..n).for_each(|_| kept::timer(u64::MAX / 4)),
        // responses of which nothing is read
        "responses" => {
            let query = query.iter().map(|(name, value)| (name.clone(), value.replace("/look", "/big"))).collect();
            for _ in 0..n {
                forget(Incoming::of_response(fetch(&query).await.unwrap()));
            }
        }
        "folders" => (0..n).for_each(|_| forget(get_directories())),
        "listings" => {
            for _ in 0..n {
                let Some((folder, _)) = get_directories().pop() else { break };
                let (mut listing, end) = folder.read_directory();
                listing.next().await;
                forget((listing, end, folder));
            }
        }
        "errors" => return only_in_2(out, "an error of a stream is a value, and no resource").await,
        _ => return text(out, 404, "no such thing").await,
    }
    let seen = fetch(query).await.map(|response| response.get_status_code());
    text(out, 200, &format!("{seen:?}")).await;
}

async fn open(path: &str, how: OpenFlags, flags: DescriptorFlags) -> Descriptor {
    let (folder, _) = get_directories().pop().unwrap();
    folder.open_at(PathFlags::empty(), path.to_owned(), how, flags).await.unwrap()
}
