//! What failures of the network are to a guest: one table for all that can go wrong between a request and its response.

use std::error::Error as StdError;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use h2::Reason;
use http::StatusCode;

use crate::exchange::refusals::Hint;
use crate::http::error_code::{ErrorCode, Payload};
use crate::network::dns::Unresolved;
use crate::network::proxy::NoTunnel;
use crate::network::special_addresses::{canonical, special};
use crate::network::tls::tls_error;
use crate::network::traffic::Flood;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Undialled {
    #[error("timed out after {0:?} waiting for a free connection (`max_connections`)")]
    Full(Duration),
    #[error("{0}")]
    Name(#[from] Unresolved),
    #[error("resolving its name timed out after {0:?}")]
    NameLate(Duration),
    #[error("{0}")]
    Prohibited(Prohibited),
    #[error("connecting timed out after {0:?}")]
    Late(Duration),
    #[error("{0}")]
    Tcp(#[source] io::Error),
    #[error("cannot connect to the proxy: {0}")]
    NoProxy(#[source] Box<Undialled>),
    #[error("{0}")]
    Tunnel(#[from] NoTunnel),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("it has no valid host")]
    NoHost,
}

/// An address that is not to be connected to.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("its address is prohibited: {address} is {class}")]
pub(crate) struct Prohibited {
    pub address: SocketAddr,
    /// What it is.
    pub class: &'static str,
}

impl Prohibited {
    /// What would allow it; None if it is denied by a rule, or is one that nobody connects to.
    pub(crate) fn hint(&self) -> Option<Hint> {
        let address = canonical(self.address.ip());
        let is_special = special(address) == Some(self.class) && !address.is_unspecified();
        is_special.then(|| Hint {
            code: format!("`wasgi.Network(..., addresses=[\"{address}\"])`, or `allow_private=True` for all of them"),
            flag: Some(format!("`--address {address}`")),
        })
    }
}

impl Undialled {
    /// Whether it is the policy on addresses that has spoken.
    pub(crate) fn prohibited(&self) -> Option<Prohibited> {
        match self {
            Self::Prohibited(prohibited) => Some(*prohibited),
            _ => None,
        }
    }

    /// Whether another attempt may do better: no policy has spoken, and no certificate.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Name(Unresolved::Unavailable) | Self::Tcp(_) | Self::Http(_) => true,
            Self::Tls(error) => code_of_io(error).is_none_or(|code| !code.name.starts_with("TLS")),
            Self::NoProxy(inner) => inner.may_pass(),
            Self::Tunnel(NoTunnel::Refused(status)) => status.is_server_error(),
            Self::Tunnel(NoTunnel::Io(_) | NoTunnel::Ended) => true,
            Self::Tunnel(NoTunnel::Socks(error)) => !matches!(code_of_socks(error), "configuration-error"),
            _ => false,
        }
    }
}

/// A peer that does not read what is written to it.
#[derive(Debug, thiserror::Error)]
#[error("writing timed out after {0:?}")]
pub(crate) struct Unread(pub Duration);

/// The error-code that a failure is to a guest, and what it was.
pub(crate) fn code_of(error: &(dyn StdError + 'static)) -> (ErrorCode, String) {
    let mut said = error.to_string();
    let mut code = None;
    let mut next = Some(error);
    while let Some(cause) = next {
        // no connection: what that means depends on whom it was to be to
        if let Some(undialled) = cause.downcast_ref::<Undialled>() {
            return (code_of_undialled(undialled), undialled.to_string());
        }
        // else the innermost that says something says it best
        if let Some(found) = code_of_one(cause) {
            code = Some(found);
            said = cause.to_string();
        }
        next = cause.source().or_else(|| inner(cause));
    }
    (code.unwrap_or_else(|| ErrorCode::plain("HTTP-protocol-error")), said)
}

/// An `io::Error` does not give what it was made of as its source.
fn inner<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    Some(inner)
}

fn code_of_one(error: &(dyn StdError + 'static)) -> Option<ErrorCode> {
    if let Some(tls) = error.downcast_ref::<rustls::Error>() {
        return Some(code_of_tls(tls));
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return code_of_http(error);
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return match (error.get_io(), error.reason()) {
            // the connection has gone under it
            (Some(lost), _) => code_of_io(lost).map(|code| match lost.kind() {
                io::ErrorKind::BrokenPipe => ErrorCode::plain("HTTP-response-incomplete"),
                _ => code,
            }),
            // what we have found wrong ourselves: h2 says so only in words
            (None, Some(Reason::ENHANCE_YOUR_CALM)) if error.is_library() => {
                let said = error.to_string();
                let is_head = HEADS.iter().any(|what| said.contains(what));
                Some(if is_head { code_of_flood(Flood::Heads) } else { ErrorCode::plain("HTTP-protocol-error") })
            }
            (None, reason) => reason.map(|reason| ErrorCode::plain(code_of_reason(reason))),
        };
    }
    if let Some(error) = error.downcast_ref::<wasmtime_wasi_http::Error>() {
        return ErrorCode::from_host(error); // of the request's body, which the guest writes
    }
    if let Some(flood) = error.downcast_ref::<Flood>() {
        return Some(code_of_flood(*flood));
    }
    if error.is::<Unread>() {
        return Some(ErrorCode::plain("connection-write-timeout"));
    }
    code_of_io(error.downcast_ref::<io::Error>()?)
}

fn code_of_undialled(undialled: &Undialled) -> ErrorCode {
    match undialled {
        Undialled::Full(_) => ErrorCode::plain("connection-limit-reached"),
        Undialled::Name(unresolved) => {
            let rcode = unresolved.rcode().map(str::to_owned);
            ErrorCode { name: "DNS-error", payload: Payload::Dns { rcode, info_code: None } }
        }
        Undialled::NameLate(_) => ErrorCode::plain("DNS-timeout"),
        Undialled::Prohibited(..) => ErrorCode::plain("destination-IP-prohibited"),
        Undialled::Late(_) => ErrorCode::plain("connection-timeout"),
        Undialled::Tcp(error) => ErrorCode::plain(code_of_tcp(error.kind())),
        // a guest knows nothing of proxies: for it, the destination is not to be had
        Undialled::NoProxy(_) => ErrorCode::plain("destination-unavailable"),
        Undialled::Tunnel(NoTunnel::Refused(StatusCode::PROXY_AUTHENTICATION_REQUIRED)) => {
            ErrorCode::plain("configuration-error")
        }
        Undialled::Tunnel(NoTunnel::Refused(StatusCode::GATEWAY_TIMEOUT)) => ErrorCode::plain("connection-timeout"),
        Undialled::Tunnel(NoTunnel::Socks(error)) => ErrorCode::plain(code_of_socks(error)),
        Undialled::Tunnel(_) => ErrorCode::plain("destination-unavailable"),
        // one that ends while it is being made has no response to be incomplete
        Undialled::Tls(error) => match code_of(error).0 {
            code if code.name == "HTTP-response-incomplete" => ErrorCode::plain("connection-terminated"),
            code if code.name == "HTTP-protocol-error" => ErrorCode::plain("TLS-protocol-error"),
            code => code,
        },
        Undialled::Http(_) => ErrorCode::plain("connection-terminated"),
        Undialled::NoHost => ErrorCode::plain("HTTP-request-URI-invalid"),
    }
}

pub(crate) fn code_of_tls(error: &rustls::Error) -> ErrorCode {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => {
            ErrorCode::plain("TLS-certificate-error")
        }
        rustls::Error::AlertReceived(alert) => {
            let (alert_id, alert_message) = (Some(u8::from(*alert)), Some(format!("{alert:?}")));
            ErrorCode { name: "TLS-alert-received", payload: Payload::Tls { alert_id, alert_message } }
        }
        _ => ErrorCode::plain("TLS-protocol-error"),
    }
}

fn code_of_http(error: &hyper::Error) -> Option<ErrorCode> {
    if error.is_parse_too_large() {
        Some(ErrorCode { name: "HTTP-response-header-section-size", payload: Payload::Size(None) })
    } else if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Some(ErrorCode::plain("HTTP-response-incomplete"))
    } else if error.is_timeout() {
        // HTTP/2's pings were not answered
        Some(ErrorCode::plain("connection-read-timeout"))
    } else if error.is_parse() {
        Some(ErrorCode::plain("HTTP-protocol-error"))
    } else {
        None
    }
}

/// Whether the peer says that it has done nothing with a request (RFC 9113, 8.7): it has refused its stream, or has gone away
/// before it (6.8). A stream that it had not gone away before ends with its connection, not with GOAWAY.
pub(crate) fn is_unprocessed(error: &hyper::Error) -> bool {
    let cause = of_http2(error);
    let is_meant = |cause: &h2::Error| cause.is_go_away() || cause.reason() == Some(Reason::REFUSED_STREAM);
    cause.is_some_and(|cause| cause.is_remote() && is_meant(cause))
}

/// Whether we have found a message of HTTP/2 malformed: also one that is not as long as it says (RFC 9113, 8.1.1), or h2's way of
/// saying that it is larger than may be.
pub(crate) fn is_malformed(error: &hyper::Error) -> bool {
    let is_meant = |cause: &h2::Error| cause.is_reset() && cause.reason() == Some(Reason::PROTOCOL_ERROR);
    of_http2(error).is_some_and(|cause| cause.is_library() && is_meant(cause))
}

fn of_http2(error: &hyper::Error) -> Option<&h2::Error> {
    error.source()?.downcast_ref::<h2::Error>()
}

/// What h2 says of heads that are larger, or in more pieces, than may be.
const HEADS: [&str; 2] = ["header_list_way_too_large", "too_many_continuations"];

pub(crate) fn code_of_flood(flood: Flood) -> ErrorCode {
    let name = match flood {
        Flood::Heads => "HTTP-response-header-section-size",
        Flood::Trailers => "HTTP-response-trailer-section-size",
        Flood::Nothing | Flood::Frames => return ErrorCode::plain("HTTP-protocol-error"),
    };
    ErrorCode { name, payload: Payload::Size(None) }
}

/// RFC 9113, 7.
fn code_of_reason(reason: Reason) -> &'static str {
    match reason {
        Reason::NO_ERROR | Reason::INTERNAL_ERROR | Reason::CANCEL | Reason::REFUSED_STREAM => "connection-terminated",
        Reason::ENHANCE_YOUR_CALM => "connection-limit-reached",
        Reason::INADEQUATE_SECURITY => "TLS-protocol-error",
        Reason::HTTP_1_1_REQUIRED => "HTTP-upgrade-failed",
        _ => "HTTP-protocol-error",
    }
}

