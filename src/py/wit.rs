//! The WIT of `wit/`, carried in the native module: `wasgi wit DIR` writes it out.

use pyo3::prelude::*;

/// One line a file of `wit/`.
macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../wit/", $path)))),*] };
}

const FILES: &[(&str, &str)] = files![
    "deps/cli-0.3.wit",
    "deps/cli.wit",
    "deps/clocks-0.3.wit",
    "deps/clocks.wit",
    "deps/filesystem-0.3.wit",
    "deps/filesystem.wit",
    "deps/http-0.3.wit",
    "deps/http.wit",
    "deps/io.wit",
    "deps/random-0.3.wit",
    "deps/random.wit",
    "deps/sockets-0.3.wit",
    "deps/sockets.wit",
    "world.wit",
];

/// The files of the worlds that are hosted: (path, content).
#[pyfunction]
pub(crate) fn _wit() -> Vec<(&'static str, &'static str)> {
    FILES.to_vec()
}
