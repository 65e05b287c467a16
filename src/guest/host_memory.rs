//! The host's memory behind a guest's handles: fields, the parts of requests, and what their bodies and streams of files may hold. It counts in `Limits.memory`, as the guest's own does.
//!
//! It is weighed, not kept account of: what is in the table of handles is summed up each time that a guest has had the host take
//! another megabyte, so that nothing has to be remembered of what is moved, shared, consumed or dropped.

use std::any::Any;
use std::collections::HashSet;

use http::HeaderMap;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::FieldMap;
use wasmtime_wasi_http::p2::bindings::http::types::{Method, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::p3;

use crate::exchange::response_body::MOST_IN_CHANNEL;
use crate::guest::limiter::HANDLE;
use crate::http::fields;
use crate::outgoing::hooks::WRITE;

/// What a body may hold that is written, and whose message is not sent: the writes that its channel has room for.
pub(crate) const BODY: u64 = ONE_WRITE * (MOST_IN_CHANNEL as u64 + 1);

/// The same of WASI 0.3: a write on its way, and one in the channel.
const BODY_P3: u64 = ONE_WRITE * 2;

const ONE_WRITE: u64 = WRITE as u64 + (1 << 10);

/// What is behind all handles of a store, in bytes.
pub(crate) fn weigh(table: &mut ResourceTable) -> u64 {
    let mut seen = HashSet::new();
    table.iter_mut().map(|entry| HANDLE + behind(entry, &mut seen)).sum()
}

fn behind(entry: &dyn Any, seen: &mut HashSet<*const HeaderMap>) -> u64 {
    // sets of fields share what is in them until one is changed
    let mut of_fields = |fields: &FieldMap| {
        let map: &HeaderMap = fields;
        if map.is_empty() || !seen.insert(map) { 0 } else { fields::size(map) }
    };
    if let Some(fields) = entry.downcast_ref::<FieldMap>() {
        of_fields(fields)
    } else if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
        let length = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() as u64);
        let method = if let Method::Other(text) = &request.method { text.len() as u64 } else { 0 };
        let scheme = if let Some(Scheme::Other(text)) = &request.scheme { text.len() as u64 } else { 0 };
        let body = if request.body.is_some() { BODY } else { 0 };
        of_fields(&request.headers)
            + length(&request.authority)
            + length(&request.path_with_query)
            + method
            + scheme
            + body
    } else if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
        of_fields(&response.headers) + if response.body.is_some() { BODY } else { 0 }
    } else if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
        of_fields(&response.headers)
    } else if let Some(request) = entry.downcast_ref::<p3::Request>() {
        let authority = request.authority.as_ref().map_or(0, |text| text.as_str().len() as u64);
        let path = request.path_with_query.as_ref().map_or(0, |text| text.as_str().len() as u64);
        of_fields(&request.headers) + authority + path + BODY_P3
    } else if let Some(response) = entry.downcast_ref::<p3::Response>() {
        of_fields(&response.headers) + BODY_P3
    } else {
        0
    }
}
