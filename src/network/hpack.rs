//! How large blocks of HTTP/2's fields are, without decoding them (RFC 7541).

use std::collections::VecDeque;

/// RFC 9113, 6.5.2; RFC 7541, 4.1.
const ENTRY: u64 = 32;
/// RFC 7541, appendix A: entries, and the place of `content-length`.
const STATIC: u64 = 61;
const LENGTH: u64 = 28;
/// What the table of our side's decoder holds (RFC 9113, 6.5.2).
const TABLE: u64 = 4096;

/// What a block of fields is, as far as that can be seen without decoding it.
#[derive(Clone, Copy, Default)]
pub(super) struct Fields {
    /// Bytes, at least.
    pub size: u64,
    /// Whether it announces a body that is not empty.
    pub has_length: bool,
}

/// What HPACK's dynamic table holds, the newest first. A string is taken to be as long as it is on the wire: one that is
/// Huffman-coded is longer, by up to 8/5. So a size is never too large, and not much less than it is.
#[derive(Default)]
pub(super) struct Table(VecDeque<Entry>);

#[derive(Clone, Copy, Default)]
struct Entry {
    size: u64,
    /// Whether its name is `content-length`.
    is_length: bool,
    /// Whether its value is something else than `0`.
    is_some: bool,
}

impl Table {
    /// RFC 7541, 6.
    pub(super) fn read(&mut self, mut block: &[u8]) -> Fields {
        let mut fields = Fields::default();
        while let Some(entry) = self.next(&mut block) {
            fields.size = fields.size.saturating_add(entry.size);
            fields.has_length |= entry.is_length && entry.is_some;
        }
        fields
    }

    /// The next field; `None` at the end, or where it makes no sense.
    fn next(&mut self, block: &mut &[u8]) -> Option<Entry> {
        let (bits, is_added) = loop {
            match *block.first()? {
                0x80.. => {
                    let index = integer(block, 7)?;
                    return Some(self.entry(index));
                }
                0x40.. => break (6, true),
                // how large the table may be
                0x20.. => _ = integer(block, 5)?,
                _ => break (4, false),
            }
        };
        let (name, is_length) = match integer(block, bits)? {
            0 => {
                let name = string(block)?;
                (name.len() as u64, name == b"content-length")
            }
            // the entry's size has its value, too, which is not meant
            index => (1, self.entry(index).is_length),
        };
        let value = string(block)?;
        let size = ENTRY.saturating_add(name).saturating_add(value.len() as u64);
        // `0`, as it is or Huffman-coded
        let entry = Entry { size, is_length, is_some: value != b"0" && value != [0x07] };
        if is_added {
            self.add(entry);
        }
        Some(entry)
    }

    fn entry(&self, index: u64) -> Entry {
        match index.checked_sub(STATIC + 1).and_then(|place| usize::try_from(place).ok()) {
            Some(place) => self.0.get(place).copied().unwrap_or_default(),
            // none is smaller than that of `age`, and none has a length
            None => Entry { size: ENTRY + 3, is_length: index == LENGTH, is_some: false },
        }
    }

    fn add(&mut self, entry: Entry) {
        if entry.size > TABLE {
            self.0.clear();
            return;
        }
        self.0.push_front(entry);
        self.0.truncate((TABLE / ENTRY) as usize);
    }
}

/// RFC 7541, 5.1.
fn integer(block: &mut &[u8], bits: u32) -> Option<u64> {
    let (first, mut rest) = block.split_first()?;
    let most = (1u64 << bits) - 1;
    let mut value = u64::from(*first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (next, after) = rest.split_first()?;
            rest = after;
            value = value.checked_add(u64::from(next & 0x7f).checked_shl(shift)?)?;
            if next & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > 28 {
                return None;
            }
        }
    }
    *block = rest;
    Some(value)
}

/// A string as it is on the wire (RFC 7541, 5.2).
fn string<'a>(block: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(integer(block, 7)?).ok()?;
    let (string, rest) = block.split_at_checked(length)?;
    *block = rest;
    Some(string)
}
