//! A body that is written when its response has begun.

use std::collections::HashMap;

use wasip2::http::outgoing_handler;
use wasip2::http::types::OutgoingBody;

use crate::{prepare, read_all, wait};

pub fn body(query: &HashMap<String, String>, n: u64) -> String {
    let (request, options) = prepare(query).unwrap();
    let body = request.body().unwrap();
    let future = match outgoing_handler::handle(request, options) {
        Ok(future) => future,
        Err(code) => return format!("refused: {code:?}"),
    };
    let response = wait(&future);
    let stream = body.write().unwrap();
    let chunk = [b'x'; 4096];
    let mut left = n;
    let mut written = Ok(());
    while left > 0 && written.is_ok() {
        let size = left.min(chunk.len() as u64);
        written = stream.blocking_write_and_flush(&chunk[..size as usize]);
        left -= size;
    }
    drop(stream);
    let finished = OutgoingBody::finish(body, None);
    let answer = match response {
        Ok(response) => {
            let body = response.consume().unwrap();
            let stream = body.stream().unwrap();
            let content = read_all(&stream).map(|content| String::from_utf8_lossy(&content).into_owned());
            format!("{} {}", response.status(), content.unwrap_or_else(|error| error))
        }
        Err(code) => format!("{code:?}"),
    };
    format!("{answer}, written: {written:?}, finished: {finished:?}")
}
