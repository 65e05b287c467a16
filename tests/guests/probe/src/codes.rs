//! The 39 cases of wasi:http's error-code by name, each with a payload where it has one. The same in both generations.

use crate::http_types::{DnsErrorPayload, ErrorCode, FieldSizePayload, TlsAlertReceivedPayload};

fn field() -> FieldSizePayload {
    FieldSizePayload {
        field_name: Some("x-big".to_owned()),
        field_size: Some(70_000),
    }
}

pub fn by_name(name: &str) -> Option<ErrorCode> {
    use ErrorCode::*;
    Some(match name {
        "DNS-timeout" => DnsTimeout,
        "DNS-error" => DnsError(DnsErrorPayload {
            rcode: Some("NXDOMAIN".to_owned()),
            info_code: Some(3),
        }),
        "destination-not-found" => DestinationNotFound,
        "destination-unavailable" => DestinationUnavailable,
        "destination-IP-prohibited" => DestinationIpProhibited,
        "destination-IP-unroutable" => DestinationIpUnroutable,
        "connection-refused" => ConnectionRefused,
        "connection-terminated" => ConnectionTerminated,
        "connection-timeout" => ConnectionTimeout,
        "connection-read-timeout" => ConnectionReadTimeout,
        "connection-write-timeout" => ConnectionWriteTimeout,
        "connection-limit-reached" => ConnectionLimitReached,
        "TLS-protocol-error" => TlsProtocolError,
        "TLS-certificate-error" => TlsCertificateError,
        "TLS-alert-received" => TlsAlertReceived(TlsAlertReceivedPayload {
            alert_id: Some(40),
            alert_message: Some("handshake failure".to_owned()),
        }),
        "HTTP-request-denied" => HttpRequestDenied,
        "HTTP-request-length-required" => HttpRequestLengthRequired,
        "HTTP-request-body-size" => HttpRequestBodySize(Some(1 << 40)),
        "HTTP-request-method-invalid" => HttpRequestMethodInvalid,
        "HTTP-request-URI-invalid" => HttpRequestUriInvalid,
        "HTTP-request-URI-too-long" => HttpRequestUriTooLong,
        "HTTP-request-header-section-size" => HttpRequestHeaderSectionSize(Some(70_000)),
        "HTTP-request-header-size" => HttpRequestHeaderSize(Some(field())),
        "HTTP-request-trailer-section-size" => HttpRequestTrailerSectionSize(Some(70_000)),
        "HTTP-request-trailer-size" => HttpRequestTrailerSize(field()),
        "HTTP-response-incomplete" => HttpResponseIncomplete,
        "HTTP-response-header-section-size" => HttpResponseHeaderSectionSize(Some(70_000)),
        "HTTP-response-header-size" => HttpResponseHeaderSize(field()),
        "HTTP-response-body-size" => HttpResponseBodySize(Some(1 << 40)),
        "HTTP-response-trailer-section-size" => HttpResponseTrailerSectionSize(Some(70_000)),
        "HTTP-response-trailer-size" => HttpResponseTrailerSize(field()),
        "HTTP-response-transfer-coding" => HttpResponseTransferCoding(Some("gzip".to_owned())),
        "HTTP-response-content-coding" => HttpResponseContentCoding(Some("br".to_owned())),
        "HTTP-response-timeout" => HttpResponseTimeout,
        "HTTP-upgrade-failed" => HttpUpgradeFailed,
        "HTTP-protocol-error" => HttpProtocolError,
        "loop-detected" => LoopDetected,
        "configuration-error" => ConfigurationError,
        "internal-error" => InternalError(Some("as asked".to_owned())),
        _ => return None,
    })
}

/// The error-code of that name, with `text` where it has one.
pub fn with_text(name: &str, text: Option<String>) -> ErrorCode {
    let field = FieldSizePayload { field_name: text.clone(), field_size: Some(1) };
    match name {
        "DNS-error" => ErrorCode::DnsError(DnsErrorPayload { rcode: text, info_code: None }),
        "TLS-alert-received" => {
            ErrorCode::TlsAlertReceived(TlsAlertReceivedPayload { alert_id: None, alert_message: text })
        }
        "HTTP-request-header-size" => ErrorCode::HttpRequestHeaderSize(Some(field)),
        "HTTP-request-trailer-size" => ErrorCode::HttpRequestTrailerSize(field),
        "HTTP-response-header-size" => ErrorCode::HttpResponseHeaderSize(field),
        "HTTP-response-trailer-size" => ErrorCode::HttpResponseTrailerSize(field),
        "HTTP-response-transfer-coding" => ErrorCode::HttpResponseTransferCoding(text),
        "HTTP-response-content-coding" => ErrorCode::HttpResponseContentCoding(text),
        _ => ErrorCode::InternalError(text),
    }
}
