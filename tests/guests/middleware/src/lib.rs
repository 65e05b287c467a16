//! Middleware of WASI 0.3: it answers a request by passing it on to the next handler. What else it does, the variable `DO` says.

use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, RequestOptions, Response, Scheme};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{wit_future, wit_stream};

/// The import that the world of `wasip3` lacks. Its release is another one than that of the export.
mod next {
    wit_bindgen::generate!({
        path: "../../../wit",
        inline: "package tests:middleware; world next { import wasi:http/handler@0.3.0; }",
        world: "tests:middleware/next",
        with: {
            "wasi:http/handler@0.3.0": generate,
            "wasi:clocks/types@0.3.0": wasip3::clocks::types,
            "wasi:http/types@0.3.0": wasip3::http::types,
        },
    });
    pub use wasi::http0_3_0::handler::handle;
}

type Trailers = Result<Option<Fields>, ErrorCode>;

const CHUNK: usize = 4096;

struct Middleware;
wasip3::http::service::export!(Middleware);

impl Guest for Middleware {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        match variable("DO").as_str() {
            // both messages as they are
            "" => next::handle(request).await,
            // fields are added to both, what they have is passed on
            "fields" => {
                let response = next::handle(changed(request, None)).await?;
                let (status, fields) = (response.get_status_code(), added(response.get_headers()));
                let (body, trailers) = Response::consume_body(response, well());
                Ok(with_status(Response::new(fields, Some(body), trailers).0, status))
            }
            // both bodies go through it, and each gets a trailer that says how long it was
            "count" => {
                let parts = Parts::of(&request);
                let options = request.get_options();
                let fields = Fields::from_list(&request.get_headers().copy_all()).unwrap();
                let (source, end) = Request::consume_body(request, well());
                let (mut sink, body, tell, trailers) = pipe();
                let (counted, _) = Request::new(fields, Some(body), trailers, options);
                parts.set(&counted);
                wasip3::spawn_local(async move {
                    let count = copy(source, &mut sink).await;
                    finish(sink, end, tell, "x-request-bytes", count).await;
                });
                let response = next::handle(counted).await?;
                let status = response.get_status_code();
                let fields = Fields::from_list(&response.get_headers().copy_all()).unwrap();
                let (source, end) = Response::consume_body(response, well());
                let (mut sink, body, tell, trailers) = pipe();
                wasip3::spawn_local(async move {
                    let count = copy(source, &mut sink).await;
                    finish(sink, end, tell, "x-response-bytes", count).await;
                });
                Ok(with_status(Response::new(fields, Some(body), trailers).0, status))
            }
            // looks at the first bytes of both bodies, as many as `OPTION` says, and passes on what is left of them
            "peek" => {
                let parts = Parts::of(&request);
                let fields = Fields::from_list(&request.get_headers().copy_all()).unwrap();
                let _ = fields.delete("content-length");
                let (mut body, trailers) = Request::consume_body(request, well());
                let (_, begin) = body.read(Vec::with_capacity(variable("OPTION").parse().unwrap())).await;
                let _ = fields.append("x-begin", &begin);
                let (rest, _) = Request::new(fields, Some(body), trailers, None);
                parts.set(&rest);
                let response = next::handle(rest).await?;
                let fields = Fields::from_list(&response.get_headers().copy_all()).unwrap();
                let _ = fields.delete("content-length");
                let (mut body, trailers) = Response::consume_body(response, well());
                let (_, begin) = body.read(Vec::with_capacity(variable("OPTION").parse().unwrap())).await;
                let _ = fields.append("x-begin", &begin);
                Ok(Response::new(fields, Some(body), trailers).0)
            }
            // a request of its own, of which it says only the method and the path
            "new" => {
                let (_, trailers) = wit_future::new(|| Ok(None));
                let (made, _) = Request::new(Fields::new(), None, trailers, None);
                made.set_method(&request.get_method()).unwrap();
                made.set_path_with_query(request.get_path_with_query().as_deref()).unwrap();
                next::handle(made).await
            }
            // a request for the URL that `URL` says, with nothing else of the one that came
            "url" => next::handle(asking(&variable("URL"))).await,
            // a request with request-options: `OPTION` is the first-byte-timeout in milliseconds
            "options" => {
                let options = RequestOptions::new();
                options.set_connect_timeout(Some(1_000_000)).unwrap();
                options.set_first_byte_timeout(Some(variable("OPTION").parse::<u64>().unwrap() * 1_000_000)).unwrap();
                options.set_between_bytes_timeout(Some(3_000_000_000)).unwrap();
                next::handle(changed(request, Some(options))).await
            }
            // answers by itself, with what it sees of the request
            "answer" => Ok(text(200, seen(&request))),
            // asks `URL` by `client`, says what came of it in a field, and passes the request on
            "client" => {
                let said = match client::send(asking(&variable("URL"))).await {
                    Ok(response) => response.get_status_code().to_string(),
                    Err(code) => format!("{code:?}"),
                };
                let fields = Fields::from_list(&request.get_headers().copy_all()).unwrap();
                let _ = fields.append("x-client", said.as_bytes());
                let (parts, options) = (Parts::of(&request), request.get_options());
                let (body, trailers) = Request::consume_body(request, well());
                let (request, _) = Request::new(fields, Some(body), trailers, options);
                parts.set(&request);
                next::handle(request).await
            }
            // says what came of the request, and how its own message was transmitted
            "report" => {
                let (parts, options) = (Parts::of(&request), request.get_options());
                let fields = Fields::from_list(&request.get_headers().copy_all()).unwrap();
                let (body, trailers) = Request::consume_body(request, well());
                let (request, sent) = Request::new(fields, Some(body), trailers, options);
                parts.set(&request);
                let came = match next::handle(request).await {
                    Ok(response) => {
                        let status = response.get_status_code();
                        let (mut body, trailers) = Response::consume_body(response, well());
                        let mut length = 0;
                        while let Some(chunk) = read(&mut body).await {
                            length += chunk.len();
                        }
                        drop(body);
                        format!("{status}, {length} bytes, {:?}", trailers.await.map(|fields| fields.is_some()))
                    }
                    Err(code) => format!("{code:?}"),
                };
                Ok(text(200, format!("{came}; sent: {:?}", sent.await)))
            }
            // passes on a body that it does not finish
            "break" => {
                let (mut sink, body, tell, trailers) = pipe();
                let (broken, _) = Request::new(Fields::new(), Some(body), trailers, None);
                Parts::of(&request).set(&broken);
                wasip3::spawn_local(async move {
                    sink.write_all(b"half of it".to_vec()).await;
                    drop(sink);
                    let _ = tell.write(Err(ErrorCode::InternalError(Some("broken off".to_owned())))).await;
                });
                next::handle(broken).await
            }
            // passes the request on, asks `URL` by `client`, and then lets go of the call
            "forget" => {
                let mut call = Box::pin(next::handle(request));
                std::future::poll_fn(|context| {
                    let _ = call.as_mut().poll(context);
                    std::task::Poll::Ready(())
                })
                .await;
                let _ = client::send(asking(&variable("URL"))).await;
                drop(call);
                Ok(text(200, "forgotten".to_owned()))
            }
            // passes on as many requests as `OPTION` says, at once
            "many" => {
                let mut calls: Vec<_> = (0..variable("OPTION").parse::<u64>().unwrap())
                    .map(|_| Box::pin(next::handle(asking(&variable("URL")))))
                    .collect();
                let mut said = Vec::new();
                // all are begun before the first is waited for
                std::future::poll_fn(|context| {
                    calls.retain_mut(|call| match call.as_mut().poll(context) {
                        std::task::Poll::Ready(Ok(response)) => {
                            said.push(response.get_status_code().to_string());
                            false
                        }
                        std::task::Poll::Ready(Err(code)) => {
                            said.push(format!("{code:?}"));
                            false
                        }
                        std::task::Poll::Pending => true,
                    });
                    if calls.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
                })
                .await;
                Ok(text(200, said.join(" ")))
            }
            "trap-before" => named_function_that_traps(),
            "trap-after" => {
                let response = next::handle(request).await;
                std::mem::forget(response);
                named_function_that_traps()
            }
            // when the first chunk of the response has gone through
            "trap-midway" => {
                let response = next::handle(request).await?;
                let (mut source, _) = Response::consume_body(response, well());
                let (mut sink, body, tell, trailers) = pipe();
                wasip3::spawn_local(async move {
                    if let Some(chunk) = read(&mut source).await {
                        sink.write_all(chunk).await;
                    }
                    std::mem::forget((sink, tell));
                    named_function_that_traps()
                });
                Ok(Response::new(Fields::new(), Some(body), trailers).0)
            }
            other => Ok(text(500, format!("no such thing to do: {other}"))),
        }
    }
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

