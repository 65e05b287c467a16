//! The interfaces that wasmtime puts into a linker, by the version that it has them in.

use wasmtime::component::{Linker, LinkerInstance};

use crate::guest::store::StoreState;

/// The releases of WASI 0.2 and 0.3 that wasmtime-wasi and wasmtime-wasi-http have: a component finds its own patch release by them.
const RELEASE: &str = "0.2.12";
const RELEASE_P3: &str = "0.3.0";

/// What wasmtime has put into the linker under this name. Another release's name would be an interface of its own, empty, and what
/// is defined there would replace nothing.
pub(crate) fn interface<'a>(
    linker: &'a mut Linker<StoreState>,
    name: &str,
) -> wasmtime::Result<LinkerInstance<'a, StoreState>> {
    linker.instance(&format!("{name}@{RELEASE}"))
}

/// The same for an interface of WASI 0.3.
pub(crate) fn interface_p3<'a>(
    linker: &'a mut Linker<StoreState>,
    name: &str,
) -> wasmtime::Result<LinkerInstance<'a, StoreState>> {
    linker.instance(&format!("{name}@{RELEASE_P3}"))
}

/// What a component of WASI 0.3 exports to answer requests, and what middleware imports to pass them on: it is provided where there
/// is something to pass them on to.
pub(crate) const HANDLER: &str = "wasi:http/handler";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_release_is_wasmtimes() {
        let mut linker = Linker::new(&wasmtime::Engine::default());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).unwrap();
        wasmtime_wasi::p3::add_to_linker(&mut linker).unwrap();
        wasmtime_wasi_http::p3::add_to_linker(&mut linker).unwrap();
        for (name, function) in [
            ("wasi:clocks/monotonic-clock", "now"),
            ("wasi:filesystem/types", "[method]descriptor.stat"),
            ("wasi:http/client", "send"),
            ("wasi:http/types", "[constructor]fields"),
        ] {
            let mut found = interface_p3(&mut linker, name).unwrap();
            assert!(
                found.func_wrap(function, |_, (): ()| Ok(())).is_err(),
                "{name} of WASI 0.3 has no `{function}`: another release?"
            );
        }
        for (name, function) in [
            ("wasi:clocks/monotonic-clock", "now"),
            ("wasi:filesystem/types", "filesystem-error-code"),
            ("wasi:http/outgoing-handler", "handle"),
            ("wasi:http/types", "http-error-code"),
        ] {
            let mut found = interface(&mut linker, name).unwrap();
            assert!(
                found.func_wrap(function, |_, (): ()| Ok(())).is_err(),
                "{name} has no `{function}`: another release?"
            );
        }
    }
}
