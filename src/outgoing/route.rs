//! An upstream that is several, by where a request goes.

use std::sync::Arc;

use crate::exchange::guest_body::GuestBody;
use crate::exchange::refusals::{Hint, Refused};
use crate::exchange::stdio::Stdio;
use crate::http::error_code::ErrorCode;
use crate::http::url_pattern::Table;
use crate::outgoing::upstream::{Answer, Timeouts, Upstream};

/// Each request goes to the upstream of the most special pattern that fits it.
pub struct Route {
    /// The patterns.
    pub table: Arc<Table>,
    /// In the order in which the table was given its patterns.
    pub upstreams: Vec<Arc<dyn Upstream>>,
}

impl Upstream for Route {
    fn send(&self, request: http::Request<GuestBody>, timeouts: Timeouts, warnings: &Arc<Stdio>) -> Answer {
        match self.table.find(request.uri()).and_then(|place| self.upstreams.get(place)) {
            Some(upstream) => upstream.send(request, timeouts, warnings),
            None => {
                warnings.refused(&Refused {
                    uri: request.uri(),
                    what: "has no route",
                    hint: &|origin| {
                        let origin = origin?;
                        let code = format!("`route({{..., \"{origin}\": upstream}})`, or `\"*\"` for all others");
                        Some(Hint { code, flag: None })
                    },
                });
                Box::pin(async { Err(ErrorCode::plain("destination-not-found").into()) })
            }
        }
    }
}
