//! A guest as wstd has people write them: its client sends a body and waits for the response at once, and whichever of the two
//! fails first is what the guest sees.

use wstd::http::{Body, Client, Error, Method, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let query = request.uri().query().unwrap_or("").to_owned();
    let arg = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    };
    let method = if arg("method").is_empty() { Method::POST } else { arg("method").parse()? };
    let outgoing = Request::builder().method(method).uri(arg("url"));
    let outgoing = match request.uri().path() {
        // sends so many bytes
        "/fetch" => outgoing.body(Body::from(vec![b'x'; arg("bytes").parse().unwrap_or(0)]))?,
        // passes the body of its own request on, as it comes
        "/forward" => outgoing.body(request.into_body())?,
        _ => return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(Body::empty())?),
    };
    match Client::new().send(outgoing).await {
        Ok(mut answer) => {
            let status = answer.status().as_u16();
            let content = String::from_utf8_lossy(answer.body_mut().contents().await?).into_owned();
            Ok(Response::new(format!("{status} {content}").into()))
        }
        Err(error) => Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(format!("{error:#}").into())?),
    }
}
