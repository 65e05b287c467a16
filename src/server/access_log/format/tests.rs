#![allow(clippy::unwrap_used)]
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, Version};
use proptest::prelude::*;

use super::*;

fn map(lines: &[(&'static str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(*name, HeaderValue::from_bytes(value).unwrap());
    }
    map
}

fn entry<'a>(request: &'a HeaderMap, response: &'a HeaderMap) -> Entry<'a> {
    Entry {
        client: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
        user: None,
        started: UNIX_EPOCH + Duration::from_millis(971_186_136_123),
        duration: Duration::from_micros(1_234_567),
        method: "GET",
        target: b"/a%20b?c=d?e",
        version: Some(Version::HTTP_11),
        scheme: Some("https"),
        host: Some("shop.local:8443"),
        status: 200,
        sent: 5,
        request_id: Some("7f"),
        traceparent: Some("00-1-2-01"),
        component: Some("hello"),
        exchange: Some(42),
        outcome: Some("ended"),
        request,
        response,
    }
}

/// Of a request of which nothing is known, at that time.
fn unread<'a>(nothing: &'a HeaderMap) -> Entry<'a> {
    let Entry { started, duration, .. } = entry(nothing, nothing);
    Entry { started, duration, ..Entry::unread(nothing) }
}

fn line(format: &str, entry: &Entry<'_>) -> String {
    let mut out = b"before\n".to_vec();
    Format::parse(format).unwrap().write_line(entry, &mut out);
    let line = String::from_utf8(out).unwrap();
    line.strip_prefix("before\n").unwrap().strip_suffix('\n').unwrap().to_owned()
}

