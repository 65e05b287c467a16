//! Files, with the functions of WASI 0.3. Rust's own are those of 0.2.

use std::pin::pin;

use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::http::types::{Fields, Response};
use wasip3::wit_bindgen::{StreamResult, yield_async};
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

/// A file's own stream is the body of the response; waits until it was sent, or leaves it to the host.
pub async fn send(path: &str, leaves: bool, out: Out) {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await.unwrap();
    let (stream, _) = file.read_via_stream(0);
    let (end, trailers) = wit_future::new(|| Ok(None));
    drop(end);
    let (response, sent) = Response::new(Fields::new(), Some(stream), trailers);
    out.set(Ok(response));
    if !leaves {
        let _ = sent.await;
    }
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

/// Gives the stream of a file to the host, for stdout or for the end of another file, and keeps nothing of it.
pub async fn leave(from: &str, to: &str) -> Result<(), String> {
    let from = open(from, OpenFlags::empty(), DescriptorFlags::READ).await?;
    let (stream, _) = from.read_via_stream(0);
    if to.is_empty() {
        drop(wasip3::cli::stdout::write_via_stream(stream));
    } else {
        let to = open(to, OpenFlags::CREATE, DescriptorFlags::WRITE).await?;
        drop(to.append_via_stream(stream));
    }
    Ok(())
}

/// Reads pieces, each of which is called off if it waits: how many were, and how many bytes came.
pub async fn read_impatiently(path: &str) -> Result<String, String> {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ).await?;
    let (mut stream, end) = file.read_via_stream(0);
    let (mut called_off, mut content) = (0, 0);
    loop {
        let mut read = pin!(stream.read(Vec::with_capacity(10_000)));
        let (result, piece) = match now(read.as_mut()).await {
            Some(done) => done,
            None => {
                called_off += 1;
                read.as_mut().cancel()
            }
        };
        content += piece.len();
        if matches!(result, StreamResult::Dropped) {
            break;
        }
        yield_async().await;
    }
    end.await.map_err(name)?;
    Ok(format!("{called_off} {content}"))
}

/// Opens a file `n` times, and calls each off a little later than the one before; what was open by then is let go of.
pub async fn open_impatiently(path: &str, n: u64) {
    for turns in 0..n {
        let mut opening = pin!(open(path, OpenFlags::empty(), DescriptorFlags::READ));
        for _ in 0..=turns % 50 {
            if now(opening.as_mut()).await.is_some() {
                break;
            }
            yield_async().await;
        }
    }
}