#[inline(never)]
fn named_function_that_traps() -> ! {
    std::process::abort()
}

/// What says of a request whose it is.
struct Parts {
    method: Method,
    scheme: Option<Scheme>,
    authority: Option<String>,
    path: Option<String>,
}

impl Parts {
    fn of(request: &Request) -> Self {
        Self {
            method: request.get_method(),
            scheme: request.get_scheme(),
            authority: request.get_authority(),
            path: request.get_path_with_query(),
        }
    }

    fn set(&self, request: &Request) {
        request.set_method(&self.method).unwrap();
        request.set_scheme(self.scheme.as_ref()).unwrap();
        request.set_authority(self.authority.as_deref()).unwrap();
        request.set_path_with_query(self.path.as_deref()).unwrap();
    }
}

fn added(fields: Fields) -> Fields {
    let fields = Fields::from_list(&fields.copy_all()).unwrap();
    let _ = fields.append("x-middleware", variable("NAME").as_bytes());
    fields
}

/// The same request with one more field, and with these options or else its own.
fn changed(request: Request, options: Option<RequestOptions>) -> Request {
    let (parts, fields) = (Parts::of(&request), added(request.get_headers()));
    let options = options.or_else(|| request.get_options());
    let (body, trailers) = Request::consume_body(request, well());
    let (changed, _) = Request::new(fields, Some(body), trailers, options);
    parts.set(&changed);
    changed
}