#[test]
fn the_formats_that_everybody_reads() {
    let request = map(&[("referer", b"https://a.local/"), ("user-agent", b"curl/8")]);
    let response = HeaderMap::new();
    let entry = entry(&request, &response);
    let common = r#"192.0.2.1 - - [10/Oct/2000:13:55:36 +0000] "GET /a%20b?c=d?e HTTP/1.1" 200 5"#;
    assert_eq!(line("common", &entry), common);
    assert_eq!(line("combined", &entry), format!(r#"{common} "https://a.local/" "curl/8""#));
    assert_eq!(line(COMBINED, &entry), line("combined", &entry));
    let json = concat!(
        r#"{"time":"2000-10-10T13:55:36.123Z","method":"GET","target":"/a%20b?c=d?e","status":200,"bytes":5,"duration":1.234567,"#,
        r#""client":"192.0.2.1","protocol":"HTTP/1.1","exchange":42,"scheme":"https","host":"shop.local:8443","request_id":"7f","#,
        r#""traceparent":"00-1-2-01","component":"hello","outcome":"ended","referer":"https://a.local/","user_agent":"curl/8"}"#
    );
    assert_eq!(line("json", &entry), json);
}

#[test]
fn a_request_that_could_not_be_read_has_a_line_too() {
    let nothing = HeaderMap::new();
    let entry = unread(&nothing);
    assert_eq!(line("combined", &entry), r#"- - - [10/Oct/2000:13:55:36 +0000] "-" 400 - "-" "-""#);
    let json =
        r#"{"time":"2000-10-10T13:55:36.123Z","method":"","target":"","status":400,"bytes":0,"duration":1.234567}"#;
    assert_eq!(line("json", &entry), json);
    let raw = Entry { target: b"GET  /\xe9", ..entry };
    assert_eq!(line("%(r)s", &raw), r" GET  /\xe9");
    assert_eq!(line("%(m)s %(h)s %(H)s %(exchange)s %(outcome)s [%(q)s]", &entry), "- - - - - []");
}

#[test]
fn each_atom() {
    let request = map(&[("accept", b"a/b"), ("accept", b"c/d"), ("referer", b"r"), ("user-agent", b"ua")]);
    let response = map(&[("content-type", b"text/html")]);
    let entry = Entry { user: Some("ann"), ..entry(&request, &response) };
    for (template, wanted) in [
        ("%(h)s %(addr)s", "192.0.2.1 192.0.2.1"),
        ("%(l)s %(u)s", "- ann"),
        ("%(t)s %(time)s", "[10/Oct/2000:13:55:36 +0000] 2000-10-10 13:55:36 +0000"),
        ("%(r)s", "GET /a%20b?c=d?e HTTP/1.1"),
        ("%(m)s %(method)s", "GET GET"),
        ("%(U)s %(path)s", "/a%20b /a%20b"),
        ("%(q)s %(query_string)s", "c=d?e c=d?e"),
        ("%(H)s %(protocol)s %(scheme)s", "HTTP/1.1 HTTP/1.1 https"),
        ("%(s)s %(status)d", "200 200"),
        ("%(b)s %(B)s", "5 5"),
        ("%(f)s %(a)s", "r ua"),
        ("%(T)s %(M)s %(D)s %(L)s", "1 1234 1234567 1.234567"),
        ("%(dt_ms).3f %(dt_ms)s %(T).0f %(D)f", "1234.567 1234 1 1234567.000000"),
        ("%({accept}i)s %({Accept}i)s", "a/b, c/d a/b, c/d"),
        ("%({content-type}o)s %({x}o)s %({x}i)s", "text/html - -"),
        ("%(host)s %(request_id)s %(traceparent)s", "shop.local:8443 7f 00-1-2-01"),
        ("%(component)s %(exchange)s %(outcome)s", "hello 42 ended"),
        ("100%% é %(s)s %%(s)s", "100% é 200 %(s)s"),
        (
            "[%(time)s] %(addr)s - \"%(method)s %(path)s %(protocol)s\" %(status)d %(dt_ms).3f",
            "[2000-10-10 13:55:36 +0000] 192.0.2.1 - \"GET /a%20b HTTP/1.1\" 200 1234.567",
        ),
    ] {
        assert_eq!(line(template, &entry), wanted, "{template}");
    }
    assert_eq!(line("%(p)s", &entry), format!("<{}>", std::process::id()));
    assert_eq!(line("%(b)s %(B)s", &Entry { sent: 0, ..entry }), "- 0");
    assert_eq!(line("%(H)s", &Entry { version: Some(Version::HTTP_2), ..entry }), "HTTP/2.0");
}

#[test]
fn what_is_kept_of_a_request() {
    let of = |text: &str| {
        let format = Format::parse(text).unwrap();
        (format.of_request(), format.of_response())
    };
    assert_eq!(of("common"), (vec![], vec![]));
    assert_eq!(of("combined"), (vec![REFERER, USER_AGENT], vec![]));
    assert_eq!(of("json"), of("combined"));
    assert_eq!(of("%({cookie}i)s %({etag}o)s"), (vec![http::header::COOKIE], vec![http::header::ETAG]));
    let twice = "%(a)s %({User-Agent}i)s %({etag}o)s %({ETag}o)s";
    assert_eq!(of(twice), (vec![USER_AGENT], vec![http::header::ETAG]));
}

#[test]
fn what_is_no_format() {
    for (text, said) in [
        ("", "has no atom"),
        ("combind", "`combind` has no atom; hint: `common`, `combined`, `json`"),
        ("%(x)s", "unknown atom `%(x)s`; hint: there are h, l, u, t, r,"),
        ("%({x}e)s", "unknown atom `%({x}e)s`"),
        ("%({a b}i)s", "unknown atom"),
        ("%({x)s", "unknown atom"),
        ("%h", "`%` that begins no atom"),
        ("%(h)s %", "`%` that begins no atom"),
        ("%(h", "`%` that begins no atom"),
        ("%(h)", "no `s` behind `%(h)`"),
        ("%(h).3f", "no `s` behind `%(h)`"),
        ("%(dt_ms).99f", "no `s` behind `%(dt_ms)`"),
        ("%(dt_ms).f", "no `s` behind `%(dt_ms)`"),
        ("%(h)s\n", "control character"),
    ] {
        let error = Format::parse(text).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains('\n'), "{text}: {error}");
    }
}

#[test]
fn a_client_forges_no_line_and_leaves_no_quotes() {
    let request = map(&[("user-agent", b"\" 200 5\t\xff\\\x80"), ("referer", "é".as_bytes())]);
    let response = HeaderMap::new();
    let entry = Entry { target: b"/\r\nFAKE \"\x00\x1b[2J\x7f%0d%0a", ..entry(&request, &response) };
    let combined = line("combined", &entry);
    let forged = r#"/\x0d\x0aFAKE \x22\x00\x1b[2J\x7f%0d%0a"#;
    assert!(combined.contains(&format!("\"GET {forged} HTTP/1.1\"")), "{combined}");
    assert!(combined.ends_with(r#""\xc3\xa9" "\x22 200 5\x09\xff\x5c\x80""#), "{combined}");
    let json = line("json", &Entry { target: "/\r\n\"\\\u{2028}\u{202e}é😀\u{7f}\u{9b}".as_bytes(), ..entry });
    assert!(json.contains(r#""target":"/\u000d\u000a\"\\\u2028\u202e\u00e9\ud83d\ude00\u007f\u009b""#), "{json}");
    assert!(json.contains(r#""user_agent":"\" 200 5\u0009\ufffd\\\ufffd""#), "{json}");
}

/// What is left of a text behind the JSON value that it begins with: objects, strings and numbers, as RFC 8259 has them. `None` if it does
/// not begin with one.
fn behind_json(text: &str) -> Option<&str> {
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = behind_json(behind_json(rest)?.strip_prefix(':')?)?;
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return rest.strip_prefix('}'),
            }
        }
    }
    if let Some(mut rest) = text.strip_prefix('"') {
        loop {
            let (stop, _) = rest.char_indices().find(|(_, c)| *c < ' ' || *c == '"' || *c == '\\')?;
            rest = match rest.get(stop..)?.as_bytes() {
                [b'"', ..] => return rest.get(stop + 1..),
                [b'\\', b'"' | b'\\', ..] => rest.get(stop + 2..)?,
                [b'\\', b'u', digits @ ..] if digits.get(..4)?.iter().all(u8::is_ascii_hexdigit) => {
                    rest.get(stop + 6..)?
                }
                _ => return None,
            };
        }
    }
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.get(..end)?.parse::<f64>().ok().and(text.get(end..))
}

proptest! {
    #[test]
    fn one_line_whatever_comes(
        method in any::<String>(),
        target in prop::collection::vec(any::<u8>(), 0..40),
        other in any::<String>(),
        value in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let mut fields = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            fields.insert(REFERER, value.clone());
            fields.insert(USER_AGENT, value);
        }
        let entry = Entry {
            method: &method,
            target: &target,
            user: Some(&other),
            host: Some(&other),
            request_id: Some(&other),
            traceparent: Some(&other),
            outcome: Some(&other),
            ..entry(&fields, &fields)
        };
        let all = r#"%(r)s %(u)s %(m)s %(U)s %(q)s "%(f)s" %({user-agent}o)s %(host)s %(request_id)s %(traceparent)s %(outcome)s"#;
        for format in ["common", "combined", "json", all] {
            let line = line(format, &entry);
            prop_assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line}");
            if format == "json" {
                prop_assert_eq!(behind_json(&line), Some(""));
            }
        }
        prop_assert_eq!(line("combined", &entry).matches('"').count(), 6);
    }
}
