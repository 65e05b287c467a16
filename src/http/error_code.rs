//! wasi:http's error-code as data: a name from the WIT and its payload.
//!
//! Three tables in one: the guest's bindings of either generation (`ErrorCode` of `p2` and `p3`) and the host's
//! (`wasmtime_wasi_http::Error`) map to and from [`ErrorCode`]. The conversion that wasmtime-wasi-http 48 has between the two is not used: it turns
//! `HTTP-response-header-size` and `HTTP-response-trailer-size` into their request twins.

use wasmtime_wasi_http::Error as HostError;
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode as P2;
use wasmtime_wasi_http::p3::bindings::http::types::ErrorCode as P3;

use crate::text::{LONGEST, tamed};

/// An error-code: `name` as the WIT has it (`DNS-timeout`), `payload` as its case has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorCode {
    /// As WIT writes it: `DNS-timeout`.
    pub name: &'static str,
    /// What goes with it.
    pub payload: Payload,
}

/// The kinds of payload among the 39 cases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// Nothing.
    None,
    /// Bytes, for the cases of a size.
    Size(Option<u64>),
    /// A coding, or the sentence of an internal-error.
    Text(Option<String>),
    /// `DNS-error`.
    Dns {
        /// The name of the response code.
        rcode: Option<String>,
        /// Of the extended error (RFC 8914).
        info_code: Option<u16>,
    },
    /// `TLS-alert-received`.
    Tls {
        /// The number of the alert.
        alert_id: Option<u8>,
        /// Its name.
        alert_message: Option<String>,
    },
    /// `HTTP-request-header-size` and its like.
    Field {
        /// The name of the field.
        field_name: Option<String>,
        /// Its size in bytes.
        field_size: Option<u32>,
    },
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.name)?;
        match &self.payload {
            Payload::Size(Some(size)) => write!(f, " ({size} bytes)"),
            Payload::Text(Some(text)) => write!(f, ": {text}"),
            Payload::Dns { rcode: Some(rcode), .. } => write!(f, ": {rcode}"),
            Payload::Tls { alert_message: Some(message), .. } => write!(f, ": {message}"),
            Payload::Field { field_name: Some(name), .. } => write!(f, ": field `{name}`"),
            _ => Ok(()),
        }
    }
}

impl ErrorCode {
    /// `internal-error`, with a text for the guest.
    pub fn internal(text: impl Into<String>) -> Self {
        Self { name: "internal-error", payload: Payload::Text(Some(text.into())) }
    }

    /// `HTTP-request-denied`.
    pub fn denied() -> Self {
        Self::plain("HTTP-request-denied")
    }

    /// What a guest has answered with. Its texts are made fit to be shown here, since all of the host repeats them.
    pub fn of_guest(code: impl Into<Self>) -> Self {
        let tame = |text: Option<String>| text.map(|text| tamed(text, LONGEST));
        let code: Self = code.into();
        let payload = match code.payload {
            Payload::Text(text) => Payload::Text(tame(text)),
            Payload::Dns { rcode, info_code } => Payload::Dns { rcode: tame(rcode), info_code },
            Payload::Tls { alert_id, alert_message } => Payload::Tls { alert_id, alert_message: tame(alert_message) },
            Payload::Field { field_name, field_size } => Payload::Field { field_name: tame(field_name), field_size },
            plain @ (Payload::None | Payload::Size(_)) => plain,
        };
        Self { name: code.name, payload }
    }

    /// The error-code as the bindings of a guest of WASI 0.2 have it.
    pub fn into_p2(self) -> P2 {
        self.into()
    }

    /// The error-code as the bindings of a guest of WASI 0.3 have it.
    pub fn into_p3(self) -> P3 {
        self.into()
    }

    /// One without a payload.
    pub fn plain(name: &'static str) -> Self {
        Self { name, payload: Payload::None }
    }
}

fn narrow(size: Option<u64>) -> Option<u32> {
    size.map(|size| u32::try_from(size).unwrap_or(u32::MAX))
}

