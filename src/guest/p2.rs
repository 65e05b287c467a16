//! Guests of WASI 0.2: what is linked for them, and how they handle a request.

use bytes::Bytes;
use wasmtime::component::{Linker, Resource};
use wasmtime::{Store, StoreContextMut};
use wasmtime_wasi_http::p2::bindings::Proxy;
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode as P2ErrorCode, Scheme};
use wasmtime_wasi_http::p2::types::{HostIncomingRequest, HostResponseOutparam};
use wasmtime_wasi_http::{Error as HostError, WasiBody, WasiHttpView};

use crate::guest::interfaces::interface;
use crate::guest::store::StoreState;
use crate::http::error_code::ErrorCode;

/// What a handler of `wasi:http/incoming-handler` gets.
pub(crate) struct Call {
    pub request: Resource<HostIncomingRequest>,
    pub out: Resource<HostResponseOutparam>,
}

impl Call {
    /// `answered` takes what the guest answers.
    pub(crate) fn new<B>(
        host: &mut StoreState,
        request: http::Request<B>,
        answered: impl FnOnce(Result<http::Response<WasiBody>, ErrorCode>) + Send + Sync + 'static,
    ) -> wasmtime::Result<Self>
    where
        B: http_body::Body<Data = Bytes, Error = HostError> + Send + 'static,
    {
        let scheme = match request.uri().scheme_str() {
            Some("http") | None => Scheme::Http,
            Some("https") => Scheme::Https,
            Some(other) => Scheme::Other(other.to_owned()),
        };
        let mut http = host.http();
        let request = http.new_incoming_request(scheme, request)?;
        let out = http.new_response_outparam_from_callback(|answer| answered(answer.map_err(ErrorCode::of_guest)))?;
        Ok(Self { request, out })
    }
}

/// Has the guest handle a request.
pub(crate) async fn handle(store: &mut Store<StoreState>, proxy: &Proxy, call: Call) -> wasmtime::Result<()> {
    proxy.wasi_http_incoming_handler().call_handle(store, call.request, call.out).await
}

/// All of WASI 0.2.
pub(crate) fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)?;
    mend_http_error_code(linker)?;
    crate::guest::request_checks::bound_requests(linker)?;
    crate::guest::request_checks::check_requests(linker)?;
    crate::guest::http_functions::p2::weigh_fields(linker)?;
    crate::guest::http_functions::weigh_bodies(linker)?;
    crate::guest::file_functions::bound_files(linker)?;
    crate::guest::timers::stage_timers(linker)
}

/// Replaces `wasi:http/types.http-error-code`: the one of wasmtime-wasi-http 48 looks for an error of the guest's bindings,
/// but a body that breaks off puts one of the host's there, so that a guest was never told why.
fn mend_http_error_code(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    interface(linker, "wasi:http/types")?.func_wrap(
        "http-error-code",
        |mut store: StoreContextMut<'_, StoreState>, (error,): (Resource<wasmtime::Error>,)| {
            let error = store.data_mut().table().get(&error)?;
            let code = match error.downcast_ref::<P2ErrorCode>() {
                Some(code) => Some(code.clone()),
                None => error
                    .downcast_ref::<wasmtime_wasi_http::Error>()
                    .and_then(ErrorCode::from_host)
                    .map(ErrorCode::into_p2),
            };
            Ok((code,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}
