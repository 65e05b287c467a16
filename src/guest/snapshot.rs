//! What the memories of an instance are to be put back to, and which of their pages that takes.
//!
//! The kernel knows which pages of a memory are the instance's own: those that were ever written. All others are as their image has them. So
//! what an instance has written since its snapshot is found by asking for them (PAGEMAP_SCAN). Those that were its own at the snapshot, and
//! those that it has written since, are put back after each exchange, by copying. To ask each time costs as much as the copying (60 to 200 µs
//! for a Python guest). A page that is written for the first time is a fault, which the kernel counts for the thread: only after an
//! exchange with faults there can be a new one.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::process::fork::PerFork;
use crate::process::pagemap::{self, PageMap};
use crate::telemetry::counters::Counters;

const PAGE: usize = 4096;

/// Pages that were written since the snapshot are forgotten, and given back, after so many times: those that are still written are found
/// again.
const FORGET: u32 = 256;

/// What tells of this process's pages; none where that does not work.
pub(crate) fn pages() -> Arc<Result<Pages, String>> {
    static PAGES: PerFork<Result<Pages, String>> = PerFork::new();
    PAGES.get(|| Pages::tried().map_err(|error| error.to_string()))
}

/// Why no instance of this process can be put back, if so.
pub(crate) fn why_not() -> Option<String> {
    if crate::process::swap::look_closely() {
        return Some("pages of this process can be swapped out".into());
    }
    pages().as_ref().as_ref().err().cloned()
}

/// See [`pages`].
pub(crate) struct Pages {
    map: PageMap,
    /// Whether a thread's faults tell of pages that it has written for the first time. Else all are looked for each time.
    counts_faults: bool,
    /// `WASGI_CHECK_RESTORE=1`: all memory is compared with what it was, each time. For tests: it takes milliseconds.
    checks: bool,
}

impl Pages {
    /// Tried for real: a kernel, or what stands in for one, that does it otherwise is not relied upon.
    fn tried() -> io::Result<Self> {
        use std::io::Read;

        let map = PageMap::open()?;
        let trial = Mapping::new(4 * PAGE)?;
        let range = trial.range();
        let page = |at: usize| range.start + at * PAGE;
        let mut found = Vec::new();
        let mut expect = |pages: Range<usize>| {
            map.private(&range, &mut found)?;
            let expected = (!pages.is_empty()).then(|| page(pages.start)..page(pages.end));
            match found.iter().eq(expected.iter()) {
                true => Ok(()),
                false => Err(io::Error::other("PAGEMAP_SCAN does not tell which pages were written")),
            }
        };
        // one that was read only is zeros, which are nobody's
        std::hint::black_box(trial.read(0));
        expect(0..0)?;
        let before = pagemap::faults();
        trial.write(PAGE, 1);
        let written = pagemap::faults();
        expect(1..2)?;
        std::fs::File::open("/dev/zero")?.read_exact(trial.slice(2 * PAGE..2 * PAGE + 1))?;
        let read_into = pagemap::faults();
        expect(1..3)?;
        forget(&(page(1)..page(2)))?;
        expect(2..3)?;
        if trial.read(PAGE) != 0 {
            return Err(io::Error::other("pages that were given back keep what they had"));
        }
        trial.write(2 * PAGE, 1);
        let again = pagemap::faults();
        let counts_faults = before < written && written < read_into && read_into <= again;
        let checks = std::env::var_os("WASGI_CHECK_RESTORE").is_some_and(|wanted| wanted == "1");
        Ok(Self { map, counts_faults, checks })
    }
}

