//! What is printed in odd ways, with the stdout of WASI 0.3. Rust's own is that of 0.2.

use wasip3::cli::{stderr, stdout};
use wasip3::wit_stream;

use crate::message::{Out, write};
use crate::{Query, text};

/// Prints `text` so many `times` without a newline, to stderr if `to` says so; then a newline, or what `then` says.
pub async fn long_line(query: &Query, out: Out) {
    let arg = |name: &str| query.get(name).map(String::as_str).unwrap_or_default();
    let (mut stream, content) = wit_stream::new();
    let printed = if arg("to") == "stderr" {
        stderr::write_via_stream(content)
    } else {
        stdout::write_via_stream(content)
    };
    let _ = write(&mut stream, arg("text").repeat(arg("times").parse().unwrap_or(1)).as_bytes()).await;
    if arg("then") == "trap" {
        std::process::abort();
    }
    let _ = write(&mut stream, b"\n").await;
    drop(stream);
    let _ = printed.await;
    text(out, 200, "printed").await;
}

pub async fn flood(query: &Query) {
    let number = |name: &str| query.get(name).and_then(|n| n.parse::<usize>().ok()).unwrap_or(0);
    let (mut stream, content) = wit_stream::new();
    let printed = stdout::write_via_stream(content);
    for _ in 0..number("times") {
        stream.write_all(vec![b'\n'; number("n")]).await;
    }
    drop(stream);
    let _ = printed.await;
}
