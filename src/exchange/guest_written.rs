//! Bodies that a guest of WASI 0.3 writes. It ends one by dropping the writer of its stream, and a store that goes away drops all writers:
//! so whether a body has ended is looked at while the store is still there.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::body_check::{BodyCheck, BodyRules};
use crate::http::error_code::ErrorCode;
use crate::http::message::empty;
use crate::sync::lock;

/// How a body was transmitted, for the guest that made its message.
pub(crate) type Transmitted = Result<(), ErrorCode>;

/// The most frames of a body that can lie between a guest and its host: one in the channel, one on its way there, and the trailers.
const UNDER_WAY: usize = 3;

thread_local! {
    /// Set by a body of the host's own when it is polled.
    static IS_HOSTS: Cell<bool> = const { Cell::new(false) };
}

/// Said by a body that a caller or an upstream has made, when it is polled: a guest may pass such a one on as its own, and what becomes of
/// that guest does not end it.
pub(crate) fn is_hosts_body() {
    IS_HOSTS.set(true);
}

/// The bodies that the guests of a store write.
#[derive(Default)]
pub(crate) struct WrittenBodies(Vec<Weak<Mutex<Written>>>);

impl WrittenBodies {
    /// One more. How it was transmitted is told as soon as that is known.
    pub fn add(&mut self, body: WasiBody, rules: BodyRules) -> (WasiBody, oneshot::Receiver<Transmitted>) {
        let (tell, told) = oneshot::channel();
        let written = Written {
            body,
            check: BodyCheck::new(rules),
            looked_at: VecDeque::new(),
            tell: Some(tell),
            is_hosts: false,
            reader: None,
            phase: Phase::Open,
        };
        let written = Arc::new(Mutex::new(written));
        self.0.retain(|other| other.strong_count() > 0);
        self.0.push(Arc::downgrade(&written));
        (GuestWritten(written).boxed_unsync(), told)
    }

    /// The store is about to go, or to serve somebody else. Those of its bodies that have not ended break off. `ended_well`: what is of
    /// somebody else's making is passed on all the same. Returns whether there were any.
    pub fn close(&mut self, ended_well: bool) -> bool {
        let mut broke_off = false;
        for written in self.0.drain(..).filter_map(|written| written.upgrade()) {
            broke_off |= lock(&written).close(ended_well);
            // looking at the body took its reader's waker from it
            let reader = lock(&written).reader.take();
            if let Some(reader) = reader {
                reader.wake();
            }
        }
        broke_off
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Its store has gone; what was looked at before is what there is.
    Closed,
    /// Its store has gone before it had ended.
    Broken,
    Ended,
}

struct Written {
    body: WasiBody,
    check: BodyCheck,
    /// What was there when its store went.
    looked_at: VecDeque<Option<Result<Frame<Bytes>, HostError>>>,
    tell: Option<oneshot::Sender<Transmitted>>,
    /// It is of somebody else's making.
    is_hosts: bool,
    /// Who waits for more.
    reader: Option<Waker>,
    phase: Phase,
}

impl Written {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        IS_HOSTS.set(false);
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.is_hosts |= IS_HOSTS.get();
        polled
    }

    fn close(&mut self, ended_well: bool) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        while self.looked_at.len() < UNDER_WAY && !matches!(self.looked_at.back(), Some(None | Some(Err(_)))) {
            match self.poll_body(&mut cx) {
                Poll::Ready(frame) => self.looked_at.push_back(frame),
                Poll::Pending => break,
            }
        }
        let has_ended = matches!(self.looked_at.back(), Some(None | Some(Err(_))))
            || matches!(self.looked_at.back(), Some(Some(Ok(frame))) if frame.is_trailers());
        let goes_on = has_ended || (ended_well && self.is_hosts);
        self.phase = match (has_ended, goes_on) {
            (true, _) => Phase::Closed,
            (false, true) => return false,
            (false, false) => Phase::Broken,
        };
        !goes_on
    }

    fn tell(&mut self, how: Transmitted) {
        if let Some(tell) = self.tell.take() {
            let _ = tell.send(how);
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        match (self.phase, self.looked_at.pop_front()) {
            (Phase::Ended, _) => Poll::Ready(None),
            (_, Some(frame)) => Poll::Ready(frame),
            (Phase::Open, None) => self.poll_body(cx),
            // as an aborted body of WASI 0.2 is told
            (Phase::Broken, None) => Poll::Ready(Some(Err(HostError::HttpProtocolError))),
            (Phase::Closed, None) => Poll::Ready(None),
        }
    }

    /// What may go out of what comes.
    fn checked(&mut self, frame: Option<Result<Frame<Bytes>, HostError>>) -> Option<Result<Frame<Bytes>, HostError>> {
        let frame = match frame {
            Some(Err(error)) => {
                self.tell(Err(ErrorCode::from_host(&error).unwrap_or_else(|| ErrorCode::plain("HTTP-protocol-error"))));
                self.phase = Phase::Ended;
                return Some(Err(error));
            }
            Some(Ok(frame)) => Some(frame),
            None => None,
        };
        let is_last = frame.as_ref().is_none_or(Frame::is_trailers);
        match self.check.frame(frame.as_ref()) {
            Ok(()) if is_last => {
                self.tell(Ok(()));
                self.phase = Phase::Ended;
            }
            Ok(()) => {}
            Err(violation) => {
                self.tell(Err(violation.code.clone()));
                self.phase = Phase::Ended;
                self.body = empty();
                return Some(Err(violation.code.into_host()));
            }
        }
        frame.map(Ok)
    }
}

