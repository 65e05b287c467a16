#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for (name, value) in lines {
        fields.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    fields
}

fn client(trusted: &str, peer: &str, lines: &[(&'static str, &str)]) -> Client {
    let peer = (peer != "unix").then(|| peer.parse().unwrap());
    resolve(&Trusted::parse([trusted]).unwrap(), peer, &fields(lines))
}

/// Who asks, with the port; behind one trusted proxy.
fn who(lines: &[(&'static str, &str)]) -> String {
    let client = client("10.0.0.0/8", "10.0.0.1:1", lines);
    let port = client.port.map_or_else(String::new, |port| format!(" {port}"));
    format!("{}{port}", client.ip.unwrap())
}

#[test]
fn one_address_in_its_spellings_is_one_peer() {
    let trusted = Trusted::parse(["10.0.0.0/8, ::1", "2001:db8::/32", "::ffff:192.168.0.0/112"]).unwrap();
    let trusts = |text: &str| trusted.trusts(Some(text.parse().unwrap()));
    let peers =
        ["10.0.0.1", "::ffff:10.0.0.1", "::ffff:a00:1", "::1", "2001:db8::7", "192.168.3.4", "::ffff:192.168.3.4"];
    for peer in peers {
        assert!(trusts(peer), "{peer}");
    }
    for peer in ["11.0.0.1", "::ffff:11.0.0.1", "::2", "192.169.0.1", "127.0.0.1", "::10.0.0.1"] {
        assert!(!trusts(peer), "{peer}");
    }
    assert!(!trusted.trusts(None));
}

#[test]
fn unix_peers_have_a_rule_of_their_own() {
    assert!(Trusted::parse(["unix"]).unwrap().trusts(None));
    assert!(!Trusted::parse(["unix"]).unwrap().trusts(Some(Ipv6Addr::LOCALHOST.into())));
    assert!(!Trusted::parse(["127.0.0.1", "0.0.0.0/0", "::/0"]).unwrap().trusts(None));
    let all = Trusted::parse(["*"]).unwrap();
    assert!(all.trusts(None) && all.trusts(Some(Ipv6Addr::LOCALHOST.into())));
    assert!(!Trusted::default().trusts(None));
}

#[test]
fn what_names_nobody_is_refused() {
    for entry in ["localhost", "10.0.0.0/33", "10.0.0", "[::1]", "10.0.0.1:80", "none"] {
        let error = Trusted::parse([entry]).unwrap_err().to_string();
        assert!(error.contains(&format!("`{entry}`")) && error.contains("hint"), "{error}");
    }
    assert!(!Trusted::parse([" , "]).unwrap().trusts(None));
}

#[test]
fn of_an_untrusted_peer_nothing_is_believed() {
    let lines = [
        ("x-forwarded-for", "1.2.3.4"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "shop.local"),
        ("forwarded", "for=1.2.3.4;proto=https;host=shop.local"),
    ];
    let peer = Client { ip: Some("11.0.0.1".parse().unwrap()), port: Some(7), ..Client::default() };
    assert_eq!(client("10.0.0.0/8", "11.0.0.1:7", &lines), peer);
    assert_eq!(client("10.0.0.0/8", "[::ffff:11.0.0.1]:7", &lines), peer);
    assert_eq!(client("10.0.0.0/8", "unix", &lines), Client::default());
    assert_eq!(client("", "11.0.0.1:7", &lines), peer);
}

#[test]
fn lines_are_joined_and_read_from_the_right() {
    for (values, wanted) in [
        (&["203.0.113.1"][..], "203.0.113.1"),
        (&["1.1.1.1, 203.0.113.1"], "203.0.113.1"),
        (&["1.1.1.1", "203.0.113.1"], "203.0.113.1"),
        (&["1.1.1.1,203.0.113.1", "10.0.0.2,, 10.0.0.3 ,"], "203.0.113.1"),
        (&["::ffff:203.0.113.1, ::ffff:10.0.0.2"], "203.0.113.1"),
        // all are trusted: the leftmost
        (&["10.0.0.9, 10.0.0.2"], "10.0.0.9"),
        (&["10.0.0.9", "10.0.0.2"], "10.0.0.9"),
        // ports and brackets; trust is not lost by them
        (&["203.0.113.1:4711"], "203.0.113.1 4711"),
        (&["203.0.113.1:4711, 10.0.0.2:80"], "203.0.113.1 4711"),
        (&["[2001:db8::1]:4711, [::ffff:10.0.0.2]:80"], "2001:db8::1 4711"),
        (&["[2001:db8::1]"], "2001:db8::1"),
        (&["2001:db8::1"], "2001:db8::1"),
        (&["\"[2001:db8::1]:4711\""], "2001:db8::1 4711"),
        // rubbish ends the walk
        (&["203.0.113.1, unknown"], "10.0.0.1 1"),
        (&["203.0.113.1, unknown, 10.0.0.2"], "10.0.0.2"),
        (&["203.0.113.1, 10.0.0.2:port"], "10.0.0.1 1"),
        (&["203.0.113.1, 10.0.0.2:99999"], "10.0.0.1 1"),
        (&["203.0.113.1, 10.0.0.256"], "10.0.0.1 1"),
        (&["203.0.113.1, [::1"], "10.0.0.1 1"),
        (&["203.0.113.1, [10.0.0.2]"], "10.0.0.1 1"),
        (&["203.0.113.1, \u{e9}"], "10.0.0.1 1"),
        (&["1.1.1.1, \", 203.0.113.1"], "203.0.113.1"),
        (&[""], "10.0.0.1 1"),
        (&[], "10.0.0.1 1"),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
        assert_eq!(who(&lines), wanted, "{values:?}");
    }
}

#[test]
fn rfc_7239() {
    for (values, wanted) in [
        (&["for=203.0.113.1"][..], "203.0.113.1"),
        (&["For=\"203.0.113.1:4711\";by=10.0.0.1 ; proto=https"], "203.0.113.1 4711"),
        (&["for=\"[2001:db8::1]:4711\", for=10.0.0.2"], "2001:db8::1 4711"),
        (&["for=1.1.1.1, for=\"203.0.113.1\"", "by=x;for=\"10.0.0.2:80\""], "203.0.113.1"),
        (&["for=10.0.0.9, for=10.0.0.2"], "10.0.0.9"),
        (&["for=1.1.1.1;x=\"a,b;c=\\\"\", for=10.0.0.2"], "1.1.1.1"),
        // what the client has left open swallows nothing
        (&["for=\"1.1.1.1, for=203.0.113.1"], "203.0.113.1"),
        (&["for=\"1.1.1.1", "for=\"[2001:db8::1]\""], "2001:db8::1"),
        (&["for=1.1.1.1, for=\"\\\", for=203.0.113.1"], "203.0.113.1"),
        // rubbish ends the walk
        (&["for=203.0.113.1, for=unknown"], "10.0.0.1 1"),
        (&["for=203.0.113.1, for=_hidden, for=10.0.0.2"], "10.0.0.2"),
        (&["for=203.0.113.1, proto=https"], "10.0.0.1 1"),
        (&["for=203.0.113.1, for=10.0.0.2;for=10.0.0.3"], "10.0.0.1 1"),
        (&["for=203.0.113.1, for"], "10.0.0.1 1"),
        (&["for=203.0.113.1, for=10.0.0.2;\""], "10.0.0.1 1"),
    ] {
        let lines: Vec<_> = values.iter().map(|value| ("forwarded", *value)).collect();
        assert_eq!(who(&lines), wanted, "{values:?}");
    }
}

#[test]
fn scheme_and_host_are_of_the_same_hop() {
    let said = |lines: &[(&'static str, &str)]| {
        let client = client("10.0.0.0/8, unix", "unix", lines);
        (client.scheme.map(|scheme| scheme.to_string()).unwrap_or_default(), client.host.unwrap_or_default())
    };
    let pair = |scheme: &str, host: &str| (scheme.to_owned(), host.to_owned());
    for (proto, host, wanted) in [
        ("https", "shop.local", pair("https", "shop.local")),
        ("http, HTTPS", "evil.local, shop.local:8443", pair("https", "shop.local:8443")),
        ("wss", "[::1]:80", pair("https", "[::1]:80")),
        ("ws", "", pair("http", "")),
        ("ftp", "a b", pair("", "")),
        ("https, ftp", "shop.local, user@shop.local", pair("", "")),
        ("https://", "shop.local:99999", pair("", "")),
    ] {
        assert_eq!(said(&[("x-forwarded-proto", proto), ("x-forwarded-host", host)]), wanted);
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", proto), ("x-forwarded-host", host)];
        assert_eq!(said(&lines), wanted);
    }
    let far = "for=6.6.6.6;proto=https;host=evil.local, for=203.0.113.1;proto=https;host=\"shop.local:8443\"";
    assert_eq!(said(&[("forwarded", far)]), pair("https", "shop.local:8443"));
    let near = [("forwarded", far), ("forwarded", "for=10.0.0.2;proto=http;host=internal")];
    assert_eq!(said(&near), pair("https", "shop.local:8443"));
    assert_eq!(said(&[near[1]]), pair("http", "internal"));
    assert_eq!(said(&[("forwarded", "for=unknown;proto=https")]), pair("https", ""));
    // the client's own, which a proxy of the other kind has handed on
    let lines = [("forwarded", "for=6.6.6.6;proto=https;host=evil.local"), ("x-forwarded-for", "203.0.113.1")];
    assert_eq!(said(&lines), pair("", ""));
    assert_eq!(who(&lines), "203.0.113.1");
}

proptest! {
    /// Whatever a client writes, what the trusted proxy has added behind it counts, on the same line or on one of its own.
    #[test]
    fn nothing_that_a_client_writes_moves_it(of_client in "[ -~]{0,30}", same_line in any::<bool>()) {
        for (name, added) in [("x-forwarded-for", "203.0.113.1"), ("forwarded", "for=\"203.0.113.1\";proto=http")] {
            let one = format!("{of_client}, {added}");
            let lines = if same_line { vec![(name, &*one)] } else { vec![(name, &*of_client), (name, added)] };
            prop_assert_eq!(who(&lines), "203.0.113.1");
        }
    }
}
