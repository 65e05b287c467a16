//! A line as a JSON object: what is always known first, and what is not known left out.

use std::io::Write;

use http::header::{REFERER, USER_AGENT};

use crate::server::access_log::entry::{Entry, joined};
use crate::server::access_log::time;
use crate::text::json;

pub(super) fn write(entry: &Entry<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"time\":\"");
    time::rfc_3339(entry.started, out);
    out.extend_from_slice(b"\",\"method\":");
    json(entry.method.as_bytes(), out);
    out.extend_from_slice(b",\"target\":");
    json(entry.target, out);
    _ = write!(out, ",\"status\":{},\"bytes\":{}", entry.status, entry.sent);
    _ = write!(out, ",\"duration\":{:.6}", entry.duration.as_secs_f64());
    if let Some(client) = entry.client {
        _ = write!(out, ",\"client\":\"{client}\"");
    }
    if let Some(version) = entry.version {
        _ = write!(out, ",\"protocol\":\"{version:?}\"");
    }
    if let Some(exchange) = entry.exchange {
        _ = write!(out, ",\"exchange\":{exchange}");
    }
    let texts = [
        ("user", entry.user),
        ("scheme", entry.scheme),
        ("host", entry.host),
        ("request_id", entry.request_id),
        ("traceparent", entry.traceparent),
        ("component", entry.component),
        ("outcome", entry.outcome),
    ];
    let mut add = |name: &str, value: &[u8]| {
        _ = write!(out, ",\"{name}\":");
        json(value, out);
    };
    for (name, value) in texts {
        if let Some(value) = value {
            add(name, value.as_bytes());
        }
    }
    for (name, field) in [("referer", REFERER), ("user_agent", USER_AGENT)] {
        if let Some(value) = joined(entry.request, &field) {
            add(name, &value);
        }
    }
    out.push(b'}');
}
