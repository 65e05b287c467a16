//! Requests that are left midway.

use wasip3::http::types::{ErrorCode, Response};

use crate::message::Answer;
use crate::{Query, prepare};

/// A request whose body is begun, and dropped when its response's head has come.
pub async fn abandon(query: &Query) -> Result<Response, ErrorCode> {
    let (request, mut body) = prepare(query)?;
    let answer = Answer::of(request).await;
    let _ = body.write(b"begun").await;
    let response = answer.get().await;
    drop(body);
    response
}

/// A request whose body is begun and dropped, before it is sent or after; what comes of it. Nobody takes a body before its
/// request is sent: what drops it `early` waits for that alone.
pub async fn half(query: &Query) -> Result<u16, ErrorCode> {
    let (request, mut body) = prepare(query)?;
    let answer = if query.contains_key("early") {
        wasip3::spawn_local(async move {
            let _ = body.write(b"half of it").await;
        });
        Answer::of(request).await
    } else {
        let answer = Answer::of(request).await;
        let _ = body.write(b"half of it").await;
        drop(body);
        answer
    };
    answer.get().await.map(|response| response.get_status_code())
}
