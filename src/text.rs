//! Text of a guest's, made safe to show where it enters the host: one line, without what a terminal or a reader would obey, and no
//! longer than anybody reads. Errors, log records, reports and error pages repeat it, and none of them has to think of it.

use std::borrow::Cow;
use std::fmt::Write;

/// The most bytes that are kept of one text.
pub(crate) const LONGEST: usize = 4 << 10;

/// The most bytes of the name of a function, and of one line of a backtrace.
pub(crate) const LONGEST_NAME: usize = 512;

/// `text` on one line and at most `most` bytes of it: control characters, line separators and what turns the direction of text are
/// escaped as Python would write them, and what was cut is counted.
pub(crate) fn tame(text: &str, most: usize) -> Cow<'_, str> {
    // a character has four bytes at the most
    let kept = (0..4).find_map(|back| text.get(..text.len().min(most).checked_sub(back)?)).unwrap_or_default();
    let cut = text.len() - kept.len();
    if cut == 0 && !kept.chars().any(is_obeyed) {
        return Cow::Borrowed(text);
    }
    let mut tamed = escaped(kept);
    if cut > 0 {
        let _ = write!(tamed, "… ({cut} bytes more)");
    }
    Cow::Owned(tamed)
}

/// The same of a text that is owned already.
pub(crate) fn tamed(text: String, most: usize) -> String {
    match tame(&text, most) {
        Cow::Borrowed(_) => text,
        Cow::Owned(tamed) => tamed,
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if !is_obeyed(character) {
            escaped.push(character);
            continue;
        }
        let _ = match (character, u32::from(character)) {
            ('\n', _) => escaped.write_str("\\n"),
            ('\r', _) => escaped.write_str("\\r"),
            ('\t', _) => escaped.write_str("\\t"),
            (_, code @ ..0x100) => write!(escaped, "\\x{code:02x}"),
            (_, code @ ..0x1_0000) => write!(escaped, "\\u{code:04x}"),
            (_, code) => write!(escaped, "\\U{code:08x}"),
        };
    }
    escaped
}

/// What is not shown but obeyed: controls (Unicode's `Cc`, U+0085 among them), line and paragraph separators, marks and overrides of the
/// direction of text, and the invisible tags.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
            | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// As a JSON string (RFC 8259, 7). What is no UTF-8 becomes U+FFFD.
pub(crate) fn json(bytes: &[u8], out: &mut Vec<u8>) {
    use std::io::Write as _;

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

/// Takes what is written into it up to a number of bytes, and then refuses more: a name of a few bytes can be demangled to megabytes.
pub(crate) struct Bounded {
    pub text: String,
    most: usize,
}

impl Bounded {
    pub(crate) fn new(most: usize) -> Self {
        Self { text: String::new(), most }
    }
}

impl Write for Bounded {
    fn write_str(&mut self, piece: &str) -> std::fmt::Result {
        self.text.push_str(piece);
        if self.text.len() > self.most { Err(std::fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_harmless_stays_as_it_is() {
        for text in ["", "no such thing", "C:\\temp", "Grüße, 世界 👩‍👩‍👧", "<b>", "'\""] {
            assert!(matches!(tame(text, LONGEST), Cow::Borrowed(same) if same == text), "{text}");
        }
    }

    #[test]
    fn nothing_begins_a_line_or_is_obeyed() {
        assert_eq!(tame("a\nb\r\n\tc", 99), "a\\nb\\r\\n\\tc");
        assert_eq!(tame("\u{1b}[2J\u{0}\u{7f}\u{85}\u{9b}1m", 99), "\\x1b[2J\\x00\\x7f\\x85\\x9b1m");
        assert_eq!(tame("\u{2028}\u{2029}\u{202e}\u{2066}\u{200f}", 99), "\\u2028\\u2029\\u202e\\u2066\\u200f");
        assert_eq!(tame("\u{e0041}", 99), "\\U000e0041");
    }

    #[test]
    fn what_is_too_long_is_cut_between_two_characters_and_counted() {
        assert_eq!(tame("abcdef", 6), "abcdef");
        assert_eq!(tame("abcdef", 4), "abcd… (2 bytes more)");
        for most in 0..12 {
            let tamed = tame("€€€€", most);
            let kept = most / 3 * 3;
            assert_eq!(tamed, format!("{}… ({} bytes more)", "€".repeat(most / 3), 12 - kept), "{most}");
        }
        assert_eq!(tame("€€€€", 12), "€€€€");
        assert!(tame(&"x".repeat(100_000_000), LONGEST).len() < LONGEST + 40);
    }

    #[test]
    fn a_bounded_text_takes_no_more() {
        let mut bounded = Bounded::new(10);
        assert!(write!(bounded, "{:>5}", 1).is_ok());
        assert!(write!(bounded, "{:>10}", 1).is_err());
        assert!(bounded.text.len() <= 15);
    }
}
