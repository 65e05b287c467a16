//! A core module, with its memories and mutable globals exported.

use std::collections::HashMap;

use wasm_encoder::{ComponentSection, Encode, ValType};
use wasmparser::{ExternalKind, FunctionBody, MemoryType, Operator, Parser, Payload, TypeRef};

use crate::component::instrument::not_restorable::{NotRestorable, check_name};

/// Sections that stand behind the exports.
const BEHIND_EXPORTS: std::ops::RangeInclusive<u8> = 8..=12;
const EXPORTS: u8 = 7;
const MEMORY: u8 = 2;
const GLOBAL: u8 = 3;

/// What a core module has of its own that is to be put back.
#[derive(Default)]
pub(super) struct Module {
    /// By which name each is exported.
    memories: Vec<String>,
    globals: Vec<(String, ValType)>,
    /// What is to be exported besides: the name, the kind, the index.
    added: Vec<(String, u8, u32)>,
}

impl Module {
    pub(super) fn read(binary: &[u8]) -> Result<Self, NotRestorable> {
        let (mut memories, mut globals) = (Vec::new(), Vec::new());
        let (mut all_memories, mut all_globals) = (0u32, 0u32);
        let mut named_memories: HashMap<u32, String> = HashMap::new();
        let mut named_globals: HashMap<u32, String> = HashMap::new();
        for payload in Parser::new(0).parse_all(binary) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        match import?.ty {
                            TypeRef::Memory(_) => all_memories += 1,
                            TypeRef::Global(_) => all_globals += 1,
                            _ => {}
                        }
                    }
                }
                Payload::MemorySection(section) => {
                    for memory in section {
                        check_memory(&memory?)?;
                        memories.push(all_memories);
                        all_memories += 1;
                    }
                }
                Payload::GlobalSection(section) => {
                    for global in section {
                        let ty = global?.ty;
                        if ty.mutable {
                            globals.push((all_globals, number(ty.content_type)?));
                        }
                        all_globals += 1;
                    }
                }
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        check_name(export.name)?;
                        let named = match export.kind {
                            ExternalKind::Memory => &mut named_memories,
                            ExternalKind::Global => &mut named_globals,
                            _ => continue,
                        };
                        named.entry(export.index).or_insert_with(|| export.name.to_owned());
                    }
                }
                Payload::CodeSectionStart { .. } => break,
                _ => {}
            }
        }
        let mut module = Self::default();
        for index in memories {
            let name = named_memories.remove(&index);
            let name = name.unwrap_or_else(|| module.export(format!("wasgi:m{index}"), MEMORY, index));
            module.memories.push(name);
        }
        for (index, ty) in globals {
            let name = named_globals.remove(&index);
            let name = name.unwrap_or_else(|| module.export(format!("wasgi:g{index}"), GLOBAL, index));
            module.globals.push((name, ty));
        }
        Ok(module)
    }

    fn export(&mut self, name: String, kind: u8, index: u32) -> String {
        self.added.push((name.clone(), kind, index));
        name
    }

    /// The names of its memories.
    pub(super) fn memories(&self) -> &[String] {
        &self.memories
    }

    /// Those of its mutable globals, and their types.
    pub(super) fn globals(&self) -> &[(String, ValType)] {
        &self.globals
    }

    /// The same module, which exports what it did not before.
    pub(super) fn bytes(&self, binary: &[u8]) -> Result<Bytes, NotRestorable> {
        if self.added.is_empty() {
            return Ok(Bytes(binary.to_vec()));
        }
        let mut bytes = wasm_encoder::Module::HEADER.to_vec();
        let mut is_added = false;
        let mut add = |bytes: &mut Vec<u8>, before: &[u8]| -> Result<(), NotRestorable> {
            is_added = true;
            section(bytes, EXPORTS, &self.exports(before)?)
        };
        let mut done = false;
        for payload in Parser::new(0).parse_all(binary) {
            let payload = payload?;
            let Some((id, range)) = payload.as_section() else { continue };
            let data = binary.get(range).ok_or_else(|| malformed("a section goes past its end"))?;
            if id == EXPORTS {
                add(&mut bytes, data)?;
                done = true;
                continue;
            }
            if BEHIND_EXPORTS.contains(&id) && !done {
                add(&mut bytes, &[0])?;
                done = true;
            }
            section(&mut bytes, id, data)?;
        }
        if !is_added {
            section(&mut bytes, EXPORTS, &self.exports(&[0])?)?;
        }
        Ok(Bytes(bytes))
    }

    /// An export section with more in it.
    fn exports(&self, section: &[u8]) -> Result<Vec<u8>, NotRestorable> {
        let mut reader = wasmparser::BinaryReader::new(section, 0);
        let count = reader.read_var_u32()?;
        let entries = section.get(reader.original_position()..).unwrap_or_default();
        let added = u32::try_from(self.added.len()).ok().and_then(|added| count.checked_add(added));
        let mut bytes = Vec::new();
        added.ok_or_else(|| malformed("it has too many exports"))?.encode(&mut bytes);
        bytes.extend_from_slice(entries);
        for (name, kind, index) in &self.added {
            name.as_str().encode(&mut bytes);
            bytes.push(*kind);
            index.encode(&mut bytes);
        }
        Ok(bytes)
    }
}

