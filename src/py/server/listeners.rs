//! Listening sockets that several processes share: their parent has them, and each of its workers gets the descriptors.

use std::os::fd::AsRawFd;

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::py::held::detach;
use crate::py::lock;
use crate::server::Address;
use crate::server::bind::{BindOptions, Listener, bind_all};
use crate::server::inherited::systemd;

/// Sockets that listen at addresses as `wasgi.Server` has them, and that nobody accepts from here.
///
/// Raises:
///     OSError: An address cannot be used. Nothing listens then.
///     ValueError: An address is invalid.
#[pyclass(name = "Listeners", module = "wasgi._wasgi", frozen)]
pub struct PyListeners(std::sync::Mutex<Vec<Listener>>);

#[pymethods]
impl PyListeners {
    #[new]
    #[pyo3(signature = (bind, *, backlog=1024, reuse_port=false, socket_mode=None))]
    fn new(
        py: Python<'_>,
        bind: Vec<String>,
        backlog: u32,
        reuse_port: bool,
        socket_mode: Option<u32>,
    ) -> PyResult<Self> {
        let addresses = addresses(&bind)?;
        let options = BindOptions { backlog, reuse_port, mode: socket_mode };
        let bound = detach(py, || bind_all(&addresses, &options));
        Ok(Self(std::sync::Mutex::new(bound.map_err(|error| PyOSError::new_err(error.to_string()))?)))
    }

    /// Their numbers, for ``fd:`` of a process that inherits them.
    #[getter]
    fn descriptors(&self) -> Vec<i32> {
        lock(&self.0).iter().map(AsRawFd::as_raw_fd).collect()
    }

    /// Where they listen, with real ports.
    #[getter]
    fn addresses(&self) -> Vec<String> {
        lock(&self.0).iter().map(Listener::address).collect()
    }

    /// URLs that open on this machine.
    fn urls(&self, tls: bool) -> Vec<String> {
        lock(&self.0).iter().map(|listener| listener.url(tls)).collect()
    }

    /// Closes them. The file of a Unix socket that was made here is removed.
    fn close(&self) {
        let listeners = std::mem::take(&mut *lock(&self.0));
        drop(listeners);
    }
}

/// The addresses (``fd:3``) of the sockets that systemd has passed to this process. Whoever asks removes the variables: a child would take
/// them for its own.
#[pyfunction]
pub(crate) fn _of_systemd() -> PyResult<Vec<String>> {
    let found = systemd().map_err(|wrong| PyValueError::new_err(wrong.to_string()))?;
    Ok(found.iter().map(Address::to_string).collect())
}

/// Raises `ValueError` if one of these is no address. Nothing is bound.
#[pyfunction]
pub(crate) fn _check_addresses(bind: Vec<String>) -> PyResult<()> {
    addresses(&bind).map(drop)
}

/// Reads addresses.
pub(super) fn addresses(bind: &[String]) -> PyResult<Vec<Address>> {
    bind.iter().map(|text| Address::parse(text).map_err(|wrong| PyValueError::new_err(wrong.to_string()))).collect()
}
