//! The map of the crate, and what the native module exports. Everything but [`py`] knows nothing of Python.

mod address;
mod ahead;
mod answer;
pub mod asked;
mod blocking;
pub mod blocks;
pub mod body;
mod bypass;
pub mod census;
mod clock;
pub mod code;
mod code_cache;
pub mod compile_child;
mod compile_threads;
pub mod compiler;
pub mod component;
pub mod component_limits;
mod cost;
pub mod debug_info;
mod declared_types;
mod dial;
mod driver;
pub mod engine;
pub mod error;
pub mod expansion;
mod failure;
pub mod fields;
mod file_streams;
mod files;
mod flow;
mod folders;
pub mod gate;
mod guest_request;
mod held;
mod history;
pub mod host;
mod idle;
pub mod incoming;
pub mod instance;
pub mod limits;
#[cfg(unix)]
mod listing;
pub mod loading;
pub mod network;
mod normal;
pub mod outgoing;
pub mod outline;
pub mod own_stack;
pub mod owner;
mod pace;
mod pagemap;
pub mod pattern;
mod places;
pub mod policy;
mod pool;
mod priority;
mod private_files;
pub mod process;
mod proxy;
pub mod py;
mod refusals;
mod refused;
mod resolve;
mod route;
pub mod runtime;
mod scheduler;
mod sent;
mod served;
mod signals;
pub mod source;
pub mod staged;
pub mod stats;
pub mod stdio;
mod stock;
mod swap;
mod sync;
mod text;
mod tls;
mod trim;
pub mod url;
mod watch;

/// The native module, `wasgi._wasgi`.
#[pyo3::pymodule(gil_used = true)]
mod _wasgi {
    use pyo3::prelude::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))?;
        crate::py::refuse_sub_interpreters(module.py())
    }

    #[pymodule_export]
    use crate::py::app::{PyApp, PyDir};
    #[pymodule_export]
    use crate::py::awaitable::Awaitable;
    #[pymodule_export]
    use crate::py::bridge::{_after_fork, _after_fork_in_parent, _before_fork, _is_first_import, _shut_down};
    #[pymodule_export]
    use crate::py::component::{_census, _compile, _outline, _read_component, _restore_component, PyComponent};
    #[pymodule_export]
    use crate::py::component_limits::PyComponentLimits;
    #[pymodule_export]
    use crate::py::feed::FeedHandle;
    #[pymodule_export]
    use crate::py::finish::PyExchange;
    #[pymodule_export]
    use crate::py::limits::PyLimits;
    #[pymodule_export]
    use crate::py::loops::LoopBridge;
    #[pymodule_export]
    use crate::py::network::PyNetwork;
    #[pymodule_export]
    use crate::py::reading::{AsyncChunks, Chunks};
    #[pymodule_export]
    use crate::py::report::PyReport;
    #[pymodule_export]
    use crate::py::request::{_normal_url, PyRequest, PyTimeouts};
    #[pymodule_export]
    use crate::py::response::PyResponse;
    #[pymodule_export]
    use crate::py::reuse::PyReuse;
    #[pymodule_export]
    use crate::py::route::PyRoute;
    #[pymodule_export]
    use crate::py::served::_request_of_server;
    #[pymodule_export]
    use crate::py::stats::{PyStats, stats};
    #[pymodule_export]
    use crate::py::upstream::OutgoingCall;
    #[pymodule_export]
    use crate::py::wit::_wit;
    #[pymodule_export]
    use crate::py::world::PySimulation;
}