/// One line a case: its name, its variant in all Rust enums, and its kind of payload.
macro_rules! table {
    ($use:ident) => {
        $use! {
            "DNS-timeout" DnsTimeout Plain;
            "DNS-error" DnsError Dns;
            "destination-not-found" DestinationNotFound Plain;
            "destination-unavailable" DestinationUnavailable Plain;
            "destination-IP-prohibited" DestinationIpProhibited Plain;
            "destination-IP-unroutable" DestinationIpUnroutable Plain;
            "connection-refused" ConnectionRefused Plain;
            "connection-terminated" ConnectionTerminated Plain;
            "connection-timeout" ConnectionTimeout Plain;
            "connection-read-timeout" ConnectionReadTimeout Plain;
            "connection-write-timeout" ConnectionWriteTimeout Plain;
            "connection-limit-reached" ConnectionLimitReached Plain;
            "TLS-protocol-error" TlsProtocolError Plain;
            "TLS-certificate-error" TlsCertificateError Plain;
            "TLS-alert-received" TlsAlertReceived Tls;
            "HTTP-request-denied" HttpRequestDenied Plain;
            "HTTP-request-length-required" HttpRequestLengthRequired Plain;
            "HTTP-request-body-size" HttpRequestBodySize Size64;
            "HTTP-request-method-invalid" HttpRequestMethodInvalid Plain;
            "HTTP-request-URI-invalid" HttpRequestUriInvalid Plain;
            "HTTP-request-URI-too-long" HttpRequestUriTooLong Plain;
            "HTTP-request-header-section-size" HttpRequestHeaderSectionSize Size32;
            "HTTP-request-header-size" HttpRequestHeaderSize OptionField;
            "HTTP-request-trailer-section-size" HttpRequestTrailerSectionSize Size32;
            "HTTP-request-trailer-size" HttpRequestTrailerSize Field;
            "HTTP-response-incomplete" HttpResponseIncomplete Plain;
            "HTTP-response-header-section-size" HttpResponseHeaderSectionSize Size32;
            "HTTP-response-header-size" HttpResponseHeaderSize Field;
            "HTTP-response-body-size" HttpResponseBodySize Size64;
            "HTTP-response-trailer-section-size" HttpResponseTrailerSectionSize Size32;
            "HTTP-response-trailer-size" HttpResponseTrailerSize Field;
            "HTTP-response-transfer-coding" HttpResponseTransferCoding Text;
            "HTTP-response-content-coding" HttpResponseContentCoding Text;
            "HTTP-response-timeout" HttpResponseTimeout Plain;
            "HTTP-upgrade-failed" HttpUpgradeFailed Plain;
            "HTTP-protocol-error" HttpProtocolError Plain;
            "loop-detected" LoopDetected Plain;
            "configuration-error" ConfigurationError Plain;
            "internal-error" InternalError Text;
        }
    };
}

macro_rules! host_codes {
    ($($name:literal $variant:ident $kind:ident;)*) => {
        /// The names of all cases, in the order of the WIT.
        pub const NAMES: &[&str] = &[$($name),*];

        impl ErrorCode {
            /// The error-code as the host functions hand it to a guest.
            pub fn into_host(self) -> HostError {
                match (self.name, self.payload) {
                    $(($name, payload) => host_codes!(@write $kind $variant payload),)*
                    (name, _) => HostError::InternalError(Some(format!("unknown error-code {name}"))),
                }
            }

            /// The error-code in what a body reports; `None` for an error of hyper's or of the connection.
            pub fn from_host(error: &HostError) -> Option<Self> {
                Some(match error {
                    $(host_codes!(@pattern $kind $variant p q) => host_codes!(@read $kind $name p q),)*
                    _ => return None,
                })
            }
        }
    };
    (@write Plain $variant:ident $p:ident) => {{ let _ = $p; HostError::$variant }};
    (@write Size32 $variant:ident $p:ident) => {
        HostError::$variant(match $p { Payload::Size(size) => narrow(size), _ => None })
    };
    (@write Size64 $variant:ident $p:ident) => {
        HostError::$variant(match $p { Payload::Size(size) => size, _ => None })
    };
    (@write Text $variant:ident $p:ident) => {
        HostError::$variant(match $p { Payload::Text(text) => text, _ => None })
    };
    (@write Dns $variant:ident $p:ident) => {
        match $p {
            Payload::Dns { rcode, info_code } => HostError::$variant { rcode, info_code },
            _ => HostError::$variant { rcode: None, info_code: None },
        }
    };
    (@write Tls $variant:ident $p:ident) => {
        match $p {
            Payload::Tls { alert_id, alert_message } => HostError::$variant { alert_id, alert_message },
            _ => HostError::$variant { alert_id: None, alert_message: None },
        }
    };
    (@write OptionField $variant:ident $p:ident) => { host_codes!(@write Field $variant $p) };
    (@write Field $variant:ident $p:ident) => {
        match $p {
            Payload::Field { field_name, field_size } => HostError::$variant { field_name, field_size },
            _ => HostError::$variant { field_name: None, field_size: None },
        }
    };
    (@pattern Plain $variant:ident $p:ident $q:ident) => { HostError::$variant };
    (@pattern Size32 $variant:ident $p:ident $q:ident) => { HostError::$variant($p) };
    (@pattern Size64 $variant:ident $p:ident $q:ident) => { HostError::$variant($p) };
    (@pattern Text $variant:ident $p:ident $q:ident) => { HostError::$variant($p) };
    (@pattern Dns $variant:ident $p:ident $q:ident) => { HostError::$variant { rcode: $p, info_code: $q } };
    (@pattern Tls $variant:ident $p:ident $q:ident) => {
        HostError::$variant { alert_id: $p, alert_message: $q }
    };
    (@pattern $kind:ident $variant:ident $p:ident $q:ident) => {
        HostError::$variant { field_name: $p, field_size: $q }
    };
    (@read Plain $name:literal $p:ident $q:ident) => { ErrorCode { name: $name, payload: Payload::None } };
    (@read Size32 $name:literal $p:ident $q:ident) => {
        ErrorCode { name: $name, payload: Payload::Size($p.map(u64::from)) }
    };
    (@read Size64 $name:literal $p:ident $q:ident) => { ErrorCode { name: $name, payload: Payload::Size(*$p) } };
    (@read Text $name:literal $p:ident $q:ident) => {
        ErrorCode { name: $name, payload: Payload::Text($p.clone()) }
    };
    (@read Dns $name:literal $p:ident $q:ident) => {
        ErrorCode { name: $name, payload: Payload::Dns { rcode: $p.clone(), info_code: *$q } }
    };
    (@read Tls $name:literal $p:ident $q:ident) => {
        ErrorCode { name: $name, payload: Payload::Tls { alert_id: *$p, alert_message: $q.clone() } }
    };
    (@read $kind:ident $name:literal $p:ident $q:ident) => {
        ErrorCode { name: $name, payload: Payload::Field { field_name: $p.clone(), field_size: *$q } }
    };
}

