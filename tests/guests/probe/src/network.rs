//! Requests that are left midway.

use std::collections::HashMap;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{IncomingResponse, ErrorCode};

use crate::{prepare, wait, write};

/// A request whose body is begun, and dropped when its response's head has come.
pub fn abandon(query: &HashMap<String, String>) -> Result<IncomingResponse, ErrorCode> {
    let (request, options) = prepare(query)?;
    let body = request.body().unwrap();
    let stream = body.write().unwrap();
    let future = outgoing_handler::handle(request, options)?;
    write(&stream, b"begun");
    let response = wait(&future);
    drop(stream);
    drop(body);
    response
}

/// A request whose body is begun and dropped, before it is sent or after; what comes of it.
pub fn half(query: &HashMap<String, String>) -> Result<u16, ErrorCode> {
    let (request, options) = prepare(query)?;
    let body = request.body().unwrap();
    let stream = body.write().unwrap();
    write(&stream, b"half of it");
    drop(stream);
    let future = if query.contains_key("early") {
        drop(body);
        outgoing_handler::handle(request, options)?
    } else {
        let future = outgoing_handler::handle(request, options)?;
        drop(body);
        future
    };
    wait(&future).map(|response| response.status())
}
