//! Debug information of a component, looked at before anything else reads it. When a guest traps, wasmtime reads DWARF for each frame
//! of the backtrace, in the guest's own turn, and believes what it says: addr2line 0.26 recurses once for each level of inlined
//! functions (a component of 1 MB ended the process), and what many entries share (a list of ranges, a name, a table of lines) is read
//! and kept once for each of them, so that some kilobytes become gigabytes. What is not so small and flat as compilers make it is left
//! out: its guests' backtraces have no source lines, and nothing else changes.

use std::borrow::Cow;
use std::collections::HashMap;

use gimli::{AttributeValue, EndianSlice, LittleEndian, RangeListsOffset, UnitRef};
use wasmparser::{Encoding, Parser, Payload};

use crate::component::debug_budget::{Budget, Harm, Stop, spend};
use crate::error::Error;

type Reader<'a> = EndianSlice<'a, LittleEndian>;

/// Bytes of all sections. `cargo build` without `--release` makes some tens of MiB.
const MOST: u64 = 64 << 20;

/// Entries, attributes, ranges and bytes that are gone through to look at all of it: about one for each byte of what compilers make. An
/// attribute may have no bytes, and what many share is gone through for each of them.
const MOST_STEPS: u64 = 64 << 20;

/// How deep entries may be nested: each level of inlined functions takes some hundred bytes of the stack.
const DEEPEST: isize = 128;

/// Bytes that are read or kept for all units of a module together, before one of them is looked into.
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

/// The component as it may be compiled, and why that is not the one that was given, if it is not. `go_on` is asked now and then.
pub(crate) fn without_harm<'a>(
    binary: &'a [u8],
    go_on: &dyn Fn() -> Result<(), Error>,
) -> Result<(Cow<'a, [u8]>, Option<Harm>), Error> {
    let mut budget = Budget { bytes: MOST, steps: MOST_STEPS, until_asked: 0, go_on };
    // whether each module's is left out, and why the first one's is
    let (mut harmful, mut found) = (Vec::new(), None);
    let mut end_of_module = |module: &mut Sections<'_>| {
        let harm = match check(module, &mut budget) {
            Ok(()) => None,
            Err(Stop::Harm(harm)) => Some(harm),
            Err(Stop::Ended(error)) => return Err(error),
        };
        harmful.push(harm.is_some());
        found = found.or(harm);
        *module = Sections::default();
        Ok(())
    };
    // modules are not nested, and stand one after the other
    let mut module = Sections::default();
    for payload in Parser::new(0).parse_all(binary) {
        match payload {
            Ok(Payload::Version { encoding: Encoding::Module, .. }) => end_of_module(&mut module)?,
            Ok(Payload::CustomSection(section)) if is_debug_info(section.name()) => {
                module.bytes += section.data().len() as u64;
                // of several with one name the last is read
                if let Some(known) = KNOWN.iter().find(|known| known.name() == section.name()) {
                    module.by_name.insert(known.name(), section.data());
                }
            }
            Ok(_) => {}
            // what follows is refused by whoever compiles it
            Err(_) => break,
        }
    }
    end_of_module(&mut module)?;
    match found {
        Some(harm) => Ok((Cow::Owned(renamed(binary, &harmful)), Some(harm))),
        None => Ok((Cow::Borrowed(binary), None)),
    }
}

