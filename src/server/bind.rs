//! Listening sockets: of every address that a name has, or none.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use crate::http::url::authority_of;
use crate::server::address::{Address, BindError};
use crate::server::inherited::adopt;
use crate::server::unix_socket::UnixSocketFile;

/// How often another free port is tried where one is not free at each address.
const TRIES: u32 = 32;

/// How to listen.
#[derive(Clone, Copy, Debug)]
pub struct BindOptions {
    /// Other processes of the same user may listen there, if they all have it: the kernel gives each connection to one of them. Of TCP.
    pub reuse_port: bool,
    /// How many connections may wait to be accepted.
    pub backlog: u32,
    /// The mode of socket files; without, the umask says it.
    pub mode: Option<u32>,
}

impl Default for BindOptions {
    fn default() -> Self {
        Self { reuse_port: false, backlog: 1024, mode: None }
    }
}

impl BindOptions {
    fn backlog(&self) -> i32 {
        i32::try_from(self.backlog).unwrap_or(i32::MAX)
    }
}

/// A socket that listens: non-blocking, and inherited by no program that this process starts.
#[derive(Debug)]
pub enum Listener {
    /// By IPv4 or IPv6.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixSocketFile),
}

impl Address {
    /// Listens here, and nowhere else. Blocks while a name is resolved.
    pub fn bind(&self, options: &BindOptions) -> Result<Vec<Listener>, BindError> {
        bind_all(std::slice::from_ref(self), options)
    }
}

/// Listens at all of these addresses, or at none.
pub fn bind_all(addresses: &[Address], options: &BindOptions) -> Result<Vec<Listener>, BindError> {
    let mut places = Vec::new();
    for address in addresses {
        places.push(match address {
            Address::Tcp { host, port } => Place::Tcp(resolve(host, *port)?),
            Address::Unix(path) => Place::Unix(path),
            Address::Fd(fd) => Place::Fd(*fd),
        });
    }
    let of_tcp = places.iter().filter_map(|place| if let Place::Tcp(found) = place { Some(found) } else { None });
    let ipv4: Vec<u16> = of_tcp.flatten().filter(|address| address.is_ipv4()).map(SocketAddr::port).collect();
    let mut listeners = Vec::new();
    for place in &places {
        match place {
            Place::Tcp(found) => {
                // `::` is for both, as users expect, unless somebody else of the same port is for IPv4
                let only_v6 = |address: &SocketAddr| address.port() != 0 && ipv4.contains(&address.port());
                listeners.extend(bind_tcp(found, only_v6, options)?.into_iter().map(Listener::Tcp));
            }
            Place::Unix(path) => {
                listeners.push(Listener::Unix(UnixSocketFile::bind(path, options.mode, options.backlog())?));
            }
            Place::Fd(fd) => listeners.push(Listener::of_socket(adopt(*fd, options.backlog())?)),
        }
    }
    Ok(listeners)
}

/// An address whose name is resolved.
enum Place<'a> {
    Tcp(Vec<SocketAddr>),
    Unix(&'a std::path::Path),
    Fd(std::os::fd::RawFd),
}

fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, BindError> {
    let failed = |source| BindError::Resolve { host: host.to_owned(), source };
    let mut found: Vec<SocketAddr> = Vec::new();
    for address in (host, port).to_socket_addrs().map_err(failed)? {
        if !found.contains(&address) {
            found.push(address);
        }
    }
    if found.is_empty() {
        return Err(failed(io::Error::other("it has no address")));
    }
    Ok(reachable(found, has_ipv6))
}

/// `/etc/hosts` gives `localhost` an address of IPv6 on machines that have none, and no client reaches anybody there. Any other address
/// that cannot be had is an error.
fn reachable(found: Vec<SocketAddr>, has_ipv6: impl FnOnce() -> bool) -> Vec<SocketAddr> {
    let is_both = found.iter().any(SocketAddr::is_ipv4) && found.iter().any(SocketAddr::is_ipv6);
    if !is_both || has_ipv6() {
        return found;
    }
    found.into_iter().filter(SocketAddr::is_ipv4).collect()
}

fn has_ipv6() -> bool {
    let bound = Socket::new(Domain::IPV6, Type::STREAM, None)
        .and_then(|socket| socket.bind(&SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()));
    bound.is_ok()
}

/// One port for all of them, also where any port will do.
fn bind_tcp(
    addresses: &[SocketAddr],
    only_v6: impl Fn(&SocketAddr) -> bool,
    options: &BindOptions,
) -> Result<Vec<TcpListener>, BindError> {
    let beside_v4 = addresses.iter().any(SocketAddr::is_ipv4);
    let bind = |address: SocketAddr| listen(address, beside_v4 || only_v6(&address), options);
    let mut tries = 0;
    loop {
        let mut listeners: Vec<TcpListener> = Vec::new();
        let mut taken = None;
        for address in addresses {
            let mut address = *address;
            let first = listeners.first().and_then(|first| first.local_addr().ok());
            let follows = address.port() == 0 && first.is_some();
            if let Some(first) = first.filter(|_| follows) {
                address.set_port(first.port());
            }
            match bind(address) {
                Ok(listener) => listeners.push(listener),
                // the next free port may be free at all of them
                Err(error @ BindError::InUse(_)) if follows => {
                    taken = Some(error);
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        tries += 1;
        match taken {
            None => return Ok(listeners),
            Some(error) if tries == TRIES => return Err(error),
            Some(_) => {}
        }
    }
}

fn listen(address: SocketAddr, only_v6: bool, options: &BindOptions) -> Result<TcpListener, BindError> {
    let bound = || -> io::Result<TcpListener> {
        let socket = new_socket(address, only_v6)?;
        // never unless it is wanted: a second server of the same user would share the port, and nobody would know
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(options.backlog())?;
        Ok(socket.into())
    };
    bound().map_err(|source| match source.raw_os_error() {
        Some(libc::EADDRINUSE) => BindError::InUse(address),
        Some(libc::EACCES | libc::EPERM) if (1..1024).contains(&address.port()) => BindError::PrivilegedPort(address),
        Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) if address.is_ipv6() && !has_ipv6() => {
            BindError::NoIpv6(address)
        }
        Some(libc::EADDRNOTAVAIL) => BindError::NotOfThisMachine(address),
        _ => BindError::Tcp { address, source },
    })
}

fn new_socket(address: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // connections of a server that has just ended may still be in TIME_WAIT
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // whatever the system's default is
        socket.set_only_v6(only_v6)?;
    }
    Ok(socket)
}

impl Listener {
    fn of_socket(socket: Socket) -> Self {
        match socket.domain() {
            Ok(Domain::UNIX) => Self::Unix(UnixSocketFile::of_others(socket.into())),
            _ => Self::Tcp(socket.into()),
        }
    }

    /// Where it listens: `127.0.0.1:8000`, `[::1]:8000`, `unix:/run/x.sock`.
    pub fn address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string()),
            Self::Unix(socket) => match socket.path() {
                Some(path) => format!("unix:{}", path.display()),
                None => "unix:(abstract)".to_owned(),
            },
        }
    }

    /// A URL that opens on this machine; of a path, which has none, its address.
    pub fn url(&self, tls: bool) -> String {
        let Self::Tcp(listener) = self else { return self.address() };
        let Ok(address) = listener.local_addr() else { return self.address() };
        let host = match address.ip() {
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
            host => host,
        };
        let scheme = if tls { "https" } else { "http" };
        format!("{scheme}://{}", authority_of(scheme, &host.to_string(), Some(address.port())))
    }
}

#[cfg(test)]
mod tests;
