//! What the probes of both generations share and needs nothing of WASI.

use std::collections::HashMap;

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
