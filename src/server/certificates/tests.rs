#![allow(clippy::unwrap_used)]
use std::os::unix::fs::symlink;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConnection};

use rustls::pki_types::pem::PemObject;

use super::*;
use crate::server::testing::Folder;

/// From `tests/server/pem`: `server` and `renewed` are localhost's, `client` is a client's, all signed by `ca`; `rsa` has signed itself.
fn pem(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/server/pem");
    std::fs::read(folder.join(name)).unwrap()
}

/// Files of these contents, as a server names them.
fn files(folder: &Folder, certificate: &[u8], key: &[u8], client_ca: Option<&[u8]>) -> Certificates {
    let write = |name, content: &[u8]| {
        let path = folder.path(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    Certificates {
        certificate: write("tls.crt", certificate),
        key: write("tls.key", key),
        client_ca: client_ca.map(|content| write("ca.crt", content)),
        client_required: true,
    }
}

fn load(certificate: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, CertificateError> {
    files(&Folder::new(), certificate, key, None).load()
}

/// Trusts `ca` and `rsa`, and offers these protocols.
fn client(identity: Option<&str>, protocols: &[&str]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for name in ["ca.pem", "rsa.pem"] {
        roots.add(CertificateDer::from_pem_slice(&pem(name)).unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(name) => {
            let chain = vec![CertificateDer::from_pem_slice(&pem(&format!("{name}.pem"))).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(&pem(&format!("{name}.key"))).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Both sides of a handshake, in memory. The error is the first side's that gives up.
fn handshake(
    server: &Arc<ServerConfig>,
    client: &Arc<ClientConfig>,
) -> Result<(ServerConnection, ClientConnection), rustls::Error> {
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut client = ClientConnection::new(client.clone(), ServerName::try_from("localhost").unwrap()).unwrap();
    while server.wants_write() || client.wants_write() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        server.read_tls(&mut &*wire).unwrap();
        server.process_new_packets()?;
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        client.read_tls(&mut &*wire).unwrap();
        client.process_new_packets()?;
    }
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok((server, client))
}

fn served(server: &Arc<ServerConfig>) -> Vec<u8> {
    let (_, connection) = handshake(server, &client(None, &[])).unwrap();
    connection.peer_certificates().unwrap().first().unwrap().to_vec()
}

fn der(name: &str) -> Vec<u8> {
    CertificateDer::from_pem_slice(&pem(name)).unwrap().to_vec()
}

#[test]
fn keys_of_each_form_are_read() {
    for (certificate, key) in [("server.pem", "server.key"), ("server.pem", "server.sec1.key"), ("rsa.pem", "rsa.key")]
    {
        assert_eq!(served(&load(&pem(certificate), &pem(key)).unwrap()), der(certificate), "{key}");
    }
    // a chain, and both in one file
    let both = [pem("server.key"), pem("server.pem"), pem("ca.pem")].concat();
    let (_, client) = handshake(&load(&both, &both).unwrap(), &client(None, &[])).unwrap();
    assert_eq!(client.peer_certificates().unwrap().len(), 2);
}

#[test]
fn the_protocol_is_negotiated() {
    let server = load(&pem("server.pem"), &pem("server.key")).unwrap();
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&["http/1.1"], Some(b"http/1.1")),
        (&[], None),
    ] {
        let (server, client) = handshake(&server, &client(None, offered)).unwrap();
        assert_eq!((server.alpn_protocol(), client.alpn_protocol()), (chosen, chosen));
    }
    assert!(handshake(&server, &client(None, &["acme-tls/1"])).is_err());
}

#[test]
fn sessions_are_resumed() {
    let (server, client) = (load(&pem("server.pem"), &pem("server.key")).unwrap(), client(None, &[]));
    let kind = |server| handshake(server, &client).unwrap().0.handshake_kind();
    assert_eq!(kind(&server), Some(HandshakeKind::Full));
    assert_eq!(kind(&server), Some(HandshakeKind::Resumed));
    // by another configuration they are not
    assert_eq!(kind(&load(&pem("server.pem"), &pem("server.key")).unwrap()), Some(HandshakeKind::Full));
}

#[test]
fn clients_certificates() {
    let folder = Folder::new();
    let ca = pem("ca.pem");
    let mut certificates = files(&folder, &pem("server.pem"), &pem("server.key"), Some(&ca));
    let required = certificates.load().unwrap();
    certificates.client_required = false;
    let optional = certificates.load().unwrap();
    for server in [&required, &optional] {
        let (server_side, _) = handshake(server, &client(Some("client"), &[])).unwrap();
        assert_eq!(server_side.peer_certificates().unwrap().first().unwrap().to_vec(), der("client.pem"));
        // signed by nobody who is trusted
        assert!(handshake(server, &client(Some("rsa"), &[])).is_err());
    }
    assert!(handshake(&required, &client(None, &[])).is_err());
    assert!(handshake(&optional, &client(None, &[])).unwrap().0.peer_certificates().is_none());
    // not asked for
    certificates.client_ca = None;
    let (server_side, _) = handshake(&certificates.load().unwrap(), &client(Some("client"), &[])).unwrap();
    assert!(server_side.peer_certificates().is_none());
}

#[test]
fn what_cannot_be_used_is_told_in_one_line() {
    let (certificate, key) = (pem("server.pem"), pem("server.key"));
    let garbage = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbage_key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let not_base64 = b"-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n";
    let half = certificate.get(..300).unwrap();
    for (certificate, key, said) in [
        (&certificate[..], &pem("rsa.key")[..], "does not belong to the key"),
        (&pem("renewed.pem"), &key, "does not belong to the key"),
        (&key, &key, "has no certificate"),
        (b"", &key, "has no certificate"),
        (half, &key, "is not PEM"),
        (not_base64, &key, "is not PEM"),
        (garbage, &key, "the certificate in"),
        (&certificate, &certificate, "has no private key"),
        (&certificate, b"", "has no private key"),
        (&certificate, garbage_key, "the key in"),
        (&certificate, &pem("encrypted.key"), "is encrypted; hint: `openssl pkey"),
    ] {
        let error = load(certificate, key).unwrap_err().to_string();
        assert!(error.contains(said) && !error.contains('\n'), "{said}: {error}");
    }
    let folder = Folder::new();
    for (ca, said) in [(&b""[..], "ca.crt` has no certificate"), (garbage, "the authorities in")] {
        let error = files(&folder, &certificate, &key, Some(ca)).load().unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    let mut certificates = files(&folder, &certificate, &key, None);
    certificates.key = folder.path("none");
    let error = certificates.load().unwrap_err().to_string();
    assert!(error.contains("none` cannot be read: No such file"), "{error}");
}

fn is_reloaded(change: Option<Change>) -> bool {
    matches!(change, Some(Change::Reloaded))
}

#[test]
fn a_new_pair_is_loaded_as_one_when_it_stands_still() {
    let folder = Folder::new();
    let reloading = Reloading::open(files(&folder, &pem("server.pem"), &pem("server.key"), None)).unwrap();
    let first = reloading.current();
    assert!(reloading.check().is_none());
    // the key is new, the certificate is not
    std::fs::write(folder.path("tls.key"), pem("renewed.key")).unwrap();
    assert!(reloading.check().is_none());
    let Some(Change::Failed(error)) = reloading.check() else { unreachable!() };
    assert!(matches!(error, CertificateError::Mismatch { .. }), "{error}");
    // told once, and the former pair is served
    assert!(reloading.check().is_none());
    assert!(Arc::ptr_eq(&reloading.current(), &first));
    std::fs::write(folder.path("tls.crt"), pem("renewed.pem")).unwrap();
    assert!(reloading.check().is_none());
    assert!(is_reloaded(reloading.check()));
    assert!(reloading.check().is_none());
    assert_eq!(served(&reloading.current()), der("renewed.pem"));
    assert_eq!(served(&first), der("server.pem"));
    // the same fault is told again, since there was a good pair in between
    std::fs::remove_file(folder.path("tls.key")).unwrap();
    assert!(reloading.check().is_none());
    assert!(matches!(reloading.check(), Some(Change::Failed(CertificateError::Read { .. }))));
    assert!(reloading.check().is_none());
    std::fs::write(folder.path("tls.key"), pem("renewed.key")).unwrap();
    assert!(reloading.check().is_none());
    assert!(reloading.check().is_none());
    std::fs::remove_file(folder.path("tls.key")).unwrap();
    assert!(reloading.check().is_none());
    assert!(matches!(reloading.check(), Some(Change::Failed(CertificateError::Read { .. }))));
}

#[test]
fn a_folder_that_is_exchanged_by_its_link_is_seen() {
    // as Kubernetes does: tls.crt -> ..data/tls.crt, ..data -> ..1
    let folder = Folder::new();
    for (name, pair) in [("..1", "server"), ("..2", "renewed"), ("..3", "renewed")] {
        std::fs::create_dir(folder.path(name)).unwrap();
        std::fs::write(folder.path(name).join("tls.crt"), pem(&format!("{pair}.pem"))).unwrap();
        std::fs::write(folder.path(name).join("tls.key"), pem(&format!("{pair}.key"))).unwrap();
        std::fs::write(folder.path(name).join("ca.crt"), pem("ca.pem")).unwrap();
    }
    let certificates = Certificates {
        certificate: folder.path("tls.crt"),
        key: folder.path("tls.key"),
        client_ca: Some(folder.path("ca.crt")),
        client_required: false,
    };
    for path in certificates.paths() {
        symlink(Path::new("..data").join(path.file_name().unwrap()), path).unwrap();
    }
    let exchange = |target: &str| {
        symlink(target, folder.path("..data_tmp")).unwrap();
        std::fs::rename(folder.path("..data_tmp"), folder.path("..data")).unwrap();
    };
    exchange("..1");
    let reloading = Reloading::open(certificates).unwrap();
    assert_eq!(served(&reloading.current()), der("server.pem"));
    exchange("..2");
    std::fs::remove_dir_all(folder.path("..1")).unwrap();
    assert!(reloading.check().is_none());
    assert!(is_reloaded(reloading.check()));
    assert_eq!(served(&reloading.current()), der("renewed.pem"));
    // other files of the same content change nothing: clients go on resuming
    let present = reloading.current();
    exchange("..3");
    assert!(reloading.check().is_none());
    assert!(reloading.check().is_none());
    assert!(Arc::ptr_eq(&reloading.current(), &present));
    // the authorities alone
    std::fs::write(folder.path("..3/ca.crt"), pem("rsa.pem")).unwrap();
    assert!(handshake(&reloading.current(), &client(Some("client"), &[])).is_ok());
    assert!(reloading.check().is_none());
    assert!(is_reloaded(reloading.check()));
    assert!(handshake(&reloading.current(), &client(Some("client"), &[])).is_err());
}

#[test]
fn whoever_asks_is_answered_at_once() {
    let folder = Folder::new();
    let reloading = Reloading::open(files(&folder, &pem("server.pem"), &pem("server.key"), None)).unwrap();
    assert!(reloading.reload().is_none());
    std::fs::write(folder.path("tls.crt"), pem("renewed.pem")).unwrap();
    for _ in 0..2 {
        assert!(matches!(reloading.reload(), Some(Change::Failed(CertificateError::Mismatch { .. }))));
    }
    assert!(reloading.check().is_none());
    std::fs::write(folder.path("tls.key"), pem("renewed.key")).unwrap();
    assert!(is_reloaded(reloading.reload()));
    assert!(reloading.check().is_none());
    assert_eq!(served(&reloading.current()), der("renewed.pem"));
    let certificates = files(&folder, &pem("server.pem"), &pem("rsa.key"), None);
    assert!(Reloading::open(certificates).is_err());
}
