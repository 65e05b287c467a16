//! A request for a file, and its response.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{ACCEPT_RANGES, ALLOW, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, LAST_MODIFIED, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use sha2::{Digest, Sha256};

use crate::http::url::{is_unreserved, octets};
use crate::server::static_files::body::FileBody;
use crate::server::static_files::conditions::{Validators, Verdict, verdict};
use crate::server::static_files::folder::Folder;
use crate::server::static_files::media_types::media_type;

const INDEX: &[u8] = b"index.html";

/// A file that was changed since then may be changed again within the same tick of the file system's clock.
const SETTLED_AFTER: Duration = Duration::from_secs(2);

/// A date from before is none: build tools set 1970 and 1980 (zip's first day) for want of one.
const FIRST_DATE: Duration = Duration::from_secs(3_652 * 86_400 + 86_400);

/// A folder whose files are served below a path.
#[derive(Debug)]
pub struct StaticFiles {
    folder: Folder,
    /// `/assets`, or nothing for the root.
    mount: String,
}

impl StaticFiles {
    /// Opens the folder, which then stays the same one. `mount` is the path that it is served at: `/assets`, with a slash behind it or
    /// without.
    pub fn open(folder: &Path, mount: &str) -> io::Result<Self> {
        let mount = mount.trim_matches('/');
        let mount = if mount.is_empty() { String::new() } else { format!("/{mount}") };
        Ok(Self { folder: Folder::open(folder)?, mount })
    }

    /// Answers a request. `below` is what its target, byte for byte as it came, has after the mount: the rest of the path, and the query.
    pub async fn answer(self: &Arc<Self>, method: &Method, below: &str, fields: &HeaderMap) -> Response<FileBody> {
        if method != Method::GET && method != Method::HEAD {
            return with(StatusCode::METHOD_NOT_ALLOWED, [(ALLOW, "GET, HEAD".to_owned())], FileBody::empty());
        }
        let (files, method, below, fields) = (self.clone(), method.clone(), below.to_owned(), fields.clone());
        // the file system may be a slow one
        let answered = tokio::task::spawn_blocking(move || files.answer_blocking(&method, &below, &fields)).await;
        let failed = |_| with(StatusCode::INTERNAL_SERVER_ERROR, [], FileBody::empty());
        answered.map_err(io::Error::other).and_then(|answered| answered).unwrap_or_else(failed)
    }

    fn answer_blocking(&self, method: &Method, below: &str, fields: &HeaderMap) -> io::Result<Response<FileBody>> {
        let not_found = || with(StatusCode::NOT_FOUND, [], FileBody::empty());
        let (path, query) = below.split_once('?').map_or((below, None), |(path, query)| (path, Some(query)));
        let Some(wanted) = Wanted::parse(path) else { return Ok(not_found()) };
        let Some(found) = self.folder.find(&wanted.names)? else { return Ok(not_found()) };
        let metadata = found.metadata()?;
        if !metadata.is_dir() {
            if !metadata.is_file() || wanted.is_folder {
                return Ok(not_found());
            }
            let name = wanted.names.last().map(Vec::as_slice).unwrap_or_default();
            return Ok(respond(method, fields, found, &metadata, name));
        }
        if !wanted.is_folder {
            return Ok(self.redirect(&wanted, query));
        }
        let index = [&*wanted.names, &[INDEX.to_vec()]].concat();
        let Some(found) = self.folder.find(&index)? else { return Ok(not_found()) };
        let metadata = found.metadata()?;
        Ok(if metadata.is_file() { respond(method, fields, found, &metadata, INDEX) } else { not_found() })
    }

    /// To the folder's own path, so that links in its index lead where they should. It is written anew from the names, so that it begins
    /// with one slash, and no browser finds another host in it (`//`, `/\`).
    fn redirect(&self, wanted: &Wanted, query: Option<&str>) -> Response<FileBody> {
        let mut location = self.mount.clone();
        for name in &wanted.names {
            location.push('/');
            for byte in name {
                match is_unreserved(*byte) {
                    true => location.push(char::from(*byte)),
                    false => location.push_str(&format!("%{byte:02X}")),
                }
            }
        }
        location.push('/');
        if let Some(query) = query {
            location.push('?');
            location.push_str(query);
        }
        with(StatusCode::TEMPORARY_REDIRECT, [(LOCATION, location)], FileBody::empty())
    }
}

/// The names of a path.
#[derive(Debug, PartialEq, Eq)]
struct Wanted {
    names: Vec<Vec<u8>>,
    /// It ends with a slash.
    is_folder: bool,
}

