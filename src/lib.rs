//! Runs WebAssembly components that speak `wasi:http`: the core of the Python package `wasgi`.
//!
//! A [`component::Component`] is loaded, an [`app::App`] says on which terms its guests run, and each request is one
//! [`app::exchange::Exchange`]; `examples/rust/handle.rs` does that once. Only the feature `python` (on by default) knows Python: the folder
//! `py`, and the native module `wasgi._wasgi` that it exports.

#![warn(missing_docs, unreachable_pub)]

pub mod app;
pub mod component;
pub mod engine;
pub mod error;
pub mod exchange;
pub mod guest;
pub mod http;
pub mod limits;
pub mod network;
pub mod outgoing;
pub mod pem;
pub mod process;
#[cfg(feature = "python")]
pub(crate) mod py;
pub(crate) mod scheduler;
pub mod server;
pub mod simulation;
pub(crate) mod sync;
pub mod telemetry;
pub(crate) mod text;

/// The native module, `wasgi._wasgi`.
#[cfg(feature = "python")]
#[pyo3::pymodule(gil_used = true)]
mod _wasgi {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        module.add("_wasmtime_version", crate::engine::WASMTIME)?;
        crate::py::refuse_sub_interpreters(module.py())?;
        crate::py::log::subscribe();
        // made now, because PyO3 would have a child wait for it that was forked meanwhile
        let _ = module.py().get_type::<pyo3::types::PyMapping>();
        Ok(())
    }

    #[pymodule_export]
    use crate::py::app::PyApp;
    #[pymodule_export]
    use crate::py::command::_run_command;
    #[pymodule_export]
    use crate::py::component::limits::PyComponentLimits;
    #[pymodule_export]
    use crate::py::component::{
        _census, _compile, _outline, _read_component, _restore_component, _why_not_restorable, PyComponent,
    };
    #[pymodule_export]
    use crate::py::dir::PyDir;
    #[pymodule_export]
    use crate::py::executor::awaitable::Awaitable;
    #[pymodule_export]
    use crate::py::executor::loop_bridge::LoopBridge;
    #[pymodule_export]
    use crate::py::lifecycle::{_after_fork, _after_fork_in_parent, _before_fork, _is_first_import, _shut_down};
    #[pymodule_export]
    use crate::py::limits::PyLimits;
    #[pymodule_export]
    use crate::py::message::async_chunks::AsyncChunks;
    #[pymodule_export]
    use crate::py::message::chunks::Chunks;
    #[pymodule_export]
    use crate::py::message::feed::FeedHandle;
    #[pymodule_export]
    use crate::py::message::report::PyReport;
    #[pymodule_export]
    use crate::py::message::request::{_normal_url, PyRequest};
    #[pymodule_export]
    use crate::py::message::response::PyResponse;
    #[pymodule_export]
    use crate::py::message::server_request::_request_of_server;
    #[pymodule_export]
    use crate::py::message::timeouts::PyTimeouts;
    #[pymodule_export]
    use crate::py::on_finish::PyExchange;
    #[pymodule_export]
    use crate::py::outgoing::PyRoute;
    #[pymodule_export]
    use crate::py::outgoing::callable::OutgoingCall;
    #[pymodule_export]
    use crate::py::outgoing::network::PyNetwork;
    #[pymodule_export]
    use crate::py::reuse::PyReuse;
    #[pymodule_export]
    use crate::py::server::listeners::{_check_addresses, _of_systemd, PyListeners};
    #[pymodule_export]
    use crate::py::server::{_status_of_code, PyServer};
    #[pymodule_export]
    use crate::py::simulation::PySimulation;
    #[pymodule_export]
    use crate::py::stats::{PyStats, stats};
    #[pymodule_export]
    use crate::py::together::PyTogether;
    #[pymodule_export]
    use crate::py::wit::_wit;
}
