//! What the probes of both generations share and needs nothing of WASI.

use std::collections::HashMap;
use std::hint::black_box;

pub fn parse_query(query: &str) -> HashMap<String, String> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), percent_decode(value)))
        .collect()
}

fn percent_decode(value: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let hex = [rest.next().unwrap_or(b'0'), rest.next().unwrap_or(b'0')];
            let hex = std::str::from_utf8(&hex).unwrap_or("00").to_owned();
            bytes.push(u8::from_str_radix(&hex, 16).unwrap_or(b'?'));
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Recursion that keeps its values in locals: it fills the call stack, not the guest's own stack in memory.
#[inline(never)]
pub fn deep(n: u64, a: u64, b: u64, c: u64, d: u64) -> u64 {
    if n == 0 {
        return a ^ b ^ c ^ d;
    }
    let below = deep(n - 1, b.wrapping_mul(31), c ^ n, d.wrapping_add(a), a.rotate_left(7));
    below.wrapping_mul(a | 1).wrapping_add(b).rotate_left(3) ^ c.wrapping_mul(d | 1)
}

/// Takes memory and fills it so many times, with an instruction that no epoch interrupts.
pub fn fill(size: usize, times: u64) {
    let mut memory = vec![0u8; size];
    for round in 0..times {
        black_box(&mut memory[..]).fill(round as u8 | 1);
    }
}

/// Takes memory and touches each page of it.
pub fn allocate(size: usize) -> usize {
    let mut memory = vec![0u8; size];
    (0..size).step_by(4096).for_each(|at| memory[at] = 1);
    black_box(memory).len()
}

/// How many bytes are not zero in memory that nobody has written yet; and writes it.
pub fn look(size: usize) -> usize {
    let at = core::arch::wasm32::memory_grow::<0>(size >> 16) << 16;
    // SAFETY: the pages are this guest's own and nobody else's, as far as it can know: that is the question
    let memory = unsafe { std::slice::from_raw_parts_mut(black_box(at) as *mut u8, size) };
    let found = black_box(&*memory).iter().filter(|byte| **byte != 0).count();
    memory.fill(0xa5);
    black_box(memory);
    found
}
