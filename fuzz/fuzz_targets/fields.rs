//! Any pairs of bytes are fields or they are refused; what was read has them all, in their order, and nothing that would end
//! a line.
#![no_main]

#[path = "../../src/fields.rs"]
mod fields;

libfuzzer_sys::fuzz_target!(|pairs: Vec<(&[u8], &[u8])>| {
    let Ok(map) = fields::from_pairs(pairs.iter().copied()) else { return };
    assert_eq!(map.len(), pairs.len());
    for (name, _) in &pairs {
        let lower = name.to_ascii_lowercase();
        let name = std::str::from_utf8(&lower).expect("a name is ASCII");
        let given =
            pairs.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value);
        assert!(map.get_all(name).iter().map(|value| value.as_bytes()).eq(given));
    }
    for (name, value) in &map {
        assert!(!name.as_str().is_empty());
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    assert!(fields::size(&map) >= map.keys().map(|name| name.as_str().len() as u64).sum());
    if let Some(length) = fields::announced_length(&map) {
        let written = map.get("content-length").and_then(|value| value.to_str().ok()).expect("it was read");
        assert_eq!(written.trim_start_matches('0'), length.to_string().trim_start_matches('0'));
    }
});
