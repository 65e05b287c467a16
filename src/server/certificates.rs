//! The server's certificate and key, and whose clients' certificates it takes; read anew when the files change.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use sha2::{Digest, Sha256};

use crate::pem::{self, NotPem};
use crate::sync::lock;

/// Which files, all of them PEM.
#[derive(Clone, Debug)]
pub struct Certificates {
    /// The server's, and those between it and an authority.
    pub certificate: PathBuf,
    /// Its key: PKCS#8, SEC1 or PKCS#1.
    pub key: PathBuf,
    /// The authorities of clients' certificates; without, clients are not asked for one.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is refused.
    pub client_required: bool,
}

/// Why they cannot be used. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// The file.
    #[error("`{}` cannot be read: {source}", .path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Its content.
    #[error("`{}` is not PEM: {source}", .path.display())]
    NotPem {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: NotPem,
    },
    /// It is PEM of something else, or empty.
    #[error("`{}` has no certificate; hint: it begins with `-----BEGIN CERTIFICATE-----`", .0.display())]
    NoCertificate(PathBuf),
    /// Likewise.
    #[error("`{}` has no private key; hint: it has a line `-----BEGIN PRIVATE KEY-----`", .0.display())]
    NoKey(PathBuf),
    /// It takes a password.
    #[error("`{path}` is encrypted; hint: `openssl pkey -in {path} -out plain.pem` decrypts it", path = .0.display())]
    EncryptedKey(PathBuf),
    /// They are not a pair.
    #[error("the certificate in `{}` does not belong to the key in `{}`", .certificate.display(), .key.display())]
    Mismatch {
        /// The certificate's path.
        certificate: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// rustls cannot read it.
    #[error("the certificate in `{}` cannot be used: {source}", .path.display())]
    Certificate {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// rustls cannot use it.
    #[error("the key in `{}` cannot be used: {source}", .path.display())]
    Key {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// No authority for clients' certificates.
    #[error("the authorities in `{}` cannot be used: {reason}", .path.display())]
    ClientCa {
        /// Their path.
        path: PathBuf,
        /// What is wrong with them.
        reason: String,
    },
    /// rustls cannot be set up.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
}

impl Certificates {
    /// Reads the files. A key that does not fit the certificate is an error.
    pub fn load(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        self.config(&self.read()?)
    }

    fn paths(&self) -> impl Iterator<Item = &Path> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten().map(PathBuf::as_path)
    }

    fn read(&self) -> Result<Content, CertificateError> {
        let read = |path: &Path| {
            std::fs::read(path).map_err(|source| CertificateError::Read { path: path.to_owned(), source })
        };
        Ok(Content {
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }

    fn config(&self, content: &Content) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
        let builder = match (&self.client_ca, &content.client_ca) {
            (Some(path), Some(pem)) => {
                let failed = |reason: String| CertificateError::ClientCa { path: path.clone(), reason };
                let mut roots = rustls::RootCertStore::empty();
                for certificate in certificates(path, pem)? {
                    roots.add(certificate).map_err(|error| failed(error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                let verifier = if self.client_required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(|error| failed(error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let chain = certificates(&self.certificate, &content.certificate)?;
        let key = key(&self.key, &content.key)?;
        let mut config = builder.with_single_cert(chain, key).map_err(|source| match source {
            rustls::Error::InconsistentKeys(_) => {
                CertificateError::Mismatch { certificate: self.certificate.clone(), key: self.key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => {
                CertificateError::Certificate { path: self.certificate.clone(), source }
            }
            _ => CertificateError::Key { path: self.key.clone(), source },
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Clients resume with what they hold themselves: no memory here for each of them. Its keys are this configuration's own, so nobody
        // resumes whom a former list of authorities has let in.
        config.ticketer = rustls::crypto::ring::Ticketer::new()?;
        Ok(Arc::new(config))
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = pem::certificates(pem).map_err(|source| CertificateError::NotPem { path: path.to_owned(), source })?;
    if found.is_empty() { Err(CertificateError::NoCertificate(path.to_owned())) } else { Ok(found) }
}

fn key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateError> {
    match pem::key(pem) {
        Ok(Some(key)) => Ok(key),
        Ok(None) if String::from_utf8_lossy(pem).contains("BEGIN ENCRYPTED PRIVATE KEY") => {
            Err(CertificateError::EncryptedKey(path.to_owned()))
        }
        Ok(None) => Err(CertificateError::NoKey(path.to_owned())),
        Err(source) => Err(CertificateError::NotPem { path: path.to_owned(), source }),
    }
}

/// What the files have.
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Content {
    fn digest(&self) -> [u8; 32] {
        let mut digest = Sha256::new();
        for file in [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()] {
            let file = file.map(Vec::as_slice).unwrap_or_default();
            digest.update((file.len() as u64).to_le_bytes());
            digest.update(file);
        }
        digest.finalize().into()
    }
}

/// What tells a file from another one, and from its former self: of the file that all links lead to, so that a folder that is exchanged by
/// its link (as Kubernetes does) is seen. `None` if there is none.
type Stamp = Vec<Option<(u64, u64, u64, i64, i64, i64, i64)>>;

fn stamp(certificates: &Certificates) -> Stamp {
    let of_file = |path: &Path| {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec(), file.ctime(), file.ctime_nsec()))
    };
    certificates.paths().map(of_file).collect()
}

/// What has become of the files, to be logged.
#[derive(Debug)]
pub enum Change {
    /// New connections have the new ones.
    Reloaded,
    /// The former ones stay.
    Failed(CertificateError),
}

/// The present configuration, and whether there is a newer one.
#[derive(Debug)]
pub struct Reloading {
    certificates: Certificates,
    current: Mutex<Arc<ServerConfig>>,
    watch: Mutex<Watch>,
}

#[derive(Debug)]
struct Watch {
    /// What the last look found.
    seen: Stamp,
    /// Of the files that are used.
    loaded: Stamp,
    /// Of their content.
    digest: [u8; 32],
    /// The fault that was told last, since the files were good.
    told: Option<String>,
}

impl Reloading {
    /// Loads them for the first time: then a fault is an error.
    pub fn open(certificates: Certificates) -> Result<Self, CertificateError> {
        let stamp = stamp(&certificates);
        let content = certificates.read()?;
        let current = Mutex::new(certificates.config(&content)?);
        let watch = Mutex::new(Watch { seen: stamp.clone(), loaded: stamp, digest: content.digest(), told: None });
        Ok(Self { certificates, current, watch })
    }

    /// For the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        lock(&self.current).clone()
    }

    /// Looks whether the files have changed, about once a second. They are loaded when they have stood still since the last look: whoever
    /// writes them may not be done, or has written one of the two. A fault is told once.
    pub fn check(&self) -> Option<Change> {
        let mut watch = lock(&self.watch);
        let now = stamp(&self.certificates);
        if now != watch.seen {
            watch.seen = now;
            return None;
        }
        if now == watch.loaded {
            return None;
        }
        match self.load(&mut watch, now) {
            // tried again each time: what keeps a file from being read may have nothing to do with the file
            Ok(change) => change,
            Err(error) => {
                let told = watch.told.replace(error.to_string());
                (told != watch.told).then_some(Change::Failed(error))
            }
        }
    }

    /// Loads them at once, because somebody asks for it (SIGHUP). `None` if they are what is used already.
    pub fn reload(&self) -> Option<Change> {
        let mut watch = lock(&self.watch);
        let now = stamp(&self.certificates);
        watch.seen = now.clone();
        self.load(&mut watch, now).unwrap_or_else(|error| {
            watch.told = Some(error.to_string());
            Some(Change::Failed(error))
        })
    }

    fn load(&self, watch: &mut Watch, now: Stamp) -> Result<Option<Change>, CertificateError> {
        let content = self.certificates.read()?;
        let digest = content.digest();
        let change = if digest == watch.digest {
            None
        } else {
            *lock(&self.current) = self.certificates.config(&content)?;
            Some(Change::Reloaded)
        };
        (watch.loaded, watch.digest, watch.told) = (now, digest, None);
        Ok(change)
    }
}

#[cfg(test)]
mod tests;