fn asking(url: &str) -> Request {
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    request.set_scheme(Some(&scheme)).unwrap();
    request.set_authority(Some(authority)).unwrap();
    request.set_path_with_query(Some(path).filter(|path| !path.is_empty())).unwrap();
    request
}

fn seen(request: &Request) -> String {
    let Parts { method, scheme, authority, path } = Parts::of(request);
    let options = request.get_options().map(|options| {
        (options.get_connect_timeout(), options.get_first_byte_timeout(), options.get_between_bytes_timeout())
    });
    let mut lines = vec![format!("{method:?} {scheme:?} {authority:?} {path:?}"), format!("options: {options:?}")];
    for (name, value) in request.get_headers().copy_all() {
        lines.push(format!("{name}: {}", value.escape_ascii()));
    }
    lines.join("\n")
}

/// What becomes of a message that comes in: it was handled well.
fn well() -> FutureReader<Result<(), ErrorCode>> {
    let (writer, reader) = wit_future::new(|| Ok(()));
    drop(writer);
    reader
}

#[allow(clippy::type_complexity)]
fn pipe() -> (StreamWriter<u8>, StreamReader<u8>, FutureWriter<Trailers>, FutureReader<Trailers>) {
    let (sink, body) = wit_stream::new();
    let (tell, trailers) = wit_future::new(|| Err(ErrorCode::InternalError(Some("body dropped".to_owned()))));
    (sink, body, tell, trailers)
}

/// Up to a chunk, or none at the stream's end.
async fn read(source: &mut StreamReader<u8>) -> Option<Vec<u8>> {
    loop {
        match source.read(Vec::with_capacity(CHUNK)).await {
            (_, chunk) if !chunk.is_empty() => return Some(chunk),
            (StreamResult::Complete(_), _) => {} // a chunk of nothing
            _ => return None,
        }
    }
}

async fn copy(mut source: StreamReader<u8>, sink: &mut StreamWriter<u8>) -> usize {
    let mut count = 0;
    while let Some(chunk) = read(&mut source).await {
        count += chunk.len();
        if !sink.write_all(chunk).await.is_empty() {
            break;
        }
    }
    count
}

/// Ends a body as the one that it was made of has ended, with one more trailer.
async fn finish(
    sink: StreamWriter<u8>,
    end: FutureReader<Trailers>,
    tell: FutureWriter<Trailers>,
    name: &str,
    count: usize,
) {
    drop(sink);
    let trailers = end.await.map(|trailers| {
        let trailers = trailers.map_or_else(Fields::new, |trailers| Fields::from_list(&trailers.copy_all()).unwrap());
        let _ = trailers.append(name, count.to_string().as_bytes());
        Some(trailers)
    });
    let _ = tell.write(trailers).await;
}

fn with_status(response: Response, status: u16) -> Response {
    response.set_status_code(status).unwrap();
    response
}

fn text(status: u16, content: String) -> Response {
    let (mut sink, body, tell, trailers) = pipe();
    wasip3::spawn_local(async move {
        sink.write_all(content.into_bytes()).await;
        drop(sink);
        let _ = tell.write(Ok(None)).await;
    });
    with_status(Response::new(Fields::new(), Some(body), trailers).0, status)
}
