//! Sockets that whoever started this process has opened for it: systemd, or a parent that names a descriptor.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use socket2::{Domain, Socket, Type};

use crate::server::address::{Address, BindError};

/// The first of systemd's (sd_listen_fds(3)).
const FIRST: RawFd = 3;

/// More than anybody passes; a number far beyond is not one that systemd has set.
const MOST: u32 = 1024;

/// The sockets that systemd has passed to this very process, if it has: `LISTEN_PID` says to which. The variables stay: removing them, so
/// that no child takes them for its own, is left to whoever may change the environment.
pub fn systemd() -> Result<Vec<Address>, BindError> {
    let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    listed(variable("LISTEN_FDS"), variable("LISTEN_PID"), std::process::id())
}

fn listed(count: Option<String>, pid: Option<String>, own: u32) -> Result<Vec<Address>, BindError> {
    let number = |variable, value: Option<String>| match value {
        // a variable that is empty is unset
        None => Ok(None),
        Some(value) if value.is_empty() => Ok(None),
        Some(value) => match value.parse::<u32>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(BindError::Systemd { variable, value }),
        },
    };
    // behind a shell or another server the process is not the one that systemd has started
    if number("LISTEN_PID", pid)? != Some(own) {
        return Ok(Vec::new());
    }
    match number("LISTEN_FDS", count)? {
        Some(count @ ..=MOST) => Ok((FIRST..).take(count as usize).map(Address::Fd).collect()),
        Some(count) => Err(BindError::Systemd { variable: "LISTEN_FDS", value: count.to_string() }),
        None => Ok(Vec::new()),
    }
}

/// A duplicate of an inherited socket that a server can accept from: of which kind it is, the kernel says. The descriptor itself stays its
/// owner's, who may be this process's own Python code; but no child inherits either.
pub(super) fn adopt(fd: RawFd, backlog: i32) -> Result<Socket, BindError> {
    let refused = |reason: String| BindError::Inherited { fd, reason };
    let failed = |error: io::Error| refused(format!("cannot be used: {error}"));
    let socket = Socket::from(duplicate(fd).map_err(|error| match error.raw_os_error() {
        Some(libc::EBADF) => refused("is not open; hint: does whoever starts this process pass it on?".to_owned()),
        _ => failed(error),
    })?);
    let kind = socket.r#type().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOTSOCK) => refused("is not a socket".to_owned()),
        _ => failed(error),
    })?;
    if kind != Type::STREAM {
        return Err(refused("is not a stream socket; hint: `ListenStream=` in systemd's unit".to_owned()));
    }
    let address = socket.local_addr().map_err(failed)?;
    let is_bound = match address.domain() {
        Domain::IPV4 | Domain::IPV6 => address.as_socket().is_some_and(|address| address.port() != 0),
        Domain::UNIX => !address.is_unnamed(),
        _ => return Err(refused("is of a family that HTTP does not use".to_owned())),
    };
    if !is_bound {
        return Err(refused("is not bound to an address".to_owned()));
    }
    // Whoever listens already does so as they like, and SELinux may deny a second `listen`.
    if !socket.is_listener().map_err(failed)? {
        if socket.peer_addr().is_ok() {
            return Err(refused(
                "is a connection, not a socket that listens; hint: `Accept=no` in systemd's unit".to_owned(),
            ));
        }
        socket.listen(backlog).map_err(failed)?;
    }
    socket.set_nonblocking(true).map_err(failed)?;
    Ok(socket)
}

/// Both are closed where another program is started.
fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes and gives numbers alone; one that is not open is an error.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, FIRST) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it for this call, so nobody else owns it.
    let copy = unsafe { OwnedFd::from_raw_fd(copy) };
    // SAFETY: as above. A descriptor has no other flag than this.
    match unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } {
        0 => Ok(copy),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    fn flags(fd: RawFd) -> (bool, bool) {
        // SAFETY: both ask for numbers of a descriptor that the test holds open.
        let (of_fd, of_file) = unsafe { (libc::fcntl(fd, libc::F_GETFD), libc::fcntl(fd, libc::F_GETFL)) };
        (of_fd & libc::FD_CLOEXEC != 0, of_file & libc::O_NONBLOCK != 0)
    }

    fn refusal(fd: RawFd) -> String {
        adopt(fd, 16).unwrap_err().to_string()
    }

    #[test]
    fn only_what_was_passed_to_this_process_counts() {
        let listed = |count: &str, pid: &str| listed(Some(count.to_owned()), Some(pid.to_owned()), 77);
        assert_eq!(listed("2", "77").unwrap(), [Address::Fd(3), Address::Fd(4)]);
        assert_eq!(listed("0", "77").unwrap(), []);
        assert_eq!(listed("2", "78").unwrap(), []);
        assert_eq!(listed("2", "").unwrap(), []);
        assert_eq!(listed("", "77").unwrap(), []);
        assert!(super::listed(None, None, 77).unwrap().is_empty());
        assert!(super::listed(Some("2".to_owned()), None, 77).unwrap().is_empty());
        for (count, pid) in [("two", "77"), ("-1", "77"), ("2000000000", "77"), ("2", "me")] {
            assert!(matches!(listed(count, pid), Err(BindError::Systemd { .. })), "{count} {pid}");
        }
    }

    #[test]
    fn a_listener_is_duplicated_and_no_child_inherits_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_raw_fd();
        // SAFETY: sets a flag of a descriptor that the test owns.
        assert_eq!(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }, 0);
        assert_eq!(flags(fd), (false, false));
        let socket = adopt(fd, 16).unwrap();
        assert_ne!(socket.as_raw_fd(), fd);
        assert_eq!(flags(socket.as_raw_fd()), (true, true));
        assert_eq!(flags(fd), (true, true));
        drop(socket);
        listener.set_nonblocking(false).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
    }

    #[test]
    fn one_that_is_bound_alone_is_listened_to() {
        let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(refusal(bound.as_raw_fd()).contains("not bound"));
        bound.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
        assert!(!bound.is_listener().unwrap());
        assert!(adopt(bound.as_raw_fd(), 16).unwrap().is_listener().unwrap());
    }

    #[test]
    fn what_no_server_can_use_is_refused() {
        assert!(refusal(9999).contains("is not open"));
        assert!(refusal(-1).contains("is not open"));
        assert!(refusal(std::fs::File::open("/dev/null").unwrap().as_raw_fd()).contains("is not a socket"));
        assert!(refusal(UdpSocket::bind("127.0.0.1:0").unwrap().as_raw_fd()).contains("not a stream socket"));
        assert!(refusal(UnixStream::pair().unwrap().0.as_raw_fd()).contains("not bound"));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(refusal(client.as_raw_fd()).contains("is a connection"));
    }
}
