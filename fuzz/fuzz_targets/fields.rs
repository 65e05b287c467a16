//! Any pairs of bytes are fields or they are refused; what was read has them all, in their order, and nothing that would end
//! a line.
#![no_main]

#[path = "../../src/http"]
mod http {
    pub mod fields;
    pub mod server_request;
}

/// What is a value has no other space around it.
fn trim(value: &[u8]) -> &[u8] {
    value.trim_ascii()
}

libfuzzer_sys::fuzz_target!(|pairs: Vec<(&[u8], &[u8])>| {
    let Ok(map) = crate::http::fields::from_pairs(pairs.iter().copied()) else { return };
    assert_eq!(map.len(), pairs.len());
    for (name, _) in &pairs {
        let lower = name.to_ascii_lowercase();
        let name = std::str::from_utf8(&lower).expect("a name is ASCII");
        let given =
            pairs.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| *value);
        assert!(map.get_all(name).iter().map(|value| value.as_bytes()).eq(given));
    }
    let mut request = crate::http::server_request::Served::new(false);
    let refused = pairs.iter().find_map(|(name, value)| request.add(name, value).err());
    let hosts = map.get_all("host").iter().count();
    assert_eq!(refused.is_some(), hosts > 1, "of what are fields, only a second host is refused: {refused:?}");
    if refused.is_none() {
        let (kept, host) = request.finish();
        assert_eq!(host.as_ref().map(|host| host.as_bytes()), map.get("host").map(|host| trim(host.as_bytes())));
        let named: Vec<u8> =
            map.get_all("connection").iter().flat_map(|value| [value.as_bytes(), b","].concat()).collect();
        for (name, value) in &kept {
            assert!(
                !crate::http::server_request::is_of_connection(name) && name != "host" && name != "x-forwarded-for"
            );
            if name == "cookie" {
                let crumbs: Vec<_> = map.get_all(name).iter().map(|value| trim(value.as_bytes())).collect();
                assert_eq!(value.as_bytes(), crumbs.join(&b"; "[..]));
                assert_eq!(kept.get_all(name).iter().count(), 1);
            } else {
                assert!(map.get_all(name).iter().any(|given| trim(given.as_bytes()) == value.as_bytes()));
            }
            let mut tokens = named.split(|byte| *byte == b',').map(|token| token.trim_ascii());
            assert!(!tokens.any(|token| token.eq_ignore_ascii_case(name.as_str().as_bytes())));
        }
    }
    for (name, value) in &map {
        assert!(!name.as_str().is_empty());
        assert!(!value.as_bytes().iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)));
    }
    assert!(crate::http::fields::size(&map) >= map.keys().map(|name| name.as_str().len() as u64).sum());
    if let Some(length) = crate::http::fields::announced_length(&map) {
        let written = map.get("content-length").and_then(|value| value.to_str().ok()).expect("it was read");
        assert_eq!(written.trim_start_matches('0'), length.to_string().trim_start_matches('0'));
    }
});
