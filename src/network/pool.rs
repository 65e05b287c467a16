//! Connections that are kept, and lent to one request at a time, or to many where HTTP/2 is spoken.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use crate::http::url_pattern::Target;
use crate::network::connect::{ConnectPhase, Dialer, ForwardProxy};
use crate::network::connection::{Connection, Ending, STREAMS, Sender, State};
use crate::network::connection_task::{Begins, Driver, Tasks, Uploading};
use crate::network::error::{Prohibited, Undialled};
use crate::network::kept::PooledConnection;
use crate::network::options::Caps;
use crate::network::origin::Origin;
use crate::network::places::{App, Apps};
use crate::network::pool_state::{Checkout, Grant, Permit, Place, PoolState};
use crate::network::request_body::{Content, LAST, RequestBody};
use crate::network::traffic::{Flood, Frames, Traffic};
use crate::sync::lock;

/// What a peer may send on a stream before it is read; and on a connection of HTTP/2, so that streams that nobody reads do not
/// hold up the others.
const WINDOWS: (u32, u32) = (256 << 10, 32 << 20);
/// Fields of one message of HTTP/1.1: the most that a map holds without growing past its size (hyper would panic at more).
pub(crate) const FIELDS: usize = 24_576;
/// Streams whose frames are still known after we have reset them: all that one connection may have, and more that follow quickly.
/// h2 takes those of others for errors, and goes away after a number of them.
const RESET: usize = 1024;
/// Between pings on a connection of HTTP/2, and for their answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

pub(crate) struct Pool {
    dialer: Dialer,
    state: Arc<PoolState<Connection>>,
    /// Bytes of a response's head.
    head: u32,
    http2: bool,
    reaper: Mutex<Option<AbortHandle>>,
}

impl Pool {
    /// `http2`: whether TLS offers it, or it is spoken without. `apps`: who shares it.
    pub(crate) fn new(dialer: Dialer, caps: Caps, head: u32, http2: bool, apps: Apps) -> Self {
        Self { dialer, state: PoolState::new(caps, apps), head, http2, reaper: Mutex::new(None) }
    }

    /// A connection for a request: one that is kept, or a new one. What the policy says of its address is asked in either case:
    /// it has been made for another request, maybe.
    pub(crate) async fn checkout(
        self: &Arc<Self>,
        origin: &Origin,
        target: &Target,
        stage: &ConnectPhase,
        app: App,
    ) -> Result<Lease, Undialled> {
        let may_share = self.http2 && (origin.secure || self.dialer.h2c);
        let grant = match self.state.ask(origin, may_share, app) {
            Checkout::Granted(grant) => grant,
            Checkout::Wait(mut waiting) => {
                // else for the connection that somebody else is making
                stage.waits_for_room(self.state.is_full(origin, app));
                match waiting.granted().await {
                    Some(grant) => grant,
                    None => return Err(Undialled::Full(Duration::ZERO)),
                }
            }
        };
        let (connection, place) = match grant {
            Grant::Use(connection, place) => (connection, place),
            Grant::Dial(permit, dialling, mut place) => {
                let made = self.connect(origin, target, stage, permit).await?;
                let first = made.handle();
                let is_shared = first.is_some();
                let own = match first {
                    Some(first) => {
                        self.state.share(origin, made);
                        place.becomes_shared();
                        self.reap();
                        Connection { kept: false, ..first }
                    }
                    None => made,
                };
                dialling.done(is_shared);
                (own, place)
            }
        };
        let lease = Lease::new(self, connection, place);
        if let Some(address) = lease.connection.address
            && let Err(class) = self.dialer.policy.check_address(target, address)
        {
            lease.finish(None);
            return Err(Undialled::Prohibited(Prohibited { address: (address, origin.port).into(), class }));
        }
        Ok(lease)
    }

