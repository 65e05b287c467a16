//! What a body has to be, whichever way it goes: as long as its message announces, and no more than may come.

use bytes::Bytes;
use http_body::Frame;

use crate::error::Error;
use crate::http::error_code::ErrorCode;
use crate::http::fields;
use crate::http::message::{Side, is_bare};

/// What the head of a message says of its body's length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Length {
    /// There is no body, whatever length the head names: the answer to HEAD, 204, 304 (RFC 9110, 6.4.1). What comes all the same is
    /// bounded as any body.
    Nothing,
    Announced(u64),
    Unknown,
}

impl Length {
    pub(crate) fn announced(self) -> Option<u64> {
        match self {
            Self::Announced(length) => Some(length),
            Self::Nothing | Self::Unknown => None,
        }
    }
}

impl From<Option<u64>> for Length {
    fn from(length: Option<u64>) -> Self {
        length.map_or(Self::Unknown, Self::Announced)
    }
}

/// What a body has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyRules {
    pub side: Side,
    pub length: Length,
    /// The most bytes that may come: `Limits.request_body` or `Limits.response_body`.
    pub limit: Option<u64>,
    /// The most bytes of trailers: `Limits.fields`.
    pub trailers: Option<u64>,
}

impl BodyRules {
    /// Of a body without limits.
    pub(crate) fn of_length(side: Side, length: Option<u64>) -> Self {
        Self { side, length: length.into(), limit: None, trailers: None }
    }

    /// Of the response to a request, which was HEAD or not.
    pub(crate) fn of_response(to_head: bool, status: http::StatusCode, headers: &http::HeaderMap) -> Self {
        let length = match is_bare(to_head, status) {
            true => Length::Nothing,
            false => fields::announced_length(headers).into(),
        };
        Self { side: Side::Response, length, limit: None, trailers: None }
    }

    /// Whether what is announced may come at all.
    pub(crate) fn check_announced(&self) -> Result<(), Violation> {
        self.length.announced().map_or(Ok(()), |length| self.check_limit(length))
    }

    fn check_limit(&self, size: u64) -> Result<(), Violation> {
        match self.limit.filter(|limit| size > *limit) {
            Some(limit) => {
                let name = match self.side {
                    Side::Request => "request_body",
                    Side::Response => "response_body",
                };
                Err(Violation { code: self.side.body_size(size), limit: Some((name, limit)) })
            }
            None => Ok(()),
        }
    }
}

/// Why a body goes no further.
#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub code: ErrorCode,
    /// The limit that it went past, by name, and its value. None: it is not what was announced.
    pub limit: Option<(&'static str, u64)>,
}

impl Violation {
    pub(crate) fn into_error(self) -> Error {
        match self.limit {
            Some((limit, value)) => Error::Limited { code: self.code, limit, value },
            None => Error::Code(self.code.into()),
        }
    }
}

/// Holds a body to its rules, frame by frame.
#[derive(Debug)]
pub(crate) struct BodyCheck {
    rules: BodyRules,
    passed: u64,
}

impl BodyCheck {
    pub(crate) fn new(rules: BodyRules) -> Self {
        Self { rules, passed: 0 }
    }

    pub(crate) fn rules(&self) -> &BodyRules {
        &self.rules
    }

    /// Bytes that have passed.
    pub(crate) fn passed(&self) -> u64 {
        self.passed
    }

    /// So many more bytes. Those that may not pass are not counted as passed.
    pub(crate) fn data(&mut self, bytes: usize) -> Result<(), Violation> {
        let size = self.passed.saturating_add(bytes as u64);
        self.rules.check_limit(size)?;
        if self.rules.length.announced().is_some_and(|length| size > length) {
            return Err(self.not_as_announced(size));
        }
        self.passed = size;
        Ok(())
    }

    /// The end, by what is said, with trailers or without.
    pub(crate) fn end(&self, trailers: Option<&http::HeaderMap>) -> Result<(), Violation> {
        if self.rules.length.announced().is_some_and(|length| length != self.passed) {
            return Err(self.not_as_announced(self.passed));
        }
        let size = trailers.map_or(0, fields::size);
        match self.rules.trailers.filter(|limit| size > *limit) {
            Some(limit) => Err(Violation { code: self.rules.side.trailer_size(size), limit: Some(("fields", limit)) }),
            None => Ok(()),
        }
    }

    /// The next frame, or the end.
    pub(crate) fn frame(&mut self, frame: Option<&Frame<Bytes>>) -> Result<(), Violation> {
        let Some(frame) = frame else { return self.end(None) };
        if let Some(data) = frame.data_ref() {
            self.data(data.len())?;
        }
        frame.trailers_ref().map_or(Ok(()), |trailers| self.end(Some(trailers)))
    }

