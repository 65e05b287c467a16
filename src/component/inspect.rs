//! What a file says of itself, read without compiling it: is it a component, what does it import and export.

use std::borrow::Cow;

use wasmparser::{BinaryReader, Encoding, Parser, Payload};

use crate::engine::config::Features;
use crate::error::Error;
use crate::guest::linker::PROVIDED;

/// The names at a component's border.
#[derive(Clone, Debug, Default)]
pub struct ComponentInfo {
    /// The interfaces and functions that it imports, with their versions.
    pub imports: Vec<String>,
    /// Those that it exports.
    pub exports: Vec<String>,
}

/// The track of WASI that a component speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wasi {
    /// 0.2.
    P2,
    /// 0.3.
    P3,
}

impl ComponentInfo {
    /// Reads the names without compiling anything. Fails where the bytes are no component.
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
                        outline.imports.push(legible(import.name.name));
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 0 => {
                    for export in exports {
                        let export = export.map_err(|error| malformed(&error))?;
                        outline.exports.push(legible(export.name.name));
                    }
                }
                _ => {}
            }
        }
        Ok(outline)
    }

    /// By the handler that it exports; what else it exports, or imports, does not decide.
    pub fn wasi(&self) -> Option<Wasi> {
        if self.exports.iter().any(|name| is_of(name, "wasi:http/handler", "0.3")) {
            Some(Wasi::P3)
        } else if self.exports.iter().any(|name| is_of(name, "wasi:http/incoming-handler", "0.2")) {
            Some(Wasi::P2)
        } else {
            None
        }
    }

    /// What its guests need of their engine, under a limit of fuel or not.
    pub(crate) fn features(&self, fuel: bool) -> Features {
        Features { fuel, concurrency: self.wasi() == Some(Wasi::P3) }
    }

    /// The imports that nothing here provides.
    pub fn missing(&self) -> Vec<String> {
        let is_provided = |name: &str| PROVIDED.iter().any(|provided| is_of(name, provided, "0.2"));
        self.imports.iter().filter(|name| !is_provided(name)).cloned().collect()
    }

    /// Whether it can be hosted, as far as its border says.
    pub fn can_be_hosted(&self) -> Result<(), Error> {
        match self.wasi() {
            Some(Wasi::P2) => {}
            Some(Wasi::P3) => return Ok(()), // TODO-WIT3
            None => {
                let exports = match self.exports.as_slice() {
                    [] => "nothing".to_owned(),
                    exports => listed(exports),
                };
                let handler = self.exports.iter().find(|name| interface(name) == "wasi:http/incoming-handler");
                let hint = match handler.and_then(|name| other_version(name)) {
                    Some(why) => why,
                    None => "wasgi calls `wasi:http/incoming-handler@0.2`".to_owned(),
                };
                return Err(Error::UnsupportedComponent(
                    format!("the component exports no HTTP handler: it exports {exports}; hint: {hint}").into(),
                ));
            }
        }
        let missing = self.missing();
        if missing.is_empty() {
            return Ok(());
        }
        let mut message = format!("the component imports what wasgi does not provide: {}", listed(&missing));
        let provided = missing.iter().filter(|name| PROVIDED.contains(&interface(name)));
        let hint = if let Some(why) = provided.clone().find_map(|name| other_version(name)) {
            why
        } else if missing.iter().any(|name| name.starts_with("wasi:")) {
            "`wasgi wit DIR` writes out what is provided".to_owned()
        } else {
            "compose the component with one that exports it (wac, wasm-tools compose)".to_owned()
        };
        message.push_str(&format!("; hint: {hint}"));
        Err(Error::MissingImports { message, missing })
    }
}

/// A name as it may stand in a line of a log. One that is valid is as it is; others are refused later, when somebody validates them.
fn legible(name: &str) -> String {
    const LONGEST: usize = 300;
    if name.len() <= LONGEST && name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return name.to_owned();
    }
    name.escape_debug().take(LONGEST).collect()
}

/// Names for a message: not all of thousands.
fn listed(names: &[String]) -> String {
    const MOST: usize = 20;
    let shown: Vec<&str> = names.iter().take(MOST).map(String::as_str).collect();
    let more = names.len().saturating_sub(MOST);
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("`{}`{rest}", shown.join("`, `"))
}

