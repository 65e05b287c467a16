//! A request in its guest's store, and where what the guest answers comes out.

use std::sync::Arc;

use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime_wasi_http::WasiBody;

use crate::error::Error;
use crate::exchange::body_check::{BodyRules, Violation};
use crate::exchange::handle::ExchangeState;
use crate::exchange::request_body::RequestBody;
use crate::exchange::response_body::{ResponseBuffer, ResponseReader, ResponseSlot};
use crate::http::error_code::ErrorCode;
use crate::http::fields;
use crate::http::message::Side;
use crate::limits::Limits;
use crate::simulation::virtual_time::Clock;
use crate::simulation::watched_body::Watched;

/// What a request's body has to be. What the request says of itself must fit its limits.
pub(super) fn request_rules(headers: &http::HeaderMap, limits: &Limits) -> Result<BodyRules, Error> {
    let size = fields::size(headers);
    if let Some(value) = limits.fields.filter(|limit| size > *limit) {
        return Err(Error::Limited { code: Side::Request.header_size(size), limit: "fields", value });
    }
    let rules = BodyRules {
        limit: limits.request_body,
        trailers: limits.fields,
        ..BodyRules::of_length(Side::Request, fields::announced_length(headers))
    };
    rules.check_announced().map_err(Violation::into_error)?;
    Ok(rules)
}

/// A request as its guest gets it, and where its answer comes out.
pub(super) struct Incoming<B, A> {
    pub request: http::Request<B>,
    /// Takes what the guest answers.
    pub answered: A,
    pub head: oneshot::Receiver<Result<http::Response<WasiBody>, ErrorCode>>,
    pub answer: ResponseSlot,
}

/// Makes ready what a guest gets. `in_sight`: writes of its response that may lie where it is seen that nobody takes them; `clock`: of
/// a simulation.
#[allow(clippy::type_complexity)]
pub(super) fn incoming(
    request: http::Request<WasiBody>,
    rules: BodyRules,
    exchange: &Arc<ExchangeState>,
    in_sight: usize,
    clock: Option<Clock>,
) -> Incoming<Watched<RequestBody>, impl FnOnce(Result<http::Response<WasiBody>, ErrorCode>) + Send + Sync + use<>> {
    let work = clock.map(|clock| clock.work(false));
    let request = request.map(|body| Watched::by_guest(RequestBody::of_caller(body, rules, exchange), work));
    let (sender, head) = oneshot::channel();
    let answer = ResponseSlot::default();
    let (slot, clock) = (answer.clone(), exchange.clock.clone());
    let answered = move |answer: Result<http::Response<WasiBody>, ErrorCode>| {
        let answer = answer.map(|response| {
            response.map(|body| {
                let buffer = ResponseBuffer::new(body, in_sight, clock);
                slot.set(Some(buffer.clone()));
                ResponseReader(buffer).boxed_unsync()
            })
        });
        if answer.is_err() {
            slot.set(None);
        }
        // nobody may be left to take it: the guest is told nothing of that
        let _ = sender.send(answer);
    };
    Incoming { request, answered, head, answer }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange::body_check::Length;

    fn headers(length: Option<&str>) -> http::HeaderMap {
        let mut headers = http::HeaderMap::new();
        headers.insert("a", http::HeaderValue::from_static("b"));
        if let Some(length) = length {
            headers.insert(http::header::CONTENT_LENGTH, length.parse().unwrap());
        }
        headers
    }

    fn limited(error: Error) -> (&'static str, &'static str, u64) {
        match error {
            Error::Limited { code, limit, value } => (code.name, limit, value),
            other => unreachable!("{other}"),
        }
    }

    #[test]
    fn the_fields_of_a_request_have_a_limit() {
        let headers = headers(None);
        let size = fields::size(&headers);
        let limits = |most| Limits { fields: Some(most), ..Limits::NONE };
        let rules = request_rules(&headers, &limits(size)).unwrap();
        assert_eq!((rules.length, rules.limit, rules.trailers), (Length::Unknown, None, Some(size)));
        let refused = request_rules(&headers, &limits(size - 1)).unwrap_err();
        assert_eq!(limited(refused), ("HTTP-request-header-section-size", "fields", size - 1));
    }

    #[test]
    fn a_request_that_announces_more_than_may_come_is_refused_at_once() {
        let limits = Limits { request_body: Some(7), ..Limits::NONE };
        let rules = request_rules(&headers(Some("7")), &limits).unwrap();
        assert_eq!((rules.length, rules.limit), (Length::Announced(7), Some(7)));
        let refused = request_rules(&headers(Some("8")), &limits).unwrap_err();
        assert_eq!(limited(refused), ("HTTP-request-body-size", "request_body", 7));
    }
}
