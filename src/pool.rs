//! Connections that are kept, and lent to one request at a time, or to many where HTTP/2 is spoken.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use crate::dial::{Dialer, Origin, Relay, Stage};
use crate::failure::Undialled;
use crate::pattern::Target;
use crate::sent::Sent;
use crate::stock::{Asked, Caps, Grant, Keep, Permit, Stock};
use crate::sync::lock;

/// What a peer may send on a stream before it is read; and on a connection of HTTP/2, so that streams that nobody reads do not
/// hold up the others.
const WINDOWS: (u32, u32) = (256 << 10, 32 << 20);
/// Requests at once on a connection of HTTP/2, if its peer allows as many.
const STREAMS: usize = 100;
/// Between pings on a connection of HTTP/2, and for their answer.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

pub struct Pool {
    dialer: Dialer,
    stock: Arc<Stock<Connection>>,
    /// Bytes of a response's head.
    head: u32,
    http2: bool,
    reaper: Mutex<Option<AbortHandle>>,
}

enum Sender {
    Http1(http1::SendRequest<Sent>),
    Http2(http2::SendRequest<Sent>),
}

struct Connection {
    sender: Sender,
    address: Option<std::net::IpAddr>,
    relay: Option<Relay>,
    born: Instant,
    state: Arc<State>,
    /// Whether it has been used before.
    kept: bool,
}

/// What the handles to a connection have in common.
struct State {
    /// Requests that its peer lets be under way at once.
    streams: AtomicUsize,
    /// It has ended, whatever its handles know of that.
    ended: AtomicBool,
    traffic: Arc<AtomicU64>,
    /// How it failed, until a request is told.
    failure: Mutex<Option<hyper::Error>>,
}

impl State {
    fn failed<T>(&self, ended: Result<T, hyper::Error>) {
        if let Err(error) = ended {
            *lock(&self.failure) = Some(error);
        }
    }

    /// What has ended a request: one that had not begun knows only that its connection is gone.
    fn why(&self, error: hyper::Error) -> hyper::Error {
        if error.is_canceled() { lock(&self.failure).take().unwrap_or(error) } else { error }
    }
}

/// Kept by a connection's socket: says that it has ended before it gives the permit back.
struct Ending {
    state: Arc<State>,
    _permit: Permit<Connection>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Release);
    }
}

impl Connection {
    fn handle(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            address: self.address,
            relay: self.relay.clone(),
            born: self.born,
            state: self.state.clone(),
            kept: true,
        })
    }
}

impl Keep for Connection {
    fn is_usable(&self) -> bool {
        !self.state.ended.load(Ordering::Acquire)
            && match &self.sender {
                Sender::Http1(sender) => sender.is_ready(),
                Sender::Http2(sender) => sender.is_ready(),
            }
    }

    fn born(&self) -> Instant {
        self.born
    }

    fn is_shared(&self) -> bool {
        matches!(self.sender, Sender::Http2(_))
    }

    fn share(&self) -> Option<Self> {
        let most = self.state.streams.load(Ordering::Relaxed).min(STREAMS);
        self.handle().filter(|_| self.users() < most)
    }

    fn is_in_use(&self) -> bool {
        self.users() > 0
    }
}

impl Connection {
    /// Handles besides this one, which is the stock's: its socket has the state, too.
    fn users(&self) -> usize {
        Arc::strong_count(&self.state).saturating_sub(3)
    }
}

impl Pool {
    /// `http2`: whether TLS offers it, or it is spoken without.
    pub fn new(dialer: Dialer, caps: Caps, head: u32, http2: bool) -> Arc<Self> {
        Arc::new(Self { dialer, stock: Stock::new(caps), head, http2, reaper: Mutex::new(None) })
    }

    /// A connection for a request: one that is kept, or a new one. What the policy says of its address is asked in either case:
    /// it has been made for another request, maybe.
    pub async fn checkout(
        self: &Arc<Self>,
        origin: &Origin,
        target: &Target,
        stage: &Stage,
    ) -> Result<Lease, Undialled> {
        let may_share = self.http2 && (origin.secure || self.dialer.h2c);
        let grant = match self.stock.ask(origin, may_share) {
            Asked::Granted(grant) => grant,
            Asked::Wait(mut waiting) => {
                // else for the connection that somebody else is making
                stage.waits_for_room(self.stock.is_full(origin));
                match waiting.granted().await {
                    Some(grant) => grant,
                    None => return Err(Undialled::Full(Duration::ZERO)),
                }
            }
        };
        let connection = match grant {
            Grant::Use(connection) => connection,
            Grant::Dial(permit, dialling) => {
                let made = self.connect(origin, target, stage, permit).await?;
                let first = made.handle();
                let is_shared = first.is_some();
                let own = match first {
                    Some(first) => {
                        self.stock.share(origin, made);
                        self.reap();
                        Connection { kept: false, ..first }
                    }
                    None => made,
                };
                dialling.done(is_shared);
                own
            }
        };
        let lease = Lease::new(self, origin, connection);
        if let Some(address) = lease.connection.address
            && let Err(class) = self.dialer.policy.check_address(target, address)
        {
            lease.finish();
            return Err(Undialled::Prohibited((address, origin.port).into(), class));
        }
        Ok(lease)
    }

