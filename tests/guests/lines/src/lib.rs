//! A guest with debug information: it traps where the tests know, by its line.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Lines;
wasip2::http::proxy::export!(Lines);

impl Guest for Lines {
    fn handle(request: IncomingRequest, _response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        divide(path.len(), path.matches('x').count());
    }
}

#[inline(never)]
fn divide(whole: usize, parts: usize) -> usize {
    if parts == 0 {
        core::arch::wasm32::unreachable(); // the trap
    }
    whole / parts
}
