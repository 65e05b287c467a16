//! What a file says of itself, read without compiling it: is it a component, what does it import and export.

use std::borrow::Cow;

use wasmparser::{Encoding, Parser, Payload};

use crate::error::Error;

/// The names at a component's border.
#[derive(Clone, Debug, Default)]
pub struct Outline {
    pub imports: Vec<String>,
    pub exports: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    P2,
    P3,
}

/// The interfaces of WASI 0.2 that are linked into every component: those of `wit/world.wit`.
pub const PROVIDED: &[&str] = &[
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:http/outgoing-handler",
    "wasi:http/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];

impl Outline {
    pub fn read(binary: &[u8]) -> Result<Self, Error> {
        let mut outline = Self::default();
        let mut depth = 0usize;
        for payload in Parser::new(0).parse_all(binary) {
            let payload = payload.map_err(|error| broken(binary, &error))?;
            match payload {
                Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                    return Err(Error::InvalidComponent(
                        "not a component but a core WebAssembly module; hint: wrap it with \
                         `wasm-tools component new`, or build for the target wasm32-wasip2"
                            .into(),
                    ));
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(imports) if depth == 0 => {
                    for import in imports {
                        let import = import.map_err(|error| malformed(&error))?;
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        let export = export.map_err(|error| malformed(&error))?;
                        outline.exports.push(export.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    /// By the handler that it exports; what else it exports, or imports, does not decide.
    pub fn wasi(&self) -> Option<Wasi> {
        let exports = |interface| self.exports.iter().any(|name| is(name, interface));
        if exports("wasi:http/incoming-handler@0.2") {
            Some(Wasi::P2)
        } else if exports("wasi:http/handler@0.3") {
            Some(Wasi::P3)
        } else {
            None
        }
    }

    /// The imports that nothing here provides. Versions match as the linker matches them: any 0.2 for 0.2.
    pub fn missing(&self) -> Vec<String> {
        self.imports
            .iter()
            .filter(|name| {
                !PROVIDED.iter().any(|&provided| {
                    name.split_once('@')
                        .is_some_and(|(interface, version)| interface == provided && version.starts_with("0.2."))
                })
            })
            .cloned()
            .collect()
    }
}

/// Whether `name` is `interface`, whose version may be a prefix of it (`@0.2` for `@0.2.12`).
fn is(name: &str, interface: &str) -> bool {
    name.strip_prefix(interface).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The binary form of a component in either form; else what the bytes are instead.
pub fn to_binary(source: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if source.starts_with(b"\0asm") {
        return Ok(Cow::Borrowed(source));
    }
    if let Some(kind) = other_kind(source) {
        return Err(Error::InvalidComponent(format!("not a component but {kind}")));
    }
    match wat::parse_bytes(source) {
        Ok(binary) => Ok(binary),
        Err(error) => {
            let looks_like_text =
                source.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'(') || source.starts_with(b";;");
            Err(Error::InvalidComponent(if looks_like_text {
                format!("not a valid component in text form: {error}")
            } else {
                "not a component: it starts neither as WebAssembly (`\\0asm`) nor as its text form".into()
            }))
        }
    }
}

/// What a file is, by its first bytes, if it is clearly something else.
fn other_kind(source: &[u8]) -> Option<&'static str> {
    const KINDS: &[(&[u8], &str)] = &[
        (b"\x7fELF", "an ELF binary (a native program or library)"),
        (b"\xcf\xfa\xed\xfe", "a Mach-O binary (a native program or library)"),
        (b"MZ", "a Windows binary"),
        (b"PK\x03\x04", "a zip archive (a wheel, perhaps)"),
        (b"\x1f\x8b", "a gzip file; hint: unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd file; hint: unpack it first"),
        (b"#!", "a script"),
        (b"<!DOCTYPE", "an HTML page; hint: was the download a login or error page?"),
        (b"<!doctype", "an HTML page; hint: was the download a login or error page?"),
        (b"<html", "an HTML page; hint: was the download a login or error page?"),
        (b"version https://git-lfs", "a Git LFS pointer; hint: `git lfs pull`"),
        (b"{", "JSON"),
    ];
    if source.is_empty() {
        return Some("an empty file");
    }
    if source.iter().all(|&byte| byte == 0) {
        return Some("nothing but zeros");
    }
    KINDS.iter().find(|(magic, _)| source.starts_with(magic)).map(|&(_, kind)| kind)
}

fn broken(binary: &[u8], error: &wasmparser::BinaryReaderError) -> Error {
    let message = error.message();
    if !message.contains("unexpected end") && !message.contains("unexpected-eof") {
        return malformed(error);
    }
    let length = binary.len();
    Error::InvalidComponent(format!("a truncated component: it ends after {length} bytes, in the middle of a section"))
}

/// The section that it is in is there as a whole.
fn malformed(error: &wasmparser::BinaryReaderError) -> Error {
    Error::InvalidComponent(format!("not a valid component: {} (at byte {:#x})", error.message(), error.offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_their_version() {
        assert!(is("wasi:http/incoming-handler@0.2.3", "wasi:http/incoming-handler@0.2"));
        assert!(!is("wasi:http/incoming-handler@0.21.0", "wasi:http/incoming-handler@0.2"));
        assert!(!is("wasi:http/incoming-handler", "wasi:http/incoming-handler@0.2"));
    }

    #[test]
    fn every_missing_import_is_named() {
        let outline = Outline {
            imports: ["wasi:io/poll@0.2.0", "wasi:io/poll@0.3.0", "wasi:keyvalue/store@0.2.0", "acme:db/query"]
                .map(str::to_owned)
                .to_vec(),
            exports: vec![],
        };
        assert_eq!(outline.missing(), ["wasi:io/poll@0.3.0", "wasi:keyvalue/store@0.2.0", "acme:db/query"]);
    }

    #[test]
    fn provided_is_sorted_and_no_name_twice() {
        assert!(PROVIDED.iter().zip(PROVIDED.iter().skip(1)).all(|(one, next)| one < next));
    }
}
