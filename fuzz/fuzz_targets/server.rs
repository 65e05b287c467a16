//! Any authority and any target that a server has read make a URL or are refused; a target that a URL can hold stays as it came.
#![no_main]

#[path = "../../src/http"]
mod http {
    #[allow(dead_code)]
    pub mod url;
}

libfuzzer_sys::fuzz_target!(|scope: (&str, &str, &[u8])| {
    let (scheme, authority, target) = scope;
    let Ok(uri) = crate::http::url::of_server(scheme, authority, target) else { return };
    let written = uri.path_and_query().expect("a target").as_str();
    assert!(written.starts_with('/') || written == "*");
    assert!(written.is_ascii() && !written.contains([' ', '#', '\r', '\n', '\0']));
    assert!(crate::http::url::split(uri.authority().expect("an authority").as_str()).is_ok());
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(byte);
    if target.starts_with(b"/") && target.iter().all(plain) {
        assert_eq!(written.as_bytes(), target);
    }
});