/// A core module, as a section of a component.
pub(super) struct Bytes(Vec<u8>);

impl Encode for Bytes {
    fn encode(&self, sink: &mut Vec<u8>) {
        self.0.as_slice().encode(sink);
    }
}

impl ComponentSection for Bytes {
    fn id(&self) -> u8 {
        wasm_encoder::ComponentSectionId::CoreModule.into()
    }
}

fn section(bytes: &mut Vec<u8>, id: u8, data: &[u8]) -> Result<(), NotRestorable> {
    let length = u32::try_from(data.len()).map_err(|_| malformed("a section is too long"))?;
    bytes.push(id);
    length.encode(bytes);
    bytes.extend_from_slice(data);
    Ok(())
}

fn malformed(what: &str) -> NotRestorable {
    NotRestorable::Malformed(what.into())
}

/// The host is told of a memory by a list in it, which takes an index of 32 bits.
fn check_memory(memory: &MemoryType) -> Result<(), NotRestorable> {
    match memory {
        MemoryType { shared: true, .. } => Err(NotRestorable::Memory("shared")),
        MemoryType { memory64: true, .. } => Err(NotRestorable::Memory("one of 64 bits")),
        MemoryType { page_size_log2: Some(_), .. } => Err(NotRestorable::Memory("one of pages of another size")),
        _ => Ok(()),
    }
}

fn number(ty: wasmparser::ValType) -> Result<ValType, NotRestorable> {
    Ok(match ty {
        wasmparser::ValType::I32 => ValType::I32,
        wasmparser::ValType::I64 => ValType::I64,
        wasmparser::ValType::F32 => ValType::F32,
        wasmparser::ValType::F64 => ValType::F64,
        wasmparser::ValType::V128 => ValType::V128,
        wasmparser::ValType::Ref(_) => return Err(NotRestorable::Reference),
    })
}

/// Whether a function changes nothing but memories and globals.
pub(super) fn check_body(body: &FunctionBody<'_>) -> Result<(), NotRestorable> {
    let mut operators = body.get_operators_reader()?;
    while !operators.eof() {
        let name = match operators.read()? {
            Operator::TableSet { .. } => "table.set",
            Operator::TableGrow { .. } => "table.grow",
            Operator::TableFill { .. } => "table.fill",
            Operator::TableCopy { .. } => "table.copy",
            Operator::TableInit { .. } => "table.init",
            Operator::ElemDrop { .. } => "elem.drop",
            Operator::DataDrop { .. } => "data.drop",
            _ => continue,
        };
        return Err(NotRestorable::Operator(name));
    }
    Ok(())
}
