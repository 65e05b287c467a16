//! A connection, as its pool and the request on it know it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::client::conn::{http1, http2};

use crate::network::connect::ForwardProxy;
use crate::network::connection_task::{Driver, Tasks};
use crate::network::kept::PooledConnection;
use crate::network::pool_state::Permit;
use crate::network::request_body::RequestBody;
use crate::network::traffic::Traffic;
use crate::sync::lock;

/// Requests at once on a connection of HTTP/2, if its peer allows as many.
pub(super) const STREAMS: usize = 100;
pub(super) enum Sender {
    Http1(http1::SendRequest<RequestBody>),
    Http2(http2::SendRequest<RequestBody>, Tasks),
}

pub(super) struct Connection {
    pub sender: Sender,
    pub driver: Driver,
    pub address: Option<std::net::IpAddr>,
    pub relay: Option<ForwardProxy>,
    pub born: Instant,
    pub state: Arc<State>,
    /// Of HTTP/2, for all handles but the stock's.
    pub _used: Option<Use>,
    /// Whether it has been used before.
    pub kept: bool,
}

/// One of those who use a connection of HTTP/2.
pub(super) struct Use(Arc<State>);

impl Use {
    pub(super) fn of(state: &Arc<State>) -> Self {
        state.traffic.users().fetch_add(1, Ordering::AcqRel);
        Self(state.clone())
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        self.0.traffic.users().fetch_sub(1, Ordering::AcqRel);
    }
}

/// What the handles to a connection have in common.
pub(super) struct State {
    /// Requests that its peer lets be under way at once.
    pub streams: AtomicUsize,
    /// It has ended, whatever its handles know of that.
    pub ended: AtomicBool,
    pub traffic: Arc<Traffic>,
    /// How it failed, until a request is told.
    pub failure: Mutex<Option<hyper::Error>>,
}

impl State {
    pub(super) fn failed<T>(&self, ended: Result<T, hyper::Error>) {
        if let Err(error) = ended {
            *lock(&self.failure) = Some(error);
        }
    }

    /// What has ended a request: one that had not begun knows only that its connection is gone.
    pub(super) fn why(&self, error: hyper::Error) -> hyper::Error {
        if error.is_canceled() { lock(&self.failure).take().unwrap_or(error) } else { error }
    }
}

/// Kept by a connection's socket: says that it has ended before it gives the permit back.
pub(super) struct Ending {
    pub state: Arc<State>,
    pub _permit: Permit<Connection>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
    }
}

impl Connection {
    pub(super) fn handle(&self) -> Option<Self> {
        let Sender::Http2(sender, tasks) = &self.sender else { return None };
        Some(Self {
            sender: Sender::Http2(sender.clone(), tasks.clone()),
            driver: self.driver.clone(),
            address: self.address,
            relay: self.relay.clone(),
            born: self.born,
            _used: Some(Use::of(&self.state)),
            state: self.state.clone(),
            kept: true,
        })
    }
}

impl PooledConnection for Connection {
    fn is_usable(&self) -> bool {
        !self.state.ended.load(Ordering::Acquire)
            && self.state.traffic.is_fit()
            && match &self.sender {
                Sender::Http1(sender) => sender.is_ready(),
                Sender::Http2(sender, _) => sender.is_ready(),
            }
    }

    fn is_quiet(&self) -> bool {
        !self.state.traffic.has_unread()
    }

    fn born(&self) -> Instant {
        self.born
    }

    fn is_shared(&self) -> bool {
        matches!(self.sender, Sender::Http2(..))
    }

    fn share(&self) -> Option<Self> {
        let most = self.state.streams.load(Ordering::Relaxed).min(STREAMS);
        // asked by the stock alone, one at a time: nobody comes in between
        if self.state.traffic.users().load(Ordering::Acquire) < most { self.handle() } else { None }
    }

    fn is_in_use(&self) -> bool {
        self.state.traffic.users().load(Ordering::Acquire) > 0
    }
}
