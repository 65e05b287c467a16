//! The component that `wasgi demo` runs: a small weather page that asks an upstream for its data.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;

struct Demo;
wasip2::http::proxy::export!(Demo);

impl Guest for Demo {
    fn handle(request: IncomingRequest, response_out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/greet" => {
                let name = query.strip_prefix("name=").unwrap_or("stranger");
                println!("greeting {name}");
                answer(response_out, 200, &format!("Hello, {name}!\n"));
            }
            "/weather" => {
                let city = query.strip_prefix("city=").unwrap_or("Lisbon");
                match fetch("weather.example", &format!("/v1/{city}")) {
                    Ok(weather) => answer(response_out, 200, &format!("{city}: {weather}\n")),
                    Err(code) => answer(
                        response_out,
                        502,
                        &format!("{city}: nobody knows ({code:?})\n"),
                    ),
                }
            }
            "/crash" => {
                eprintln!("about to divide the bill among nobody");
                answer(
                    response_out,
                    200,
                    &format!("each pays {}\n", split_the_bill(120, query.len())),
                );
            }
            _ => answer(response_out, 404, "try /greet, /weather or /crash\n"),
        }
    }
}

#[inline(never)]
fn split_the_bill(total: usize, guests: usize) -> usize {
    total / guests
}

fn answer(response_out: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    let _ = headers.append("content-type", b"text/plain; charset=utf-8");
    let response = OutgoingResponse::new(headers);
    response.set_status_code(status).unwrap();
    let body = response.body().unwrap();
    ResponseOutparam::set(response_out, Ok(response));
    let stream = body.write().unwrap();
    stream.blocking_write_and_flush(text.as_bytes()).unwrap();
    drop(stream);
    OutgoingBody::finish(body, None).unwrap();
}

fn fetch(authority: &str, path: &str) -> Result<String, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_method(&Method::Get);
    let _ = request.set_scheme(Some(&Scheme::Https));
    let _ = request.set_authority(Some(authority));
    let _ = request.set_path_with_query(Some(path));
    let future = outgoing_handler::handle(request, None)?;
    future.subscribe().block();
    let response = future.get().unwrap().unwrap()?;
    let body = response.consume().unwrap();
    let stream = body.stream().unwrap();
    let mut text = Vec::new();
    loop {
        match stream.blocking_read(4096) {
            Ok(chunk) => text.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => {
                return Err(ErrorCode::HttpResponseIncomplete);
            }
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}