impl Wanted {
    /// `None` for what names no file that may be shown: a name that is hidden (`.env`, `..`), is empty, or has a slash (`%2F`) or a NUL in
    /// it. An empty path is a folder without its slash.
    fn parse(path: &str) -> Option<Self> {
        let path = match path {
            "" => return Some(Self { names: Vec::new(), is_folder: false }),
            _ => path.strip_prefix('/')?,
        };
        let (path, is_folder) = match path {
            "" => return Some(Self { names: Vec::new(), is_folder: true }),
            _ => path.strip_suffix('/').map_or((path, false), |path| (path, true)),
        };
        let names: Option<Vec<_>> = path.split('/').map(octets).collect();
        let names = names?;
        let is_shown =
            |name: &Vec<u8>| !name.is_empty() && !name.starts_with(b".") && !name.contains(&b'/') && !name.contains(&0);
        names.iter().all(is_shown).then_some(Self { names, is_folder })
    }
}

/// Of a file as it is now.
fn validators(metadata: &Metadata, now: SystemTime) -> Validators {
    let time = |seconds: i64, nanoseconds: i64| {
        let (seconds, nanoseconds) =
            (u64::try_from(seconds).unwrap_or_default(), u32::try_from(nanoseconds).unwrap_or_default());
        UNIX_EPOCH + Duration::new(seconds, nanoseconds)
    };
    let written = time(metadata.mtime(), metadata.mtime_nsec());
    // The time of the last change to the file itself is set by nobody but the kernel. A build or an image that gives all its files one date,
    // and an older version that is put back, have a new one.
    let changed = time(metadata.ctime(), metadata.ctime_nsec());
    let mut digest = Sha256::new();
    for number in [metadata.dev(), metadata.ino(), metadata.size()] {
        digest.update(number.to_le_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()] {
        digest.update(number.to_le_bytes());
    }
    // not the numbers themselves, which are nobody's business
    let tag: String = digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let last = written.max(changed);
    let is_settled = now.duration_since(last).is_ok_and(|age| age >= SETTLED_AFTER);
    let whole = last.duration_since(UNIX_EPOCH).map(|since| UNIX_EPOCH + Duration::from_secs(since.as_secs()));
    // RFC 9110, 8.8.2.1: none that is later than the response
    let modified = whole.ok().filter(|modified| *modified <= now && *modified > UNIX_EPOCH + FIRST_DATE);
    Validators { tag: format!("\"{tag}\""), is_weak: !is_settled, modified, now }
}

fn respond(method: &Method, fields: &HeaderMap, file: File, metadata: &Metadata, name: &[u8]) -> Response<FileBody> {
    let size = metadata.size();
    let validators = validators(metadata, SystemTime::now());
    let body = |first, length| match method {
        &Method::HEAD => FileBody::empty(),
        _ => FileBody::part(file, first, length),
    };
    let kind = || (CONTENT_TYPE, media_type(&String::from_utf8_lossy(name)).to_owned());
    let length = |bytes: u64| (CONTENT_LENGTH, bytes.to_string());
    let mut response = match verdict(method, fields, &validators, size) {
        Verdict::Whole => with(StatusCode::OK, [kind(), length(size)], body(0, size)),
        Verdict::Part(first, last) => {
            let range = (CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
            let bytes = last - first + 1;
            with(StatusCode::PARTIAL_CONTENT, [kind(), length(bytes), range], body(first, bytes))
        }
        Verdict::NotModified => with(StatusCode::NOT_MODIFIED, [], FileBody::empty()),
        Verdict::PreconditionFailed => return with(StatusCode::PRECONDITION_FAILED, [], FileBody::empty()),
        Verdict::RangeNotSatisfiable => {
            let range = (CONTENT_RANGE, format!("bytes */{size}"));
            return with(StatusCode::RANGE_NOT_SATISFIABLE, [range], FileBody::empty());
        }
    };
    let modified = validators.modified.map(|modified| (LAST_MODIFIED, httpdate::fmt_http_date(modified)));
    let more = [(ETAG, validators.etag()), (ACCEPT_RANGES, "bytes".to_owned())];
    add(&mut response, modified.into_iter().chain(more));
    response
}

fn with(
    status: StatusCode,
    fields: impl IntoIterator<Item = (HeaderName, String)>,
    body: FileBody,
) -> Response<FileBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    add(&mut response, fields);
    response
}

fn add(response: &mut Response<FileBody>, fields: impl IntoIterator<Item = (HeaderName, String)>) {
    for (name, value) in fields {
        // a query is what `http` has let through, all else is ours
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests;
