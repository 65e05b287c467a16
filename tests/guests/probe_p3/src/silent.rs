//! How a guest gives no answer at all. A `handle` that is written in Rust has to come to a result, so the export looks at
//! the request first: where nothing is to be answered, its task ends at once.

use wasip3::http::types::Request;

fn is_silent(target: &str) -> bool {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    match path {
        "/silent" => true,
        "/keep" => crate::parse_query(query).get("what").is_some_and(|what| what == "out"),
        _ => false,
    }
}

/// Where the macro of `export!` finds its parts.
pub mod exports {
    pub mod wasi {
        pub mod http {
            pub mod handler {
                use wasip3::exports::http::handler as real;
                pub use wasip3::exports::wasi::http::handler::{
                    __callback_handle, __export_wasi_http_handler_0_3_2_cabi,
                };

                /// # Safety
                ///
                /// `request` is the handle of a request that was given to this component.
                pub unsafe fn _export_handle_cabi<T: real::Guest>(request: i32) -> i32 {
                    let request = unsafe { super::super::super::super::Request::from_handle(request as u32) };
                    let target = request.get_path_with_query().unwrap_or_default();
                    if super::super::super::super::is_silent(&target) {
                        drop(request);
                        return wasip3::wit_bindgen::rt::async_support::start_task(async {});
                    }
                    unsafe { real::_export_handle_cabi::<T>(request.take_handle() as i32) }
                }
            }
        }
    }
}
