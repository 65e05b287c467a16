//! The head of a request of HTTP/1, looked at byte by byte before hyper gets it: what front servers and this one could read differently
//! is refused (RFC 9112, 11.2), and where the next request begins is known.

use bytes::Bytes;
use http::Version;

use crate::server::refusal::Refusal;

/// How many fields a request may have, whatever protocol it came by. hyper keeps a table of so many.
pub(super) const MOST_FIELDS: usize = 256;

/// How long a target may be: no URL of hyper's is longer.
const MOST_OF_TARGET: usize = u16::MAX as usize - 1;

/// How long hyper lets a body be: it would answer a longer one itself.
const LONGEST_BODY: u64 = u64::MAX - 2;

/// As long as a target, the name of a field.
const MOST_OF_NAME: usize = u16::MAX as usize;

/// What a body's end is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
}

/// A request as its first line and its fields say.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// The first line, as it came.
    pub line: Bytes,
    pub framing: Framing,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, 10.1.1).
    pub expects: bool,
    pub is_http10: bool,
    /// It is no request that anybody gets: only this answer goes back.
    pub refused: Option<Refusal>,
}

impl Head {
    /// One that is refused before it was read whole.
    pub(super) fn refused(line: Bytes, refusal: Refusal) -> Self {
        let framing = Framing::Length(0);
        Self { line, framing, expects: false, is_http10: false, refused: Some(refusal) }
    }

    pub(super) fn method(&self) -> &[u8] {
        self.parts().0
    }

    /// The target, byte for byte.
    pub(super) fn target(&self) -> &[u8] {
        self.parts().1
    }

    /// Method, target and version, without a copy.
    pub(super) fn first_line(&self) -> (Bytes, Bytes, Version) {
        let version = if self.is_http10 { Version::HTTP_10 } else { Version::HTTP_11 };
        (self.line.slice_ref(self.method()), self.line.slice_ref(self.target()), version)
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        let mut parts = self.line.split(|byte| *byte == b' ');
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    /// Reads a head that ends with an empty line.
    pub(super) fn read(head: &Bytes) -> Result<Self, Refusal> {
        let mut lines = Lines(head);
        let line = lines.next().unwrap_or_default();
        let is_http10 = version(line)?;
        let mut fields = Fields::default();
        for line in lines.filter(|line| !line.is_empty()) {
            fields.add(line)?;
        }
        fields.check(is_http10)?;
        Ok(Self {
            line: head.slice_ref(line),
            framing: fields.framing(),
            expects: fields.expects && !is_http10,
            is_http10,
            refused: None,
        })
    }
}

/// Lines that end with CR LF.
struct Lines<'a>(&'a [u8]);

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let end = self.0.windows(2).position(|pair| pair == b"\r\n")?;
        let (line, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(2..).unwrap_or_default();
        Some(line)
    }
}

/// Whether the request is one of HTTP/1.0.
fn version(line: &[u8]) -> Result<bool, Refusal> {
    let mut parts = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Refusal::bad("the request line is not `method SP target SP version`"));
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(Refusal::bad("the method is no token"));
    }
    if target.is_empty() || !target.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::bad("the target has characters that no URL has"));
    }
    if target.contains(&b'#') {
        return Err(Refusal::bad("the target has a fragment")); // RFC 9112, 3.2
    }
    if target.len() > MOST_OF_TARGET {
        return Err(Refusal::new(414, "the target is too long"));
    }
    if !is_plain(target) && http::Uri::try_from(target).is_err() {
        return Err(Refusal::bad("the target is no path and no URL"));
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        _ if version.starts_with(b"HTTP/") => Err(Refusal::new(505, "the version is not HTTP/1.1 or HTTP/1.0")),
        _ => Err(Refusal::bad("the request line has no version")),
    }
}

/// Whether a target is a path of characters that each path may have: no URL has to be read to know that it is one.
fn is_plain(target: &[u8]) -> bool {
    target.starts_with(b"/")
        && target.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte))
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// What the fields say of framing and host.
#[derive(Default)]
struct Fields {
    number: usize,
    length: Option<u64>,
    chunked: bool,
    hosts: usize,
    expects: bool,
}

impl Fields {
    fn add(&mut self, line: &[u8]) -> Result<(), Refusal> {
        self.number += 1;
        if self.number > MOST_FIELDS {
            return Err(Refusal::new(431, "the request has too many fields"));
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::bad("a field goes on in a second line")); // RFC 9112, 5.2
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(Refusal::bad("a field has no colon"));
        };
        let (name, value) = line.split_at(colon);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(Refusal::bad("the name of a field is no token")); // also of space before the colon: RFC 9112, 5.1
        }
        if name.len() > MOST_OF_NAME {
            return Err(Refusal::new(431, "the name of a field is too long"));
        }
        let value = value.get(1..).unwrap_or_default();
        if value.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err(Refusal::bad("a field has a control character in it")); // RFC 9110, 5.5
        }
        let value = value.trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = length(value).ok_or_else(|| Refusal::bad("`content-length` is no number, or too large"))?;
            if self.length.replace(length).is_some() {
                return Err(Refusal::bad("there are two `content-length`"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if std::mem::replace(&mut self.chunked, true) {
                return Err(Refusal::bad("there are two `transfer-encoding`"));
            }
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Refusal::new(501, "a transfer coding other than `chunked`")); // RFC 9112, 6.1
            }
        } else if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"expect") {
            self.expects = value.eq_ignore_ascii_case(b"100-continue");
        }
        Ok(())
    }

    fn check(&self, is_http10: bool) -> Result<(), Refusal> {
        // RFC 9112, 6.1 and 3.2
        match self {
            Self { chunked: true, length: Some(_), .. } => {
                Err(Refusal::bad("there are both `content-length` and `transfer-encoding`"))
            }
            Self { chunked: true, .. } if is_http10 => Err(Refusal::bad("HTTP/1.0 has no `transfer-encoding`")),
            Self { hosts: 2.., .. } => Err(Refusal::bad("there are two `host`")),
            Self { hosts: 0, .. } if !is_http10 => Err(Refusal::bad("there is no `host`")),
            _ => Ok(()),
        }
    }

    fn framing(&self) -> Framing {
        match self.chunked {
            true => Framing::Chunked,
            false => Framing::Length(self.length.unwrap_or_default()),
        }
    }
}