/// The reader's end.
struct GuestWritten(Arc<Mutex<Written>>);

impl Body for GuestWritten {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let mut written = lock(&self.0);
        let Poll::Ready(frame) = written.next(cx) else {
            written.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        Poll::Ready(written.checked(frame))
    }

    fn is_end_stream(&self) -> bool {
        let written = lock(&self.0);
        match written.phase {
            Phase::Ended => true,
            Phase::Closed => matches!(written.looked_at.front(), None | Some(None)),
            Phase::Open | Phase::Broken => false, // the end is to be seen, and told
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;
    use crate::exchange::testing::{Script, data};
    use crate::http::message::Side;

    fn rules(length: Option<u64>) -> BodyRules {
        BodyRules::of_length(Side::Response, length)
    }

    fn next(body: &mut WasiBody) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// What comes of a body of so many frames whose store goes before anybody reads: the frames, and whether they end cleanly.
    fn read_after(frames: usize, ends: bool, ended_well: bool) -> (usize, bool) {
        let mut all = WrittenBodies::default();
        let (mut body, _told) = all.add(Script::new(vec![data(1); frames], ends).boxed_unsync(), rules(None));
        assert_eq!(all.close(ended_well), !ends);
        let mut count = 0;
        loop {
            match next(&mut body) {
                Poll::Ready(Some(Ok(_))) => count += 1,
                Poll::Ready(None) => return (count, true),
                Poll::Ready(Some(Err(_))) => return (count, false),
                Poll::Pending => unreachable!(),
            }
        }
    }

    #[test]
    fn a_body_that_has_ended_is_whole_whatever_becomes_of_its_guest() {
        for ended_well in [true, false] {
            assert_eq!(read_after(2, true, ended_well), (2, true));
            assert_eq!(read_after(0, true, ended_well), (0, true));
        }
    }

    #[test]
    fn a_body_that_has_not_ended_breaks_off_with_its_store() {
        for ended_well in [true, false] {
            assert_eq!(read_after(2, false, ended_well), (2, false));
        }
    }

    /// A body as a caller or an upstream makes it.
    struct Hosts(Script);

    impl Body for Hosts {
        type Data = Bytes;
        type Error = HostError;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
            is_hosts_body();
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }

    #[test]
    fn a_body_that_is_passed_on_outlives_a_guest_that_has_ended_well() {
        for (ended_well, breaks) in [(true, false), (false, true)] {
            let mut all = WrittenBodies::default();
            let (mut body, _told) = all.add(Hosts(Script::new(vec![data(1)], false)).boxed_unsync(), rules(None));
            assert_eq!(all.close(ended_well), breaks);
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
            assert_eq!(next(&mut body).is_pending(), !breaks);
        }
    }

    #[test]
    fn whoever_waits_for_a_body_is_woken_when_its_store_goes() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        for (is_hosts, ended_well) in [(false, true), (false, false), (true, true), (true, false)] {
            let mut all = WrittenBodies::default();
            let script = Script::new(Vec::new(), false);
            let made = if is_hosts { Hosts(script).boxed_unsync() } else { script.boxed_unsync() };
            let (mut body, _told) = all.add(made, rules(None));
            let count = Arc::new(Count(AtomicUsize::new(0)));
            let waker = Waker::from(count.clone());
            assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&waker)).is_pending());
            all.close(ended_well);
            assert_eq!(count.0.load(Ordering::Relaxed), 1);
        }
    }

    #[test]
    fn the_guest_is_told_how_its_body_went() {
        let told = |frames: usize, length: Option<u64>| {
            let mut all = WrittenBodies::default();
            let (mut body, mut told) = all.add(Script::new(vec![data(1); frames], true).boxed_unsync(), rules(length));
            while let Poll::Ready(Some(Ok(_))) = next(&mut body) {}
            told.try_recv().unwrap()
        };
        assert_eq!(told(2, Some(2)), Ok(()));
        assert_eq!(told(2, None), Ok(()));
        for length in [1, 3] {
            assert_eq!(told(2, Some(length)).unwrap_err().name, "HTTP-response-body-size");
        }
    }
}
