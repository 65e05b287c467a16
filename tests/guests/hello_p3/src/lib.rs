//! The smallest useful guest of WASI 0.3: "Hello, World!". The benchmarks measure with it.

use wasip3::exports::http::handler::Guest;
use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::{wit_future, wit_stream};

struct Hello;
wasip3::http::service::export!(Hello);

impl Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        let headers = Fields::new();
        let _ = headers.append("content-type", b"text/plain; charset=utf-8");
        let (mut stream, contents) = wit_stream::new();
        let (end, trailers) = wit_future::new(|| Ok(None));
        let (response, _sent) = Response::new(headers, Some(contents), trailers);
        wasip3::spawn_local(async move {
            stream.write_all(b"Hello, World!".to_vec()).await;
            drop(stream);
            let _ = end.write(Ok(None)).await;
        });
        Ok(response)
    }
}
