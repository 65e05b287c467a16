//! Bodies of `wasgi.Request` and `wasgi.Response`: what a caller may give, and how it is read back.

use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use wasmtime_wasi_http::WasiBody;

use crate::exchange::guest_body::GuestBody;
use crate::exchange::shared_body::SharedBody;
use crate::exchange::unread::Past;
use crate::py::bytes::bytes_of;
use crate::py::errors::named;
use crate::py::executor::event_loop::LoopCore;
use crate::py::held::detach;
use crate::py::lock;
use crate::py::message::feed::{Feed, OnError};
use crate::py::message::feed_body::FeedBody;
use crate::py::message::source::{Source, lane_of};
use crate::py::once::text;
use crate::py::output::GuestOutput;

/// A stream that can be consumed once, and what is known after that.
pub struct PyBody {
    state: Mutex<State>,
    /// The guest's body wherever it is being read, for `close`.
    guest: Option<Weak<SharedBody>>,
    output: Option<Arc<GuestOutput>>,
    /// It came from a call that blocked: whoever made that call may be blocked by its body as well, event loop or not.
    from_blocking_call: bool,
    /// What it was made of, if that is bytes: a value, which is known when it was read, too, and can be sent as often as one likes.
    given: Option<Bytes>,
}

struct State {
    content: Content,
    /// The whole body, once `read` has read it.
    whole: Option<Bytes>,
    trailers: Option<HeaderMap>,
    /// Those who wait for the guest's end, and would read the rest if whoever reads it gives up.
    waiting: Vec<Waker>,
}

/// Where a body is.
pub(crate) enum Content {
    Bytes(Bytes),
    Source(Source),
    Guest(Arc<SharedBody>),
    Consumed,
}

/// The body of a message, for another one: what `_body` of `Request` and `Response` gives.
#[pyclass(module = "wasgi._wasgi", frozen)]
pub struct BodyOf(pub Arc<PyBody>);

#[pymethods]
impl BodyOf {
    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.0.traverse(&visit)
    }
}

impl PyBody {
    fn new(content: Content) -> Self {
        Self {
            state: Mutex::new(State { content, whole: None, trailers: None, waiting: Vec::new() }),
            guest: None,
            output: None,
            from_blocking_call: false,
            given: None,
        }
    }

    /// What a caller gave as `body=`.
    pub fn given(body: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        crate::py::executor::finalization::protect();
        let Some(body) = body else { return Ok(Self::of_bytes(Bytes::new())) };
        let py = body.py();
        if let Ok(text) = body.cast::<PyString>() {
            return Ok(Self::of_bytes(Bytes::copy_from_slice(text.to_str()?.as_bytes())));
        }
        if let Some(bytes) = bytes_of(body)? {
            return Ok(Self::of_bytes(bytes));
        }
        // a message as the body of another: its stream moves over
        if let Some(own) = body.getattr_opt(text!(py, "_body"))?
            && let Ok(own) = own.cast::<BodyOf>()
        {
            return own.get().0.take_over(py);
        }
        let source = if body.hasattr(text!(py, "__aiter__"))? {
            Source::Async(body.clone().unbind().into())
        } else if body.hasattr(text!(py, "read"))? {
            Source::File(body.clone().unbind().into())
        } else if body.hasattr(text!(py, "__iter__"))? && !body.is_instance_of::<PyDict>() {
            Source::Iterator(body.try_iter()?.into_any().unbind().into())
        } else {
            return Err(PyTypeError::new_err(format!(
                "a body must be bytes, str, a file, an iterable or an async iterable of bytes, not {}",
                body.get_type().name()?
            )));
        };
        Ok(Self::new(Content::Source(source)))
    }

    /// A body that a guest writes.
    pub fn of_guest(body: GuestBody, output: Option<Arc<GuestOutput>>) -> Self {
        let body = Arc::new(SharedBody::new(body));
        Self { guest: Some(Arc::downgrade(&body)), output, ..Self::new(Content::Guest(body)) }
    }

    /// The whole of it, where that is at hand or was read.
    pub fn known(&self) -> Option<Bytes> {
        self.given.clone().or_else(|| lock(&self.state).whole.clone())
    }

    /// [`Self::known`], or why this message cannot be copied or pickled.
    pub fn copied(&self, py: Python<'_>, what: &str) -> PyResult<Bytes> {
        let is_consumed = matches!(lock(&self.state).content, Content::Consumed);
        match self.known() {
            Some(whole) => Ok(whole),
            None if is_consumed => Err(self.consumed(py)),
            None => Err(PyTypeError::new_err(format!(
                "a message whose body streams cannot be {what}; hint: `read()` or `await aread()` first"
            ))),
        }
    }