/// What has a page show what its image has.
fn forget(range: &Range<usize>) -> io::Result<()> {
    #[cfg(unix)]
    {
        // SAFETY: callers own what is in this range of pages, and have no reference into it.
        let done = unsafe { libc::madvise(range.start as *mut _, range.len(), libc::MADV_DONTNEED) };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
    #[cfg(not(unix))]
    {
        let _ = range;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Keeps the kernel from changing what kind of pages these are. Large ones would be the instance's own as a whole once one byte of them is
/// written, and the kernel makes some of small ones without anybody's fault. Pages that are merged with others of the same content
/// (`PR_SET_MEMORY_MERGE`) may become the page of zeros, which looks as if nobody had written it.
fn keep_as_they_are(range: &Range<usize>) {
    #[cfg(target_os = "linux")]
    // SAFETY: neither changes what is in the pages.
    unsafe {
        // a kernel without large pages, or without merging, refuses the one or the other
        libc::madvise(range.start as *mut _, range.len(), libc::MADV_NOHUGEPAGE);
        libc::madvise(range.start as *mut _, range.len(), libc::MADV_UNMERGEABLE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = range;
}

/// A memory as it was.
struct Memory {
    /// Where it lies.
    range: Range<usize>,
    /// The pages that are put back, as ranges of them, and what was in them, one after the other.
    ranges: Vec<Range<usize>>,
    contents: Vec<u8>,
    /// So many of both are those that were its own at the snapshot.
    own: (usize, usize),
    /// All that was in it, if that is to be compared.
    whole: Option<Vec<u8>>,
}

impl Memory {
    fn take(pages: &Pages, range: Range<usize>) -> io::Result<Self> {
        keep_as_they_are(&range);
        let mut ranges = Vec::new();
        pages.map.private(&range, &mut ranges)?;
        let mut memory = Self { range, ranges: Vec::new(), contents: Vec::new(), own: (0, 0), whole: None };
        for range in ranges {
            memory.add(range);
        }
        memory.own = (memory.ranges.len(), memory.contents.len());
        memory.whole = pages.checks.then(|| memory.bytes().to_vec());
        Ok(memory)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: it is a memory of an instance that is there, and that nothing runs in.
        unsafe { std::slice::from_raw_parts(self.range.start as *const u8, self.range.len()) }
    }

    /// Ends the process if anything is not as it was: a test is to see that, whatever it looks at.
    fn check(&self) {
        let Some(whole) = &self.whole else { return };
        let differs = self.bytes().chunks(PAGE).zip(whole.chunks(PAGE)).position(|(now, before)| now != before);
        if let Some(page) = differs {
            eprintln!("WASGI_CHECK_RESTORE: page {page} of a memory of {} bytes was not put back", whole.len());
            std::process::abort();
        }
    }

    /// Has these pages put back to what is in them now.
    fn add(&mut self, range: Range<usize>) {
        // SAFETY: they are in a memory of an instance that is there, and that nothing runs in.
        let contents = unsafe { std::slice::from_raw_parts(range.start as *const u8, range.len()) };
        self.contents.extend_from_slice(contents);
        self.ranges.push(range);
    }

    /// Pages that have become its own show what they had before.
    fn find(&mut self, pages: &Pages) -> io::Result<()> {
        let mut all = Vec::new();
        pages.map.private(&self.range, &mut all)?;
        let mut known = self.ranges.clone();
        known.sort_unstable_by_key(|range| range.start);
        for new in without(&all, &known) {
            forget(&new)?;
            self.add(new);
        }
        Ok(())
    }

    fn put_back(&self) {
        let mut rest = self.contents.as_slice();
        for range in &self.ranges {
            let Some((contents, others)) = rest.split_at_checked(range.len()) else { return };
            // SAFETY: as above; the contents are a copy elsewhere, of the same length.
            unsafe { std::ptr::copy_nonoverlapping(contents.as_ptr(), range.start as *mut u8, range.len()) };
            rest = others;
        }
    }

    /// Forgets what was written since the snapshot; it has just been put back.
    fn forget(&mut self) -> io::Result<()> {
        let (ranges, bytes) = self.own;
        for range in self.ranges.drain(ranges..) {
            forget(&range)?;
        }
        self.contents.truncate(bytes);
        self.contents.shrink_to(bytes * 2);
        Ok(())
    }
}

/// What is in some ranges and not in others; both are in order.
fn without(all: &[Range<usize>], others: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut left = Vec::new();
    let mut others = others.iter().peekable();
    for range in all {
        let mut at = range.start;
        while let Some(other) = others.peek() {
            if other.start >= range.end {
                break;
            }
            if other.start > at {
                left.push(at..other.start);
            }
            at = at.max(other.end);
            if other.end > range.end {
                break;
            }
            others.next();
        }
        if at < range.end {
            left.push(at..range.end);
        }
    }
    left
}

/// What the memories of an instance are put back to.
pub(crate) struct Snapshot {
    memories: Vec<Memory>,
    counters: &'static Counters,
    /// Bytes that it holds, as they are counted.
    counted: i64,
    restored: u32,
}

impl Snapshot {
    /// Of memories that lie there, in an instance that nothing runs in.
    pub(crate) fn take(pages: &Pages, memories: &[Range<usize>], counters: &'static Counters) -> io::Result<Self> {
        let memories = memories.iter().map(|range| Memory::take(pages, range.clone())).collect::<io::Result<_>>()?;
        let mut snapshot = Self { memories, counters, counted: 0, restored: 0 };
        snapshot.count();
        Ok(snapshot)
    }

    /// Bytes that it holds, which it puts back.
    pub(crate) fn bytes(&self) -> usize {
        self.memories.iter().map(|memory| memory.contents.len()).sum()
    }

    fn count(&mut self) {
        let bytes = i64::try_from(self.bytes()).unwrap_or(i64::MAX);
        self.counters.snapshots_grew(bytes - self.counted);
        self.counted = bytes;
    }

    /// Puts all memories back, if they are where they were and as large. `may_have_new`: a page may have been written for the first time.
    /// Returns whether they are as they were.
    pub(crate) fn restore(&mut self, pages: &Pages, now: &[Range<usize>], may_have_new: bool) -> io::Result<bool> {
        if !self.memories.iter().map(|memory| &memory.range).eq(now) {
            return Ok(false);
        }
        let looks = may_have_new || !pages.counts_faults;
        for memory in &mut self.memories {
            if looks {
                memory.find(pages)?;
            }
            memory.put_back();
        }
        self.memories.iter().for_each(Memory::check);
        self.restored += 1;
        if self.restored.is_multiple_of(FORGET) {
            for memory in &mut self.memories {
                memory.forget()?;
            }
        }
        if looks || self.restored.is_multiple_of(FORGET) {
            self.count();
        }
        Ok(true)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.counters.snapshots_grew(-self.counted);
    }
}

/// Pages for a trial.
struct Mapping(Range<usize>);

impl Mapping {
    #[cfg(unix)]
    fn new(length: usize) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a mapping at a place that the kernel chooses takes nothing from anybody.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let range = start as usize..start as usize + length;
        keep_as_they_are(&range);
        Ok(Self(range))
    }

    #[cfg(not(unix))]
    fn new(_: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn range(&self) -> Range<usize> {
        self.0.clone()
    }

    fn place(&self, at: usize) -> *mut u8 {
        (self.0.start + at.min(self.0.len() - 1)) as *mut u8
    }

    fn read(&self, at: usize) -> u8 {
        // SAFETY: the place is in the mapping.
        unsafe { self.place(at).read_volatile() }
    }

    fn write(&self, at: usize, byte: u8) {
        // SAFETY: likewise, and nobody has a reference there.
        unsafe { self.place(at).write_volatile(byte) };
    }

    #[allow(clippy::mut_from_ref)] // one at a time
    fn slice(&self, range: Range<usize>) -> &mut [u8] {
        let length = range.len().min(self.0.len().saturating_sub(range.start));
        // SAFETY: likewise, and of that length.
        unsafe { std::slice::from_raw_parts_mut(self.place(range.start), length) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(unix)]
        // SAFETY: it was mapped by `new`, and nobody looks there any more.
        unsafe {
            libc::munmap(self.0.start as *mut _, self.0.len());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
