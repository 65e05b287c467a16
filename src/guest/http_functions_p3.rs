//! Functions of `wasi:http/types@0.3` that have the host keep memory for a guest: it is weighed as they are called.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::p3::bindings::http::types::{HeaderError, Host as _, HostFields};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use crate::guest::interfaces::interface_p3;
use crate::guest::store::StoreState;
use crate::http::fields;

/// Has fields be weighed as they are made, and none of their functions work longer than `Limits.fields` is worth.
pub(crate) fn weigh_fields(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = interface_p3(linker, "wasi:http/types")?;
    types.func_wrap("[constructor]fields", |mut store: StoreContextMut<'_, StoreState>, (): ()| {
        store.data_mut().grows(0)?;
        Ok((HostFields::new(&mut store.data_mut().http())?,))
    })?;
    types.func_wrap(
        "[static]fields.from-list",
        |mut store: StoreContextMut<'_, StoreState>, (entries,): (Vec<(String, Vec<u8>)>,)| {
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
        |mut store: StoreContextMut<'_, StoreState>,
         (fields, name, values): (Resource<FieldMap>, String, Vec<Vec<u8>>)| {
            let host = store.data_mut();
            let size: usize = values.iter().map(|value| value.len() + size_of::<http::HeaderValue>()).sum();
            // all are read before any is counted
            if host.limits().fields.is_some_and(|most| size as u64 > most) {
                return Ok((Err(HeaderError::SizeExceeded),));
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
        |mut store: StoreContextMut<'_, StoreState>, (fields, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
            let host = store.data_mut();
            if host.limits().fields.is_some_and(|most| value.len() as u64 > most) {
                return Ok((Err(HeaderError::SizeExceeded),));
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
        |mut store: StoreContextMut<'_, StoreState>, (fields,): (Resource<FieldMap>,)| {
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
