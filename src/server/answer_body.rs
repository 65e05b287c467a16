//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::runtime::Handle;
use tokio::time::sleep;

use crate::error::Error;
use crate::error::reason::Reason;
use crate::exchange::guest_body::{GuestBody, Next};
use crate::http::server_request::trailers;
use crate::server::answered::Answered;
use crate::server::client_body::throw_away;
use crate::server::routes::Routes;
use crate::server::static_files::body::FileBody;
use crate::server::streams::Pace;
use crate::server::watch::LOOK;

/// A body that hyper sends, and what is noted when it is over.
pub(super) struct AnswerBody {
    content: Content,
    answered: Answered,
    /// Of HTTP/2: whether the client takes it.
    pace: Option<Pace>,
}

/// What is sent.
pub(super) enum Content {
    Nothing,
    Whole(Bytes),
    Guest(Box<GuestBody>),
    File(FileBody),
}

impl AnswerBody {
    pub(super) fn new(content: Content, answered: Answered) -> Self {
        let pace = if let Content::Nothing = content { None } else { Pace::current() };
        let is_over = content.is_end_stream();
        let mut body = Self { content, answered, pace };
        if is_over || body.is_all_there() {
            body.answered.is_whole(); // hyper asks for nothing
        }
        body
    }

    /// Whether hyper may ask for no more, though the guest has not ended it: as many bytes as announced are there. Of HTTP/2 the end is
    /// a frame of its own, which a client waits for.
    fn is_all_there(&self) -> bool {
        self.pace.is_none() && matches!(&self.content, Content::Guest(body) if body.is_all_there())
    }
}

impl Content {
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Whole(_) => false,
            Self::Guest(body) => body.is_end_stream() || body.has_ended(),
            Self::File(body) => body.is_end_stream(),
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Some(pace) = &this.pace {
            pace.takes();
        }
        let frame = match std::mem::replace(&mut this.content, Content::Nothing) {
            Content::Nothing => None,
            Content::Whole(bytes) => Some(Ok(Frame::data(bytes))),
            Content::File(mut body) => {
                let polled = Pin::new(&mut body).poll_frame(cx);
                if !body.is_end_stream() {
                    this.content = Content::File(body);
                }
                match polled {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(frame) => frame.map(|frame| frame.map_err(failed)),
                }
            }
            Content::Guest(mut body) => match body.poll_next(cx) {
                Poll::Pending => {
                    this.content = Content::Guest(body);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(Next::Chunk(chunk))) => {
                    this.content = if body.has_ended() {
                        let _ = body.take_ready();
                        Content::Nothing
                    } else {
                        Content::Guest(body)
                    };
                    if this.is_all_there() {
                        this.answered.is_whole();
                    }
                    Some(Ok(Frame::data(chunk)))
                }
                Poll::Ready(Ok(Next::End(given))) => given.map(|given| Ok(Frame::trailers(trailers(given)))),
                Poll::Ready(Err(error)) => Some(Err(error)),
            },
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.answered.sends(data.len());
                }
                let is_over = matches!(this.content, Content::Nothing);
                if is_over {
                    this.answered.is_whole();
                } else if let Some(pace) = &this.pace {
                    pace.waits();
                }
            }
            Some(Err(error)) => this.answered.broke_off(error.clone()),
            None => this.answered.is_whole(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Guest(_) => SizeHint::default(),
            Content::File(body) => body.size_hint(),
        }
    }
}

/// How long a guest may take to end a body of which its client gets no more, and how much of it is thrown away: after that it is stopped,
/// as one is whose client has left.
const ENDS_WITHIN: Duration = Duration::from_millis(750);
const MOST_LEFT: u64 = 64 << 10;

/// A body that no client gets is read for a bounded time, so that its guest can end it. Dropped before its end, it ends its guest. Meanwhile
/// it is one of those that its table has under way.
pub(super) async fn let_end(mut body: GuestBody, routes: Arc<Routes>) {
    let ended = throw_away(MOST_LEFT, |cx| {
        Poll::Ready(match ready!(body.poll_next(cx)) {
            Ok(Next::Chunk(chunk)) => Some(chunk.len()),
            _ => None,
        })
    });
    let late = async {
        let end = Instant::now() + ENDS_WITHIN;
        while Instant::now() < end && !routes.have_expired(Instant::now()) {
            sleep(LOOK).await;
        }
    };
    tokio::select! {
        () = ended => {}
        () = late => {}
    }
}

/// hyper drops a body when as many bytes were sent as were announced: its guest ends it none the less.
impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Content::Guest(body) = std::mem::replace(&mut self.content, Content::Nothing)
            && body.is_all_there()
            && let Ok(runtime) = Handle::try_current()
        {
            drop(runtime.spawn(let_end(*body, self.answered.routes().clone())));
        }
    }
}

/// A file that cannot be read to its end.
fn failed(error: std::io::Error) -> Error {
    Error::Host(Reason::new(format!("a file failed: {error}"), error))
}