    async fn connect(
        self: &Arc<Self>,
        origin: &Origin,
        target: &Target,
        stage: &ConnectPhase,
        permit: Permit<Connection>,
    ) -> Result<Connection, Undialled> {
        let mut link = self.dialer.dial(origin, target, stage).await?;
        let (http2, address, relay) = (link.http2, link.address, link.relay);
        let head = usize::try_from(self.head).unwrap_or(usize::MAX);
        let buffer = head.max(64 << 10);
        // interim heads and the last one; and what lies in the buffers meanwhile
        let nothing = head.saturating_mul(2).saturating_add(buffer.saturating_mul(8));
        let state = Arc::new(State {
            streams: AtomicUsize::new(STREAMS),
            ended: AtomicBool::new(false),
            traffic: Arc::new(Traffic::new(nothing as u64)),
            failure: Mutex::default(),
        });
        // Far more than is let pass, since h2 hides what is larger: of trailers it passes on a part as if it were all. What is let
        // through on the wire is a quarter of it, so that the part is still more than may be.
        let list = buffer.saturating_mul(16);
        let frames = http2.then(|| Frames::new(u64::from(self.head), list / 4));
        link.wire.watch(state.traffic.clone(), frames);
        link.wire.keep(Ending { state: state.clone(), _permit: permit });
        let io = TokioIo::new(link.wire);
        let (sender, driver) = if http2 {
            let tasks = Tasks::default();
            let (sender, mut connection) = http2::Builder::new(tasks.clone())
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                .max_header_list_size(u32::try_from(list).unwrap_or(u32::MAX))
                .max_concurrent_reset_streams(RESET)
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .keep_alive_while_idle(true)
                .handshake(io)
                .await?;
            // it ends with its last handle: the pool's, or a request's
            let state = state.clone();
            let driven = std::future::poll_fn(move |cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                state.streams.store(connection.current_max_send_streams(), Ordering::Relaxed);
                // before the requests that lie in it are told that it is gone
                polled.map(|ended| state.failed(ended))
            });
            let driver = Driver::spawn(driven, Some(&tasks));
            (Sender::Http2(sender, tasks), driver)
        } else {
            let mut builder = http1::Builder::new();
            builder
                .max_header_size(head)
                .max_buf_size(buffer)
                // as many as there is room for: a field has a letter, a colon and the end of its line
                .max_headers((head / 3).clamp(1, FIELDS))
                // RFC 9112, 5.1 and 5.2: a user agent takes both, and passes on neither
                .allow_spaces_after_header_name_in_responses(true)
                .allow_obsolete_multiline_headers_in_responses(true);
            let (sender, connection) = builder.handshake(io).await?;
            let state = state.clone();
            let driver = Driver::spawn(async move { state.failed(connection.await) }, None);
            (Sender::Http1(sender), driver)
        };
        Ok(Connection { sender, driver, address, relay, born: Instant::now(), state, _used: None, kept: false })
    }

    /// While there is something idle, a task looks after it.
    fn reap(self: &Arc<Self>) {
        let mut reaper = lock(&self.reaper);
        if !self.state.begin_reaping() {
            return;
        }
        let state = self.state.clone();
        let task = tokio::spawn(async move {
            while let Some(pause) = state.reap() {
                let _ = tokio::time::timeout(pause, state.emptied()).await;
            }
        });
        *reaper = Some(task.abort_handle());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(reaper) = lock(&self.reaper).take() {
            reaper.abort();
        }
    }
}

/// A connection that a request uses, and what is under way of the request on it. Dropped, the connection of HTTP/1.1 ends, or the
/// stream of HTTP/2; [`Self::finish`] gives it back.
pub(crate) struct Lease {
    request: Underway,
    connection: Connection,
    /// Dropped after the connection.
    place: Place<Connection>,
    pool: Weak<Pool>,
    last: bool,
}

/// A request that has begun and not ended. Dropped before the connection.
struct Underway(Option<Begun>);

enum Begun {
    Http1(Driver),
    Http2 { state: Arc<State>, _uploading: Option<Uploading> },
}

impl Drop for Underway {
    fn drop(&mut self) {
        match self.0.take() {
            // what has been written of the request lies before a peer that may never read it
            Some(Begun::Http1(driver)) => driver.end(),
            // whose peer reads nothing would not even see that the stream is reset: nobody else should begin to use it
            Some(Begun::Http2 { state, .. }) if state.traffic.users().load(Ordering::Acquire) == 1 => {
                state.traffic.leave_if_blocked();
            }
            Some(Begun::Http2 { .. }) | None => {}
        }
    }
}

/// Why there is no response.
pub(crate) struct Unanswered {
    pub error: hyper::Error,
    /// Nothing of the request was sent.
    pub unsent: bool,
    /// Bytes that came from the peer since the request.
    pub received: u64,
    /// HTTP/2: one of the heads that came since is larger than may be; or announces a body, and has none.
    pub oversized: bool,
    pub bodiless: bool,
}