    pub fn of_bytes(bytes: Bytes) -> Self {
        Self { given: Some(bytes.clone()), ..Self::new(Content::Bytes(bytes)) }
    }

    pub fn of_blocking_call(self, blocking: bool) -> Self {
        Self { from_blocking_call: blocking, ..self }
    }

    /// For another message: its stream moves over, and bytes are bytes of both.
    pub fn take_over(&self, py: Python<'_>) -> PyResult<Self> {
        if let Some(bytes) = &self.given {
            return Ok(Self::of_bytes(bytes.clone()));
        }
        let content = self.consume(py)?;
        let from_blocking_call = self.from_blocking_call;
        Ok(Self { guest: self.guest.clone(), output: self.output.clone(), from_blocking_call, ..Self::new(content) })
    }

    /// What nobody has begun to read of a guest's body. If somebody has, `waker` is told when it is given back.
    pub fn take_rest(&self, waker: &Waker) -> Option<Arc<SharedBody>> {
        let mut state = lock(&self.state);
        if !matches!(state.content, Content::Guest(_)) {
            if !state.waiting.iter().any(|known| known.will_wake(waker)) {
                state.waiting.push(waker.clone());
            }
            return None;
        }
        match std::mem::replace(&mut state.content, Content::Consumed) {
            Content::Guest(body) => Some(body),
            _ => None,
        }
    }

