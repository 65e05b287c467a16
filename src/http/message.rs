//! Requests and responses as messages: which of the two a body belongs to, and whether there is one.

use bytes::Bytes;
use http_body::Frame;
use wasmtime_wasi_http::WasiBody;

use crate::http::error_code::{ErrorCode, Payload};
use crate::http::server_request::trailers;

/// Which message of an exchange a body belongs to: it decides the error-code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Request,
    Response,
}

impl Side {
    pub(crate) fn body_size(self, bytes: u64) -> ErrorCode {
        let name = match self {
            Self::Request => "HTTP-request-body-size",
            Self::Response => "HTTP-response-body-size",
        };
        ErrorCode { name, payload: Payload::Size(Some(bytes)) }
    }

    pub(crate) fn header_size(self, bytes: u64) -> ErrorCode {
        let name = match self {
            Self::Request => "HTTP-request-header-section-size",
            Self::Response => "HTTP-response-header-section-size",
        };
        ErrorCode { name, payload: Payload::Size(Some(bytes)) }
    }

    pub(crate) fn trailer_size(self, bytes: u64) -> ErrorCode {
        let name = match self {
            Self::Request => "HTTP-request-trailer-section-size",
            Self::Response => "HTTP-response-trailer-section-size",
        };
        ErrorCode { name, payload: Payload::Size(Some(bytes)) }
    }
}

/// Whether an answer has no body, whatever length it announces (RFC 9110, 6.4.1).
pub(crate) fn is_bare(to_head: bool, status: http::StatusCode) -> bool {
    to_head || matches!(status.as_u16(), 100..=199 | 204 | 304)
}

/// A frame of a body, with no more in its trailers than may be there.
pub(crate) fn with_trailers(frame: Frame<Bytes>) -> Frame<Bytes> {
    frame.into_trailers().map_or_else(|data| data, |given| Frame::trailers(trailers(given)))
}

/// A body of nothing.
pub(crate) fn empty() -> WasiBody {
    use http_body_util::BodyExt;
    http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync()
}
