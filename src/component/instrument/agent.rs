//! The core module that is added: it takes note of the globals of the others, and puts them back.

use wasm_encoder::{
    CodeSection, ConstExpr, EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, ImportSection, InstructionSink, MemArg, MemorySection, MemoryType, TypeSection, ValType,
};

/// What a core instance has that is to be put back: in which instance, exported by which name.
pub(super) struct Part<T> {
    pub instance: u32,
    pub name: String,
    pub ty: T,
}

const ANY: MemoryType = MemoryType { minimum: 0, maximum: None, memory64: false, shared: false, page_size_log2: None };
/// A byte for each number of a handle, of those that it holds just then: more than 65,535 trap.
const OWN: MemoryType =
    MemoryType { minimum: 1, maximum: Some(1), memory64: false, shared: false, page_size_log2: None };
const BYTE: MemArg = MemArg { offset: 0, align: 0, memory_index: 0 };

/// `save`: each global into its shadow, and the host is told of each memory. `restore`: back again, and the numbers of handles that are
/// free are put in order.
pub(super) fn module(memories: usize, globals: &[Part<ValType>]) -> wasm_encoder::Module {
    let memories = u32::try_from(memories).unwrap_or(u32::MAX);
    let number_of_globals = u32::try_from(globals.len()).unwrap_or(u32::MAX);
    let mut module = wasm_encoder::Module::new();
    let mut types = TypeSection::new();
    types.ty().function([], []);
    types.ty().function([ValType::I32], []);
    types.ty().function([ValType::I32; 4], []);
    types.ty().function([ValType::I32], [ValType::I32]);
    let (of_save, of_restore, of_tell, of_new, of_drop) = (0, 1, 2, 3, 1);
    module.section(&types);
    let mut imports = ImportSection::new();
    for at in 0..memories {
        imports.import("", &format!("m{at}"), EntityType::Memory(ANY));
        imports.import("", &format!("t{at}"), EntityType::Function(of_tell));
    }
    imports.import("", "new", EntityType::Function(of_new));
    imports.import("", "drop", EntityType::Function(of_drop));
    let mut shadows = GlobalSection::new();
    for (at, part) in globals.iter().enumerate() {
        let ty = GlobalType { val_type: part.ty, mutable: true, shared: false };
        imports.import("", &format!("g{at}"), EntityType::Global(ty));
        shadows.global(ty, &zero(part.ty));
    }
    module.section(&imports);
    let mut functions = FunctionSection::new();
    functions.function(of_save);
    functions.function(of_restore);
    module.section(&functions);
    let mut own = MemorySection::new();
    own.memory(OWN);
    module.section(&own);
    module.section(&shadows);
    let (new, drop) = (memories, memories + 1);
    let mut exports = ExportSection::new();
    exports.export("save", ExportKind::Func, memories + 2);
    exports.export("restore", ExportKind::Func, memories + 3);
    module.section(&exports);
    let mut code = CodeSection::new();
    for back in [false, true] {
        // of `restore`: how many handles it has made, the number of one, the largest number
        let mut function = Function::new(back.then_some((3, ValType::I32)));
        let mut body = function.instructions();
        for global in 0..number_of_globals {
            let shadow = number_of_globals + global;
            let (from, to) = if back { (shadow, global) } else { (global, shadow) };
            body.global_get(from).global_set(to);
        }
        if back {
            number_handles(&mut body, MemArg { memory_index: memories, ..BYTE }, new, drop);
        }
        for memory in 0..memories {
            let number = memory.cast_signed();
            body.i32_const(number).i32_const(0).i32_const(0).memory_size(memory).call(memory);
        }
        body.end();
        code.function(&function);
    }
    module.section(&code);
    module
}

/// Handles get the numbers that were given back last first, so the next exchange would find them in an order that the last one made. As many
/// as it can have had are made here, and given back from the largest down: the next handle is the smallest again, as in an instance that
/// nothing has run in.
fn number_handles(body: &mut InstructionSink<'_>, own: MemArg, new: u32, drop: u32) {
    let (most, made, number, largest) = (0, 1, 2, 3);
    body.block(wasm_encoder::BlockType::Empty).loop_(wasm_encoder::BlockType::Empty);
    body.local_get(made).local_get(most).i32_ge_u().br_if(1);
    body.i32_const(0).call(new).local_tee(number).i32_const(1).i32_store8(own);
    body.local_get(number).local_get(largest).local_get(number).local_get(largest).i32_gt_u().select();
    body.local_set(largest);
    body.local_get(made).i32_const(1).i32_add().local_set(made);
    body.br(0).end().end();
    body.block(wasm_encoder::BlockType::Empty).loop_(wasm_encoder::BlockType::Empty);
    body.local_get(largest).i32_eqz().br_if(1);
    body.local_get(largest).i32_load8_u(own).if_(wasm_encoder::BlockType::Empty);
    body.local_get(largest).i32_const(0).i32_store8(own);
    body.local_get(largest).call(drop).end();
    body.local_get(largest).i32_const(1).i32_sub().local_set(largest);
    body.br(0).end().end();
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
