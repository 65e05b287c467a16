//! What a request is known by from its client to its guest: `x-request-id`, and `traceparent` (W3C Trace Context). Those that a client
//! sends pass, one that has none gets them.

use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Makes ids that nobody else has.
pub(super) struct Ids {
    /// Of this server.
    random: (u64, u64),
    next: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { random: (rand::random(), rand::random()), next: AtomicU64::new(0) }
    }

    /// Gives a request those that it does not have.
    pub(super) fn add(&self, fields: &mut HeaderMap) {
        let (has_id, has_trace) = (fields.contains_key(&REQUEST_ID), fields.contains_key(&TRACEPARENT));
        if has_id && has_trace {
            return;
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let own = self.random.1.wrapping_add(number);
        let mut add = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                fields.insert(name, value);
            }
        };
        if !has_id {
            add(REQUEST_ID, format!("{:016x}{own:016x}", self.random.0));
        }
        if !has_trace {
            // of version 00; not sampled. No part may be all zeros
            add(TRACEPARENT, format!("00-{:016x}{own:016x}-{:016x}-00", self.random.0 | 1, own | 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_sends_passes_and_what_it_does_not_is_made() {
        let ids = Ids::new();
        let mut fields = HeaderMap::new();
        fields.insert(REQUEST_ID, HeaderValue::from_static("mine"));
        ids.add(&mut fields);
        assert_eq!(fields.get(&REQUEST_ID).map(HeaderValue::as_bytes), Some(&b"mine"[..]));
        assert_eq!(fields.get(&TRACEPARENT).map(HeaderValue::len), Some(55));
        let (mut one, mut other) = (HeaderMap::new(), HeaderMap::new());
        ids.add(&mut one);
        ids.add(&mut other);
        assert_ne!(one.get(&REQUEST_ID), other.get(&REQUEST_ID));
        assert_ne!(one.get(&TRACEPARENT), other.get(&TRACEPARENT));
    }
}
