//! Where a server listens, as it is written, and why it cannot.

use std::fmt;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::RawFd;
use std::path::PathBuf;

use crate::http::url;

/// One place to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host's name or address, and a port; 0 is a free one.
    Tcp {
        /// Without brackets.
        host: String,
        /// In numbers alone.
        port: u16,
    },
    /// A path in the file system.
    Unix(PathBuf),
    /// A socket that whoever started this process has opened.
    Fd(RawFd),
}

/// Why a server cannot listen there. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It is no address.
    #[error("`{text}` is no address to listen at: {reason}")]
    Syntax {
        /// As it was given.
        text: String,
        /// What is wrong with it, with a hint.
        reason: String,
    },
    /// The name has no address, or nobody can tell.
    #[error("`{host}` cannot be resolved: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Somebody else listens there.
    #[error("{0} is in use; hint: another program listens there: end it, or take another port (0 is any free one)")]
    InUse(SocketAddr),
    /// Privileged ports.
    #[error(
        "{0} is not allowed; hint: ports below 1024 take privileges: take one from 1024 on, grant CAP_NET_BIND_SERVICE, or let systemd \
         open the socket"
    )]
    PrivilegedPort(SocketAddr),
    /// No interface has the address.
    #[error("{0} is not an address of this machine; hint: 0.0.0.0 and [::] are all that it has")]
    NotOfThisMachine(SocketAddr),
    /// IPv6 is switched off.
    #[error("{0} cannot be used: this machine has no IPv6; hint: 0.0.0.0 or 127.0.0.1")]
    NoIpv6(SocketAddr),
    /// Any other reason to refuse it.
    #[error("cannot listen at {address}: {source}")]
    Tcp {
        /// Which one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A server answers at the socket file.
    #[error("unix:{} is in use; hint: another program listens there: end it, or take another path", .0.display())]
    PathInUse(PathBuf),
    /// Something else than a socket file is there.
    #[error("unix:{} is {kind}; hint: take another path, or move that away", .path.display())]
    NotASocket {
        /// Where.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The system takes no more than 107 bytes (103 on macOS).
    #[error("unix:{} is too long for a socket; hint: take a path of at most 100 bytes", .0.display())]
    PathTooLong(PathBuf),
    /// Any other reason to refuse it.
    #[error("cannot listen at unix:{}: {source}", .path.display())]
    Unix {
        /// Which one.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What was inherited is not what a server can use.
    #[error("fd:{fd} {reason}")]
    Inherited {
        /// Its number.
        fd: RawFd,
        /// What is wrong with it.
        reason: String,
    },
    /// What systemd said cannot be read.
    #[error("{variable} is `{value}`, which is not a number that systemd sets; hint: unset it")]
    Systemd {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
    },
}

impl Address {
    /// Reads `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000`, `unix:/run/x.sock`, `fd:3`.
    pub fn parse(text: &str) -> Result<Self, BindError> {
        Self::read(text).map_err(|reason| BindError::Syntax { text: text.to_owned(), reason })
    }

    fn read(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "" => Err("it has no path; hint: `unix:/run/wasgi.sock`".to_owned()),
                _ if path.contains('\0') => Err("its path has a NUL".to_owned()),
                // `unix:///run/x.sock`, as curl and others write it
                _ => {
                    Ok(Self::Unix(path.strip_prefix("//").filter(|rest| rest.starts_with('/')).unwrap_or(path).into()))
                }
            };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            let plain = number.bytes().all(|byte| byte.is_ascii_digit());
            let fd = number.parse::<RawFd>().ok().filter(|_| plain);
            return fd.map(Self::Fd).ok_or_else(|| "a descriptor is a number; hint: `fd:3`".to_owned());
        }
        if text.contains("://") {
            return Err("it is a URL; hint: only its host and port, `127.0.0.1:8000`".to_owned());
        }
        if text.starts_with('/') || text.starts_with("./") {
            return Err(format!("it is a path; hint: `unix:{text}`"));
        }
        if text.parse::<Ipv6Addr>().is_ok() || (!text.starts_with('[') && text.matches(':').count() > 1) {
            return Err("an address of IPv6 stands in brackets; hint: `[::1]:8000`".to_owned());
        }
        let Some((host, port)) = text.rsplit_once(':').filter(|(_, port)| !port.contains(']')) else {
            return Err(match url::number(text) {
                Some(port) => format!("it has no host; hint: `127.0.0.1:{port}`"),
                None => format!("it has no port; hint: `{text}:8000`"),
            });
        };
        let port = url::number(port).ok_or("its port is not a number up to 65535")?;
        match host {
            "" | "*" => Err(format!(
                "it has no host; hint: `127.0.0.1:{port}` for this machine alone, `0.0.0.0:{port}` or `[::]:{port}` for all networks"
            )),
            _ if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) => {
                // with a zone, as `fe80::1%eth0`
                let (plain, zone) = address.split_once('%').map_or((address, None), |(a, zone)| (a, Some(zone)));
                match plain.parse::<Ipv6Addr>() {
                    Ok(_) if zone != Some("") => Ok(Self::Tcp { host: address.to_owned(), port }),
                    _ => Err("what its brackets hold is not an address of IPv6; hint: `[::1]:8000`".to_owned()),
                }
            }
            _ if url::is_host(host) => Ok(Self::Tcp { host: host.to_owned(), port }),
            _ => Err("its host is neither a name nor an address".to_owned()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Fd(fd) => write!(f, "fd:{fd}"),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_read_is_printed_the_same() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        for (text, address) in [
            ("127.0.0.1:8000", tcp("127.0.0.1", 8000)),
            ("0.0.0.0:0", tcp("0.0.0.0", 0)),
            ("[::1]:8000", tcp("::1", 8000)),
            ("[::]:65535", tcp("::", 65535)),
            ("[fe80::1%eth0]:80", tcp("fe80::1%eth0", 80)),
            ("localhost:8000", tcp("localhost", 8000)),
            ("unix:/run/x.sock", Address::Unix("/run/x.sock".into())),
            ("unix:x.sock", Address::Unix("x.sock".into())),
            ("fd:3", Address::Fd(3)),
        ] {
            assert_eq!(Address::parse(text).unwrap(), address);
            assert_eq!(address.to_string(), text);
        }
        assert_eq!(Address::parse("unix:///run/x.sock").unwrap(), Address::Unix("/run/x.sock".into()));
    }

    #[test]
    fn what_is_no_address_is_told_in_one_line() {
        for (text, said) in [
            (":8000", "`0.0.0.0:8000` or `[::]:8000` for all networks"),
            ("*:8000", "`127.0.0.1:8000` for this machine alone"),
            ("8000", "hint: `127.0.0.1:8000`"),
            ("localhost", "hint: `localhost:8000`"),
            ("::1", "hint: `[::1]:8000`"),
            ("::1:8000", "hint: `[::1]:8000`"),
            ("[::1]", "it has no port"),
            ("[1.2.3.4]:80", "not an address of IPv6"),
            ("[fe80::1%]:80", "not an address of IPv6"),
            ("[]:80", "not an address of IPv6"),
            ("localhost:", "its port is not a number"),
            ("localhost:+80", "its port is not a number"),
            ("localhost:65536", "its port is not a number"),
            ("tcp://10.43.0.1:8080", "it is a URL"),
            ("/run/x.sock", "hint: `unix:/run/x.sock`"),
            ("a b:80", "neither a name nor an address"),
            ("unix:", "it has no path"),
            ("unix:a\0b", "NUL"),
            ("fd:", "a descriptor is a number"),
            ("fd:-1", "a descriptor is a number"),
            ("fd:+1", "a descriptor is a number"),
            ("fd:99999999999", "a descriptor is a number"),
            ("", "it has no port"),
        ] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains('\n'), "{text}: {error}");
        }
    }
}
