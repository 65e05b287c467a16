//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::Error;
use crate::exchange::guest_body::{GuestBody, Next};
use crate::server::answered::Answered;
use crate::server::streams::Pace;

/// A body that hyper sends, and what is noted when it is over.
pub(super) struct AnswerBody {
    content: Content,
    answered: Answered,
    /// Of HTTP/2: whether the client takes it.
    pace: Option<Pace>,
}

enum Content {
    Nothing,
    Whole(Bytes),
    Guest(Box<GuestBody>),
}

impl AnswerBody {
    pub(super) fn nothing(mut answered: Answered) -> Self {
        answered.is_whole(); // hyper asks for nothing
        Self { content: Content::Nothing, answered, pace: None }
    }

    pub(super) fn whole(bytes: Bytes, answered: Answered) -> Self {
        Self { content: Content::Whole(bytes), answered, pace: None }
    }

    pub(super) fn guest(body: GuestBody, mut answered: Answered) -> Self {
        if body.is_end_stream() {
            answered.is_whole();
        }
        Self { content: Content::Guest(Box::new(body)), answered, pace: Pace::current() }
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
                    Some(Ok(Frame::data(chunk)))
                }
                Poll::Ready(Ok(Next::End(trailers))) => trailers.map(|trailers| Ok(Frame::trailers(trailers))),
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
        match &self.content {
            Content::Nothing => true,
            Content::Whole(_) => false,
            Content::Guest(body) => body.is_end_stream() || body.has_ended(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing => SizeHint::with_exact(0),
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Guest(_) => SizeHint::default(),
        }
    }
}
