//! Messages as they are: answers that a query describes, and what is seen of an upstream's.

use wasip3::http::types::{ErrorCode, Fields, Response};

use crate::message::{Body, Incoming, Out};
use crate::{Query, empty, text};

/// Answers with `code`, the fields of `header` (one a line), and `body`. Without one, there is no stream.
pub async fn reply(query: &Query, out: Out) {
    let fields = Fields::new();
    let lines = query.get("header").map(|lines| lines.split('\n'));
    for (name, value) in lines.into_iter().flatten().filter_map(|line| line.split_once(':')) {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let code = query.get("code").and_then(|code| code.parse().ok()).unwrap_or(200);
    let Some(content) = query.get("body") else {
        let response = empty(fields);
        response.set_status_code(code).unwrap();
        return out.set(Ok(response));
    };
    let (response, mut body) = Body::response(fields);
    response.set_status_code(code).unwrap();
    out.set(Ok(response));
    let _ = body.write(content.as_bytes()).await;
    body.finish(None).await;
}

/// Answers with what it sees of an answer, a fact a line.
pub async fn answer(answered: Result<Response, ErrorCode>, out: Out) {
    let response = match answered {
        Ok(response) => response,
        Err(code) => return text(out, 502, &format!("{code:?}")).await,
    };
    let mut lines = vec![format!("status: {}", response.get_status_code())];
    for (name, value) in response.get_headers().copy_all() {
        lines.push(format!("header {name}: {}", value.escape_ascii()));
    }
    lines.push(match Incoming::of_response(response).read_all().await {
        Ok(content) => format!("body: {}", content.escape_ascii()),
        Err(error) => format!("broken: {error}"),
    });
    text(out, 200, &lines.join("\n")).await;
}
