//! Debug information of a component, looked at before anything else reads it. When a guest traps, wasmtime reads DWARF for each frame
//! of the backtrace, in the guest's own turn, and believes what it says: addr2line 0.26 recurses once for each level of inlined
//! functions (a component of 1 MB ended the process), and what many entries share (a list of ranges, a name, a table of lines) is read
//! and kept once for each of them, so that some kilobytes become gigabytes. What is not so small and flat as compilers make it is left
//! out: its guests' backtraces have no source lines, and nothing else changes.

use std::borrow::Cow;
use std::collections::HashMap;

use gimli::{AttributeValue, EndianSlice, LittleEndian, RangeListsOffset, UnitRef};
use wasmparser::{Encoding, Parser, Payload};

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Bytes of all of a module's sections. `cargo build` without `--release` makes some tens of MiB.
const MOST: u64 = 64 << 20;

/// How deep entries may be nested: each level of inlined functions takes some hundred bytes of the stack.
const DEEPEST: isize = 128;

/// Bytes that are read or kept for all units together, before one of them is looked into.
const MOST_OF_UNITS: u64 = 32 << 20;

/// Bytes that are read or kept for one unit.
const MOST_OF_A_UNIT: u64 = 32 << 20;

/// Bytes of names that are read for one function.
const MOST_NAMES: u64 = 32 << 20;

/// What addr2line keeps for a range, a row of a table of lines, a file, a function.
const RANGE: u64 = 32;
const ROW: u64 = 24;
const FILE: u64 = 128;
const FUNCTION: u64 = 64;

/// Why debug information is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    Large,
    Deep,
    Shared,
    Malformed,
}

impl Harm {
    /// What is said of it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Large => "it is larger than 64 MiB",
            Self::Deep => "its entries are nested more than 128 deep",
            Self::Shared => "it would take too long to read",
            Self::Malformed => "it is malformed",
        }
    }
}

impl From<gimli::Error> for Harm {
    fn from(_: gimli::Error) -> Self {
        Self::Malformed
    }
}

/// The component as it may be compiled, and why that is not the one that was given, if it is not.
pub fn without_harm(binary: &[u8]) -> (Cow<'_, [u8]>, Option<Harm>) {
    let mut harmful: Vec<usize> = Vec::new();
    let mut found = None;
    // modules are not nested, and stand one after the other
    let mut sections: Vec<Section<'_>> = Vec::new();
    let mut end_of_module = |sections: &mut Vec<Section<'_>>| {
        if let Err(harm) = check(sections) {
            found.get_or_insert(harm);
            harmful.extend(sections.iter().map(|section| section.name_at));
        }
        sections.clear();
    };
    for payload in Parser::new(0).parse_all(binary) {
        match payload {
            Ok(Payload::Version { encoding: Encoding::Module, .. }) => end_of_module(&mut sections),
            Ok(Payload::CustomSection(section)) if section.name().starts_with(".debug_") => {
                let name_at = section.data_offset().saturating_sub(section.name().len());
                sections.push(Section { name: section.name(), data: section.data(), name_at });
            }
            Ok(_) => {}
            // what follows is refused by whoever compiles it
            Err(_) => break,
        }
    }
    end_of_module(&mut sections);
    if found.is_none() {
        return (Cow::Borrowed(binary), None);
    }
    // by another name nobody reads them, and all else stays where it is
    let mut binary = binary.to_vec();
    for at in harmful {
        if let Some(byte) = binary.get_mut(at) {
            *byte = b'-';
        }
    }
    (Cow::Owned(binary), found)
}

struct Section<'a> {
    name: &'a str,
    data: &'a [u8],
    /// Where its name begins in the component.
    name_at: usize,
}

