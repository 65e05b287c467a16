#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use tokio::io::ReadBuf;

use super::*;

/// Gives pieces of these lengths in turn, and then what is left.
struct Pieces<'a> {
    bytes: &'a [u8],
    lengths: Vec<usize>,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.lengths.pop().unwrap_or(usize::MAX).min(self.bytes.len()).min(buffer.remaining());
        let (piece, rest) = self.bytes.split_at(length);
        buffer.put_slice(piece);
        self.bytes = rest;
        Poll::Ready(Ok(()))
    }
}

/// What is read, and what is left in the stream.
fn read_all(bytes: &[u8], lengths: Vec<usize>) -> (Result<Option<Addresses>, ProxyError>, &[u8]) {
    let mut stream = Pieces { bytes, lengths };
    let found = {
        let reading = pin!(read(&mut stream));
        let Poll::Ready(found) = reading.poll(&mut Context::from_waker(Waker::noop())) else { unreachable!() };
        found
    };
    (found, stream.bytes)
}

fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, rest].concat()
}

fn addresses(source: &str, destination: &str) -> Option<Addresses> {
    Some(Addresses { source: source.parse().unwrap(), destination: destination.parse().unwrap() })
}

const IPV4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];

fn ipv6() -> Vec<u8> {
    let octets = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&octets("2001:db8::1")[..], &octets("2001:db8::2"), &[0xdc, 0x04, 0x01, 0xbb]].concat()
}

fn whole_headers() -> Vec<(Vec<u8>, Option<Addresses>)> {
    let v4 = addresses("192.0.2.1:56324", "198.51.100.2:443");
    let v6 = addresses("[2001:db8::1]:56324", "[2001:db8::2]:443");
    let tlvs = [&IPV4[..], &[0x04, 0, 3, 1, 2, 3], &[0xea, 0, 1, 1]].concat();
    vec![
        (b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n".to_vec(), v4),
        (b"PROXY TCP4 0.0.0.0 0.0.0.0 0 0\r\n".to_vec(), addresses("0.0.0.0:0", "0.0.0.0:0")),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n".to_vec(), v6),
        (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n".to_vec(), addresses("192.0.2.1:1", "[::1]:2")),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (format!("PROXY UNKNOWN {} 65535 65535\r\n", vec!["ffff:".repeat(7) + "ffff"; 2].join(" ")).into(), None),
        (format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16)).into(), None),
        (v2(0x21, 0x11, &IPV4), v4),
        (v2(0x21, 0x12, &IPV4), v4),
        (v2(0x21, 0x11, &tlvs), v4),
        (v2(0x21, 0x21, &ipv6()), v6),
        (v2(0x21, 0x22, &[ipv6(), vec![0x04, 0, 0]].concat()), v6),
        // as AWS and others check health: with and without an address block
        (v2(0x20, 0x00, &[]), None),
        (v2(0x20, 0x11, &IPV4), None),
        (v2(0x20, 0x77, &[9; 5]), None),
        (v2(0x21, 0x00, &[]), None),
        (v2(0x21, 0x00, &[1; 40]), None),
        (v2(0x21, 0x31, &[b'/'; 216]), None),
        (v2(0x21, 0x11, &[&IPV4[..], &[0; LONGEST - FIXED - 12]].concat()), v4),
    ]
}

#[test]
fn a_header_is_read_to_its_end_whatever_the_segments_and_no_further() {
    for (header, wanted) in whole_headers() {
        for request in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"\r\n\r\n", &header] {
            let bytes = [&header, request].concat();
            let all_lengths = (1..header.len().min(300)).map(|length| vec![length]);
            for lengths in all_lengths.chain([vec![], vec![1; header.len()], vec![2; header.len()]]) {
                let (found, left) = read_all(&bytes, lengths);
                assert_eq!(found.unwrap(), wanted);
                assert_eq!(left, request);
            }
        }
    }
}

#[test]
fn a_header_that_breaks_off() {
    for (header, _) in whole_headers() {
        for length in 0..header.len().min(300) {
            let (found, _) = read_all(&header[..length], vec![]);
            assert!(matches!(found, Err(ProxyError::Closed { received }) if received == length));
        }
    }
}

