//! The PROXY protocol, versions 1 and 2 (HAProxy's `proxy-protocol.txt`): what a proxy says of a connection before its first byte.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::http::url::number;
use crate::network::special_addresses::canonical;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8] = b"PROXY ";

/// The longest line of version 1, by the specification.
const LONGEST_LINE: usize = 107;

/// The shortest one: `PROXY UNKNOWN\r\n`. It is shorter than the fixed part of version 2.
const SHORTEST_LINE: usize = 15;

/// Of version 2, before the addresses.
const FIXED: usize = 16;

/// The longest header of version 2 altogether. It announces up to 64 KiB; nginx takes 4096 bytes, so what works behind nginx works here,
/// with a certificate's names and a cloud's own TLVs. Nobody has to buffer more for a peer that nobody knows yet.
const LONGEST: usize = 4096;

const TOO_SHORT: ProxyError = ProxyError::Malformed("it is too short for its addresses");

/// Who the proxy's client is, and where it has connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The client.
    pub source: SocketAddr,
    /// What it has connected to.
    pub destination: SocketAddr,
}

/// Why a header cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The first bytes are of something else: a client that speaks HTTP or TLS itself.
    #[error("the connection does not begin with a PROXY header; hint: does its peer send one?")]
    Missing,
    /// It is ill-formed.
    #[error("the PROXY header is ill-formed: {0}")]
    Malformed(&'static str),
    /// It ended before the header did.
    #[error("the connection ended after {received} bytes of its PROXY header")]
    Closed {
        /// None at all is a port scan, or a health check of TCP alone.
        received: usize,
    },
    /// It failed.
    #[error("the PROXY header could not be read: {0}")]
    Io(#[from] io::Error),
}

/// Reads a header, and not one byte more. `None` if it says nothing of a client: a health check of the proxy itself (`LOCAL`), or a client
/// whose address it does not know (`UNKNOWN`, `UNSPEC`) or that has no address (a Unix socket). How long that may take is its caller's to say.
pub async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<Addresses>, ProxyError> {
    let mut header = Vec::with_capacity(LONGEST_LINE);
    loop {
        match progress(&header)? {
            Progress::Whole(addresses) => return Ok(addresses),
            Progress::Missing(bytes) => {
                let limit = u64::try_from(bytes).unwrap_or(u64::MAX);
                if (&mut *stream).take(limit).read_buf(&mut header).await? == 0 {
                    return Err(ProxyError::Closed { received: header.len() });
                }
            }
        }
    }
}

/// What has been received of a header.
#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// At least so many bytes of it have not come.
    Missing(usize),
    Whole(Option<Addresses>),
}

fn progress(header: &[u8]) -> Result<Progress, ProxyError> {
    if header.is_empty() {
        return Ok(Progress::Missing(SHORTEST_LINE));
    }
    if begin_alike(header, SIGNATURE) {
        return version_2(header);
    }
    if begin_alike(header, WORD) {
        return version_1(header);
    }
    Err(ProxyError::Missing)
}

fn begin_alike(one: &[u8], other: &[u8]) -> bool {
    one.iter().zip(other).all(|(one, other)| one == other)
}

fn version_1(header: &[u8]) -> Result<Progress, ProxyError> {
    let Some(line) = header.strip_suffix(b"\r\n") else {
        let is_half_ended = header.ends_with(b"\r");
        // all that has been read but its last byte, or the one before, which may end it
        let inner = header.strip_suffix(b"\r").unwrap_or(header);
        if inner.contains(&b'\r') || inner.contains(&b'\n') {
            return Err(ProxyError::Malformed("its line does not end with CR and LF"));
        }
        let missing = if is_half_ended { 1 } else { 2 }.max(SHORTEST_LINE.saturating_sub(header.len()));
        return match header.len() + missing {
            ..=LONGEST_LINE => Ok(Progress::Missing(missing)),
            _ => Err(ProxyError::Malformed("its line is longer than 107 bytes")),
        };
    };
    let text = std::str::from_utf8(line).map_err(|_| ProxyError::Malformed("its line is not ASCII"))?;
    if text.contains(['\r', '\n']) {
        return Err(ProxyError::Malformed("its line does not end with CR and LF"));
    }
    let mut parts = text.split(' ').skip(1);
    match parts.next() {
        Some("UNKNOWN") => Ok(Progress::Whole(None)),
        Some("TCP4") => of_line::<Ipv4Addr>(parts),
        Some("TCP6") => of_line::<Ipv6Addr>(parts),
        _ => Err(ProxyError::Malformed("its protocol is neither TCP4, TCP6 nor UNKNOWN")),
    }
}