fn check(sections: &[Section<'_>]) -> Result<(), Harm> {
    if sections.is_empty() {
        return Ok(());
    }
    if sections.iter().map(|section| section.data.len() as u64).sum::<u64>() > MOST {
        return Err(Harm::Large);
    }
    // of several with one name the last is read
    let data = |name: &str| sections.iter().rev().find(|section| section.name == name).map_or(&[][..], |one| one.data);
    let dwarf = gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(EndianSlice::new(data(id.name()), LittleEndian)))?;
    let longest = [".debug_str", ".debug_line_str"].map(|name| longest_string(data(name)));
    let mut check = Check {
        dwarf: &dwarf,
        abbreviations: data(".debug_abbrev"),
        lines: data(".debug_line"),
        tables: HashMap::new(),
        of_units: MOST_OF_UNITS,
        of_a_unit: 0,
        longest: longest.into_iter().max().unwrap_or(0),
        most_inlined: 0,
    };
    let mut units = dwarf.units();
    while let Some(header) = units.next()? {
        check.unit(header)?;
    }
    if check.most_inlined.saturating_mul(check.longest) > MOST_NAMES {
        return Err(Harm::Shared);
    }
    Ok(())
}

fn longest_string(section: &[u8]) -> u64 {
    section.split(|byte| *byte == 0).map(|string| string.len() as u64).max().unwrap_or(0)
}

struct Check<'a> {
    dwarf: &'a gimli::Dwarf<Reader<'a>>,
    abbreviations: &'a [u8],
    lines: &'a [u8],
    /// How long the tables of abbreviations are, by where they begin: units may share them, and each reads it anew.
    tables: HashMap<usize, u64>,
    /// What may still be read or kept of all units.
    of_units: u64,
    /// The same of the one that is looked at.
    of_a_unit: u64,
    /// The longest name of a function.
    longest: u64,
    /// The most inlined functions in one function: the names of them all are read.
    most_inlined: u64,
}

impl<'a> Check<'a> {
    /// What is read of each unit before one of them is looked into; then all of it.
    fn unit(&mut self, header: gimli::UnitHeader<Reader<'a>>) -> Result<(), Harm> {
        let table = self.length_of_table(header.debug_abbrev_offset().0)?;
        spend(&mut self.of_units, table.saturating_mul(4).saturating_add(FUNCTION))?;
        // the head of the table of lines is read with the unit, so it is measured before that
        let abbreviations = header.abbreviations(&self.dwarf.debug_abbrev)?;
        let mut entries = header.entries_raw(&abbreviations, None)?;
        let mut of_lines = 0;
        if let Some(root) = entries.read_abbreviation()? {
            for spec in root.attributes() {
                if let AttributeValue::DebugLineRef(at) = entries.read_attribute(*spec)?.value() {
                    let (head, whole) = lengths_of_lines(self.lines, at.0).ok_or(Harm::Malformed)?;
                    spend(&mut self.of_units, head.saturating_mul(FILE / 2))?;
                    of_lines = whole;
                }
            }
        }
        let unit = self.dwarf.unit(header)?;
        let unit = UnitRef::new(self.dwarf, &unit);
        self.of_a_unit = MOST_OF_A_UNIT;
        spend(&mut self.of_a_unit, header.length_including_self() as u64)?;
        spend(&mut self.of_a_unit, of_lines.saturating_mul(ROW))?;
        self.files(unit)?;
        self.entries(unit)
    }

    /// The paths of files: each is that of its folder and its name, and of a folder that many share.
    fn files(&mut self, unit: UnitRef<'_, Reader<'a>>) -> Result<(), Harm> {
        let Some(program) = &unit.line_program else { return Ok(()) };
        let header = program.header();
        let base = unit.comp_dir.map_or(0, |path| path.len() as u64);
        for file in header.file_names() {
            let folder = file.directory(header).and_then(|path| unit.attr_string(path).ok());
            let name = unit.attr_string(file.path_name()).map_or(0, |path| path.len() as u64);
            let folder = folder.map_or(0, |path| path.len() as u64);
            spend(&mut self.of_a_unit, FILE.saturating_add(base).saturating_add(folder).saturating_add(name))?;
        }
        Ok(())
    }