/// The same for the bindings of one generation of guests: `Code` and its payloads, as they are imported.
macro_rules! guest_codes {
    ($($name:literal $variant:ident $kind:ident;)*) => {
        impl From<Code> for ErrorCode {
            fn from(code: Code) -> Self {
                match code { $(guest_codes!(@pattern $kind $variant p) => guest_codes!(@read $kind $name p),)* }
            }
        }

        impl From<ErrorCode> for Code {
            fn from(code: ErrorCode) -> Self {
                match (code.name, code.payload) {
                    $(($name, payload) => guest_codes!(@write $kind $variant payload),)*
                    (name, _) => Code::InternalError(Some(format!("unknown error-code {name}"))),
                }
            }
        }
    };
    (@pattern Plain $variant:ident $p:ident) => { Code::$variant };
    (@pattern $kind:ident $variant:ident $p:ident) => { Code::$variant($p) };
    (@read Plain $name:literal $p:ident) => { ErrorCode { name: $name, payload: Payload::None } };
    (@read Size32 $name:literal $p:ident) => { ErrorCode { name: $name, payload: Payload::Size($p.map(u64::from)) } };
    (@read Size64 $name:literal $p:ident) => { ErrorCode { name: $name, payload: Payload::Size($p) } };
    (@read Text $name:literal $p:ident) => { ErrorCode { name: $name, payload: Payload::Text($p) } };
    (@read Dns $name:literal $p:ident) => {{
        let DnsErrorPayload { rcode, info_code } = $p;
        ErrorCode { name: $name, payload: Payload::Dns { rcode, info_code } }
    }};
    (@read Tls $name:literal $p:ident) => {{
        let TlsAlertReceivedPayload { alert_id, alert_message } = $p;
        ErrorCode { name: $name, payload: Payload::Tls { alert_id, alert_message } }
    }};
    (@read Field $name:literal $p:ident) => {{
        let FieldSizePayload { field_name, field_size } = $p;
        ErrorCode { name: $name, payload: Payload::Field { field_name, field_size } }
    }};
    (@read OptionField $name:literal $p:ident) => {{
        let (field_name, field_size) = match $p {
            Some(FieldSizePayload { field_name, field_size }) => (field_name, field_size),
            None => (None, None),
        };
        ErrorCode { name: $name, payload: Payload::Field { field_name, field_size } }
    }};
    (@write Plain $variant:ident $p:ident) => {{ let _ = $p; Code::$variant }};
    (@write Size32 $variant:ident $p:ident) => {
        Code::$variant(match $p { Payload::Size(size) => narrow(size), _ => None })
    };
    (@write Size64 $variant:ident $p:ident) => { Code::$variant(match $p { Payload::Size(size) => size, _ => None }) };
    (@write Text $variant:ident $p:ident) => { Code::$variant(match $p { Payload::Text(text) => text, _ => None }) };
    (@write Dns $variant:ident $p:ident) => {
        Code::$variant(match $p {
            Payload::Dns { rcode, info_code } => DnsErrorPayload { rcode, info_code },
            _ => DnsErrorPayload { rcode: None, info_code: None },
        })
    };
    (@write Tls $variant:ident $p:ident) => {
        Code::$variant(match $p {
            Payload::Tls { alert_id, alert_message } => TlsAlertReceivedPayload { alert_id, alert_message },
            _ => TlsAlertReceivedPayload { alert_id: None, alert_message: None },
        })
    };
    (@write OptionField $variant:ident $p:ident) => {
        Code::$variant(match $p {
            Payload::Field { field_name, field_size } => Some(FieldSizePayload { field_name, field_size }),
            _ => None,
        })
    };
    (@write Field $variant:ident $p:ident) => {
        Code::$variant(match $p {
            Payload::Field { field_name, field_size } => FieldSizePayload { field_name, field_size },
            _ => FieldSizePayload { field_name: None, field_size: None },
        })
    };
}

