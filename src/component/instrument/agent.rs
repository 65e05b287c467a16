//! The core module that is added: it takes note of the globals of the others, and puts them back. It sees to it that the numbers of handles
//! are those of the snapshot.
//!
//! Handles get the numbers that were given back last first, so an exchange would find them in an order that the one before has made. The
//! agent takes as many handles of a type of its own as that can have had, and gives them back from the largest number down: the next handle
//! is the smallest again. A number below the largest that it did not get is either one of the snapshot's or was left behind. The
//! host asks for those, takes them from the guest, and calls again.
//!
//! It imports nothing of the host's: what the host is to know is what its functions return. So one can be in a component inside of another,
//! whose imports its surroundings would have to provide.

use wasm_encoder::{
    BlockType, CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, ImportSection, InstructionSink, MemArg, MemorySection, MemoryType, TypeSection, ValType,
};

/// What a core instance has that is to be put back: in which instance, exported by which name.
pub(super) struct Part<T> {
    pub instance: u32,
    pub name: String,
    pub ty: T,
}

/// A byte for each number of a handle; larger numbers than it has bytes trap.
const NUMBERS: MemoryType =
    MemoryType { minimum: 1, maximum: Some(1), memory64: false, shared: false, page_size_log2: None };
const BYTE: MemArg = MemArg { offset: 0, align: 0, memory_index: 0 };
/// The agent has the handle just now.
const HELD: i32 = 1;
/// The guest has had it at the snapshot.
const KEPT: i32 = 2;
/// What `restore` returns if a handle of the snapshot's is gone.
const GONE: i32 = -1;

/// By which index the agent knows what it uses.
struct Layout {
    globals: u32,
}

impl Layout {
    /// How many handles it holds.
    fn held(&self) -> u32 {
        2 * self.globals
    }

    /// The largest number of those.
    fn largest(&self) -> u32 {
        2 * self.globals + 1
    }

    /// How many the guest has had at the snapshot.
    fn kept(&self) -> u32 {
        2 * self.globals + 2
    }

    /// The largest number of those.
    fn highest(&self) -> u32 {
        2 * self.globals + 3
    }
}

// Functions by their index.
const NEW: u32 = 0;
const DROP: u32 = 1;
const GATHER: u32 = 2;
const GIVE_BACK: u32 = 3;
const SAVE: u32 = 4;
const RESTORE: u32 = 5;
const LEFT: u32 = 6;
const TAKE: u32 = 7;

/// `save`: each global into its shadow; it returns how many handles there are. `restore`: back again; it returns how many were left behind.
/// The argument of both is how many handles there can have been. `left`: the largest number that was left behind and is below its argument, or
/// 0. `take` is told a number and returns it: the host makes of it what is behind that handle, or where a memory lies.
pub(super) fn module(globals: &[Part<ValType>]) -> wasm_encoder::Module {
    let layout = Layout { globals: u32::try_from(globals.len()).unwrap_or(u32::MAX) };
    let mut module = wasm_encoder::Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    let (nothing, takes, answers) = (0, 1, 2);
    module.section(&types);
    let mut imports = ImportSection::new();
    imports.import("", "new", EntityType::Function(answers));
    imports.import("", "drop", EntityType::Function(takes));
    let mut own = GlobalSection::new();
    for (at, part) in globals.iter().enumerate() {
        let ty = GlobalType { val_type: part.ty, mutable: true, shared: false };
        imports.import("", &format!("g{at}"), EntityType::Global(ty));
        own.global(ty, &zero(part.ty));
    }
    for _ in layout.held()..=layout.highest() {
        own.global(GlobalType { val_type: ValType::I32, mutable: true, shared: false }, &zero(ValType::I32));
    }
    module.section(&imports);
    let mut functions = FunctionSection::new();
    for ty in [answers, nothing, answers, answers, answers, answers] {
        functions.function(ty);
    }
    module.section(&functions);
    let mut numbers = MemorySection::new();
    numbers.memory(NUMBERS);
    module.section(&numbers);
    module.section(&own);
    let mut exports = ExportSection::new();
    for (name, function) in [("save", SAVE), ("restore", RESTORE), ("left", LEFT), ("take", TAKE)] {
        exports.export(name, ExportKind::Func, function);
    }
    exports.export("numbers", ExportKind::Memory, 0);
    module.section(&exports);
    let mut code = CodeSection::new();
    for function in [gather(&layout), give_back(&layout), save(&layout), restore(&layout), left(&layout), take()] {
        code.function(&function);
    }
    module.section(&code);
    module
}

/// Takes so many handles, and more until their numbers are beyond those of the snapshot. Returns whether one of the snapshot's was free.
fn gather(layout: &Layout) -> Function {
    let mut function = Function::new([(1, ValType::I32)]);
    let (most, number) = (0, 1);
    let largest = layout.largest();
    let mut body = function.instructions();
    body.block(BlockType::Empty).loop_(BlockType::Empty);
    body.local_get(most).i32_eqz();
    body.global_get(largest).global_get(layout.highest()).i32_gt_u().i32_and().br_if(1);
    body.i32_const(0).call(NEW).local_tee(number).i32_load8_u(BYTE);
    body.if_(BlockType::Empty).i32_const(1).return_().end();
    body.local_get(number).i32_const(HELD).i32_store8(BYTE);
    add_one(&mut body, layout.held());
    body.local_get(number).global_get(largest).local_get(number).global_get(largest).i32_gt_u().select();
    body.global_set(largest);
    body.local_get(most).local_get(most).i32_const(0).i32_ne().i32_sub().local_set(most);
    body.br(0).end().end();
    body.i32_const(0).end();
    function
}