/// Digits and nothing else (RFC 9112, 6.2).
fn length(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    let length = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
    length.filter(|length| *length <= LONGEST_BODY)
}

/// How many bytes a chunk has, by the line before it (RFC 9112, 7.1).
pub(super) fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next().unwrap_or_default();
    let size = match size.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')) {
        Some(last) => size.get(..=last)?,
        None => return None,
    };
    let text = std::str::from_utf8(size).ok()?;
    let is_short = text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_short.then(|| u64::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn read(head: &str) -> Result<Head, u16> {
        Head::read(&Bytes::copy_from_slice(head.as_bytes())).map_err(|refusal| refusal.status)
    }

    fn refused(fields: &str) -> u16 {
        read(&format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")).unwrap_err()
    }

    #[test]
    fn a_head_says_how_its_body_ends() {
        let head = read("POST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n").unwrap();
        assert_eq!((head.method(), head.target(), head.framing), (&b"POST"[..], &b"/a?b"[..], Framing::Length(7)));
        let head = read("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: Chunked\r\n\r\n").unwrap();
        assert_eq!((head.framing, head.expects), (Framing::Chunked, false));
        let head = read("GET / HTTP/1.0\r\nexpect: 100-continue\r\n\r\n").unwrap();
        assert_eq!((head.framing, head.expects, head.is_http10), (Framing::Length(0), false, true));
        assert!(read("PUT / HTTP/1.1\r\nhost:a\r\nexpect: 100-Continue\r\n\r\n").unwrap().expects);
    }

    #[test]
    fn what_two_servers_could_read_differently_is_refused() {
        for fields in [
            "host: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked",
            "host: a\r\ncontent-length: 1\r\ncontent-length: 1",
            "host: a\r\ncontent-length: 1, 1",
            "host: a\r\ncontent-length: +1",
            "host: a\r\ncontent-length: ",
            "host: a\r\ncontent-length: 99999999999999999999",
            "host: a\r\ncontent-length: 18446744073709551615",
            "host: a\r\ncontent-length: 18446744073709551614",
            "host: a\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "host: a\r\nhost: a",
            "x: 1",
            "host: a\r\n folded",
            "host : a",
            "host: a\r\n: b",
            "host: a\r\nno colon",
            "host: a\r\nx: b\rc: d",
            "host: a\r\nx: b\0",
            "host: a\r\nx: b\u{1}c",
            "host: a\r\ntransfer-encoding: \u{c}chunked",
        ] {
            assert_eq!(refused(fields), 400, "{fields:?}");
        }
        assert_eq!(refused("host: a\r\ntransfer-encoding: gzip, chunked"), 501);
        assert_eq!(refused("host: a\r\ntransfer-encoding: identity"), 501);
        assert_eq!(refused(&format!("host: a{}", "\r\na: b".repeat(MOST_FIELDS))), 431);
        assert!(read(&format!("GET / HTTP/1.1\r\nhost: a{}\r\n\r\n", "\r\na: b".repeat(101))).is_ok());
        assert_eq!(read("POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n").unwrap_err(), 400);
    }

    #[test]
    fn a_request_line_has_three_parts() {
        for line in [
            "GET /",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            " GET / HTTP/1.1",
            "G\"T / HTTP/1.1",
            "GET /\u{e9} HTTP/1.1",
            "GET /a#b HTTP/1.1",
            "GET /?a#b HTTP/1.1",
            "GET http://a#b HTTP/1.1",
            "GET / http",
        ] {
            assert_eq!(read(&format!("{line}\r\nhost: a\r\n\r\n")).unwrap_err(), 400, "{line:?}");
        }
        assert_eq!(read("GET / HTTP/2.0\r\nhost: a\r\n\r\n").unwrap_err(), 505);
    }

    #[test]
    fn the_size_of_a_chunk_is_hexadecimal() {
        for (line, size) in [("0", 0), ("1a", 26), ("FF;a=b", 255), ("5 ;x", 5), ("000000000000000f", 15)] {
            assert_eq!(chunk_size(line.as_bytes()), Some(size), "{line:?}");
        }
        for line in ["", " ", "0x5", "-1", "g", ";a", "5 5", "11111111111111111"] {
            assert_eq!(chunk_size(line.as_bytes()), None, "{line:?}");
        }
    }
}
