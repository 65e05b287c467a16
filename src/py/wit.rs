//! The WIT of `wit/`, carried in the native module: `wasgi wit DIR` writes it out.

use pyo3::prelude::*;

/// One line a file of `wit/`.
macro_rules! files {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../../wit/", $path)))),*] };
}

const FILES: &[(&str, &str)] = files![
    "deps/cli.wit",
    "deps/clocks.wit",
    "deps/filesystem.wit",
    "deps/http.wit",
    "deps/io.wit",
    "deps/random.wit",
    "deps/sockets.wit",
    "world.wit",
];

/// The files of the worlds that are hosted: (path, content).
#[pyfunction]
pub fn _wit() -> Vec<(&'static str, &'static str)> {
    FILES.to_vec()
}
