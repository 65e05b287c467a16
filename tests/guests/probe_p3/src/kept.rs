//! Calls of the host that are begun and never looked at again. What `async` Rust begins is part of a task, which does not
//! end before it does; these are handles of the instance, as what a guest of WASI 0.2 keeps.

use wasip3::http::types::Request;

use crate::message::Body;

#[link(wasm_import_module = "wasi:http/client@0.3.2")]
unsafe extern "C" {
    #[link_name = "[async-lower]send"]
    fn send(request: i32, result: *mut u8) -> i32;
}

#[link(wasm_import_module = "wasi:clocks/monotonic-clock@0.3.2")]
unsafe extern "C" {
    #[link_name = "[async-lower]wait-for"]
    fn wait_for(nanoseconds: i64) -> i32;
    #[link_name = "wait-for"]
    fn block_for(nanoseconds: i64);
}

/// Sends the request, with a body of which nothing is ever written.
pub fn sent((request, body): (Request, Body)) {
    let result = Box::leak(Box::new([0u64; 8])); // the result has five words, and nobody frees its place
    // SAFETY: the handle is this component's own and given away; the result's place is large enough and lives for ever
    unsafe { send(request.take_handle() as i32, result.as_mut_ptr().cast()) };
    std::mem::forget(body);
}

pub fn timer(nanoseconds: u64) {
    // SAFETY: it has no pointer
    unsafe { wait_for(nanoseconds.cast_signed()) };
}

/// Waits as a guest does that knows nothing of `async`: its whole task stands.
pub fn block(ms: u64) {
    // SAFETY: it has no pointer
    unsafe { block_for((ms * 1_000_000).cast_signed()) };
}
