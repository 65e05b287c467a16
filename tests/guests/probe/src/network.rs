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
