//! Any text is a pattern or refused; a pattern is what it is written as; what one covers, it matches; nothing outside of its
//! host is ever meant; and a URL is meant in whatever form it is written.
#![no_main]

#[path = "../../src/http"]
mod http {
    #[allow(dead_code)]
    pub mod canonical_url;
    #[allow(dead_code)]
    pub mod url;
    #[allow(dead_code)]
    pub mod url_pattern;
}

use crate::http::url_pattern::{Pattern, Table, Target};

libfuzzer_sys::fuzz_target!(|given: (&str, &str, &str)| {
    let (one, other, text) = given;
    let target = crate::http::url::parse(text).ok().and_then(|url| Target::of(&url));
    if let Some(normal) = crate::http::canonical_url::url(text) {
        assert_eq!(crate::http::canonical_url::url(&normal).as_ref(), Some(&normal), "in one form");
        assert!(
            normal.contains('*') || crate::http::canonical_url::glob(text) == normal,
            "a pattern without a star is a URL"
        );
    }
    let patterns: Vec<Pattern> = [one, other].iter().filter_map(|text| Pattern::parse(text).ok()).collect();
    for pattern in &patterns {
        let written = pattern.to_string();
        let again = Pattern::parse(&written);
        assert_eq!(again.as_ref().ok(), Some(pattern), "{written}");
        assert!(pattern.covers(pattern));
    }
    if let ([one, other], Some(target)) = (&patterns[..], &target) {
        if one.covers(other) && other.matches(target) {
            assert!(one.matches(target));
        }
        let table = Table::new([given.0, given.1]);
        if one.matches(target) && other.matches(target) {
            let comparable = one.covers(other) != other.covers(one);
            assert_eq!(table.is_ok(), comparable, "both are meant, so one must be the more special");
        }
    }
});
