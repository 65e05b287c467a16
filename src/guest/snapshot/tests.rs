//! Pages that are put back.

use super::*;
use crate::engine::process_state;

fn ranges(pairs: &[(usize, usize)]) -> Vec<Range<usize>> {
    pairs.iter().map(|(start, end)| *start..*end).collect()
}

fn memories(mapping: &Mapping) -> Vec<Range<usize>> {
    std::iter::once(mapping.range()).collect()
}

#[test]
fn what_is_new_is_what_was_not_known() {
    for (all, known, new) in [
        (vec![(0, 4)], vec![], vec![(0, 4)]),
        (vec![(0, 4)], vec![(0, 4)], vec![]),
        (vec![(0, 9)], vec![(2, 3), (5, 6)], vec![(0, 2), (3, 5), (6, 9)]),
        (vec![(0, 3), (5, 9)], vec![(2, 7)], vec![(0, 2), (7, 9)]),
        (vec![(1, 2), (3, 4), (5, 6)], vec![(0, 4)], vec![(5, 6)]),
        (vec![(4, 5)], vec![(0, 1), (8, 9)], vec![(4, 5)]),
        (vec![(0, 2), (2, 4)], vec![(1, 3)], vec![(0, 1), (3, 4)]),
    ] {
        assert_eq!(without(&ranges(&all), &ranges(&known)), ranges(&new), "{all:?} without {known:?}");
    }
}

#[test]
fn a_memory_is_put_back_again_and_again() {
    let found = pages();
    let Ok(pages) = &*found else { return };
    let counters = &process_state().unwrap().counters;
    let mapping = Mapping::new(8 * PAGE).unwrap();
    mapping.write(PAGE, 1); // its own at the snapshot
    let mut snapshot = Snapshot::take(pages, &memories(&mapping), counters).unwrap();
    for round in 0..3 * FORGET {
        let page = (round as usize * 7) % 8;
        let before = pagemap::faults();
        mapping.write(page * PAGE + 5, 9);
        mapping.write(PAGE, 2);
        let has_faulted = pagemap::faults() != before;
        assert!(snapshot.restore(pages, &memories(&mapping), has_faulted).unwrap());
        let bytes: Vec<u8> = (0..8 * PAGE).map(|at| mapping.read(at)).collect();
        let expected: Vec<u8> = (0..8 * PAGE).map(|at| u8::from(at == PAGE)).collect();
        assert!(bytes == expected, "round {round}");
    }
    let mut smaller = memories(&mapping);
    smaller.iter_mut().for_each(|range| range.end -= PAGE);
    assert!(!snapshot.restore(pages, &smaller, false).unwrap(), "it is not as large");
    let held = snapshot.counted;
    assert!(held >= PAGE as i64);
}

#[test]
fn a_page_that_the_kernel_writes_is_found() {
    use std::io::Read;

    let found = pages();
    let Ok(pages) = &*found else { return };
    let counters = &process_state().unwrap().counters;
    let mapping = Mapping::new(4 * PAGE).unwrap();
    let mut snapshot = Snapshot::take(pages, &memories(&mapping), counters).unwrap();
    let before = pagemap::faults();
    std::fs::File::open("/proc/self/maps").unwrap().read_exact(mapping.slice(2 * PAGE..2 * PAGE + 64)).unwrap();
    let has_faulted = pagemap::faults() != before;
    assert_ne!(mapping.read(2 * PAGE), 0);
    assert!(snapshot.restore(pages, &memories(&mapping), has_faulted).unwrap());
    assert_eq!(mapping.read(2 * PAGE), 0);
}

/// What the kernel may do with the pages of a mapping: `VmFlags` of its part of `/proc/self/smaps`.
#[cfg(target_os = "linux")]
fn flags(mapping: &Mapping) -> Vec<String> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    // it may be one with its neighbours
    let is_its = |line: &&str| {
        let Some((start, end)) = line.split(' ').next().and_then(|range| range.split_once('-')) else { return false };
        let number = |digits| usize::from_str_radix(digits, 16).unwrap_or(0);
        (number(start)..number(end)).contains(&mapping.range().start)
    };
    let flags =
        smaps.lines().skip_while(|line| !is_its(line)).skip(1).find_map(|line| line.strip_prefix("VmFlags:")).unwrap();
    flags.split_whitespace().map(str::to_owned).collect()
}

#[cfg(target_os = "linux")]
#[test]
fn the_kernel_neither_merges_pages_nor_makes_large_ones() {
    let found = pages();
    let Ok(pages) = &*found else { return };
    let counters = &process_state().unwrap().counters;
    let mapping = Mapping::new(4 * PAGE).unwrap();
    // as a process that has its memory merged, or large pages wherever they fit
    for advice in [libc::MADV_MERGEABLE, libc::MADV_HUGEPAGE] {
        // SAFETY: it changes nothing of what is in the pages.
        unsafe { libc::madvise(mapping.range().start as *mut _, 4 * PAGE, advice) };
    }
    let _snapshot = Snapshot::take(pages, &memories(&mapping), counters).unwrap();
    let flags = flags(&mapping);
    assert!(!flags.iter().any(|flag| flag == "mg" || flag == "hg"), "{flags:?}");
}
