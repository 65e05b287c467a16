#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::*;
use crate::server::testing::Folder;

fn bind(text: &str) -> Result<Vec<Listener>, BindError> {
    Address::parse(text).unwrap().bind(&BindOptions::default())
}

fn all(texts: &[&str]) -> Result<Vec<Listener>, BindError> {
    let addresses: Vec<_> = texts.iter().map(|text| Address::parse(text).unwrap()).collect();
    bind_all(&addresses, &BindOptions::default())
}

fn port(listener: &Listener) -> u16 {
    tcp(listener).local_addr().unwrap().port()
}

fn tcp(listener: &Listener) -> &TcpListener {
    let Listener::Tcp(listener) = listener else { unreachable!("{listener:?}") };
    listener
}

/// At a port that is free for now; another test may take it first.
fn at_a_free_port(hosts: [&str; 2]) -> (u16, [String; 2], Vec<Listener>) {
    loop {
        let port = port(&bind("[::]:0").unwrap()[0]);
        let texts = hosts.map(|host| format!("{host}:{port}"));
        match all(&[&texts[0], &texts[1]]) {
            Err(BindError::InUse(_)) => {}
            listeners => return (port, texts, listeners.unwrap()),
        }
    }
}

fn is_reached(host: &str, port: u16) -> bool {
    TcpStream::connect((host, port)).is_ok()
}

#[test]
fn what_is_printed_can_be_opened_and_read_again() {
    for (text, host, url) in [
        ("127.0.0.1:0", "127.0.0.1", "http://127.0.0.1"),
        ("0.0.0.0:0", "0.0.0.0", "http://127.0.0.1"),
        ("[::1]:0", "[::1]", "http://[::1]"),
        ("[::]:0", "[::]", "http://[::1]"),
    ] {
        let listeners = bind(text).unwrap();
        let port = port(&listeners[0]);
        assert_eq!(listeners[0].address(), format!("{host}:{port}"));
        assert_eq!(listeners[0].url(false), format!("{url}:{port}"));
        assert_eq!(listeners[0].url(true), format!("{url}:{port}").replace("http", "https"));
        assert!(Address::parse(&listeners[0].address()).is_ok());
        TcpStream::connect(listeners[0].url(false).strip_prefix("http://").unwrap()).unwrap();
    }
}

