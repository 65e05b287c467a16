//! Any text is a URL or it is refused; what was read is whole, ASCII, and reads the same again.
#![no_main]

#[path = "../../src/http"]
mod http {
    #[allow(dead_code)]
    pub mod url;
}

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(uri) = crate::http::url::parse(text) else { return };
    let written = uri.to_string();
    assert!(written.is_ascii());
    assert!(!written.contains(|character: char| character.is_ascii_control() || character == ' ' || character == '#'));
    assert!(uri.path().starts_with('/'));
    let authority = uri.authority().expect("an authority");
    assert!(!authority.host().is_empty());
    assert!(!authority.as_str().contains('@'));
    let (host, port) = crate::http::url::split(authority.as_str()).expect("a host and a port");
    assert_eq!((host, port), (authority.host(), authority.port_u16()), "read as http::Uri reads it");
    let scheme = uri.scheme_str().expect("a scheme");
    let target = uri.path_and_query().map(|target| target.as_str());
    assert_eq!(
        crate::http::url::of_guest(scheme, authority.as_str(), target).ok().as_ref(),
        Some(&uri),
        "a guest may ask for it"
    );
    assert!(!uri.scheme_str().expect("a scheme").is_empty());
    assert_eq!(crate::http::url::parse(&written).ok().as_ref(), Some(&uri), "{text:?} became {written:?}");
});
