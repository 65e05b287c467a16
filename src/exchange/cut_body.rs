//! What ends with an exchange, though the store that it is in lives on: the bodies that others make for it, and what it waits for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::SetOnce;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::http::message::empty;
use crate::sync::lock;

/// Whether an exchange is over, and what is to end with it.
#[derive(Default)]
pub(crate) struct Over {
    over: SetOnce<()>,
    bodies: Mutex<Vec<Weak<Mutex<WasiBody>>>>,
}

impl Over {
    pub(crate) fn is_over(&self) -> bool {
        self.over.initialized()
    }

    /// It is over: what its bodies come from is dropped, and whoever reads them is told that they broke off.
    pub(crate) fn end(&self) {
        let _ = self.over.set(());
        let bodies = std::mem::take(&mut *lock(&self.bodies));
        for body in bodies.into_iter().filter_map(|body| body.upgrade()) {
            let body = std::mem::replace(&mut *lock(&body), empty());
            drop(body); // without the lock: it may be Python's
        }
    }

    /// Ready when it is over.
    pub(crate) fn wait(self: &Arc<Self>) -> impl Future<Output = ()> + Send + Sync + use<> {
        let over = self.clone();
        async move {
            over.over.wait().await;
        }
    }

    /// A body that breaks off when it is over.
    pub(crate) fn cuts(self: &Arc<Self>, body: WasiBody) -> WasiBody {
        let body = Arc::new(Mutex::new(body));
        {
            let mut bodies = lock(&self.bodies);
            bodies.retain(|body| body.strong_count() > 0);
            bodies.push(Arc::downgrade(&body));
        }
        CutBody { body, over: Some(Box::pin(self.wait())) }.boxed_unsync()
    }
}

struct CutBody {
    body: Arc<Mutex<WasiBody>>,
    /// Until it has broken off.
    over: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Body for CutBody {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let Some(over) = &mut self.over else { return Poll::Ready(None) };
        if over.as_mut().poll(cx).is_ready() {
            self.over = None;
            return Poll::Ready(Some(Err(HostError::ConnectionTerminated)));
        }
        Pin::new(&mut *lock(&self.body)).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.over.as_ref().is_none_or(|_| lock(&self.body).is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        lock(&self.body).size_hint()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::exchange::testing::{Script, data};

    fn next(body: &mut WasiBody) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_body_is_passed_on_until_its_exchange_is_over() {
        let over = Arc::new(Over::default());
        let mut whole = over.cuts(Script::new(vec![data(3)], true).boxed_unsync());
        assert!(matches!(next(&mut whole), Poll::Ready(Some(Ok(frame))) if frame.data_ref().unwrap().len() == 3));
        assert!(matches!(next(&mut whole), Poll::Ready(None)));
    }

    #[test]
    fn it_breaks_off_once_and_lets_go_of_what_it_comes_from() {
        struct Dropped(Arc<()>);

        impl Body for Dropped {
            type Data = Bytes;
            type Error = HostError;

            fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
                assert!(Arc::strong_count(&self.0) > 1);
                Poll::Pending
            }
        }

        let (over, held) = (Arc::new(Over::default()), Arc::new(()));
        let mut body = over.cuts(Dropped(held.clone()).boxed_unsync());
        assert!(next(&mut body).is_pending());
        over.end();
        assert_eq!(Arc::strong_count(&held), 1, "though its reader has it still");
        assert!(matches!(next(&mut body), Poll::Ready(Some(Err(HostError::ConnectionTerminated)))));
        assert!(matches!(next(&mut body), Poll::Ready(None)));
    }
}