#[test]
fn ill_formed_headers() {
    let lines = [
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443 1\r\n",
        "PROXY TCP4  192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 65536\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 +443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324 0443\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 56324\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 56324 443\r\n",
        "PROXY TCP4 ::1 ::1 56324 443\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY TCP6 [::1] ::1 56324 443\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY tcp4 192.0.2.1 198.51.100.2 56324 443\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY UNKNOWN \n aaaaaa\r\n",
        "PROXY TCP4 192.0.2.\u{661} 198.51.100.2 56324 443\r\n",
    ];
    let mut headers: Vec<Vec<u8>> = lines.iter().map(|line| line.as_bytes().to_vec()).collect();
    headers.push(format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 15)).into());
    headers.push(b"PROXY UNKNOWN \xff\r\n".to_vec());
    headers.extend([v2(0x11, 0x11, &IPV4), v2(0x22, 0x11, &IPV4), v2(0x21, 0x13, &IPV4), v2(0x21, 0x41, &[0; 216])]);
    headers.extend([v2(0x21, 0x11, &IPV4[..11]), v2(0x21, 0x21, &ipv6()[..35]), v2(0x21, 0x31, &[0; 215])]);
    headers.push(v2(0x21, 0x11, &[0; LONGEST]));
    for header in headers {
        for lengths in [vec![], vec![1; header.len()]] {
            let (found, _) = read_all(&header, lengths);
            assert!(matches!(found, Err(ProxyError::Malformed(_))), "{}: {found:?}", header.escape_ascii());
        }
    }
}

#[test]
fn what_is_something_else_is_told_from_its_first_wrong_byte() {
    let others = [
        &b"GET / HTTP/1.1\r\n"[..],
        b"\x16\x03\x01",
        b"PRI * HTTP/2.0\r\n",
        b"PROXX",
        b"\r\n\r\n\0\r\nQUIT\r",
        b"\r\n\r\nP",
    ];
    for other in others {
        for lengths in [vec![], vec![1; 30]] {
            let (found, _) = read_all(other, lengths);
            assert!(matches!(found, Err(ProxyError::Missing)), "{}", other.escape_ascii());
        }
    }
    // not only at its end
    assert!(matches!(read_all(b"G", vec![]).0, Err(ProxyError::Missing)));
}

fn bytes_alike() -> impl Strategy<Value = Vec<u8>> {
    let header = prop::sample::select(whole_headers()).prop_map(|(header, _)| header);
    let changed = (header, any::<prop::sample::Index>(), any::<u8>(), any::<prop::sample::Index>());
    prop_oneof![
        changed.prop_map(|(mut header, place, byte, cut)| {
            let place = place.index(header.len());
            header[place] = byte;
            header.truncate(cut.index(header.len() * 2));
            header
        }),
        "PROXY [TCPUNKOW46]{0,7}[ 0-9a-f.:\r\n]{0,110}\r\n".prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|rest| [SIGNATURE, &rest].concat()),
        prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn segments_change_nothing(bytes in bytes_alike(), lengths in prop::collection::vec(1_usize..20, 0..200)) {
        let (whole, left) = read_all(&bytes, vec![]);
        let (pieces, left_of_pieces) = read_all(&bytes, lengths);
        prop_assert_eq!(whole.as_ref().ok(), pieces.as_ref().ok());
        if whole.is_ok() {
            prop_assert_eq!(left, left_of_pieces);
            prop_assert!(bytes.len() - left.len() <= LONGEST);
            // what follows is not looked at
            let (alone, nothing) = read_all(&bytes[..bytes.len() - left.len()], vec![]);
            prop_assert_eq!(alone.ok(), whole.ok());
            prop_assert!(nothing.is_empty());
        } else {
            prop_assert_eq!(std::mem::discriminant(&whole.unwrap_err()), std::mem::discriminant(&pieces.unwrap_err()));
        }
    }
}