#[test]
fn a_socket_blocks_nobody_and_no_child_inherits_it() {
    let listeners = bind("127.0.0.1:0").unwrap();
    let fd = tcp(&listeners[0]).as_raw_fd();
    // SAFETY: asks for numbers of a descriptor that the test holds open.
    assert_eq!(unsafe { libc::fcntl(fd, libc::F_GETFD) }, libc::FD_CLOEXEC);
    assert_eq!(tcp(&listeners[0]).accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn a_port_that_is_taken_is_told() {
    let first = bind("127.0.0.1:0").unwrap();
    let error = bind(&first[0].address()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{} is in use; hint: ", first[0].address())), "{error}");
}

#[test]
fn addresses_of_others_are_told() {
    let error = bind("192.0.2.1:0").unwrap_err();
    assert!(matches!(error, BindError::NotOfThisMachine(_)), "{error}");
    let error = bind("no-such-name.invalid:80").unwrap_err();
    assert!(matches!(error, BindError::Resolve { .. }), "{error}");
}

#[test]
fn a_name_is_all_of_its_addresses_at_one_port() {
    let both: [SocketAddr; 2] = ["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    for _ in 0..20 {
        let listeners = bind_tcp(&both, |_| false, &BindOptions::default()).unwrap();
        let ports: Vec<_> = listeners.iter().map(|one| one.local_addr().unwrap().port()).collect();
        assert_eq!(ports, [ports[0]; 2]);
        assert!(is_reached("127.0.0.1", ports[0]) && is_reached("::1", ports[0]));
    }
    let listeners = bind("localhost:0").unwrap();
    assert_eq!(listeners.len(), resolve("localhost", 0).unwrap().len());
}

#[test]
fn all_or_none() {
    let taken = bind("[::1]:0").unwrap();
    let port = port(&taken[0]);
    let both = ["127.0.0.1", "::1"].map(|host| SocketAddr::new(host.parse().unwrap(), port));
    let refused = bind_tcp(&both, |_| false, &BindOptions::default());
    assert!(matches!(refused, Err(BindError::InUse(address)) if address == both[1]));
    assert!(!is_reached("127.0.0.1", port));
    let folder = Folder::new();
    let path = folder.path("x.sock");
    let refused = all(&[&format!("unix:{}", path.display()), &taken[0].address()]);
    assert!(matches!(refused, Err(BindError::InUse(_))));
    assert!(!path.exists());
}

#[test]
fn both_of_all_is_one_alone_or_two_beside_each_other() {
    let listeners = bind("[::]:0").unwrap();
    let port_of_both = port(&listeners[0]);
    assert!(is_reached("127.0.0.1", port_of_both) && is_reached("::1", port_of_both));
    for hosts in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"], ["[::]", "127.0.0.1"]] {
        let (port, texts, listeners) = at_a_free_port(hosts);
        assert_eq!(listeners.iter().map(Listener::address).collect::<Vec<_>>(), texts);
        assert!(is_reached("127.0.0.1", port) && is_reached("::1", port));
    }
    // another port is another matter
    let listeners = all(&["[::]:0", "127.0.0.1:0"]).unwrap();
    assert!(is_reached("127.0.0.1", port(&listeners[0])));
}

#[test]
fn a_machine_without_ipv6_leaves_out_what_nobody_reaches() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
    let both = addresses(&["[::1]:80", "127.0.0.1:80"]);
    assert_eq!(reachable(both.clone(), || true), both);
    assert_eq!(reachable(both, || false), addresses(&["127.0.0.1:80"]));
    // then binding it says why
    assert_eq!(reachable(addresses(&["[::1]:80"]), || false), addresses(&["[::1]:80"]));
}

#[test]
fn a_port_is_shared_by_those_that_all_want_it() {
    let options = BindOptions { reuse_port: true, ..BindOptions::default() };
    let mut listeners = Address::parse("127.0.0.1:0").unwrap().bind(&options).unwrap();
    let address = listeners[0].address();
    let again = Address::parse(&address).unwrap();
    listeners.extend(again.bind(&options).unwrap());
    assert!(matches!(again.bind(&BindOptions::default()), Err(BindError::InUse(_))));
    assert!(listeners.iter().all(|one| one.address() == address));
    let clients: Vec<_> = (0..200).map(|_| TcpStream::connect(&address).unwrap()).collect();
    let accepted = |listener| std::iter::from_fn(|| tcp(listener).accept().ok()).count();
    let counts: Vec<_> = listeners.iter().map(accepted).collect();
    assert_eq!(counts.iter().sum::<usize>(), clients.len());
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_path_is_printed_as_it_is_written() {
    let folder = Folder::new();
    let path = folder.path("x.sock");
    let listeners = bind(&format!("unix:{}", path.display())).unwrap();
    assert_eq!(listeners[0].address(), format!("unix:{}", path.display()));
    assert_eq!(listeners[0].url(true), listeners[0].address());
    UnixStream::connect(&path).unwrap();
}

#[test]
fn inherited_sockets_are_of_the_kind_that_the_kernel_says() {
    let tcp = TcpListener::bind("[::1]:0").unwrap();
    let inherited = bind(&format!("fd:{}", tcp.as_raw_fd())).unwrap();
    assert_eq!(inherited[0].address(), tcp.local_addr().unwrap().to_string());
    let folder = Folder::new();
    let path = folder.path("x.sock");
    let unix = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let inherited = bind(&format!("fd:{}", unix.as_raw_fd())).unwrap();
    assert_eq!(inherited[0].address(), format!("unix:{}", path.display()));
    drop(inherited);
    UnixStream::connect(&path).unwrap();
}