fn code_of_io(error: &io::Error) -> Option<ErrorCode> {
    if let Some(tls) = tls_error(error) {
        return Some(code_of_tls(tls));
    }
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            Some(ErrorCode::plain("connection-terminated"))
        }
        io::ErrorKind::UnexpectedEof => Some(ErrorCode::plain("HTTP-response-incomplete")),
        // hyper's words for those past its limits of bytes and number (if they change, `test_large_trailers` fails)
        io::ErrorKind::InvalidData if error.to_string().starts_with("chunk trailers") => {
            Some(code_of_flood(Flood::Trailers))
        }
        io::ErrorKind::TimedOut => Some(ErrorCode::plain("connection-read-timeout")),
        _ => None,
    }
}

fn code_of_tcp(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::ConnectionRefused => "connection-refused",
        io::ErrorKind::TimedOut => "connection-timeout",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => "destination-IP-unroutable",
        // no local port is left
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse => "connection-limit-reached",
        _ => "destination-unavailable",
    }
}

/// RFC 1928, 6.
fn code_of_socks(error: &tokio_socks::Error) -> &'static str {
    use tokio_socks::Error;
    match error {
        Error::ConnectionRefused => "connection-refused",
        Error::NetworkUnreachable | Error::HostUnreachable => "destination-IP-unroutable",
        Error::TtlExpired => "connection-timeout",
        Error::NoAcceptableAuthMethods
        | Error::InvalidAuthValues(_)
        | Error::PasswordAuthFailure(_)
        | Error::AuthorizationRequired => "configuration-error",
        _ => "destination-unavailable",
    }
}
