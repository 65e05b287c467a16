//! Requests whose URL is put together part by part: what the query does not name is left out.

use wasip3::http::types::{Fields, Method, Request, Scheme};

use crate::message::{Answer, Out};
use crate::{Query, relay, text};

/// Says which setter refuses its value, or the error-code, or relays the answer.
pub async fn ask(query: &Query, out: Out) {
    let (_, trailers) = wasip3::wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
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
        return text(out, 400, &format!("{setter} refuses it")).await;
    }
    match Answer::of(request).await.get().await {
        Ok(response) => relay(response, out).await,
        Err(code) => text(out, 502, &format!("{code:?}")).await,
    }
}
