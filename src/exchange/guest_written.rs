//! Bodies that a guest of WASI 0.3 writes. It ends one by dropping the writer of its stream, and a store that goes away drops all writers:
//! so whether a body has ended is looked at while the store is still there.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime_wasi_http::{Error as HostError, WasiBody};

use crate::exchange::body_check::{BodyCheck, BodyRules, Length};
use crate::http::error_code::ErrorCode;
use crate::http::message::{Side, empty};
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

/// Said after that, where the guest has yet to say how the body ends.
pub(crate) fn is_guests_body() {
    IS_HOSTS.set(false);
}

/// The bodies that a guest writes in one exchange. Who ends that knows them as well as the guest's store.
#[derive(Clone, Default)]
pub(crate) struct WrittenBodies(Arc<Bodies>);

#[derive(Default)]
struct Bodies {
    all: Mutex<Vec<Weak<Mutex<Written>>>>,
    /// Told when one of them has ended.
    ended: OnceLock<Waker>,
    /// Whoever waits for those that are passed on.
    waiting: AtomicWaker,
}

impl WrittenBodies {
    /// Whoever is to be told when one of them has ended, or is not to be read any more.
    pub(crate) fn told_to(waker: Waker) -> Self {
        Self(Arc::new(Bodies { ended: waker.into(), ..Bodies::default() }))
    }

    /// One more. How it was transmitted is told to `tell` as soon as that is known; of a request that
    /// nobody has read nothing is.
    pub(crate) fn add(&self, body: WasiBody, rules: BodyRules, tell: oneshot::Sender<Transmitted>) -> WasiBody {
        let written = Written {
            body,
            check: BodyCheck::new(rules),
            looked_at: VecDeque::new(),
            tell: Some(tell),
            reader: None,
            is_hosts: None,
            phase: Phase::Open,
        };
        let written = Arc::new(Mutex::new(written));
        let mut all = lock(&self.0.all);
        all.retain(|other| other.strong_count() > 0);
        all.push(Arc::downgrade(&written));
        GuestWritten { written, bodies: self.0.clone() }.boxed_unsync()
    }

    /// Whether any of them has not ended, and is still to be read.
    pub(crate) fn are_read(&self) -> bool {
        let mut all = lock(&self.0.all);
        all.retain(|written| written.upgrade().is_some_and(|written| lock(&written).phase == Phase::Open));
        !all.is_empty()
    }

    /// Whether any that is still to be read is of somebody else's making: it is under way, though its guest has done its part.
    pub(crate) fn are_passed_on(&self) -> bool {
        let all: Vec<_> = lock(&self.0.all).iter().filter_map(Weak::upgrade).collect();
        all.iter().any(|written| lock(written).is_passed_on())
    }

    /// Ready when there is none such any more.
    pub(crate) fn poll_passed_on(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.0.waiting.register(cx.waker());
        if self.are_passed_on() { Poll::Pending } else { Poll::Ready(()) }
    }