    fn not_as_announced(&self, size: u64) -> Violation {
        Violation { code: self.rules.side.body_size(size), limit: None }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::{HeaderMap, StatusCode};

    use super::*;

    fn check(length: Length, limit: Option<u64>, trailers: Option<u64>) -> BodyCheck {
        BodyCheck::new(BodyRules { side: Side::Request, length, limit, trailers })
    }

    fn fields(name: &'static str, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(http::HeaderName::from_static(name), http::HeaderValue::from_static(value))])
    }

    fn size(violation: Violation) -> (&'static str, Option<(&'static str, u64)>) {
        (violation.code.name, violation.limit)
    }

    #[test]
    fn a_body_of_its_length_passes() {
        let mut check = check(Length::Announced(5), Some(5), None);
        check.data(2).unwrap();
        check.data(3).unwrap();
        check.end(None).unwrap();
        assert_eq!(check.passed(), 5);
    }

    #[test]
    fn one_that_is_longer_than_announced_stops_where_it_is() {
        let mut check = check(Length::Announced(5), None, None);
        check.data(4).unwrap();
        assert_eq!(size(check.data(2).unwrap_err()), ("HTTP-request-body-size", None));
        assert_eq!(check.passed(), 4);
    }

    #[test]
    fn one_that_is_shorter_than_announced_does_not_end_with_or_without_trailers() {
        let mut check = check(Length::Announced(5), None, None);
        check.data(4).unwrap();
        assert_eq!(size(check.end(None).unwrap_err()), ("HTTP-request-body-size", None));
        assert!(check.end(Some(&HeaderMap::new())).is_err());
    }

    #[test]
    fn the_limit_comes_before_the_length() {
        let mut check = check(Length::Announced(5), Some(3), None);
        assert_eq!(size(check.data(9).unwrap_err()), ("HTTP-request-body-size", Some(("request_body", 3))));
        check.data(3).unwrap();
        assert!(check.data(1).is_err());
    }

    #[test]
    fn a_sum_that_no_number_holds_is_past_every_limit() {
        let mut check = check(Length::Unknown, Some(u64::MAX - 1), None);
        check.data(usize::MAX - 1).unwrap();
        assert!(check.data(usize::MAX).is_err());
    }

    #[test]
    fn trailers_have_a_limit() {
        let trailers = fields("a", "b");
        let exact = fields::size(&trailers);
        check(Length::Unknown, None, Some(exact)).end(Some(&trailers)).unwrap();
        let refused = check(Length::Unknown, None, Some(exact - 1)).end(Some(&trailers)).unwrap_err();
        assert_eq!(size(refused), ("HTTP-request-trailer-section-size", Some(("fields", exact - 1))));
        let mut check = check(Length::Unknown, None, Some(exact - 1));
        assert!(check.frame(Some(&Frame::trailers(trailers))).is_err());
        check.frame(Some(&Frame::data(Bytes::from_static(b"x")))).unwrap();
        check.frame(None).unwrap();
    }

    #[test]
    fn what_is_announced_is_held_to_the_limit_at_once() {
        let rules = |length| BodyRules { side: Side::Response, length, limit: Some(3), trailers: None };
        rules(Length::Announced(3)).check_announced().unwrap();
        let refused = rules(Length::Announced(4)).check_announced().unwrap_err();
        assert_eq!(size(refused), ("HTTP-response-body-size", Some(("response_body", 3))));
        rules(Length::Nothing).check_announced().unwrap();
        rules(Length::Unknown).check_announced().unwrap();
    }

    #[test]
    fn a_response_without_a_body_has_no_length_whatever_it_announces() {
        let headers = fields("content-length", "7");
        let length = |to_head, status| BodyRules::of_response(to_head, status, &headers).length;
        assert_eq!(length(false, StatusCode::OK), Length::Announced(7));
        assert_eq!(length(true, StatusCode::OK), Length::Nothing);
        assert_eq!(length(false, StatusCode::NO_CONTENT), Length::Nothing);
        assert_eq!(length(false, StatusCode::NOT_MODIFIED), Length::Nothing);
        BodyCheck::new(BodyRules::of_response(true, StatusCode::OK, &headers)).end(None).unwrap();
    }

    #[test]
    fn a_violation_is_the_limits_error_or_the_code_alone() {
        let mut limited = check(Length::Unknown, Some(1), None);
        assert!(matches!(
            limited.data(2).unwrap_err().into_error(),
            Error::Limited { limit: "request_body", value: 1, .. }
        ));
        let mut announced = check(Length::Announced(1), None, None);
        assert!(matches!(announced.data(2).unwrap_err().into_error(), Error::Code(_)));
    }
}
