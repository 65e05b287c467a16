//! What asks the host for too much, or tells it what is not to be repeated. `what` says which; `n`, `bytes`, `path` and `text` how much.

use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, DescriptorType, OpenFlags, PathFlags};
use wasip3::http::types::{Fields, Request};
use wasip3::random;

use crate::message::{Body, Incoming, Out};
use crate::{Query, codes, kept, name};

pub async fn much(request: Request, query: &Query, out: Out) {
    let arg = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| arg(name).parse::<usize>().unwrap_or(1);
    let said = match arg("what") {
        // answers with the error-code of that name, whose text is `text`, so many `times`
        "code" => {
            let text = Some(arg("text").repeat(number("times")));
            return out.set(Err(codes::with_text(arg("name"), text)));
        }
        // so many random bytes in one call
        "random" => random::random::get_random_bytes(number("n") as u64).len().to_string(),
        "insecure" => random::insecure::get_insecure_random_bytes(number("n") as u64).len().to_string(),
        // a path of so many bytes, so many `times` in a straight line
        "path" => {
            let path = "/".repeat(number("n"));
            let (request, _) = Body::request(Fields::new(), None);
            let taken = (0..number("times")).filter(|_| request.set_path_with_query(Some(&path)).is_ok()).count();
            taken.to_string()
        }
        "field" => format!("{:?}", Fields::new().append("x-long", &vec![b'x'; number("n")])),
        "values" => format!("{:?}", Fields::new().set("x-many", &vec![Vec::new(); number("n")])),
        // keeps `n` sets of fields of so many `bytes`, and then allocates `mib`
        "fields" => {
            let value = vec![b'x'; number("bytes")];
            for _ in 0..number("n") {
                let fields = Fields::new();
                fields.append("x-long", &value).unwrap();
                std::mem::forget(fields);
            }
            match Vec::<u8>::new().try_reserve_exact(number("mib") << 20) {
                Ok(()) => "kept".to_owned(),
                Err(_) => "refused".to_owned(),
            }
        }
        // makes and drops `n` of them
        "passing-fields" => {
            let value = vec![b'x'; number("bytes")];
            for _ in 0..number("n") {
                Fields::new().append("x-long", &value).unwrap();
            }
            "dropped".to_owned()
        }
        // keeps `n` copies of one set, which share what is in it
        "clones" => {
            let fields = Fields::from_list(&[("x-long".to_owned(), vec![b'x'; number("bytes")])]).unwrap();
            for _ in 0..number("n") {
                std::mem::forget(fields.clone());
            }
            "kept".to_owned()
        }
        // keeps `n` requests with a path of so many `bytes`
        "requests" => {
            let path = "/".repeat(number("bytes"));
            for _ in 0..number("n") {
                let (request, body) = Body::request(Fields::new(), None);
                request.set_path_with_query(Some(&path)).unwrap();
                std::mem::forget((body, request));
            }
            "kept".to_owned()
        }
        "timers" => {
            for _ in 0..number("n") {
                kept::timer(3_600_000_000_000);
            }
            "kept".to_owned()
        }
        // opens `path` of the first folder up to `n` times, and keeps what `keep` says
        "open" => {
            let folder = folder();
            let mut opened = 0;
            let why = loop {
                if opened == number("n") {
                    break "enough".to_owned();
                }
                let path = arg("path").to_owned();
                match folder.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ).await {
                    Ok(file) => match arg("keep") {
                        "stream" => std::mem::forget(file.read_via_stream(0)),
                        "nothing" => drop(file),
                        _ => std::mem::forget(file),
                    },
                    Err(error) => break name(error),
                }
                opened += 1;
            };
            format!("{opened} {why}")
        }
        // as the standard library has it
        "std-open" => match std::fs::File::open(arg("path")) {
            Ok(_) => "opened".to_owned(),
            Err(error) => error.to_string(),
        },
        // begins to list the first folder `n` times, reads an entry of each, and keeps them
        "listings" => {
            let folder = folder();
            let mut begun = 0;
            let why = loop {
                if begun == number("n") {
                    break "enough".to_owned();
                }
                let (mut listing, end) = folder.read_directory();
                if listing.next().await.is_none() {
                    break end.await.map_or_else(name, |()| "empty".to_owned());
                }
                std::mem::forget((listing, end));
                begun += 1;
            };
            format!("{begun} {why}")
        }
        // each entry of the first folder, with its type
        "list" => {
            let (listing, end) = folder().read_directory();
            let listed = listing.collect().await;
            let mut entries: Vec<_> = listed
                .iter()
                .map(|entry| match entry.type_ {
                    DescriptorType::Other(_) => format!("{} DescriptorType::Unknown", entry.name), // as 0.2 calls it
                    _ => format!("{} {:?}", entry.name, entry.type_),
                })
                .collect();
            entries.extend(end.await.err().map(name));
            entries.sort();
            entries.join("\n")
        }
        // how much of its body it gets in one read that asks for all
        "read" => {
            let mut body = Incoming::of_request(request);
            let mut largest = 0;
            let mut all = 0;
            while let Some(read) = body.read(16 << 20).await {
                largest = largest.max(read.len());
                all += read.len();
            }
            format!("{largest} {all}")
        }
        _ => "no such thing".to_owned(),
    };
    crate::text(out, 200, &said).await;
}

fn folder() -> Descriptor {
    get_directories().remove(0).0
}
