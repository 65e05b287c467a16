//! Messages of WASI 0.3, with the few verbs that the routes need.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use futures::channel::oneshot;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, RequestOptions, Response};
use wasip3::wit_bindgen::{FutureReader, FutureWriter, StreamReader, StreamResult, StreamWriter};
use wasip3::{wit_future, wit_stream};

pub type Trailers = Result<Option<Fields>, ErrorCode>;
pub type Sent = FutureReader<Result<(), ErrorCode>>;

/// How many bytes are read or written at once.
pub const CHUNK: usize = 4096;

/// Where the response goes: `handle` returns it, and the route works on.
pub struct Out(oneshot::Sender<Result<Response, ErrorCode>>);

impl Out {
    pub fn new() -> (Self, oneshot::Receiver<Result<Response, ErrorCode>>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    pub fn set(self, answer: Result<Response, ErrorCode>) {
        let _ = self.0.send(answer);
    }
}

/// Nobody reads any more.
pub struct Closed;

impl fmt::Debug for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StreamError::Closed") // the words of WASI 0.2
    }
}

/// The body of a message that is being written. Dropped unfinished, its trailers are an error.
pub struct Body {
    pub stream: StreamWriter<u8>,
    pub end: FutureWriter<Trailers>,
    /// What became of the message.
    pub sent: Sent,
}

impl Body {
    fn parts() -> (StreamWriter<u8>, StreamReader<u8>, FutureWriter<Trailers>, FutureReader<Trailers>) {
        let (stream, contents) = wit_stream::new();
        let (end, trailers) = wit_future::new(|| Err(ErrorCode::InternalError(Some("body dropped".to_owned()))));
        (stream, contents, end, trailers)
    }

    pub fn response(fields: Fields) -> (Response, Self) {
        let (stream, contents, end, trailers) = Self::parts();
        let (response, sent) = Response::new(fields, Some(contents), trailers);
        (response, Self { stream, end, sent })
    }

    pub fn request(fields: Fields, options: Option<RequestOptions>) -> (Request, Self) {
        let (stream, contents, end, trailers) = Self::parts();
        let (request, sent) = Request::new(fields, Some(contents), trailers, options);
        (request, Self { stream, end, sent })
    }

    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        write(&mut self.stream, bytes).await
    }

    /// Ends the body, and waits until somebody has seen that.
    pub async fn finish(self, trailers: Option<Fields>) {
        drop(self.stream);
        let _ = self.end.write(Ok(trailers)).await;
    }

    /// Ends the body and waits for nobody.
    pub fn finish_in_background(self, trailers: Option<Fields>) -> Sent {
        drop(self.stream);
        let end = self.end;
        wasip3::spawn_local(async move {
            let _ = end.write(Ok(trailers)).await;
        });
        self.sent
    }
}

pub async fn write(stream: &mut StreamWriter<u8>, bytes: &[u8]) -> Result<(), Closed> {
    for chunk in bytes.chunks(CHUNK) {
        if !stream.write_all(chunk.to_vec()).await.is_empty() {
            return Err(Closed);
        }
    }
    Ok(())
}

/// The body of a message that comes in.
pub struct Incoming {
    pub stream: StreamReader<u8>,
    pub end: FutureReader<Trailers>,
    /// Says that the message was handled well when it is dropped.
    pub handled: FutureWriter<Result<(), ErrorCode>>,
}

impl Incoming {
    pub fn of_request(request: Request) -> Self {
        let (handled, result) = wit_future::new(|| Ok(()));
        let (stream, end) = Request::consume_body(request, result);
        Self { stream, end, handled }
    }

    pub fn of_response(response: Response) -> Self {
        let (handled, result) = wit_future::new(|| Ok(()));
        let (stream, end) = Response::consume_body(response, result);
        Self { stream, end, handled }
    }

    /// Up to `size` bytes, or none at the stream's end: whether that is the body's end is for `end` to say.
    pub async fn read(&mut self, size: usize) -> Option<Vec<u8>> {
        loop {
            match self.stream.read(Vec::with_capacity(size)).await {
                (_, chunk) if !chunk.is_empty() => return Some(chunk),
                (StreamResult::Complete(_), _) => {} // a chunk of nothing
                _ => return None,
            }
        }
    }

    pub async fn end(self) -> Trailers {
        drop(self.stream);
        self.end.await
    }

    /// The whole body, or what broke it.
    pub async fn read_all(mut self) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        while let Some(chunk) = self.read(65536).await {
            content.extend(chunk);
        }
        self.end().await.map_err(|code| format!("{:?}", Some(code)))?;
        Ok(content)
    }
}

/// All of `source` into `sink`, and the trailers; `Closed` where nobody takes it.
pub async fn copy(mut source: Incoming, sink: &mut Body) -> Result<Trailers, Closed> {
    while let Some(chunk) = source.read(CHUNK).await {
        sink.write(&chunk).await?;
    }
    Ok(source.end().await)
}

/// A request that is under way. Dropped, it is called off.
pub struct Answer {
    state: Result<Result<Response, ErrorCode>, Pin<Box<dyn Future<Output = Result<Response, ErrorCode>>>>>,
}

impl Answer {
    /// The request is sent when this returns, whoever waits for its answer and when.
    pub async fn of(request: Request) -> Self {
        let mut answer: Pin<Box<dyn Future<Output = _>>> = Box::pin(client::send(request));
        Self {
            state: match now(answer.as_mut()).await {
                Some(answer) => Ok(answer),
                None => Err(answer),
            },
        }
    }

    pub async fn get(self) -> Result<Response, ErrorCode> {
        match self.state {
            Ok(answer) => answer,
            Err(answer) => answer.await,
        }
    }
}

/// Starts what is to be done, and gives what there is of it at once.
pub async fn now<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| {
        Poll::Ready(match future.as_mut().poll(context) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        })
    })
    .await
}

/// Which of them are done as soon as the first one is.
pub async fn first<'a>(mut futures: Vec<Pin<Box<dyn Future<Output = ()> + 'a>>>) -> Vec<usize> {
    let mut done = Vec::new();
    let mut last_look = false;
    poll_fn(|context| {
        for (index, future) in futures.iter_mut().enumerate() {
            if !done.contains(&index) && future.as_mut().poll(context).is_ready() {
                done.push(index);
            }
        }
        if done.is_empty() {
            return Poll::Pending;
        }
        // the host tells of one a time: another may be done at the same instant
        if !std::mem::replace(&mut last_look, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
    done.sort_unstable();
    done
}