    /// See [`Self::take_rest`].
    pub fn give_back(&self, rest: Arc<SharedBody>) {
        let waiting = {
            let mut state = lock(&self.state);
            state.content = Content::Guest(rest);
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// Its upstream has answered. See [`SharedBody::read_on`]. Nothing is thrown away of one that somebody has begun to read. Returns
    /// whether nothing is left of it.
    pub fn read_on(&self, past: Past) -> bool {
        let Some(guest) = &self.guest else { return true };
        let is_begun = !matches!(lock(&self.state).content, Content::Guest(_));
        match guest.upgrade() {
            Some(body) => SharedBody::read_on(&body, if is_begun { Past::Waits } else { past }),
            // it has been read and let go, or it has become the body of another message, which is being read there
            None => self.whole_is_kept(),
        }
    }

    /// Whether it is there as a whole, and can be sent again.
    pub fn is_bytes(&self) -> bool {
        matches!(lock(&self.state).content, Content::Bytes(_))
    }

    fn whole_is_kept(&self) -> bool {
        lock(&self.state).whole.is_some()
    }

    /// Whoever may read a guest's request has done with it, wherever it is being read.
    pub fn discard_rest(&self) {
        let body = self.guest.as_ref().and_then(Weak::upgrade);
        if let Some(mut body) = body.as_ref().and_then(|body| body.lock()) {
            body.discard_rest();
        }
    }

    pub(crate) fn consume(&self, py: Python<'_>) -> PyResult<Content> {
        let content = std::mem::replace(&mut lock(&self.state).content, Content::Consumed);
        match content {
            Content::Consumed => Err(self.consumed(py)),
            content => Ok(content),
        }
    }

    pub fn consumed(&self, py: Python<'_>) -> PyErr {
        let hint = match self.known() {
            Some(_) => "`content`, `text` and `json()` have what it was",
            None => "it was one stream, which is read or sent once; make another request or response",
        };
        named(py, "BodyError", format!("the body was consumed already; hint: {hint}"))
    }

    /// For a guest on the other side. `event_loop` drives async iterables.
    pub fn to_guest(
        &self,
        py: Python<'_>,
        trailers: Option<HeaderMap>,
        event_loop: Option<&Arc<LoopCore>>,
        context: &Bound<'_, PyAny>,
        on_error: OnError,
    ) -> PyResult<(WasiBody, Option<Arc<Feed>>)> {
        if let Some(bytes) = &self.given {
            return Ok((with_trailers(bytes.clone(), trailers), None));
        }
        Ok(match self.consume(py)? {
            Content::Bytes(bytes) => (with_trailers(bytes, trailers), None),
            Content::Guest(body) => {
                let is_withheld = body.lock().is_some_and(|body| body.is_withheld());
                if is_withheld {
                    drop(SharedBody::let_end(body));
                    return Ok((with_trailers(Bytes::new(), trailers), None));
                }
                match Arc::try_unwrap(body) {
                    Ok(body) => (body.into_inner().boxed_unsync(), None),
                    Err(body) => (Lent(body).boxed_unsync(), None),
                }
            }
            Content::Source(source) => {
                let lane = lane_of(py, &source, event_loop)?;
                let context = context.call_method0(text!(py, "copy"))?.unbind();
                let feed = Feed::new(source, lane, context, on_error);
                (FeedBody::new(feed.clone(), trailers).boxed_unsync(), Some(feed))
            }
            Content::Consumed => return Err(self.consumed(py)),
        })
    }

    /// Its length, where that is known before it is read.
    pub fn length(&self) -> Option<usize> {
        self.given.as_ref().map(Bytes::len)
    }

    /// Whether it is still being written when its message begins.
    pub fn is_streamed(&self) -> bool {
        matches!(lock(&self.state).content, Content::Source(_) | Content::Guest(_))
    }

    /// Whether Python code makes its chunks.
    pub fn is_python(&self) -> bool {
        matches!(lock(&self.state).content, Content::Source(_))
    }

    /// What closes the iterator that it is made of, while nobody has read it.
    pub fn closing<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match &lock(&self.state).content {
            Content::Source(source) => source.closing(py),
            _ => Ok(None),
        }
    }

    /// Whether it was consumed, and whether Python code makes it, by an async iterable.
    pub fn kind(&self) -> (bool, Option<bool>) {
        match &lock(&self.state).content {
            Content::Consumed => (true, None),
            Content::Source(source) => (false, Some(matches!(source, Source::Async(_)))),
            _ => (false, None),
        }
    }

    /// It came from a call that blocked: whoever made that call may be blocked by its body as well, event loop or not.
    pub fn is_of_blocking_call(&self) -> bool {
        self.from_blocking_call
    }

    /// What `text` and `json` have after a reading.
    pub fn keep_whole(&self, whole: Bytes) {
        lock(&self.state).whole = Some(whole);
    }

    pub fn keep_trailers(&self, trailers: Option<HeaderMap>) {
        lock(&self.state).trailers = trailers;
    }

    pub fn trailers(&self) -> Option<HeaderMap> {
        lock(&self.state).trailers.clone()
    }

    /// Where lines of the guest that writes it go.
    pub fn output(&self) -> Option<Arc<GuestOutput>> {
        self.output.clone()
    }

    /// See [`GuestOutput::deliver_after`].
    pub fn deliver_after<T>(&self, py: Python<'_>, waited: PyResult<T>) -> PyResult<T> {
        match &self.output {
            Some(output) => output.deliver_after(py, waited),
            None => waited,
        }
    }

    /// Stops whoever writes it. What was read stays.
    pub fn close(&self, py: Python<'_>) {
        let content = std::mem::replace(&mut lock(&self.state).content, Content::Consumed);
        detach(py, || {
            if let Some(body) = self.guest.as_ref().and_then(Weak::upgrade) {
                body.close();
            }
            drop(content);
        });
        if let Some(output) = &self.output {
            output.show(py);
        }
    }

    /// For the message that holds it, if nobody else does: a reader of it would find its source cleared.
    pub fn traverse(self: &Arc<Self>, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        if Arc::strong_count(self) > 1 {
            return Ok(());
        }
        if let Some(output) = &self.output {
            output.traverse(visit)?;
        }
        if let Ok(state) = self.state.try_lock()
            && let Content::Source(source) = &state.content
        {
            visit.call(source.object())?;
        }
        Ok(())
    }
}

/// A guest's body on its way to another guest, while somebody else may look at it.
struct Lent(Arc<SharedBody>);

impl Body for Lent {
    type Data = Bytes;
    type Error = wasmtime_wasi_http::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.0.lock() {
            Some(mut body) => Pin::new(&mut *body).poll_frame(cx),
            None => Poll::Ready(Some(Err(wasmtime_wasi_http::Error::HttpResponseIncomplete))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.lock().is_some_and(|body| body.is_end_stream())
    }
}

fn with_trailers(bytes: Bytes, trailers: Option<HeaderMap>) -> WasiBody {
    match trailers {
        None => Full::new(bytes).map_err(|never| match never {}).boxed_unsync(),
        Some(trailers) => Full::new(bytes)
            .map_err(|never| match never {})
            .with_trailers(std::future::ready(Some(Ok(trailers))))
            .boxed_unsync(),
    }
}
