//! What a connection waits for, and for how long it may. All of its parts note here what they do, and one clock looks at it.
//!
//! One timer a connection, which is set anew only when it has fired: a request that comes and goes costs no timer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::exchange::handle::ExchangeAbortHandle;
use crate::server::head::Head;
use crate::server::refusal::Refusal;
use crate::server::routes::Routes;
use crate::server::settings::Timeouts;
use crate::sync::lock;

/// How often somebody looks at a connection with an exchange under way: whether its client is there.
pub(super) const LOOK: Duration = Duration::from_millis(250);

/// For so long a connection that was told to end may take.
pub(super) const LAST: Duration = Duration::from_secs(2);

/// As good as for ever.
const LONG: Duration = Duration::from_secs(3600);

/// See the module.
pub(super) struct Watch {
    state: Mutex<State>,
    timeouts: Timeouts,
    /// Of HTTP/2: whether anything has come since it was looked at.
    heard: AtomicBool,
}

struct State {
    /// Those that hyper has read, or will, and that the service has not been asked about.
    heads: VecDeque<Head>,
    /// Since when the first byte of a head is there, and the rest is not. At first, since the connection was accepted.
    head_since: Option<Instant>,
    /// Whether a byte of that head is there.
    head_begun: bool,
    /// How much of a request's body has to come.
    missing: u64,
    malformed: bool,
    /// What the next head is refused with, whatever it is.
    refusal: Option<Refusal>,
    reader: Option<Waker>,
    exchanges: Vec<Under>,
    next: u64,
    idle_since: Instant,
    /// Since when the client takes nothing.
    write_waits: Option<Instant>,
    /// Whether an answer has begun since the last request.
    answers: bool,
    is_http10: bool,
    /// When it has to have ended.
    last: Option<Instant>,
}

/// An exchange under way.
struct Under {
    number: u64,
    routes: Arc<Routes>,
    abort: Option<ExchangeAbortHandle>,
}

/// What is to be done with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing, until then.
    Wait(Instant),
    /// It is idle, and told to end.
    End,
    /// Nothing more is waited for.
    Close(&'static str),
}

