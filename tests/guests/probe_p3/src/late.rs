//! A body that is written when its response has begun.

use crate::message::{Answer, CHUNK, Incoming};
use crate::{Query, prepare};

/// With `sent`, what became of the request is said as well.
pub async fn body(query: &Query, n: u64) -> String {
    let (request, mut body) = prepare(query).unwrap();
    let response = Answer::of(request).await.get().await;
    let mut left = n;
    let mut written = Ok(());
    while left > 0 && written.is_ok() {
        let size = left.min(CHUNK as u64);
        written = body.write(&vec![b'x'; size as usize]).await;
        left -= size;
    }
    let sent = body.finish_in_background(None);
    let answer = match response {
        Ok(response) => {
            let status = response.get_status_code();
            let content = Incoming::of_response(response).read_all().await;
            let content = content.map(|content| String::from_utf8_lossy(&content).into_owned());
            format!("{status} {}", content.unwrap_or_else(|error| error))
        }
        Err(code) => format!("{code:?}"),
    };
    let answer = format!("{answer}, written: {written:?}, finished: Ok(())");
    if query.contains_key("sent") { format!("{answer}, sent: {:?}", sent.await) } else { answer }
}