/// By another name nobody reads them, and all else stays where it is.
fn renamed(binary: &[u8], harmful: &[bool]) -> Vec<u8> {
    let mut renamed = binary.to_vec();
    let mut module = 0;
    for payload in Parser::new(0).parse_all(binary) {
        match payload {
            Ok(Payload::Version { encoding: Encoding::Module, .. }) => module += 1,
            Ok(Payload::CustomSection(section)) if is_debug_info(section.name()) => {
                let name_at = section.data_offset().saturating_sub(section.name().len());
                if harmful.get(module).copied().unwrap_or(true)
                    && let Some(byte) = renamed.get_mut(name_at)
                {
                    *byte = b'-';
                }
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    renamed
}

fn is_debug_info(section: &str) -> bool {
    section.starts_with(".debug_")
}

/// The sections that are read.
const KNOWN: [gimli::SectionId; 14] = [
    gimli::SectionId::DebugAbbrev,
    gimli::SectionId::DebugAddr,
    gimli::SectionId::DebugAranges,
    gimli::SectionId::DebugInfo,
    gimli::SectionId::DebugLine,
    gimli::SectionId::DebugLineStr,
    gimli::SectionId::DebugLoc,
    gimli::SectionId::DebugLocLists,
    gimli::SectionId::DebugMacro,
    gimli::SectionId::DebugRanges,
    gimli::SectionId::DebugRngLists,
    gimli::SectionId::DebugStr,
    gimli::SectionId::DebugStrOffsets,
    gimli::SectionId::DebugTypes,
];

/// A module's. A stranger's module may have millions, of any name.
#[derive(Default)]
struct Sections<'a> {
    by_name: HashMap<&'static str, &'a [u8]>,
    /// Of all of them, those that nobody reads among them.
    bytes: u64,
}

fn check(sections: &Sections<'_>, budget: &mut Budget<'_>) -> Result<(), Stop> {
    if sections.bytes == 0 {
        return Ok(());
    }
    budget.bytes = budget.bytes.checked_sub(sections.bytes).ok_or(Harm::Large)?;
    let data = |name: &str| sections.by_name.get(name).copied().unwrap_or_default();
    let dwarf = gimli::Dwarf::load(|id| Ok::<_, gimli::Error>(EndianSlice::new(data(id.name()), LittleEndian)))?;
    let longest = [".debug_str", ".debug_line_str"].map(|name| longest_string(data(name)));
    let mut check = Check {
        dwarf: &dwarf,
        abbreviations: data(".debug_abbrev"),
        lines: data(".debug_line"),
        tables: HashMap::new(),
        budget,
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
        return Err(Harm::Shared.into());
    }
    Ok(())
}

fn longest_string(section: &[u8]) -> u64 {
    section.split(|byte| *byte == 0).map(|string| string.len() as u64).max().unwrap_or(0)
}

struct Check<'a, 'b, 'c> {
    dwarf: &'a gimli::Dwarf<Reader<'a>>,
    abbreviations: &'a [u8],
    lines: &'a [u8],
    /// How long the tables of abbreviations are, by where they begin: units may share them, and each reads it anew.
    tables: HashMap<usize, u64>,
    budget: &'b mut Budget<'c>,
    /// What may still be read or kept of all units.
    of_units: u64,
    /// The same of the one that is looked at.
    of_a_unit: u64,
    /// The longest name of a function.
    longest: u64,
    /// The most inlined functions in one function: the names of them all are read.
    most_inlined: u64,
}

impl<'a> Check<'a, '_, '_> {
    /// What is read of each unit before one of them is looked into; then all of it.
    fn unit(&mut self, header: gimli::UnitHeader<Reader<'a>>) -> Result<(), Stop> {
        let table = self.length_of_table(header.debug_abbrev_offset().0)?;
        spend(&mut self.of_units, table.saturating_mul(4).saturating_add(FUNCTION))?;
        // here and with the unit
        self.budget.spend(table.saturating_mul(2).saturating_add(1))?;
        // the head of the table of lines is read with the unit, so it is measured before that
        let abbreviations = header.abbreviations(&self.dwarf.debug_abbrev)?;
        let mut entries = header.entries_raw(&abbreviations, None)?;
        let mut of_lines = 0;
        if let Some(root) = entries.read_abbreviation()? {
            self.budget.spend(root.attributes().len() as u64)?;
            for spec in root.attributes() {
                if let AttributeValue::DebugLineRef(at) = entries.read_attribute(*spec)?.value() {
                    let (head, whole) = lengths_of_lines(self.lines, at.0).ok_or(Harm::Malformed)?;
                    spend(&mut self.of_units, head.saturating_mul(FILE / 2))?;
                    self.budget.spend(head)?;
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
    fn files(&mut self, unit: UnitRef<'_, Reader<'a>>) -> Result<(), Stop> {
        let Some(program) = &unit.line_program else { return Ok(()) };
        let header = program.header();
        let base = unit.comp_dir.map_or(0, |path| path.len() as u64);
        for file in header.file_names() {
            let folder = file.directory(header).and_then(|path| unit.attr_string(path).ok());
            let name = unit.attr_string(file.path_name()).map_or(0, |path| path.len() as u64);
            let folder = folder.map_or(0, |path| path.len() as u64);
            spend(&mut self.of_a_unit, FILE.saturating_add(base).saturating_add(folder).saturating_add(name))?;
            self.budget.spend(folder.saturating_add(name).saturating_add(1))?;
        }
        Ok(())
    }

    fn entries(&mut self, unit: UnitRef<'_, Reader<'a>>) -> Result<(), Stop> {
        let mut entries = unit.entries_raw(None)?;
        let mut inlined = 0;
        while !entries.is_empty() {
            if entries.next_depth() > DEEPEST {
                return Err(Harm::Deep.into());
            }
            let is_root = entries.next_depth() == 0;
            let Some(abbreviation) = entries.read_abbreviation()? else {
                self.budget.spend(1)?;
                continue;
            };
            let attributes = abbreviation.attributes().len() as u64;
            spend(&mut self.of_a_unit, attributes)?;
            self.budget.spend(attributes.saturating_add(1))?;
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
                        self.budget.spend(length)?;
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// How many entries a list of ranges has, those that only set a base among them; counted no further than may be spent.
    fn number_of_ranges(&mut self, unit: UnitRef<'_, Reader<'a>>, at: RangeListsOffset) -> Result<u64, Stop> {
        let mut ranges = unit.raw_ranges(at)?;
        let mut number = 0;
        while ranges.next()?.is_some() && number <= self.of_a_unit / RANGE {
            number += 1;
            self.budget.spend(1)?;
        }
        Ok(number)
    }

    /// How many bytes a table of abbreviations has that begins there.
    fn length_of_table(&mut self, at: usize) -> Result<u64, Stop> {
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
        self.budget.spend(length)?;
        self.tables.insert(at, length);
        Ok(length)
    }
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

#[cfg(test)]
mod tests;
