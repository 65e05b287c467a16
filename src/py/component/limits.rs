//! `wasgi.ComponentLimits`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::component::limits::ComponentLimits;
use crate::py::options::{not_negative, options, positive, seconds};

options! {
    /// Limits on the cost of loading an untrusted component. ``None`` lifts a limit.
    ///
    /// The defaults leave real components, with the interpreters of Python and JavaScript inside, a factor of four or more.
    /// Everything is counted in the file, before anything is expanded or compiled. A component that exceeds a limit raises
    /// `ComponentLimitError`, with the limit's name, its value, and the number that was found.
    ///
    /// Args:
    ///     size: Bytes of the source.
    ///     text: Bytes of a source in text form; parsing it takes many times as much memory.
    ///     instances: Instances, of components and of core modules, in one instance of it. A part that is instantiated many
    ///         times counts as often, and so do its memories, tables and globals.
    ///     modules: Core modules.
    ///     components: Components inside of it.
    ///     memories: Linear memories.
    ///     tables: Tables.
    ///     globals: Globals.
    ///     functions: Functions with a body, and one for each that is lifted or lowered between instances.
    ///     types: Types, of components and of core modules, and declarations inside of types.
    ///     names: Imports, exports, aliases, arguments, and parts of types: fields, cases, flags, parameters.
    ///     nesting: Levels of components, of types, and of blocks in a function. Components and types never have more than
    ///         1,000, even with None, because the stack is finite.
    ///     loops: Levels of loops in a function; compile time grows with their square.
    ///     code: Bytes of all function bodies.
    ///     function_size: Bytes of one function body.
    ///     locals: Locals of all functions.
    ///     parameters: Parameters, or results, of one core function type; calls with hundreds of them compile for minutes.
    ///     data: Bytes of data segments.
    ///     elements: Items of element segments.
    ///     timeout: Seconds for compiling, in a child process that is killed then.
    ///     memory: Bytes of memory for compiling, in a child process likewise; what a Python process has from the start is
    ///         not counted. Linux only.
    ///
    /// Raises:
    ///     ValueError: A limit is negative, or a timeout or memory is zero.
    ///
    /// Example:
    ///     >>> component = wasgi.Component(upload, limits=wasgi.ComponentLimits(timeout=10, memory=1 << 30))
    #[pyclass(name = "ComponentLimits", module = "wasgi")]
    pub struct PyComponentLimits as "ComponentLimits" -> ComponentLimits {
        size: Option<i64> = 268435456 => not_negative("bytes"),
        text: Option<i64> = 16777216 => not_negative("bytes"),
        instances: Option<i64> = 1000 => not_negative("instances"),
        modules: Option<i64> = 1000 => not_negative("modules"),
        components: Option<i64> = 1000 => not_negative("components"),
        memories: Option<i64> = 100 => not_negative("memories"),
        tables: Option<i64> = 1000 => not_negative("tables"),
        globals: Option<i64> = 100000 => not_negative("globals"),
        functions: Option<i64> = 200000 => not_negative("functions"),
        types: Option<i64> = 100000 => not_negative("types"),
        names: Option<i64> = 200000 => not_negative("names"),
        nesting: Option<i64> = 4000 => not_negative("levels"),
        loops: Option<i64> = 500 => not_negative("levels"),
        code: Option<i64> = 134217728 => not_negative("bytes"),
        function_size: Option<i64> = 4194304 => not_negative("bytes"),
        locals: Option<i64> = 2000000 => not_negative("locals"),
        parameters: Option<i64> = 80 => not_negative("parameters"),
        data: Option<i64> = 134217728 => not_negative("bytes"),
        elements: Option<i64> = 200000 => not_negative("items"),
        timeout: Option<f64> = None => seconds(),
        memory: Option<i64> = None => positive("bytes"),
    }
}

impl PyComponentLimits {
    fn made(limits: Self) -> PyResult<Self> {
        if limits.memory.is_some() && !cfg!(target_os = "linux") {
            return Err(PyValueError::new_err("`memory` is limited on Linux only; hint: `timeout` is everywhere"));
        }
        Ok(limits)
    }
}
