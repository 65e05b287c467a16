//! Greets users by the names that an API knows: `GET /greet/1` asks `$API/users/1`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Greeter;
wasip2::http::proxy::export!(Greeter);

impl Guest for Greeter {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let (status, text) = match (request.method(), path.strip_prefix("/greet/")) {
            (Method::Get, Some(user)) => greet(user),
            _ => (404, "there is somebody at /greet/1\n".to_owned()),
        };
        answer(out, status, &text);
    }
}

/// How long the API may take for its answer, in nanoseconds. It is asked twice.
const PATIENCE: u64 = 2_000_000_000;

fn greet(user: &str) -> (u16, String) {
    let mut asked = ask(user);
    if asked.is_err() {
        eprintln!("asking for user {user} failed, once more: {asked:?}");
        asked = ask(user);
    }
    match asked {
        Ok((200, body)) => match name_in(&body) {
            Some(name) => (200, format!("Hello, {name}")),
            None => (502, "the API has no name for that user\n".to_owned()),
        },
        Ok((404, _)) => (404, "no such user\n".to_owned()),
        Ok((status, _)) => (502, format!("the API answered {status}\n")),
        Err(code) => {
            eprintln!("giving up: {code:?}");
            (502, "the API does not answer\n".to_owned())
        }
    }
}

/// The status and the body of what the API says of a user.
fn ask(user: &str) -> Result<(u16, String), ErrorCode> {
    let api = std::env::var("API").map_err(|_| ErrorCode::ConfigurationError)?;
    let (scheme, rest) = api.split_once("://").ok_or(ErrorCode::HttpRequestUriInvalid)?;
    let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let headers = Fields::new();
    let _ = headers.append("accept", b"application/json");
    let request = OutgoingRequest::new(headers);
    let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
    let _ = request.set_scheme(Some(&scheme));
    let path = format!("{base}/users/{user}");
    request
        .set_authority(Some(authority))
        .and_then(|()| request.set_path_with_query(Some(&path)))
        .map_err(|()| ErrorCode::HttpRequestUriInvalid)?;
    let options = RequestOptions::new();
    let _ = options.set_first_byte_timeout(Some(PATIENCE));
    let _ = options.set_between_bytes_timeout(Some(PATIENCE));
    let future = outgoing_handler::handle(request, Some(options))?;
    future.subscribe().block();
    let response = future
        .get()
        .and_then(Result::ok)
        .unwrap_or(Err(ErrorCode::InternalError(None)))?;
    let status = response.status();
    Ok((status, read(response)?))
}

fn read(response: IncomingResponse) -> Result<String, ErrorCode> {
    let mut whole = Vec::new();
    let body = response.consume().map_err(|()| ErrorCode::HttpProtocolError)?;
    let stream = body.stream().map_err(|()| ErrorCode::HttpProtocolError)?;
    loop {
        match stream.blocking_read(4096) {
            Ok(chunk) => whole.extend_from_slice(&chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(wasip2::http::types::http_error_code(&error)
                    .unwrap_or(ErrorCode::HttpResponseIncomplete));
            }
        }
    }
    drop(stream);
    IncomingBody::finish(body);
    Ok(String::from_utf8_lossy(&whole).into_owned())
}

/// The string member `name`: enough of JSON for an example.
fn name_in(json: &str) -> Option<&str> {
    let (_, rest) = json.split_once("\"name\"")?;
    let rest = rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    rest.split_once('"').map(|(name, _)| name)
}

fn answer(out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain; charset=utf-8");
    let response = OutgoingResponse::new(headers);
    let _ = response.set_status_code(status);
    let Ok(body) = response.body() else { return };
    ResponseOutparam::set(out, Ok(response));
    if let Ok(stream) = body.write() {
        let _ = stream.blocking_write_and_flush(text.as_bytes());
    }
    let _ = OutgoingBody::finish(body, None);
}