/// A name without its version.
fn interface(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

/// Whether `name` is `interface` in a version that the linker takes for `track` (`0.2`): a release of it, whatever its patch.
/// Pre-releases are compatible with nothing but themselves.
fn is_of(name: &str, interface: &str, track: &str) -> bool {
    let Some((named, version)) = name.split_once('@') else { return false };
    let is_number = |part: &str| part.parse::<u64>().is_ok_and(|number| number.to_string() == part);
    named == interface
        && version
            .strip_prefix(track)
            .and_then(|rest| rest.strip_prefix('.'))
            .is_some_and(|rest| is_number(rest.split_once('+').map_or(rest, |(patch, _build)| patch)))
}

/// Why an interface that is provided is not provided in the version that `name` has.
fn other_version(name: &str) -> Option<String> {
    let Some((interface, version)) = name.split_once('@') else {
        return Some(format!("`{name}` has no version; this version of wasgi provides WASI 0.2"));
    };
    let release = version.split_once('+').map_or(version, |(release, _)| release);
    Some(if let Some((_, tag)) = release.split_once('-') {
        format!(
            "`{interface}` is provided as released in WASI 0.2; `{version}` is a pre-release ({tag}), which is compatible with \
             nothing else: build the component with tools that target WASI 0.2.0 or later"
        )
    } else if version.starts_with("0.3") {
        "this version provides WASI 0.2 only".to_owned()
    } else {
        format!("`{interface}` is provided in version 0.2 of WASI, not {version}")
    })
}

/// The binary form of a component in either form; else what the bytes are instead.
pub fn to_binary(source: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
    if source.starts_with(b"\0asm") {
        return Ok(Cow::Borrowed(source));
    }
    if let Some(kind) = other_kind(source) {
        return Err(Error::InvalidComponent(format!("not a component but {kind}").into()));
    }
    match wat::parse_bytes(source) {
        Ok(binary) => Ok(binary),
        Err(error) => {
            let looks_like_text =
                source.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'(') || source.starts_with(b";;");
            Err(Error::InvalidComponent(
                if looks_like_text {
                    format!("not a valid component in text form: {error}")
                } else {
                    "not a component: it starts neither as WebAssembly (`\\0asm`) nor as its text form".into()
                }
                .into(),
            ))
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
    let length = binary.len();
    match sections(binary) {
        Sections::Whole => malformed(error),
        Sections::Cut => Error::InvalidComponent(
            format!("a truncated component: it ends after {length} bytes, in the middle of a section").into(),
        ),
        Sections::Followed(end) => Error::InvalidComponent(
            format!(
                "not a valid component: {} bytes follow its last section, which ends after {end} bytes; \
             hint: something was appended to the file, or it is damaged there",
                length - end
            )
            .into(),
        ),
    }
}

/// How far the outermost sections of a file go.
enum Sections {
    Whole,
    /// The last one is longer than the file.
    Cut,
    /// From there on, it is none.
    Followed(usize),
}

/// The highest number of a component's sections: values.
const LAST_SECTION: u8 = 12;

fn sections(binary: &[u8]) -> Sections {
    let mut at = 8; // magic and version
    // looked for once: a file of zeros would be gone through at each of its bytes
    let padding = binary.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    loop {
        let Some(rest) = binary.get(at..) else { return Sections::Cut };
        let Some((kind, sized)) = rest.split_first() else { return Sections::Whole };
        // nor is padding one (number 0 with length 0 has no room for its name), nor another component
        if *kind > LAST_SECTION || rest.starts_with(b"\0asm") || at >= padding {
            return if at > 8 { Sections::Followed(at) } else { Sections::Whole };
        }
        let mut reader = BinaryReader::new(sized, 0);
        let Ok(size) = reader.read_var_u32() else { return Sections::Cut };
        at = at.saturating_add(1 + reader.current_position()).saturating_add(size as usize);
    }
}

/// The section that it is in is there as a whole.
fn malformed(error: &wasmparser::BinaryReaderError) -> Error {
    Error::InvalidComponent(
        format!("not a valid component: {} (at byte {:#x})", error.message(), error.offset()).into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_by_their_version() {
        for version in ["0.2.0", "0.2.3", "0.2.12", "0.2.1+build.5"] {
            assert!(is_of(&format!("a:b/c@{version}"), "a:b/c", "0.2"), "{version}");
        }
        for version in
            ["0.2", "0.21.0", "0.2.0-rc-2023-10-18", "0.2.1-pre+b", "0.2.01", "0.2.+1", "0.2.", "0.3.0", "1.0.0"]
        {
            assert!(!is_of(&format!("a:b/c@{version}"), "a:b/c", "0.2"), "{version}");
        }
        assert!(!is_of("a:b/c", "a:b/c", "0.2"));
        assert!(!is_of("a:b/d@0.2.0", "a:b/c", "0.2"));
    }

    #[test]
    fn every_missing_import_is_named() {
        let outline = ComponentInfo {
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
