//! Clients' bytes made safe for a line: printable ASCII is left, and what ends a line, a quoted part or a JSON string is not.

use std::io::Write;

/// In a text line: `\xhh` for each other byte, and for what stands around and escapes quoted parts, so that whoever splits at quotes need
/// know of no escapes.
pub(super) fn text(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' | ..0x20 | 0x7f.. => _ = write!(out, "\\x{byte:02x}"),
            _ => out.push(*byte),
        }
    }
}

/// As a JSON string (RFC 8259, 7). What is no UTF-8 becomes U+FFFD.
pub(super) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                ' '..='~' => out.push(character as u8),
                // also what JSON allows and terminals, or readers of lines, obey: U+2028, marks of direction
                _ => {
                    for unit in character.encode_utf16(&mut [0; 2]) {
                        _ = write!(out, "\\u{unit:04x}");
                    }
                }
            }
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}
