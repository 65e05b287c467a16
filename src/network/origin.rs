//! Whom connections are for.

use url::Host;

use crate::http::url_pattern::Target;

/// Whom connections are for, in canonical form: what one may be kept for, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    pub secure: bool,
    pub host: Host,
    pub port: u16,
}

impl Origin {
    /// `None` if nobody can say at which port.
    pub fn of(target: &Target) -> Option<Self> {
        Some(Self { secure: target.is_secure(), host: target.host().clone(), port: target.port()? })
    }
}
