#![allow(clippy::unwrap_used, clippy::panic)]
use super::*;

fn matches(pattern: &str, url: &str) -> bool {
    let target = Target::of(&url.parse().unwrap()).unwrap();
    Pattern::parse(pattern).unwrap_or_else(|why| panic!("{pattern}: {why}")).matches(&target)
}

#[test]
fn patterns_mean_what_they_say() {
    for (pattern, fitting, others) in [
        ("*", vec!["http://a/", "https://[::1]:8/x"], vec![]),
        ("api.local", vec!["http://api.local/", "https://API.local.:99/x"], vec!["http://x.api.local/"]),
        ("api.local:8080", vec!["http://api.local:8080/"], vec!["http://api.local/", "https://api.local/"]),
        ("https://a", vec!["https://a/", "https://a:443/"], vec!["http://a/", "https://a:444/", "http://a:443/"]),
        ("*.a.b", vec!["http://x.a.b/", "http://x.y.a.b/"], vec!["http://a.b/", "http://xa.b/", "http://a.b.c/"]),
        ("http://*:80", vec!["http://a/", "http://1.2.3.4/"], vec!["http://a:81/", "https://a:80/"]),
        ("a/v1/", vec!["http://a/v1", "http://a/v1/x", "http://a/v1?q"], vec!["http://a/v10", "http://a/"]),
        ("1.2.3.4/v8", vec!["http://1.2.3.4/v8"], vec!["http://1.2.3.4/8"]),
        ("http://1.2.3.4/8", vec!["http://1.2.3.4/8"], vec!["http://1.2.3.4/"]),
        ("a/v1/*", vec!["http://a/v1/x", "http://a/%761/x"], vec!["http://a/v2"]),
        ("127.0.0.1", vec!["http://127.0.0.1/", "http://0x7f.1/", "http://2130706433/"], vec!["http://127.0.0.2/"]),
        ("127.0.0.1", vec!["http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/"], vec!["http://[::1]/"]),
        ("[2001:DB8::0:1]:81", vec!["http://[2001:db8::1]:81/"], vec!["http://[2001:db8::1]/"]),
        ("bücher.example", vec!["http://xn--bcher-kva.example/"], vec!["http://bucher.example/"]),
        ("a/é/{x}", vec!["http://a/%C3%A9/%7Bx%7D", "http://a/%c3%a9/%7bx%7d"], vec!["http://a/e/%7Bx%7D"]),
        ("http://a:", vec!["http://a/", "http://a:/", "http://a:0080/"], vec!["http://a:81/"]),
        ("b%C3%BCcher.%65xample", vec!["http://xn--bcher-kva.example/"], vec![]),
    ] {
        for url in fitting {
            assert!(matches(pattern, url), "{pattern} and {url}");
        }
        for url in others {
            assert!(!matches(pattern, url), "{pattern} and {url}");
        }
    }
}

#[test]
fn no_path_leads_out_of_a_pattern() {
    for path in [
        "/v1/../x",
        "/v1/..",
        "/v1/%2e%2e/x",
        "/v1/.%2E/x",
        "/v1/..%2fx",
        "/v1/..%5cx",
        "/v1/./x",
        "/v1/..;a=b/x",
        "/v1/%2e",
        "/v1/%zz",
        "/v1/%2",
    ] {
        assert_eq!(Path::of(path), None, "{path}");
        if let Ok(url) = format!("http://a{path}").parse() {
            let target = Target::of(&url).unwrap();
            assert!(!Pattern::parse("a/v1").unwrap().matches(&target), "{path}");
            assert!(Pattern::parse("a").unwrap().matches(&target), "the whole host is meant, whatever the path");
        }
    }
    for path in ["/v1/../x", "//v1", "/v1;a=b/x", "/%2fv1", "/v1%00", "/x/..%2fv1", "\\\\v1/", "/v1//x"] {
        if let Ok(url) = format!("http://a{path}").parse() {
            let target = Target::of(&url).unwrap();
            assert!(Pattern::parse("a/v1").unwrap().may_match(&target), "{path} may be below /v1");
            assert!(!Pattern::parse("b/v1").unwrap().may_match(&target));
        }
    }
    for path in ["/v2", "/", "/v10", "/x/v1"] {
        let target = Target::of(&format!("http://a{path}").parse().unwrap()).unwrap();
        assert!(!Pattern::parse("a/v1").unwrap().may_match(&target), "{path}");
    }
    assert_eq!(Path::of("/v1/%41%2fb%20c").map(|path| path.plain).as_deref(), Some("/v1/A%2Fb%20c"));
}