impl Watch {
    pub(super) fn new(timeouts: Timeouts, accepted: Instant) -> Arc<Self> {
        let state = State {
            heads: VecDeque::new(),
            head_since: Some(accepted),
            head_begun: false,
            missing: 0,
            malformed: false,
            refusal: None,
            reader: None,
            exchanges: Vec::new(),
            next: 0,
            idle_since: accepted,
            write_waits: None,
            answers: false,
            is_http10: false,
            last: None,
        };
        Arc::new(Self { state: Mutex::new(state), timeouts, heard: AtomicBool::new(false) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    // what is read

    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.lock().refusal.take()
    }

    pub(super) fn head_begins(&self) {
        let mut state = self.lock();
        state.head_begun = true;
        if state.head_since.is_none() {
            state.head_since = Some(Instant::now());
        }
    }

    /// `is_whole`: no body follows.
    pub(super) fn head_ends(&self, head: Head, is_whole: bool) {
        let mut state = self.lock();
        state.head_since = None;
        state.head_begun = false;
        state.missing = u64::from(!is_whole);
        state.is_http10 = head.is_http10;
        state.malformed = false;
        state.heads.push_back(head);
    }

    pub(super) fn body_is_whole(&self) {
        self.lock().missing = 0;
    }

    pub(super) fn body_misses(&self, bytes: u64) {
        self.lock().missing = bytes;
    }

    pub(super) fn body_is_malformed(&self) {
        self.lock().malformed = true;
    }

    /// Whether the body of the last request was no body.
    pub(super) fn is_malformed(&self) -> bool {
        self.lock().malformed
    }

    pub(super) fn missing(&self) -> u64 {
        self.lock().missing
    }

    pub(super) fn reads(&self, waker: &Waker) {
        let mut state = self.lock();
        if !state.reader.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.reader = Some(waker.clone());
        }
    }

    /// Something has come of a connection of HTTP/2.
    pub(super) fn hears(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    // what is written

    pub(super) fn writes(&self, waits: bool) {
        let mut state = self.lock();
        match (waits, state.write_waits) {
            (true, None) => state.write_waits = Some(Instant::now()),
            (false, Some(_)) => {
                state.write_waits = None;
                state.idle_since = Instant::now();
            }
            _ => {}
        }
    }

    // exchanges

    /// A request has been read; its head, if it came by HTTP/1.
    pub(super) fn begins(&self, routes: &Arc<Routes>) -> (u64, Option<Head>) {
        let mut state = self.lock();
        state.next += 1;
        state.answers = false;
        if state.exchanges.is_empty() {
            state.head_since = state.head_since.filter(|_| state.head_begun);
        }
        let number = state.next;
        state.exchanges.push(Under { number, routes: routes.clone(), abort: None });
        (number, state.heads.pop_front())
    }

    pub(super) fn is_stopped_by(&self, number: u64, abort: ExchangeAbortHandle) {
        if let Some(under) = self.lock().exchanges.iter_mut().find(|under| under.number == number) {
            under.abort = Some(abort);
        }
    }

    pub(super) fn answers(&self) {
        self.lock().answers = true;
    }

    pub(super) fn ends(&self, number: u64) {
        let ended = {
            let mut state = self.lock();
            let at = state.exchanges.iter().position(|under| under.number == number);
            state.idle_since = Instant::now();
            at.map(|at| state.exchanges.swap_remove(at))
        };
        drop(ended);
    }

    /// Whether an exchange is under way, a head has begun, or what was answered is not taken.
    pub(super) fn is_busy(&self) -> bool {
        let state = self.lock();
        state.head_begun || !state.exchanges.is_empty() || state.write_waits.is_some()
    }

    /// The heads that hyper has answered itself, or not got.
    pub(super) fn take_heads(&self) -> VecDeque<Head> {
        std::mem::take(&mut self.lock().heads)
    }

    // time

    /// It is told to end by the server's end. What is idle has a moment from now on.
    pub(super) fn is_told_to_end(&self, now: Instant) {
        self.told(&mut self.lock(), now);
    }

    fn told(&self, state: &mut State, now: Instant) {
        self.heard.store(false, Ordering::Relaxed);
        state.last = Some(now + LAST);
    }

    /// What its time says.
    pub(super) fn look(&self, now: Instant) -> Verdict {
        let mut state = self.lock();
        for under in &state.exchanges {
            if let Some(abort) = &under.abort
                && under.routes.have_expired(now)
            {
                abort.stop_because(Error::Closed);
            }
        }
        let mut next = now + LONG;
        let is_idle = state.exchanges.is_empty() && state.write_waits.is_none();
        if !is_idle {
            next = now + LOOK;
        } else if let Some(last) = state.last {
            // A client of HTTP/2 that answers is told by hyper, when it has taken what waits for its windows. One that acknowledges nothing
            // never agrees on an end (RFC 9113, 6.8).
            let answers = self.heard.swap(false, Ordering::Relaxed);
            let more = if answers { self.timeouts.body.unwrap_or(LONG) } else { Duration::ZERO };
            // what has begun since then may end
            let last = last.max(state.idle_since + LAST).max(now + more);
            state.last = Some(last);
            if now >= last {
                return Verdict::Close("it was told to end, and did not");
            }
            next = last;
        }
        if let (Some(since), Some(most)) = (state.write_waits, self.timeouts.body) {
            if now >= since + most {
                return Verdict::Close("the client takes nothing");
            }
            next = next.min(since + most);
        }
        if let (Some(since), Some(most), true) = (state.head_since, self.timeouts.header, state.exchanges.is_empty()) {
            if now >= since + most {
                let reader = state.reader.take().filter(|_| state.head_begun);
                let Some(reader) = reader else { return Verdict::Close("no request came in time") };
                state.refusal = Some(Refusal::new(408, "the head of the request did not come in time"));
                state.head_since = None;
                state.last = Some(now + LAST);
                drop(state);
                reader.wake();
                return Verdict::Wait(now + LAST);
            }
            next = next.min(since + most);
        }
        if let (None, None, Some(most), true) = (state.head_since, state.last, self.timeouts.idle, is_idle) {
            if now >= state.idle_since + most {
                self.told(&mut state, now);
                return Verdict::End;
            }
            next = next.min(state.idle_since + most);
        }
        Verdict::Wait(next.max(now + Duration::from_millis(1)))
    }

    /// Whether some bytes of a head are there, and not all of them.
    pub(super) fn is_in_a_head(&self) -> bool {
        self.lock().head_begun
    }

    /// What is known of a client that sends nothing more.
    pub(super) fn awaits(&self) -> Awaits {
        let state = self.lock();
        Awaits {
            missing: state.missing,
            answers: state.answers || state.write_waits.is_some(),
            is_http10: state.is_http10,
            exchanges: state.exchanges.len(),
        }
    }
}

/// See [`Watch::awaits`].
pub(super) struct Awaits {
    /// Bytes of the request that have to come.
    pub missing: u64,
    /// Something of an answer is on its way.
    pub answers: bool,
    pub is_http10: bool,
    pub exchanges: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: Duration = Duration::from_secs(30);

    fn told() -> (Arc<Watch>, Instant) {
        let timeouts = Timeouts { header: None, body: Some(BODY), idle: None };
        let begun = Instant::now();
        let watch = Watch::new(timeouts, begun);
        watch.is_told_to_end(begun);
        (watch, begun)
    }

    #[test]
    fn whoever_answers_nothing_is_left_soon() {
        let (watch, begun) = told();
        assert_eq!(watch.look(begun), Verdict::Wait(begun + LAST));
        assert!(matches!(watch.look(begun + LAST), Verdict::Close(_)));
    }

    #[test]
    fn whoever_answers_may_take_what_waits_for_it() {
        let (watch, begun) = told();
        watch.hears();
        let later = begun + LAST;
        assert_eq!(watch.look(later), Verdict::Wait(later + BODY));
        assert_eq!(watch.look(later + LAST), Verdict::Wait(later + BODY));
        watch.hears();
        assert_eq!(watch.look(later + BODY), Verdict::Wait(later + BODY + BODY));
        assert!(matches!(watch.look(later + BODY + BODY), Verdict::Close(_)));
    }
}
