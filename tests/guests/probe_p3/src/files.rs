//! Files, with the functions of WASI 0.3. Rust's own are those of 0.2.

use std::pin::pin;

use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::http::types::{Fields, Response};
use wasip3::wit_bindgen::yield_async;
use wasip3::{wit_future, wit_stream};

use crate::message::{Out, now};
use crate::name;

/// Opens a path that begins with the one of a granted folder.
async fn open(path: &str, how: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, String> {
    for (folder, at) in get_directories() {
        if let Some(path) = path.strip_prefix(&at) {
            let path = path.trim_start_matches('/').to_owned();
            return folder.open_at(PathFlags::SYMLINK_FOLLOW, path, how, flags).await.map_err(name);
        }
    }
    Err("no such folder".to_owned())
}

pub async fn read(path: &str) -> Result<String, String> {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await?;
    let (stream, end) = file.read_via_stream(0);
    let content = stream.collect().await;
    end.await.map_err(name)?;
    String::from_utf8(content).map_err(name)
}

pub async fn write(path: &str, content: &str) -> Result<(), String> {
    let file = open(path, OpenFlags::CREATE | OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await?;
    let (mut stream, given) = wit_stream::new();
    let written = file.write_via_stream(given, 0);
    stream.write_all(content.as_bytes().to_vec()).await;
    drop(stream);
    written.await.map_err(name)
}

/// A file's own stream is the body of the response.
pub async fn send(path: &str, out: Out) {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await.unwrap();
    let (stream, _) = file.read_via_stream(0);
    let (end, trailers) = wit_future::new(|| Ok(None));
    drop(end);
    out.set(Ok(Response::new(Fields::new(), Some(stream), trailers).0));
}

/// The stream of one file is written to the end of another, so many times.
pub async fn append(from: &str, to: &str, times: u64) -> Result<(), String> {
    let from = open(from, OpenFlags::empty(), DescriptorFlags::READ).await?;
    let to = open(to, OpenFlags::CREATE, DescriptorFlags::WRITE).await?;
    for _ in 0..times {
        let (stream, end) = from.read_via_stream(0);
        to.append_via_stream(stream).await.map_err(name)?;
        end.await.map_err(name)?;
    }
    Ok(())
}

/// Reads pieces, each of which is called off if it waits: how many were, and how many bytes came.
pub async fn read_impatiently(path: &str) -> Result<String, String> {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await?;
    let (mut stream, end) = file.read_via_stream(0);
    let mut end = pin!(end.into_future());
    let (mut called_off, mut content) = (0, Vec::new());
    loop {
        let mut read = pin!(stream.read(Vec::with_capacity(10_000)));
        let piece = match now(read.as_mut()).await {
            Some((_, piece)) => piece,
            None => {
                called_off += 1;
                read.as_mut().cancel().1
            }
        };
        content.extend(piece);
        if let Some(end) = now(end.as_mut()).await {
            end.map_err(name)?;
            break;
        }
        yield_async().await;
    }
    Ok(format!("{called_off} {}", content.len()))
}
