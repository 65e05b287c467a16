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
mod tests;
