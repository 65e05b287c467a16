//! Messages as they are: answers that a query describes, and what is seen of an upstream's.

use std::collections::HashMap;

use wasip2::http::types::{
    ErrorCode, Fields, IncomingResponse, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

use crate::{read_all, text, write};

/// Answers with `code`, the fields of `header` (one a line), and `body`. Without one, the body is never asked for.
pub fn reply(query: &HashMap<String, String>, out: ResponseOutparam) {
    let fields = Fields::new();
    let lines = query.get("header").map(|lines| lines.split('\n'));
    for (name, value) in lines.into_iter().flatten().filter_map(|line| line.split_once(':')) {
        fields.append(name, value.as_bytes()).unwrap();
    }
    let response = OutgoingResponse::new(fields);
    let code = query.get("code").and_then(|code| code.parse().ok()).unwrap_or(200);
    response.set_status_code(code).unwrap();
    let content = query.get("body");
    let body = content.map(|_| response.body().unwrap());
    ResponseOutparam::set(out, Ok(response));
    if let (Some(body), Some(content)) = (body, content) {
        let stream = body.write().unwrap();
        write(&stream, content.as_bytes());
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}

/// Answers with what it sees of an answer, a fact a line.
pub fn answer(answered: Result<IncomingResponse, ErrorCode>, out: ResponseOutparam) {
    let response = match answered {
        Ok(response) => response,
        Err(code) => return text(out, 502, &format!("{code:?}")),
    };
    let mut lines = vec![format!("status: {}", response.status())];
    for (name, value) in response.headers().entries() {
        lines.push(format!("header {name}: {}", value.escape_ascii()));
    }
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    lines.push(match read_all(&stream) {
        Ok(content) => format!("body: {}", content.escape_ascii()),
        Err(error) => format!("broken: {error}"),
    });
    text(out, 200, &lines.join("\n"));
}