    /// The store is about to go, or to serve somebody else. Those of its bodies that have not ended break off. `ended_well`: what is of
    /// somebody else's making is passed on all the same. Returns whether there were any.
    pub(crate) fn close(&self, ended_well: bool) -> bool {
        let mut broke_off = false;
        let all = std::mem::take(&mut *lock(&self.0.all));
        for written in all.into_iter().filter_map(|written| written.upgrade()) {
            broke_off |= lock(&written).close(ended_well);
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
    /// Whoever waits for more of it.
    reader: Option<Waker>,
    /// Whether it is of somebody else's making; None: nobody has looked at it yet.
    is_hosts: Option<bool>,
    phase: Phase,
}

impl Written {
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        // a body of the host's may have one of another guest in it, whose maker is asked after
        let around = IS_HOSTS.replace(false);
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.is_hosts = Some(IS_HOSTS.replace(around));
        polled
    }

    /// Whether its end is in what was looked at.
    fn has_been_seen_to_end(&self) -> bool {
        match self.looked_at.back() {
            Some(Some(Ok(frame))) => frame.is_trailers(),
            Some(None | Some(Err(_))) => true,
            None => false,
        }
    }

    fn close(&mut self, ended_well: bool) -> bool {
        if self.phase != Phase::Open {
            return false;
        }
        let reader = self.reader.take().unwrap_or_else(|| Waker::noop().clone());
        let mut cx = Context::from_waker(&reader);
        while self.looked_at.len() < UNDER_WAY && !matches!(self.looked_at.back(), Some(None | Some(Err(_)))) {
            match self.poll_body(&mut cx) {
                Poll::Ready(frame) => self.looked_at.push_back(frame),
                Poll::Pending => break,
            }
        }
        let has_ended = self.has_been_seen_to_end();
        if !has_ended && ended_well && self.is_hosts == Some(true) {
            self.reader = Some(reader);
            return false;
        }
        self.phase = if has_ended { Phase::Closed } else { Phase::Broken };
        reader.wake();
        !has_ended
    }

    /// Whose making it is tells only a look at it.
    fn is_passed_on(&mut self) -> bool {
        if self.phase == Phase::Open && self.is_hosts.is_none() {
            let reader = self.reader.clone();
            let reader = reader.as_ref().unwrap_or_else(|| Waker::noop());
            if let Poll::Ready(frame) = self.poll_body(&mut Context::from_waker(reader)) {
                self.looked_at.push_back(frame);
                reader.wake_by_ref();
            }
        }
        self.phase == Phase::Open && self.is_hosts == Some(true) && !self.has_been_seen_to_end()
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
            (Phase::Open, None) => {
                let polled = self.poll_body(cx);
                self.reader = polled.is_pending().then(|| cx.waker().clone());
                polled
            }
            // as an aborted body of WASI 0.2 is told
            (Phase::Broken, None) => Poll::Ready(Some(Err(HostError::HttpProtocolError))),
            (Phase::Closed, None) => Poll::Ready(None),
        }
    }

