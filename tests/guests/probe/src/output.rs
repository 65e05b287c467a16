//! What is printed in odd ways.

use std::collections::HashMap;

use wasip2::cli::stderr::get_stderr;
use wasip2::cli::stdout::get_stdout;
use wasip2::http::types::{Fields, OutgoingBody, OutgoingRequest, ResponseOutparam};

/// Prints `text` so many `times` without a newline, to stderr if `to` says so; then a newline, or what `then` says.
pub fn long_line(query: &HashMap<String, String>, out: ResponseOutparam) {
    let arg = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let to = if arg("to") == "stderr" { get_stderr() } else { get_stdout() };
    crate::write(&to, arg("text").repeat(arg("times").parse().unwrap_or(1)).as_bytes());
    if arg("then") == "trap" {
        std::process::abort();
    }
    crate::write(&to, b"\n");
    crate::text(out, 200, "printed");
}

/// Is permitted to write into each of its streams, then writes into each as much as it may: newlines, of which each is a line.
pub fn permits(out: ResponseOutparam) {
    let (stdout, stderr) = (get_stdout(), get_stderr());
    let request = OutgoingRequest::new(Fields::new());
    let request_body = request.body().unwrap();
    let (first, second) = (request_body.write().unwrap(), stdout.check_write().unwrap());
    // so that there is room for one of the two permits that follow
    stdout.write(&vec![b'\n'; second as usize]).unwrap();
    let (body, stream) = crate::start(out, 200, &[]);
    let streams = [&stdout, &stderr, &first, &stream];
    let permits = streams.map(|stream| stream.check_write().unwrap());
    for (stream, permit) in streams.iter().zip(permits).rev() {
        stream.write(&vec![b'\n'; permit as usize]).unwrap();
    }
    drop((stream, first));
    let _ = OutgoingBody::finish(body, None);
    drop(request_body);
}
