//! Certificates and private keys in PEM (RFC 7468). What is wrong with a text is said without any of it: it may be a key.

use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Why a text is not PEM.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotPem(&'static str);

impl From<Error> for NotPem {
    fn from(error: Error) -> Self {
        Self(match error {
            Error::MissingSectionEnd { .. } => {
                "a section has no line `-----END ...-----`; hint: it needs its line breaks"
            }
            Error::IllegalSectionStart { .. } => "a line that begins a section is not `-----BEGIN ...-----`",
            Error::Base64Decode(_) => "a section is not base64",
            Error::SectionTooLarge => "a section is too large",
            Error::NoItemsFound => "it has no section",
            _ => "it cannot be read",
        })
    }
}

/// All certificates of a text.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, NotPem> {
    CertificateDer::pem_slice_iter(pem).map(|found| found.map_err(NotPem::from)).collect()
}

/// The private key of a text, if it has one.
pub(crate) fn key(pem: &[u8]) -> Result<Option<PrivateKeyDer<'static>>, NotPem> {
    match PrivateKeyDer::from_pem_slice(pem) {
        Ok(key) => Ok(Some(key)),
        Err(Error::NoItemsFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_wrong_is_said_without_what_is_there() {
        let (begin, secret, end) = ("-----BEGIN PRIVATE KEY-----", "TUlHSEFnRUE", "-----END PRIVATE KEY-----");
        for text in [
            format!("{begin}{secret}{end}"),
            format!("{begin} {secret} {end}"),
            format!("{begin}\\n{secret}\\n{end}"),
            format!("{begin}\n{secret}{end}"),
            format!("{begin}\n*{secret}\n{end}"),
        ] {
            for error in [key(text.as_bytes()).err(), certificates(text.as_bytes()).err()].into_iter().flatten() {
                let said = format!("{error} {error:?}");
                assert!(!said.contains("TUlH") && !said.contains("84, 85"), "{said}");
            }
            assert!(key(text.as_bytes()).is_err(), "{text}");
        }
        assert!(key(b"").unwrap().is_none());
        assert!(certificates(b"").unwrap().is_empty());
    }
}