/// Gives all of them back, from the largest number down.
fn give_back(layout: &Layout) -> Function {
    let mut function = Function::new([]);
    let largest = layout.largest();
    let mut body = function.instructions();
    body.block(BlockType::Empty).loop_(BlockType::Empty);
    body.global_get(largest).i32_eqz().br_if(1);
    body.global_get(largest).i32_load8_u(BYTE).i32_const(HELD).i32_eq().if_(BlockType::Empty);
    body.global_get(largest).i32_const(0).i32_store8(BYTE);
    body.global_get(largest).call(DROP).end();
    body.global_get(largest).i32_const(1).i32_sub().global_set(largest);
    body.br(0).end().end();
    body.i32_const(0).global_set(layout.held()).end();
    function
}

fn save(layout: &Layout) -> Function {
    let mut function = Function::new([(1, ValType::I32)]);
    let (most, number) = (0, 1);
    let mut body = function.instructions();
    for global in 0..layout.globals {
        body.global_get(global).global_set(layout.globals + global);
    }
    body.local_get(most).call(GATHER).drop();
    each_missing(&mut body, layout, number, |body| {
        body.local_get(number).i32_const(KEPT).i32_store8(BYTE);
        add_one(body, layout.kept());
        body.global_get(layout.highest()).i32_eqz().if_(BlockType::Empty);
        body.local_get(number).global_set(layout.highest()).end();
    });
    body.call(GIVE_BACK).global_get(layout.kept()).end();
    function
}

fn restore(layout: &Layout) -> Function {
    let mut function = Function::new([(2, ValType::I32)]);
    let (most, number, left) = (0, 1, 2);
    let mut body = function.instructions();
    for global in 0..layout.globals {
        body.global_get(layout.globals + global).global_set(global);
    }
    body.local_get(most).call(GATHER);
    body.if_(BlockType::Empty).i32_const(GONE).return_().end();
    // most exchanges leave none behind: then their numbers need not be looked for
    body.global_get(layout.held()).global_get(layout.kept()).i32_add();
    body.global_get(layout.largest()).i32_ne().if_(BlockType::Empty);
    each_missing(&mut body, layout, number, |body| {
        body.local_get(left).i32_const(1).i32_add().local_set(left);
    });
    body.end();
    body.local_get(left).i32_eqz().if_(BlockType::Empty).call(GIVE_BACK).end();
    body.local_get(left).end();
    function
}

fn left(layout: &Layout) -> Function {
    let mut function = Function::new([]);
    let number = 0;
    let mut body = function.instructions();
    // from the largest down, whatever is asked
    body.local_get(number).global_get(layout.largest()).i32_gt_u().if_(BlockType::Empty);
    body.global_get(layout.largest()).i32_const(1).i32_add().local_set(number).end();
    body.block(BlockType::Empty).loop_(BlockType::Empty);
    body.local_get(number).i32_eqz().br_if(1);
    body.local_get(number).i32_const(1).i32_sub().local_set(number);
    body.local_get(number).i32_eqz().br_if(1);
    body.local_get(number).i32_load8_u(BYTE).i32_eqz().br_if(1);
    body.br(0).end().end();
    body.local_get(number).end();
    function
}

fn take() -> Function {
    let mut function = Function::new([]);
    function.instructions().local_get(0).end();
    function
}

/// Does something for each number below the largest that is neither held nor kept, from the largest down.
fn each_missing(
    body: &mut InstructionSink<'_>,
    layout: &Layout,
    number: u32,
    does: impl FnOnce(&mut InstructionSink<'_>),
) {
    body.global_get(layout.largest()).local_set(number);
    body.block(BlockType::Empty).loop_(BlockType::Empty);
    body.local_get(number).i32_eqz().br_if(1);
    body.local_get(number).i32_load8_u(BYTE).i32_eqz().if_(BlockType::Empty);
    does(body);
    body.end();
    body.local_get(number).i32_const(1).i32_sub().local_set(number);
    body.br(0).end().end();
}

fn add_one(body: &mut InstructionSink<'_>, global: u32) {
    body.global_get(global).i32_const(1).i32_add().global_set(global);
}

fn zero(ty: ValType) -> ConstExpr {
    match ty {
        ValType::I64 => ConstExpr::i64_const(0),
        ValType::F32 => ConstExpr::f32_const(0f32.into()),
        ValType::F64 => ConstExpr::f64_const(0f64.into()),
        ValType::V128 => ConstExpr::v128_const(0),
        // no global of references comes here
        ValType::I32 | ValType::Ref(_) => ConstExpr::i32_const(0),
    }
}
