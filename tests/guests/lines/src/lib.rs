//! A guest with debug information: it traps where the tests know, by its line.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{IncomingRequest, ResponseOutparam};

struct Lines;
wasip2::http::proxy::export!(Lines);

impl Guest for Lines {
    fn handle(request: IncomingRequest, _response_out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        look_beyond(path.len());
    }
}

#[inline(never)]
fn look_beyond(length: usize) -> u32 {
    let beyond = usize::MAX - 64 - length;
    // SAFETY: there is none: no memory is that large.
    unsafe { core::ptr::read_volatile(beyond as *const u32) } // the trap
}