fn of_line<'a, A: FromStr + Into<IpAddr>>(mut parts: impl Iterator<Item = &'a str>) -> Result<Progress, ProxyError> {
    let mut address = || parts.next().and_then(|text| text.parse::<A>().ok()).map(Into::into);
    let (Some(source), Some(destination)) = (address(), address()) else {
        return Err(ProxyError::Malformed("it has an address that is not of its protocol"));
    };
    let mut port = || parts.next().filter(|text| *text == "0" || !text.starts_with('0')).and_then(number);
    let (Some(source_port), Some(destination_port)) = (port(), port()) else {
        return Err(ProxyError::Malformed("it has a port that is not a number up to 65535"));
    };
    match parts.next() {
        None => Ok(whole((source, source_port), (destination, destination_port))),
        Some(_) => Err(ProxyError::Malformed("something stands behind its ports")),
    }
}

fn whole(source: (IpAddr, u16), destination: (IpAddr, u16)) -> Progress {
    let address = |(ip, port)| SocketAddr::new(canonical(ip), port);
    Progress::Whole(Some(Addresses { source: address(source), destination: address(destination) }))
}

fn version_2(header: &[u8]) -> Result<Progress, ProxyError> {
    let Some((fixed, rest)) = header.split_first_chunk::<FIXED>() else {
        return Ok(Progress::Missing(FIXED - header.len()));
    };
    let [.., version_and_command, family, high, low] = *fixed;
    let is_local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(ProxyError::Malformed("its version is not 2, or its command neither LOCAL nor PROXY")),
    };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if FIXED + length > LONGEST {
        return Err(ProxyError::Malformed("it is longer than 4096 bytes"));
    }
    // Before the rest is waited for. `LOCAL` says nothing of a family, whatever stands there. TCP and UDP are alike: a proxy that speaks HTTP/3
    // with its client says UDP.
    let needed = match family {
        _ if is_local => 0,
        0x00 => 0,
        0x11 | 0x12 => 12,
        0x21 | 0x22 => 36,
        0x31 | 0x32 => 216,
        _ => return Err(ProxyError::Malformed("its family or transport is unknown")),
    };
    if length < needed {
        return Err(TOO_SHORT);
    }
    if rest.len() < length {
        return Ok(Progress::Missing(length - rest.len()));
    }
    let found = match family {
        0x11 | 0x12 if !is_local => of_octets::<4, Ipv4Addr>(rest),
        0x21 | 0x22 if !is_local => of_octets::<16, Ipv6Addr>(rest),
        _ => Some(Progress::Whole(None)),
    };
    found.ok_or(TOO_SHORT)
}

/// What follows the ports are TLVs.
fn of_octets<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(rest: &[u8]) -> Option<Progress> {
    let (source, rest) = rest.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let [a, b, c, d] = *rest.first_chunk::<4>()?;
    let (source, destination) = (A::from(*source).into(), A::from(*destination).into());
    Some(whole((source, u16::from_be_bytes([a, b])), (destination, u16::from_be_bytes([c, d]))))
}

#[cfg(test)]
mod tests {
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
        headers.extend([
            v2(0x11, 0x11, &IPV4),
            v2(0x22, 0x11, &IPV4),
            v2(0x21, 0x13, &IPV4),
            v2(0x21, 0x41, &[0; 216]),
        ]);
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
}
