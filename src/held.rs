//! The host's memory behind a guest's handles: fields, and the parts of requests. It counts in `Limits.memory`, as the guest's own does.
//!
//! It is weighed, not kept account of: what is in the table of handles is summed up each time that a guest has had the host take
//! another megabyte, so that nothing has to be remembered of what is moved, shared, consumed or dropped.

use std::any::Any;
use std::collections::HashSet;

use http::HeaderMap;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi_http::p2::bindings::http::types::{Host as _, HostFields, Method, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::{FieldMap, FieldMapError, WasiHttpView};

use crate::fields;
use crate::host::Host;

/// What a handle takes, whatever it is of: its place in two tables, and what small things are behind it.
pub(crate) const HANDLE: u64 = 256;

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
        of_fields(&request.headers) + length(&request.authority) + length(&request.path_with_query) + method + scheme
    } else if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
        of_fields(&response.headers)
    } else if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
        of_fields(&response.headers)
    } else {
        0
    }
}

/// Has fields be weighed as they are made, and none of their functions work longer than `Limits.fields` is worth.
pub(crate) fn weigh_fields(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance("wasi:http/types@0.2.12")?;
    types.func_wrap("[constructor]fields", |mut store: StoreContextMut<'_, Host>, (): ()| {
        store.data_mut().grows(0)?;
        Ok((HostFields::new(&mut store.data_mut().http())?,))
    })?;
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: StoreContextMut<'_, Host>, (entries,): (Vec<(String, Vec<u8>)>,)| {
            let host = store.data_mut();
            host.grows(entries.iter().map(|(name, value)| name.len() + value.len()).sum())?;
            let mut http = host.http();
            Ok((match http.from_list(entries) {
                Ok(fields) => Ok(fields),
                Err(error) => Err(http.convert_header_error(error)?),
            },))
        },
    )?;
    types.func_wrap(
        "[method]fields.set",
        |mut store: StoreContextMut<'_, Host>, (fields, name, values): (Resource<FieldMap>, String, Vec<Vec<u8>>)| {
            let host = store.data_mut();
            let size: usize = values.iter().map(|value| value.len() + size_of::<http::HeaderValue>()).sum();
            // all are read before any is counted
            if host.limits().fields.is_some_and(|most| size as u64 > most) {
                return Err(FieldMapError::TotalSizeTooBig.into());
            }
            host.grows(name.len() + size)?;
            let mut http = host.http();
            Ok((match http.set(fields, name, values) {
                Ok(()) => Ok(()),
                Err(error) => Err(http.convert_header_error(error)?),
            },))
        },
    )?;
    types.func_wrap(
        "[method]fields.append",
        |mut store: StoreContextMut<'_, Host>, (fields, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
            let host = store.data_mut();
            if host.limits().fields.is_some_and(|most| value.len() as u64 > most) {
                return Err(FieldMapError::TotalSizeTooBig.into());
            }
            host.grows(name.len() + value.len())?;
            let mut http = host.http();
            Ok((match http.append(fields, name, value) {
                Ok(()) => Ok(()),
                Err(error) => Err(http.convert_header_error(error)?),
            },))
        },
    )?;
    types.func_wrap(
        "[method]fields.clone",
        |mut store: StoreContextMut<'_, Host>, (fields,): (Resource<FieldMap>,)| {
            // what they share is copied when one of them is changed, which is not seen then
            let host = store.data_mut();
            let size = fields::size(host.table().get(&fields)?);
            host.grows(usize::try_from(size).unwrap_or(usize::MAX))?;
            Ok((HostFields::clone(&mut host.http(), fields)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
