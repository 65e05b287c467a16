//! Requests whose URL is put together part by part: what the query does not name is left out.

use std::collections::HashMap;

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, Method, OutgoingRequest, ResponseOutparam, Scheme};

/// Says which setter refuses its value, or the error-code, or relays the answer.
pub fn ask(query: &HashMap<String, String>, out: ResponseOutparam) {
    let request = OutgoingRequest::new(Fields::new());
    let method = query.get("method").map(|method| Method::Other(method.clone()));
    let scheme = query.get("scheme").map(|scheme| match scheme.as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    });
    // `times` makes it longer than the query of a request may be
    let times = query.get("times").and_then(|times| times.parse().ok()).unwrap_or(1);
    let target = query.get("target").map(|target| target.repeat(times));
    let set = [
        ("set-method", method.is_none_or(|method| request.set_method(&method).is_ok())),
        ("set-scheme", scheme.is_none_or(|scheme| request.set_scheme(Some(&scheme)).is_ok())),
        ("set-authority", query.get("authority").is_none_or(|text| request.set_authority(Some(text)).is_ok())),
        ("set-path-with-query", target.is_none_or(|text| request.set_path_with_query(Some(&text)).is_ok())),
    ];
    if let Some((setter, _)) = set.iter().find(|(_, taken)| !taken) {
        return super::text(out, 400, &format!("{setter} refuses it"));
    }
    match outgoing_handler::handle(request, None).and_then(|future| super::wait(&future)) {
        Ok(response) => super::relay(response, out),
        Err(code) => super::text(out, 502, &format!("{code:?}")),
    }
}
