//! Functions of `wasi:http/types` that have the host keep memory for a guest: it is weighed as they are called.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi_http::WasiHttpView;
use wasmtime_wasi_http::p2::bindings::http::types::{
    HostOutgoingRequest as HostOutgoingRequestMethods, HostOutgoingResponse as HostOutgoingResponseMethods,
};
use wasmtime_wasi_http::p2::types::{HostOutgoingRequest, HostOutgoingResponse};

use crate::guest::host_memory::BODY;
use crate::guest::interfaces::interface;
use crate::guest::store::StoreState;

/// Has bodies of messages that are not sent be weighed as they are made. Those of messages that are sent have limits of their own.
pub(crate) fn weigh_bodies(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = interface(linker, "wasi:http/types")?;
    types.func_wrap(
        "[method]outgoing-request.body",
        |mut store: StoreContextMut<'_, StoreState>, (request,): (Resource<HostOutgoingRequest>,)| {
            let host = store.data_mut();
            host.grows(BODY as usize)?;
            Ok((HostOutgoingRequestMethods::body(&mut host.http(), request)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-response.body",
        |mut store: StoreContextMut<'_, StoreState>, (response,): (Resource<HostOutgoingResponse>,)| {
            let host = store.data_mut();
            host.grows(BODY as usize)?;
            Ok((HostOutgoingResponseMethods::body(&mut host.http(), response)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The functions of `fields`, for the generation of WASI whose `HostFields` is imported. `$interface` finds `wasi:http/types` in the
/// linker, `told` says what the guest is told of a change that failed, `too_large` of what is past `Limits.fields` by itself.
macro_rules! fields {
    ($interface:ident) => {
        /// Has fields be weighed as they are made, and none of their functions work longer than `Limits.fields` is worth.
        pub(crate) fn weigh_fields(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
            linker.allow_shadowing(true);
            let mut types = $interface(linker, "wasi:http/types")?;
            types.func_wrap("[constructor]fields", |mut store: StoreContextMut<'_, StoreState>, (): ()| {
                store.data_mut().grows(0)?;
                Ok((HostFields::new(&mut store.data_mut().http())?,))
            })?;
            types.func_wrap(
                "[static]fields.from-list",
                |mut store: StoreContextMut<'_, StoreState>, (entries,): (Vec<(String, Vec<u8>)>,)| {
                    let host = store.data_mut();
                    host.grows(entries.iter().map(|(name, value)| name.len() + value.len()).sum())?;
                    Ok((match host.http().from_list(entries) {
                        Ok(fields) => Ok(fields),
                        Err(error) => Err(told(host, error)?),
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
                        return Ok((Err(too_large()?),));
                    }
                    host.grows(name.len() + size)?;
                    Ok((match host.http().set(fields, name, values) {
                        Ok(()) => Ok(()),
                        Err(error) => Err(told(host, error)?),
                    },))
                },
            )?;
            types.func_wrap(
                "[method]fields.append",
                |mut store: StoreContextMut<'_, StoreState>,
                 (fields, name, value): (Resource<FieldMap>, String, Vec<u8>)| {
                    let host = store.data_mut();
                    if host.limits().fields.is_some_and(|most| value.len() as u64 > most) {
                        return Ok((Err(too_large()?),));
                    }
                    host.grows(name.len() + value.len())?;
                    Ok((match host.http().append(fields, name, value) {
                        Ok(()) => Ok(()),
                        Err(error) => Err(told(host, error)?),
                    },))
                },
            )?;
            types.func_wrap(
                "[method]fields.clone",
                |mut store: StoreContextMut<'_, StoreState>, (fields,): (Resource<FieldMap>,)| {
                    // what they share is copied when one of them is changed, which is not seen then
                    let host = store.data_mut();
                    let size = crate::http::fields::size(host.table().get(&fields)?);
                    host.grows(usize::try_from(size).unwrap_or(usize::MAX))?;
                    Ok((HostFields::clone(&mut host.http(), fields)?,))
                },
            )?;
            linker.allow_shadowing(false);
            Ok(())
        }
    };
}

pub(crate) mod p2 {
    use wasmtime::StoreContextMut;
    use wasmtime::component::{Linker, Resource};
    use wasmtime_wasi_http::p2::HeaderError;
    use wasmtime_wasi_http::p2::bindings::http::types::{self, Host as _, HostFields};
    use wasmtime_wasi_http::{FieldMap, FieldMapError, WasiHttpView};

    use crate::guest::interfaces::interface;
    use crate::guest::store::StoreState;

    fields!(interface);

    /// `http` has room for some 24,000 names, whatever the limit, and WASI 0.2 has no word for that: wasmtime-wasi-http would trap.
    fn told(host: &mut StoreState, error: HeaderError) -> wasmtime::Result<types::HeaderError> {
        match host.http().convert_header_error(error) {
            Err(error) if matches!(error.downcast_ref(), Some(FieldMapError::TooManyFields)) => {
                host.tell_of_too_many_fields();
                Ok(types::HeaderError::Forbidden)
            }
            told => told,
        }
    }

    /// WASI 0.2 has no word for this, either.
    fn too_large() -> wasmtime::Result<types::HeaderError> {
        Err(FieldMapError::TotalSizeTooBig.into())
    }
}

pub(crate) mod p3 {
    use wasmtime::StoreContextMut;
    use wasmtime::component::{Linker, Resource};
    use wasmtime_wasi::TrappableError;
    use wasmtime_wasi_http::p3::bindings::http::types::{HeaderError, HostFields};
    use wasmtime_wasi_http::{FieldMap, WasiHttpView};

    use crate::guest::interfaces::interface_p3;
    use crate::guest::store::StoreState;

    fields!(interface_p3);

    fn told(_: &mut StoreState, error: TrappableError<HeaderError>) -> wasmtime::Result<HeaderError> {
        error.downcast()
    }

    fn too_large() -> wasmtime::Result<HeaderError> {
        Ok(HeaderError::SizeExceeded)
    }
}
