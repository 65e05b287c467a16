//! What the keepers of both generations share and needs nothing of WASI: the places that a guest has in its memory, how it
//! hides a secret in them, and how it looks for one.
//!
//! A secret is said in hexadecimal digits of its bytes, each masked. So neither the request nor the search itself is a place
//! where it lies: plain, it is only where it was hidden.

use std::cell::{RefCell, UnsafeCell};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

const MASK: u8 = 0x5a;
/// What is compared and copied at once, by the host.
const PAGE: usize = 4096;
/// Of WebAssembly.
const MEMORY_PAGE: usize = 65536;
const MOST_PAGES: usize = 2048;

#[repr(C, align(4096))]
struct Room<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: a guest has one thread
unsafe impl<const N: usize> Sync for Room<N> {}

impl<const N: usize> Room<N> {
    fn at(&self, offset: usize) -> usize {
        self.0.get() as usize + offset
    }
}

/// In `.data`: it is not zero at the start.
static DATA: Room<PAGE> = Room(UnsafeCell::new([0xd7; PAGE]));
/// In `.bss`.
static ZEROS: Room<PAGE> = Room(UnsafeCell::new([0; PAGE]));
static MANY: Room<{ 64 * PAGE }> = Room(UnsafeCell::new([0; 64 * PAGE]));
static DIGESTS: Room<{ MOST_PAGES * 8 }> = Room(UnsafeCell::new([0; MOST_PAGES * 8]));
static COUNTER: AtomicU64 = AtomicU64::new(0);
static ONCE: OnceLock<Box<[u8]>> = OnceLock::new();

thread_local! {
    static OF_THREAD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a handler finds when it begins.
pub struct Entry(String);

impl Entry {
    /// To be called first, with the numbers of the handles that the handler was given.
    pub fn look(handles: &[u32]) -> Self {
        let memory = digest();
        let counter = COUNTER.fetch_add(1, Ordering::Relaxed);
        let thread = OF_THREAD.with_borrow(Vec::len);
        Self(format!(
            "memory={memory:016x} handles={handles:?} pages={} counter={counter} once={} thread={thread} variables={}",
            pages(),
            ONCE.get().is_some(),
            std::env::vars_os().count(),
        ))
    }

    pub fn text(&self) -> &str {
        &self.0
    }
}

pub fn parse_query(query: &str) -> HashMap<&str, &str> {
    query.split('&').filter_map(|pair| pair.split_once('=')).collect()
}

/// The masked bytes that hexadecimal digits say.
pub fn masked(digits: &str) -> Vec<u8> {
    let digits: Vec<_> = digits.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// How the bytes of a secret are said.
pub fn say(secret: &[u8]) -> String {
    secret.iter().map(|byte| format!("{:02x}", byte ^ MASK)).collect()
}

/// Hides a secret in one of the guest's places.
pub fn hide(place: &str, masked: &[u8]) {
    match place {
        "data" => put(DATA.at(100), masked),
        "zeros" => put(ZEROS.at(100), masked),
        // half of it in one page, half in the next
        "across" => put(MANY.at(3 * PAGE - masked.len() / 2), masked),
        "many-pages" => (0..64).for_each(|page| put(MANY.at(page * PAGE + 64), masked)),
        "first-page" => put(black_box(16), masked), // the far end of the guest's stack
        "last-page" => put(end() - PAGE, masked),
        "last-bytes" => put(end() - masked.len(), masked),
        "heap" => {
            Box::leak(plain(masked));
        }
        // of memory that was given back, so it is nobody's
        "freed" => {
            let mut much = vec![0; 24 * PAGE];
            let at = much.as_mut_ptr() as usize;
            (0..24).for_each(|page| put(at + page * PAGE, masked));
            drop(black_box(much));
        }
        // below the stack pointer, as soon as this has returned
        "stack" => {
            deep(400, masked);
        }
        "thread-local" => OF_THREAD.with_borrow_mut(|bytes| bytes.extend(plain(masked))),
        "once" => {
            let _ = ONCE.set(plain(masked));
        }
        "variable" => {
            // SAFETY: a guest has one thread
            unsafe { std::env::set_var("SECRET", String::from_utf8_lossy(&plain(masked)).as_ref()) };
        }
        "grown" => {
            let at = grow(1);
            put(at, masked);
            put(at + MEMORY_PAGE - masked.len(), masked);
        }
        // of the far part of the guest's stack, which it does not come to
        other => match other.strip_prefix("page-").and_then(|page| page.parse::<usize>().ok()) {
            Some(page) if page < 220 => put(black_box(page * PAGE), masked),
            _ => panic!("there is no place {other}"),
        },
    }
}

fn plain(masked: &[u8]) -> Box<[u8]> {
    masked.iter().map(|byte| byte ^ MASK).collect()
}

fn put(at: usize, masked: &[u8]) {
    for (offset, byte) in masked.iter().enumerate() {
        // SAFETY: the places above are in memory, and nobody else uses them at that time
        unsafe { (black_box(at + offset) as *mut u8).write_volatile(byte ^ MASK) };
    }
}

#[inline(never)]
fn deep(levels: u32, masked: &[u8]) -> u64 {
    let mut frame = [0u8; 1024];
    put(frame.as_mut_ptr() as usize, masked);
    let below = if levels == 0 { 0 } else { deep(levels - 1, masked) };
    below + u64::from(black_box(&mut frame)[0])
}

pub fn pages() -> usize {
    core::arch::wasm32::memory_size::<0>()
}

fn end() -> usize {
    pages() * MEMORY_PAGE
}

/// Grows the memory by so many pages; where they begin.
pub fn grow(pages: usize) -> usize {
    let before = core::arch::wasm32::memory_grow::<0>(pages);
    assert!(before != usize::MAX, "the memory cannot grow");
    before * MEMORY_PAGE
}

fn byte(at: usize) -> u8 {
    // SAFETY: it is within memory. What of it is in use does not change while this looks.
    unsafe { (black_box(at) as *const u8).read_volatile() }
}

fn word(at: usize) -> u64 {
    // SAFETY: as above, and it is aligned
    unsafe { (at as *const u64).read_volatile() }
}

/// Where in all of memory a secret lies.
pub fn find(masked: &[u8]) -> Vec<usize> {
    let first = masked[0] ^ MASK;
    let fits = |at: usize| (1..masked.len()).all(|offset| byte(at + offset) == masked[offset] ^ MASK);
    (0..=end() - masked.len()).filter(|&at| byte(at) == first && fits(at)).collect()
}

/// Of all memory. Nothing is written before it is read.
#[inline(never)]
pub fn digest() -> u64 {
    of_words(black_box(0), end())
}

#[inline(never)]
fn of_words(from: usize, to: usize) -> u64 {
    let mut digest = 0xcbf2_9ce4_8422_2325;
    for at in (from..to).step_by(8) {
        digest = (digest ^ word(at)).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(23);
    }
    digest
}

/// Of each page that the host restores: to see which one differs.
pub fn digests() -> String {
    let count = (end() / PAGE).min(MOST_PAGES);
    for page in 0..count {
        let digest = of_words(black_box(page * PAGE), (page + 1) * PAGE);
        // SAFETY: the room has as many words
        unsafe { (DIGESTS.at(page * 8) as *mut u64).write_volatile(digest) };
    }
    (0..count).map(|page| format!("{page} {:016x}\n", word(DIGESTS.at(page * 8)))).collect()
}

/// What the standard library keeps of randomness that it was given.
pub fn seeded() -> u64 {
    RandomState::new().hash_one(1)
}
