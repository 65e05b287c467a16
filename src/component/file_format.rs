//! What a component's bytes are: its binary form, its text form, something else, or damaged.

use std::borrow::Cow;

use wasmparser::BinaryReader;

use crate::error::Error;

/// The binary form of a component in either form; else what the bytes are instead.
pub(crate) fn to_binary(source: &[u8]) -> Result<Cow<'_, [u8]>, Error> {
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

/// Why bytes that begin as a component are none: they are cut, or something follows them.
pub(super) fn broken(binary: &[u8], error: &wasmparser::BinaryReaderError) -> Error {
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
pub(super) fn malformed(error: &wasmparser::BinaryReaderError) -> Error {
    Error::InvalidComponent(
        format!("not a valid component: {} (at byte {:#x})", error.message(), error.offset()).into(),
    )
}
