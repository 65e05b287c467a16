//! Clients' bytes made safe for a line: printable ASCII is left, and what ends a line or a quoted part is not.

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