table!(host_codes);

mod p2 {
    use wasmtime_wasi_http::p2::bindings::http::types::{
        DnsErrorPayload, ErrorCode as Code, FieldSizePayload, TlsAlertReceivedPayload,
    };

    use super::{ErrorCode, Payload, narrow};

    table!(guest_codes);
}

mod p3 {
    use wasmtime_wasi_http::p3::bindings::http::types::{
        DnsErrorPayload, ErrorCode as Code, FieldSizePayload, TlsAlertReceivedPayload,
    };

    use super::{ErrorCode, Payload, narrow};

    table!(guest_codes);
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_wit() {
        let wit = include_str!("../../wit/deps/http.wit");
        let body = wit.split_once("variant error-code {").unwrap().1;
        let body = body.split_once("\n  }").unwrap().0;
        let cases: Vec<&str> = body
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with("//"))
            .map(|line| line.split(['(', ',']).next().unwrap())
            .collect();
        assert_eq!(cases, NAMES);
        assert_eq!(NAMES.len(), 39);
    }

    /// A full payload of the kind that a case has, by what an empty one turns into.
    fn full(name: &'static str) -> ErrorCode {
        let kinds = [
            Payload::Size(Some(70_000)),
            Payload::Text(Some("text".into())),
            Payload::Dns { rcode: Some("NXDOMAIN".into()), info_code: Some(3) },
            Payload::Tls { alert_id: Some(40), alert_message: Some("no".into()) },
            Payload::Field { field_name: Some("x".into()), field_size: Some(9) },
        ];
        let empty = ErrorCode::from_host(&ErrorCode { name, payload: Payload::None }.into_host()).unwrap().payload;
        let same_kind = |kind: &Payload| std::mem::discriminant(kind) == std::mem::discriminant(&empty);
        ErrorCode { name, payload: kinds.into_iter().find(same_kind).unwrap_or(Payload::None) }
    }

    #[test]
    fn every_code_survives_the_way_through_the_host_and_through_the_guest() {
        for &name in NAMES {
            let code = full(name);
            assert_eq!(ErrorCode::from_host(&code.clone().into_host()), Some(code.clone()));
            assert_eq!(ErrorCode::from(code.clone().into_p2()), code);
            assert_eq!(ErrorCode::from(code.clone().into_p3()), code);
        }
        let with_payload = NAMES.iter().filter(|name| full(name).payload != Payload::None).count();
        let wit = include_str!("../../wit/deps/http.wit").split_once("variant error-code {").unwrap().1;
        let cases = wit.split_once("\n  }").unwrap().0;
        let in_the_wit = cases.lines().filter(|line| line.trim().ends_with("),")).count();
        assert_eq!(with_payload, in_the_wit);
    }

    #[test]
    fn what_does_not_belong_is_dropped() {
        let code = ErrorCode { name: "DNS-timeout", payload: Payload::Size(Some(1)) };
        assert_eq!(ErrorCode::from(code.into_p2()).payload, Payload::None);
        let huge = ErrorCode { name: "HTTP-request-header-section-size", payload: Payload::Size(Some(1 << 40)) };
        assert_eq!(ErrorCode::from(huge.into_p2()).payload, Payload::Size(Some(u64::from(u32::MAX))));
    }
}
