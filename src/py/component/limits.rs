//! `wasgi.ComponentLimits`.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::component::limits::ComponentLimits;
use crate::py::limits::{duration, not_negative, positive, seconds};
use crate::py::values::{Count, Number, Seconds, plain, settings, value_methods};

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
#[pyclass(name = "ComponentLimits", module = "wasgi", frozen, eq, get_all)]
#[derive(Clone, PartialEq)]
pub struct PyComponentLimits {
    size: Option<i64>,
    text: Option<i64>,
    instances: Option<i64>,
    modules: Option<i64>,
    components: Option<i64>,
    memories: Option<i64>,
    tables: Option<i64>,
    globals: Option<i64>,
    functions: Option<i64>,
    types: Option<i64>,
    names: Option<i64>,
    nesting: Option<i64>,
    loops: Option<i64>,
    code: Option<i64>,
    function_size: Option<i64>,
    locals: Option<i64>,
    parameters: Option<i64>,
    data: Option<i64>,
    elements: Option<i64>,
    timeout: Option<f64>,
    memory: Option<i64>,
}

value_methods! {
    impl PyComponentLimits as "ComponentLimits" {
        #[new]
        #[pyo3(
            signature = (*, size=Some(Number(256 << 20)), text=Some(Number(16 << 20)), instances=Some(Number(1_000)), modules=Some(Number(1000)), components=Some(Number(1000)), memories=Some(Number(100)), tables=Some(Number(1000)), globals=Some(Number(100_000)), functions=Some(Number(200_000)), types=Some(Number(100_000)), names=Some(Number(200_000)), nesting=Some(Number(4_000)), loops=Some(Number(500)), code=Some(Number(128 << 20)), function_size=Some(Number(4 << 20)), locals=Some(Number(2_000_000)), parameters=Some(Number(80)), data=Some(Number(128 << 20)), elements=Some(Number(200_000)), timeout=None, memory=None),
            text_signature = "(*, size=268435456, text=16777216, instances=1000, modules=1000, components=1000, memories=100, tables=1000, globals=100000, functions=200000, types=100000, names=200000, nesting=4000, loops=500, code=134217728, function_size=4194304, locals=2000000, parameters=80, data=134217728, elements=200000, timeout=None, memory=None)"
        )]
        #[allow(clippy::too_many_arguments)]
        fn new(
            size: Option<Count>,
            text: Option<Count>,
            instances: Option<Count>,
            modules: Option<Count>,
            components: Option<Count>,
            memories: Option<Count>,
            tables: Option<Count>,
            globals: Option<Count>,
            functions: Option<Count>,
            types: Option<Count>,
            names: Option<Count>,
            nesting: Option<Count>,
            loops: Option<Count>,
            code: Option<Count>,
            function_size: Option<Count>,
            locals: Option<Count>,
            parameters: Option<Count>,
            data: Option<Count>,
            elements: Option<Count>,
            timeout: Option<Seconds>,
            memory: Option<Count>,
        ) -> PyResult<Self> {
            let limits = Self {
                size: plain(size),
                text: plain(text),
                instances: plain(instances),
                modules: plain(modules),
                components: plain(components),
                memories: plain(memories),
                tables: plain(tables),
                globals: plain(globals),
                functions: plain(functions),
                types: plain(types),
                names: plain(names),
                nesting: plain(nesting),
                loops: plain(loops),
                code: plain(code),
                function_size: plain(function_size),
                locals: plain(locals),
                parameters: plain(parameters),
                data: plain(data),
                elements: plain(elements),
                timeout: plain(timeout),
                memory: plain(memory),
            };
            for (name, unit, value) in [
                ("size", "bytes", limits.size),
                ("text", "bytes", limits.text),
                ("instances", "instances", limits.instances),
                ("modules", "modules", limits.modules),
                ("components", "components", limits.components),
                ("memories", "memories", limits.memories),
                ("tables", "tables", limits.tables),
                ("globals", "globals", limits.globals),
                ("functions", "functions", limits.functions),
                ("types", "types", limits.types),
                ("names", "names", limits.names),
                ("nesting", "levels", limits.nesting),
                ("loops", "levels", limits.loops),
                ("code", "bytes", limits.code),
                ("function_size", "bytes", limits.function_size),
                ("locals", "locals", limits.locals),
                ("parameters", "parameters", limits.parameters),
                ("data", "bytes", limits.data),
                ("elements", "items", limits.elements),
            ] {
                not_negative(name, unit, value)?;
            }
            seconds("timeout", limits.timeout)?;
            positive("memory", "bytes", limits.memory)?;
            if limits.memory.is_some() && !cfg!(target_os = "linux") {
                return Err(PyValueError::new_err("`memory` is limited on Linux only; hint: `timeout` is everywhere"));
            }
            Ok(limits)
        }
    }
}

impl PyComponentLimits {
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        settings!(
            py, self; size, text, instances, modules, components, memories, tables, globals, functions, types, names, nesting, loops, code, function_size, locals, parameters, data, elements, timeout, memory,
        )
    }

    pub fn core(&self) -> ComponentLimits {
        let count = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        ComponentLimits {
            size: count(self.size),
            text: count(self.text),
            instances: count(self.instances),
            modules: count(self.modules),
            components: count(self.components),
            memories: count(self.memories),
            tables: count(self.tables),
            globals: count(self.globals),
            functions: count(self.functions),
            types: count(self.types),
            names: count(self.names),
            nesting: count(self.nesting),
            loops: count(self.loops),
            code: count(self.code),
            function_size: count(self.function_size),
            locals: count(self.locals),
            parameters: count(self.parameters),
            data: count(self.data),
            elements: count(self.elements),
            timeout: duration(self.timeout),
            memory: count(self.memory),
        }
    }
}