impl Lease {
    fn new(pool: &Arc<Pool>, connection: Connection, place: Place<Connection>) -> Self {
        Self { request: Underway(None), connection, place, pool: Arc::downgrade(pool), last: false }
    }

    /// Whether it has been used before.
    pub(crate) fn is_kept(&self) -> bool {
        self.connection.kept
    }

    pub(crate) fn is_http2(&self) -> bool {
        matches!(self.connection.sender, Sender::Http2(..))
    }

    /// A request begins. What its body is to tell of that, where it has one: HTTP/2 has a task send it.
    pub(crate) fn begin(&mut self, has_body: bool) -> Option<Begins> {
        let (request, begins) = match &self.connection.sender {
            Sender::Http1(_) => (Begun::Http1(self.connection.driver.clone()), None),
            Sender::Http2(_, tasks) => {
                let (uploading, begins) = has_body.then(|| tasks.upload()).unzip();
                (Begun::Http2 { state: self.connection.state.clone(), _uploading: uploading }, begins)
            }
        };
        self.request = Underway(Some(request));
        begins
    }

    pub(crate) fn relay(&self) -> Option<&ForwardProxy> {
        self.connection.relay.as_ref()
    }

    /// The connection is not used again.
    pub(crate) fn is_last(&mut self) {
        self.last = true;
    }

    /// Too much of what brings nothing, if that has ended the connection.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.connection.state.traffic.flood()
    }

    /// Whether the connection has ended because its peer did not read what was written.
    pub(crate) fn write_timed_out(&self) -> bool {
        self.connection.state.traffic.write_timed_out()
    }

    /// What TLS has ended the connection with, if it has.
    pub(crate) fn tls(&self) -> Option<rustls::Error> {
        self.connection.state.traffic.tls().cloned()
    }

    pub(crate) fn traffic(&self) -> Arc<Traffic> {
        self.connection.state.traffic.clone()
    }

    /// A part of the body has come.
    pub(crate) fn is_of_use(&self) {
        self.connection.state.traffic.is_of_use();
    }

    /// The request as it is to be on the wire.
    pub(crate) async fn send(&mut self, request: Request<RequestBody>) -> Result<Response<Incoming>, Unanswered> {
        let state = self.connection.state.clone();
        let traffic = &state.traffic;
        let (received, oversized, bodiless) = (traffic.received(), traffic.oversized(), traffic.bodiless());
        traffic.is_of_use();
        let answered = match &mut self.connection.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender, _) => sender.try_send_request(request).await,
        };
        traffic.is_of_use();
        answered.map_err(|mut error| Unanswered {
            unsent: error.take_message().is_some(),
            error: state.why(error.into_error()),
            received: traffic.received() - received,
            oversized: traffic.oversized() > oversized,
            bodiless: traffic.bodiless() > bodiless,
        })
    }

    /// The response has been read to its end; of the request, its guest may still send `content`.
    pub(crate) fn finish(mut self, content: Option<&Content>) {
        let content = content.filter(|content| !content.is_sent()).cloned();
        let is_free = match &self.connection.sender {
            Sender::Http1(sender) => self.last || sender.is_closed() || sender.is_ready(),
            Sender::Http2(..) => true,
        };
        match content {
            None if is_free => self.release(),
            // it ends now, for what comes on it may be read in two ways
            Some(_) if self.last => {}
            content => {
                tokio::spawn(async move {
                    if let Some(content) = content
                        && !content.over().await
                    {
                        return;
                    }
                    // it is about to be free
                    if let Sender::Http1(sender) = &mut self.connection.sender
                        && !matches!(tokio::time::timeout(LAST, sender.ready()).await, Ok(Ok(())))
                    {
                        return;
                    }
                    self.release();
                });
            }
        }
    }

    /// Nothing is under way on it.
    fn release(mut self) {
        drop(self.request.0.take());
        let Self { mut connection, place, pool, last, .. } = self;
        connection.kept = true;
        if !last
            && connection.is_usable()
            && !connection.is_shared()
            && let Some(pool) = pool.upgrade()
        {
            pool.state.put_back(connection, place);
            pool.reap();
        } else {
            drop(connection);
            drop(place);
        }
    }
}
