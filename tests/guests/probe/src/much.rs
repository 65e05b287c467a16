//! What asks the host for too much, or tells it what is not to be repeated. `what` says which; `n`, `bytes`, `path` and `text` how much.

use std::collections::HashMap;

use wasip2::clocks::monotonic_clock;
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip2::http::types::{Fields, IncomingRequest, OutgoingRequest, ResponseOutparam};

use crate::codes;

pub fn much(request: &IncomingRequest, query: &HashMap<String, String>, out: ResponseOutparam) {
    let arg = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let number = |name: &str| arg(name).parse::<usize>().unwrap_or(1);
    let said = match arg("what") {
        // answers with the error-code of that name, whose text is `text`, so many `times`
        "code" => {
            let text = Some(arg("text").repeat(number("times")));
            return ResponseOutparam::set(out, Err(codes::with_text(arg("name"), text)));
        }
        // so many random bytes in one call
        "random" => wasip2::random::random::get_random_bytes(number("n") as u64).len().to_string(),
        "insecure" => wasip2::random::insecure::get_insecure_random_bytes(number("n") as u64).len().to_string(),
        // a path of so many bytes, so many `times` in a straight line
        "path" => {
            let path = "/".repeat(number("n"));
            let request = OutgoingRequest::new(Fields::new());
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
                let request = OutgoingRequest::new(Fields::new());
                request.set_path_with_query(Some(&path)).unwrap();
                std::mem::forget(request);
            }
            "kept".to_owned()
        }
        "timers" => {
            for _ in 0..number("n") {
                std::mem::forget(monotonic_clock::subscribe_duration(3_600_000_000_000));
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
                match folder.open_at(PathFlags::SYMLINK_FOLLOW, arg("path"), OpenFlags::empty(), DescriptorFlags::READ) {
                    Ok(file) => match arg("keep") {
                        "stream" => std::mem::forget(file.read_via_stream(0).unwrap()),
                        "nothing" => drop(file),
                        _ => std::mem::forget(file),
                    },
                    Err(error) => break error.name().to_owned(),
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
                match folder.read_directory() {
                    Ok(listing) => {
                        let _ = listing.read_directory_entry().unwrap();
                        std::mem::forget(listing);
                    }
                    Err(error) => break error.name().to_owned(),
                }
                begun += 1;
            };
            format!("{begun} {why}")
        }
        // each entry of the first folder, with its type
        "list" => {
            let listing = folder().read_directory().unwrap();
            let mut entries = Vec::new();
            loop {
                match listing.read_directory_entry() {
                    Ok(Some(entry)) => entries.push(format!("{} {:?}", entry.name, entry.type_)),
                    Ok(None) => break,
                    Err(error) => entries.push(error.name().to_owned()),
                }
            }
            entries.sort();
            entries.join("\n")
        }
        // how much of its body it gets in one read that asks for all
        "read" => {
            let body = request.consume().unwrap();
            let stream = body.stream().unwrap();
            let mut largest = 0;
            let mut all = 0;
            while let Ok(read) = stream.blocking_read(u64::MAX) {
                largest = largest.max(read.len());
                all += read.len();
            }
            format!("{largest} {all}")
        }
        _ => "no such thing".to_owned(),
    };
    crate::text(out, 200, &said);
}

fn folder() -> Descriptor {
    get_directories().remove(0).0
}