    async fn connect(
        self: &Arc<Self>,
        origin: &Origin,
        target: &Target,
        stage: &Stage,
        permit: Permit<Connection>,
    ) -> Result<Connection, Undialled> {
        let mut link = self.dialer.dial(origin, target, stage).await?;
        let (http2, address, relay) = (link.http2, link.address, link.relay);
        let state = Arc::new(State {
            streams: AtomicUsize::new(STREAMS),
            ended: AtomicBool::new(false),
            traffic: link.wire.received(),
            failure: Mutex::default(),
        });
        link.wire.keep(Ending { state: state.clone(), _permit: permit });
        let io = TokioIo::new(link.wire);
        let head = usize::try_from(self.head).unwrap_or(usize::MAX);
        let sender = if http2 {
            let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .initial_stream_window_size(WINDOWS.0)
                .initial_connection_window_size(WINDOWS.1)
                // more than is let pass: what is a little too large is to be told from what is wrong
                .max_header_list_size(self.head.saturating_mul(2).max(16 << 10))
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .keep_alive_while_idle(true)
                .handshake(io)
                .await?;
            // it ends with its last handle: the pool's, or a request's
            let state = state.clone();
            tokio::spawn(std::future::poll_fn(move |cx| {
                let polled = Pin::new(&mut connection).poll(cx);
                state.streams.store(connection.current_max_send_streams(), Ordering::Relaxed);
                // before the requests that lie in it are told that it is gone
                polled.map(|ended| state.failed(ended))
            }));
            Sender::Http2(sender)
        } else {
            let mut builder = http1::Builder::new();
            builder.max_header_size(head).max_buf_size(head.max(64 << 10));
            let (sender, connection) = builder.handshake(io).await?;
            let state = state.clone();
            tokio::spawn(async move {
                let mut connection = Box::pin(connection);
                state.failed(connection.as_mut().await);
            });
            Sender::Http1(sender)
        };
        Ok(Connection { sender, address, relay, born: Instant::now(), state, kept: false })
    }

    /// While there is something idle, a task looks after it.
    fn reap(self: &Arc<Self>) {
        if !self.stock.begin_reaping() {
            return;
        }
        let stock = self.stock.clone();
        let reaper = tokio::spawn(async move {
            while let Some(pause) = stock.reap() {
                tokio::time::sleep(pause).await;
            }
        });
        *lock(&self.reaper) = Some(reaper.abort_handle());
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(reaper) = lock(&self.reaper).take() {
            reaper.abort();
        }
    }
}

/// A connection that a request uses. Dropped, it is not used again; [`Self::finish`] gives it back.
pub struct Lease {
    connection: Connection,
    origin: Origin,
    pool: Weak<Pool>,
    freed: Freed,
}

/// Dropped after the connection. That nobody uses one for all any more, the stock cannot see by itself.
struct Freed(Option<Weak<Pool>>);

impl Drop for Freed {
    fn drop(&mut self) {
        if let Some(pool) = self.0.as_ref().and_then(Weak::upgrade) {
            pool.stock.freed();
        }
    }
}

/// Why there is no response; with the request, if nothing of it was sent.
pub struct Unanswered {
    pub error: hyper::Error,
    pub request: Option<Request<Sent>>,
    /// Nothing came from the peer since the request, not a byte.
    pub silent: bool,
}

impl Lease {
    fn new(pool: &Arc<Pool>, origin: &Origin, connection: Connection) -> Self {
        let is_shared = matches!(connection.sender, Sender::Http2(_));
        let pool = Arc::downgrade(pool);
        let freed = Freed(is_shared.then(|| pool.clone()));
        Self { connection, origin: origin.clone(), pool, freed }
    }

    /// Whether it has been used before.
    pub fn is_kept(&self) -> bool {
        self.connection.kept
    }

    pub fn is_http2(&self) -> bool {
        matches!(self.connection.sender, Sender::Http2(_))
    }

    pub fn relay(&self) -> Option<&Relay> {
        self.connection.relay.as_ref()
    }

    /// The request as it is to be on the wire.
    pub async fn send(&mut self, request: Request<Sent>) -> Result<Response<Incoming>, Unanswered> {
        let state = self.connection.state.clone();
        let before = state.traffic.load(Ordering::Relaxed);
        let answered = match &mut self.connection.sender {
            Sender::Http1(sender) => sender.try_send_request(request).await,
            Sender::Http2(sender) => sender.try_send_request(request).await,
        };
        answered.map_err(|mut error| Unanswered {
            request: error.take_message(),
            error: state.why(error.into_error()),
            silent: state.traffic.load(Ordering::Relaxed) == before,
        })
    }

    /// The response has been read to its end.
    pub fn finish(self) {
        let Self { mut connection, origin, pool, freed } = self;
        connection.kept = true;
        let is_free = connection.is_usable();
        let Sender::Http1(sender) = &mut connection.sender else {
            drop(connection);
            drop(freed);
            return;
        };
        if is_free {
            give_back(&pool, &origin, connection);
        } else if !sender.is_closed() {
            // it is about to be free, or its request is still on its way out, and ends with the guest that writes it
            tokio::spawn(async move {
                if let Sender::Http1(sender) = &mut connection.sender
                    && sender.ready().await.is_ok()
                {
                    give_back(&pool, &origin, connection);
                }
            });
        }
    }
}

fn give_back(pool: &Weak<Pool>, origin: &Origin, connection: Connection) {
    if let Some(pool) = pool.upgrade() {
        pool.stock.put_back(origin, connection);
        pool.reap();
    }
}
