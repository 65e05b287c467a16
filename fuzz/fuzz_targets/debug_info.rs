//! Any bytes as sections of debug information are looked at in bounded time; what is left out stays where it is by another name, and
//! then there is nothing more to leave out.
#![no_main]

#[path = "../../src/component"]
mod component {
    pub mod debug_budget;
    #[allow(dead_code)]
    pub mod debug_info;
}

mod error {
    #[derive(Debug)]
    pub enum Error {}
}

const NAMES: [&str; 8] = [
    ".debug_abbrev",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];

fn section(into: &mut Vec<u8>, kind: u8, content: &[u8]) {
    into.push(kind);
    let mut length = content.len();
    while length >= 0x80 {
        into.push(length as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend(content);
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut module = b"\0asm\x01\0\0\0".to_vec();
    let mut rest = bytes;
    for name in NAMES {
        // its length, and so many bytes
        let (length, behind) = rest.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        let content = &behind[..usize::from(u16::from_le_bytes(*length)).min(behind.len())];
        rest = &behind[content.len()..];
        let mut custom = vec![name.len() as u8];
        custom.extend(name.as_bytes());
        custom.extend(content);
        section(&mut module, 0, &custom);
    }
    let mut component = b"\0asm\x0d\0\x01\0".to_vec();
    section(&mut component, 1, &module);
    let (cleaned, harm) = component::debug_info::without_harm(&component, &|| Ok(())).expect("nobody gives up");
    assert_eq!(cleaned.len(), component.len());
    assert_eq!(harm.is_some(), cleaned != component);
    let (again, harm) = component::debug_info::without_harm(&cleaned, &|| Ok(())).expect("nobody gives up");
    assert!(harm.is_none() && again == cleaned);
});