    fn entries(&mut self, unit: UnitRef<'_, Reader<'a>>) -> Result<(), Harm> {
        let mut entries = unit.entries_raw(None)?;
        let mut inlined = 0;
        while !entries.is_empty() {
            if entries.next_depth() > DEEPEST {
                return Err(Harm::Deep);
            }
            let is_root = entries.next_depth() == 0;
            let Some(abbreviation) = entries.read_abbreviation()? else { continue };
            match abbreviation.tag() {
                gimli::DW_TAG_subprogram => inlined = 0,
                gimli::DW_TAG_inlined_subroutine => inlined += 1,
                _ if !is_root => {
                    entries.skip_attributes(abbreviation.attributes())?;
                    continue;
                }
                _ => {}
            }
            self.most_inlined = self.most_inlined.max(inlined);
            spend(&mut self.of_a_unit, FUNCTION)?;
            for spec in abbreviation.attributes() {
                let attribute = entries.read_attribute(*spec)?;
                match attribute.name() {
                    gimli::DW_AT_ranges => {
                        let Some(at) = unit.attr_ranges_offset(attribute.value())? else { continue };
                        let ranges = self.number_of_ranges(unit, at)?.saturating_mul(RANGE);
                        spend(&mut self.of_a_unit, ranges)?;
                        if is_root {
                            spend(&mut self.of_units, ranges)?;
                        }
                    }
                    gimli::DW_AT_name | gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                        let length = unit.attr_string(attribute.value()).map_or(0, |name| name.len() as u64);
                        self.longest = self.longest.max(length);
                        spend(&mut self.of_a_unit, length)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// How many entries a list of ranges has, those that only set a base among them; counted no further than may be spent.
    fn number_of_ranges(&self, unit: UnitRef<'_, Reader<'a>>, at: RangeListsOffset) -> Result<u64, Harm> {
        let mut ranges = unit.raw_ranges(at)?;
        let mut number = 0;
        while ranges.next()?.is_some() && number <= self.of_a_unit / RANGE {
            number += 1;
        }
        Ok(number)
    }

    /// How many bytes a table of abbreviations has that begins there.
    fn length_of_table(&mut self, at: usize) -> Result<u64, Harm> {
        if let Some(length) = self.tables.get(&at) {
            return Ok(*length);
        }
        let table = self.abbreviations.get(at..).ok_or(Harm::Malformed)?;
        let mut rest = EndianSlice::new(table, LittleEndian);
        use gimli::Reader as _;
        while rest.read_uleb128()? != 0 {
            rest.read_uleb128()?; // the tag
            rest.read_u8()?; // whether it has children
            loop {
                let (name, form) = (rest.read_uleb128()?, rest.read_uleb128()?);
                if form == u64::from(gimli::DW_FORM_implicit_const.0) {
                    rest.read_sleb128()?;
                }
                if (name, form) == (0, 0) {
                    break;
                }
            }
        }
        let length = (table.len() - rest.len()) as u64;
        self.tables.insert(at, length);
        Ok(length)
    }
}

fn spend(left: &mut u64, cost: u64) -> Result<(), Harm> {
    *left = left.checked_sub(cost).ok_or(Harm::Shared)?;
    Ok(())
}

/// The bytes of a table of lines that begins there: those of its head, which names files, and all (DWARF 5, 6.2.4).
fn lengths_of_lines(section: &[u8], at: usize) -> Option<(u64, u64)> {
    let word = |at: usize| Some(u32::from_le_bytes(section.get(at..at.checked_add(4)?)?.try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(section.get(at..at.checked_add(8)?)?.try_into().ok()?));
    let is_64 = word(at)? == u32::MAX;
    let (whole, version_at) =
        if is_64 { (long(at.checked_add(4)?)?, at.checked_add(12)?) } else { (word(at)?.into(), at.checked_add(4)?) };
    let version = u16::from_le_bytes(section.get(version_at..version_at.checked_add(2)?)?.try_into().ok()?);
    // from version 5 on, the sizes of addresses and segment selectors come first
    let head_at = version_at.checked_add(if version >= 5 { 4 } else { 2 })?;
    Some((if is_64 { long(head_at)? } else { word(head_at)?.into() }, whole))
}
