//! What the host provides to components: linked once for each engine.

use std::sync::{Arc, Mutex};

use wasmtime::component::{Linker, Resource};
use wasmtime::{Engine, StoreContextMut};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode as P2ErrorCode;

use crate::error::{Error, chain};
use crate::guest::store::StoreState;
use crate::http::error_code::ErrorCode;
use crate::process::fork::PerFork;
use crate::sync::lock;

/// The interfaces of WASI 0.2 that are linked into every component: those of `wit/world.wit`.
pub const PROVIDED: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

/// One for each engine of the process, of which there are six at the most.
static LINKERS: PerFork<Mutex<Vec<Arc<Linker<StoreState>>>>> = PerFork::new();

/// The linker for components of this engine.
pub(crate) fn linker_for(engine: &Engine) -> Result<Arc<Linker<StoreState>>, Error> {
    let linkers = LINKERS.get(Mutex::default);
    let mut linkers = lock(&linkers);
    if let Some(made) = linkers.iter().find(|linker| Engine::same(linker.engine(), engine)) {
        return Ok(made.clone());
    }
    let made = link(engine)
        .map_err(|error| Error::Host(format!("cannot link what wasgi provides to components: {}", chain(&error))))?;
    let made = Arc::new(made);
    linkers.push(made.clone());
    Ok(made)
}

fn link(engine: &Engine) -> wasmtime::Result<Linker<StoreState>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    mend_http_error_code(&mut linker)?;
    crate::guest::request_checks::bound_requests(&mut linker)?;
    crate::guest::request_checks::check_requests(&mut linker)?;
    crate::guest::http_functions::weigh_fields(&mut linker)?;
    crate::guest::http_functions::weigh_bodies(&mut linker)?;
    crate::guest::file_functions::bound_files(&mut linker)?;
    crate::guest::timers::stage_timers(&mut linker)?;
    Ok(linker)
}

/// Replaces `wasi:http/types.http-error-code`: the one of wasmtime-wasi-http 48 looks for an error of the guest's bindings,
/// but a body that breaks off puts one of the host's there, so that a guest was never told why.
fn mend_http_error_code(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:http/types@0.2.12")?.func_wrap(
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
