//! A notice board: a page with a form, a stream of events, and an upload that is counted as it comes.
//!
//! The notes are not here: each request meets a fresh instance. They are in the store that the host stands for, at
//! `http://store.local/notes`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, IncomingResponse, Method, OutgoingBody,
    OutgoingRequest, OutgoingResponse, ResponseOutparam, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

struct Board;
wasip2::http::proxy::export!(Board);

impl Guest for Board {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match (request.method(), path) {
            (Method::Get, "/") => Answer::begin(out, 200, &[HTML]).end(include_str!("page.html")),
            (Method::Post, "/") => pin(request, out),
            (Method::Get, "/events") => events(&request, out),
            (Method::Post, "/upload") => upload(request, query, out),
            _ => Answer::begin(out, 404, &[TEXT]).end("there is a page at /\n"),
        }
    }
}

const HTML: (&str, &str) = ("content-type", "text/html; charset=utf-8");
const TEXT: (&str, &str) = ("content-type", "text/plain; charset=utf-8");

/// What the form sent goes into the store as it came; the browser is sent back to the page (RFC 9110, 15.4.4).
fn pin(request: IncomingRequest, out: ResponseOutparam) {
    let mut form = Vec::new();
    let whole = each_chunk(request, |chunk| form.extend_from_slice(chunk));
    match whole.and_then(|()| ask(&Method::Post, "/notes", &form)) {
        Ok(response) if response.status() == 201 => {
            Answer::begin(out, 303, &[("location", "./")]).end("")
        }
        Ok(response) => Answer::begin(out, response.status(), &[TEXT]).end("no such note\n"),
        Err(code) => ResponseOutparam::set(out, Err(code)),
    }
}

/// Each note as an event, as it comes: the store answers when there are new ones. After a while the stream ends, and the
/// browser comes back by itself, with the number of the last event that it saw.
fn events(request: &IncomingRequest, out: ResponseOutparam) {
    let seen = request.headers().get("last-event-id");
    let mut last: u64 = seen
        .first()
        .and_then(|id| String::from_utf8_lossy(id).parse().ok())
        .unwrap_or(0);
    let headers = [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache"),
    ];
    let answer = Answer::begin(out, 200, &headers);
    answer.write("retry: 200\n\n");
    for _ in 0..2 {
        let Ok(notes) =
            ask(&Method::Get, &format!("/notes?after={last}"), b"").and_then(|it| text_of(&it))
        else {
            return; // dropped without its end: the browser sees a connection that broke off, and comes back
        };
        for note in notes.lines() {
            last += 1; // the store numbers them from 1, without gaps
            answer.write(&format!("id: {last}\ndata: {note}\n\n"));
        }
        answer.write(": still here\n\n");
    }
    answer.end("");
}

/// Counts a file while it is being sent, and notes how large it was.
fn upload(request: IncomingRequest, query: &str, out: ResponseOutparam) {
    let name = query.strip_prefix("name=").unwrap_or("a+file");
    let (mut bytes, mut lines) = (0u64, 0u64);
    let whole = each_chunk(request, |chunk| {
        bytes += chunk.len() as u64;
        lines += chunk.iter().filter(|byte| **byte == b'\n').count() as u64;
    });
    let said = format!("{bytes} bytes, {lines} lines");
    let note = format!("name={name}&text={}", said.replace(' ', "+"));
    match whole.and_then(|()| ask(&Method::Post, "/notes", note.as_bytes())) {
        Ok(_) => Answer::begin(out, 200, &[TEXT]).end(&said),
        Err(code) => ResponseOutparam::set(out, Err(code)),
    }
}

/// Asks the store.
fn ask(method: &Method, path: &str, content: &[u8]) -> Result<IncomingResponse, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    let _ = request.set_method(method);
    let _ = request.set_scheme(Some(&Scheme::Http));
    let _ = request.set_authority(Some("store.local"));
    let _ = request.set_path_with_query(Some(path));
    let body = request.body().expect("a request has one body");
    let future = outgoing_handler::handle(request, None)?;
    let stream = body.write().expect("a body has one stream");
    write(&stream, content);
    drop(stream);
    OutgoingBody::finish(body, None)?;
    future.subscribe().block();
    future.get().and_then(Result::ok).unwrap_or(Err(ErrorCode::InternalError(None)))
}

fn text_of(response: &IncomingResponse) -> Result<String, ErrorCode> {
    let mut text = Vec::new();
    let body = response.consume().expect("a response has one body");
    let stream = body.stream().expect("a body has one stream");
    read(&stream, |chunk| text.extend_from_slice(chunk))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn each_chunk(request: IncomingRequest, take: impl FnMut(&[u8])) -> Result<(), ErrorCode> {
    let body: IncomingBody = request.consume().expect("a request has one body");
    let stream = body.stream().expect("a body has one stream");
    read(&stream, take)
}

fn read(stream: &InputStream, mut take: impl FnMut(&[u8])) -> Result<(), ErrorCode> {
    loop {
        match stream.blocking_read(64 << 10) {
            Ok(chunk) => take(&chunk),
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(_)) => {
                return Err(ErrorCode::HttpResponseIncomplete);
            }
        }
    }
}

fn write(stream: &OutputStream, content: &[u8]) {
    for chunk in content.chunks(4096) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            return; // nobody reads it any more
        }
    }
}

/// An answer whose head has gone out.
struct Answer {
    stream: OutputStream,
    body: OutgoingBody,
}

impl Answer {
    fn begin(out: ResponseOutparam, status: u16, headers: &[(&str, &str)]) -> Self {
        let fields = Fields::new();
        for (name, value) in headers {
            let _ = fields.append(name, value.as_bytes());
        }
        let response = OutgoingResponse::new(fields);
        let _ = response.set_status_code(status);
        let body = response.body().expect("a response has one body");
        ResponseOutparam::set(out, Ok(response));
        let stream = body.write().expect("a body has one stream");
        Self { stream, body }
    }

    fn write(&self, text: &str) {
        write(&self.stream, text.as_bytes());
    }

    fn end(self, text: &str) {
        self.write(text);
        let Self { stream, body } = self;
        drop(stream);
        let _ = OutgoingBody::finish(body, None);
    }
}