    /// Its reader has gone. A guest that has answered is told whether it was before the end.
    fn let_go(&mut self) {
        if self.tell.is_none() || self.check.rules().side == Side::Request {
            return;
        }
        if self.check.rules().length == Length::Nothing {
            return self.tell(Ok(()));
        }
        if self.is_hosts != Some(true)
            && let Poll::Ready(end) = self.next(&mut Context::from_waker(Waker::noop()))
            && end.as_ref().is_none_or(|frame| frame.as_ref().is_ok_and(Frame::is_trailers))
        {
            self.checked(end);
        }
        self.tell(Err(ErrorCode::plain("connection-terminated")));
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
struct GuestWritten {
    written: Arc<Mutex<Written>>,
    bodies: Arc<Bodies>,
}

impl GuestWritten {
    fn tell_of_end(&self) {
        if let Some(ended) = self.bodies.ended.get() {
            ended.wake_by_ref();
        }
        self.bodies.waiting.wake();
    }
}

impl Body for GuestWritten {
    type Data = Bytes;
    type Error = HostError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        let (frame, has_ended) = {
            let mut written = lock(&self.written);
            let frame = std::task::ready!(written.next(cx));
            (written.checked(frame), written.phase == Phase::Ended)
        };
        if has_ended {
            self.tell_of_end();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let written = lock(&self.written);
        match written.phase {
            Phase::Ended => true,
            Phase::Closed => matches!(written.looked_at.front(), None | Some(None)),
            Phase::Open | Phase::Broken => false, // the end is to be seen, and told
        }
    }
}

impl Drop for GuestWritten {
    fn drop(&mut self) {
        {
            let mut written = lock(&self.written);
            written.let_go();
            written.phase = Phase::Ended;
        }
        self.tell_of_end();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::exchange::testing::{Script, data};

    fn rules(length: Option<u64>) -> BodyRules {
        BodyRules::of_length(Side::Response, length)
    }

    fn add(all: &WrittenBodies, body: WasiBody, rules: BodyRules) -> (WasiBody, oneshot::Receiver<Transmitted>) {
        let (tell, told) = oneshot::channel();
        (all.add(body, rules, tell), told)
    }

    fn next(body: &mut WasiBody) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
        Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
    }

    /// What comes of a body of so many frames whose store goes before anybody reads: the frames, and whether they end cleanly.
    fn read_after(frames: usize, ends: bool, ended_well: bool) -> (usize, bool) {
        let all = WrittenBodies::default();
        let (mut body, _told) = add(&all, Script::new(vec![data(1); frames], ends).boxed_unsync(), rules(None));
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
    struct Hosts<B>(B);

    impl<B: Body<Data = Bytes, Error = HostError> + Unpin> Body for Hosts<B> {
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
            let all = WrittenBodies::default();
            let (mut body, _told) = add(&all, Hosts(Script::new(vec![data(1)], false)).boxed_unsync(), rules(None));
            assert_eq!(all.close(ended_well), breaks);
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
            assert_eq!(next(&mut body).is_pending(), !breaks);
        }
    }

    #[test]
    fn a_body_that_is_passed_on_may_be_one_of_another_guest() {
        let of_another = WrittenBodies::default();
        let (inner, _told) = add(&of_another, Script::new(vec![data(1)], false).boxed_unsync(), rules(None));
        let all = WrittenBodies::default();
        let (mut body, _told) = add(&all, Hosts(inner).boxed_unsync(), rules(None));
        assert!(!all.close(true));
        assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
        assert!(next(&mut body).is_pending());
    }

    /// Notes that it was woken.
    #[derive(Default)]
    struct Woken(std::sync::atomic::AtomicBool);

    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, std::sync::atomic::Ordering::SeqCst);
        }
    }

    /// Nothing comes of it until somebody says so.
    struct Waits(Arc<Mutex<Option<Waker>>>);

    impl Body for Waits {
        type Data = Bytes;
        type Error = HostError;

        fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, HostError>>> {
            is_hosts_body();
            *lock(&self.0) = Some(cx.waker().clone());
            Poll::Pending
        }
    }

    #[test]
    fn whoever_waits_for_a_body_that_is_passed_on_waits_on_when_its_guest_has_gone() {
        let waits = Arc::default();
        let all = WrittenBodies::default();
        let (mut body, _told) = add(&all, Waits(Arc::clone(&waits)).boxed_unsync(), rules(None));
        let woken = Arc::new(Woken::default());
        assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&Waker::from(woken.clone()))).is_pending());
        assert!(!all.close(true));
        lock(&waits).take().unwrap().wake();
        assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
    }

    #[test]
    fn whoever_waits_for_a_body_that_breaks_off_is_woken() {
        for (is_hosts, ended_well) in [(false, true), (false, false), (true, false)] {
            let all = WrittenBodies::default();
            let script = Script::new(Vec::new(), false);
            let made = if is_hosts { Hosts(script).boxed_unsync() } else { script.boxed_unsync() };
            let (mut body, _told) = add(&all, made, rules(None));
            let woken = Arc::new(Woken::default());
            assert!(Pin::new(&mut body).poll_frame(&mut Context::from_waker(&Waker::from(woken.clone()))).is_pending());
            assert!(all.close(ended_well));
            assert!(woken.0.load(std::sync::atomic::Ordering::SeqCst));
            assert!(matches!(next(&mut body), Poll::Ready(Some(Err(_)))));
        }
    }

    #[test]
    fn the_guest_is_told_how_its_body_went() {
        let told = |frames: usize, length: Option<u64>| {
            let all = WrittenBodies::default();
            let (mut body, mut told) =
                add(&all, Script::new(vec![data(1); frames], true).boxed_unsync(), rules(length));
            while let Poll::Ready(Some(Ok(_))) = next(&mut body) {}
            told.try_recv().unwrap()
        };
        assert_eq!(told(2, Some(2)), Ok(()));
        assert_eq!(told(2, None), Ok(()));
        for length in [1, 3] {
            assert_eq!(told(2, Some(length)).unwrap_err().name, "HTTP-response-body-size");
        }
    }

    #[test]
    fn a_guest_is_told_that_its_reader_has_gone() {
        let told = |ends: bool, rules: BodyRules| {
            let all = WrittenBodies::default();
            let (mut body, mut told) = add(&all, Script::new(vec![data(1)], ends).boxed_unsync(), rules);
            assert!(matches!(next(&mut body), Poll::Ready(Some(Ok(_)))));
            drop(body);
            told.try_recv().ok()
        };
        let name = |told: Option<Transmitted>| told.map(|how| how.map_err(|code| code.name));
        assert_eq!(name(told(false, rules(None))), Some(Err("connection-terminated")));
        assert_eq!(name(told(true, rules(None))), Some(Ok(())), "all of it was taken");
        assert_eq!(name(told(false, BodyRules { length: Length::Nothing, ..rules(None) })), Some(Ok(())));
        assert_eq!(name(told(false, BodyRules::of_length(Side::Request, None))), None);
    }
}