#[test]
fn what_is_no_port_is_no_target() {
    for authority in ["a:99999", "a:65616", "a:+80", "a:abc", "[::1]a:80", "[::1%25lo]"] {
        // `http::Uri` takes them
        let uri = format!("http://{authority}/").parse().unwrap();
        assert!(Target::of(&uri).is_none(), "{authority}");
        assert_eq!(Table::new(["*"]).unwrap().find(&uri), None, "{authority}");
    }
}

#[test]
fn what_is_no_pattern_says_why() {
    for (text, why) in [
        ("", "no host"),
        ("http://", "no host"),
        ("ftp://a", "http or https"),
        ("a?q", "`?`"),
        ("user@a", "`@`"),
        ("a:0", "port"),
        ("a:+80", "port"),
        ("a:99999", "port"),
        ("a.*", "whole labels"),
        ("*a.b", "whole labels"),
        ("*.1.2.3.4", "whole labels"),
        ("a/*/b", "at its end"),
        ("a/v*", "at its end"),
        ("10.0.0.0/8", "`Network.addresses`"),
        ("[fd00::]/32", "`Network.addresses`"),
        ("a/..", "dot segments"),
        ("a b", "no host"),
        ("a..", "no host"),
        ("a.\u{3002}", "no host"),
        ("a.\u{ff0a}", "no host"),
        ("[::1%25eth0]", "no host"),
    ] {
        let Err(error) = Pattern::parse(text) else { panic!("{text:?} is one") };
        assert!(error.to_string().contains(why), "{text}: {error}");
    }
}

#[test]
fn a_pattern_is_what_it_is_written_as() {
    for text in
        ["10.0.0.1/8/", "10.0.0.1/8/*", "10.0.0.1/%38", "12.7./1/", "[::1]/64/", "10.0.0.1/129", "10.0.0.1:80/8", "a/8"]
    {
        let pattern = Pattern::parse(text).unwrap();
        assert_eq!(Pattern::parse(&pattern.to_string()).unwrap(), pattern, "{text}");
    }
}

#[test]
fn the_most_special_pattern_is_meant() {
    let texts = ["*", "a.b", "https://a.b/v1/", "*.b", "https://a.b", "https://a.b/v1/deep", "http://c:81"];
    let table = Table::new(texts).unwrap();
    for (url, text) in [
        ("http://x/", "*"),
        ("http://a.b/", "a.b"),
        ("https://a.b/", "https://a.b"),
        ("https://a.b/v1/x", "https://a.b/v1/"),
        ("https://a.b/v1/deep/er", "https://a.b/v1/deep"),
        ("https://a.b/v1/deeper", "https://a.b/v1/"),
        ("https://a.b:444/v1/x", "a.b"),
        ("http://z.b/", "*.b"),
        ("http://c:81/", "http://c:81"),
        ("http://c/", "*"),
    ] {
        let found = table.find(&url.parse().unwrap()).and_then(|place| texts.get(place));
        assert_eq!(found, Some(&text), "{url}");
    }
    assert_eq!(Table::new(["a"]).unwrap().find(&"http://b/".parse().unwrap()), None);
}

#[test]
fn what_could_mean_either_is_refused() {
    for (one, other) in [
        ("a", "A."),
        ("http://a", "http://a:80/"),
        ("127.0.0.1", "0x7f.0.0.1"),
        ("http://*.b", "a.b"),
        ("a:80", "http://*:80"),
        ("a/v1", "https://a"),
        ("*/x", "a"),
    ] {
        let error = Table::new([one, other]).map(drop).unwrap_err().to_string();
        assert!(error.contains("twice") || error.contains("neither"), "{one}, {other}: {error}");
    }
    for (one, other) in [("http://a", "https://a"), ("a/v1", "a/v2"), ("*.a", "a"), ("a:1", "a:2")] {
        assert!(Table::new([one, other]).is_ok(), "{one}, {other}");
    }
}
