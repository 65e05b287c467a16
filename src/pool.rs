//! Connections that are kept, and lent to one request at a time, or to many where HTTP/2 is spoken.

use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::task::AbortHandle;

use crate::dial::{Dialer, Origin, Relay, Stage};
use crate::failure::Undialled;
use crate::pattern::Target;
use crate::sent::Sent;
use crate::stock::{Asked, Caps, Grant, Keep, Permit, Stock};
use crate::sync::lock;

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
    users: Arc<()>,
    /// Whether it has been used before.
    kept: bool,
}

impl Keep for Connection {
    fn is_usable(&self) -> bool {
        match &self.sender {
            Sender::Http1(sender) => sender.is_ready(),
            Sender::Http2(sender) => sender.is_ready(),
        }
    }

    fn born(&self) -> Instant {
        self.born
    }

    fn share(&self) -> Option<Self> {
        let Sender::Http2(sender) = &self.sender else { return None };
        Some(Self {
            sender: Sender::Http2(sender.clone()),
            address: self.address,
            relay: self.relay.clone(),
            born: self.born,
            users: self.users.clone(),
            kept: true,
        })
    }

    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.users) > 1
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
            Asked::Wait(mut waiting) => match waiting.granted().await {
                Some(grant) => grant,
                None => return Err(Undialled::Full(Duration::ZERO)),
            },
        };
        let connection = match grant {
            Grant::Use(connection) => connection,
            Grant::Dial(permit) => self.connect(origin, target, stage, permit).await?,
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
        mut permit: Permit<Connection>,
    ) -> Result<Connection, Undialled> {
        let mut link = self.dialer.dial(origin, target, stage).await?;
        let (http2, address, relay) = (link.http2, link.address, link.relay);
        permit.connected(http2);
        link.wire.keep(permit);
        let io = TokioIo::new(link.wire);
        let head = usize::try_from(self.head).unwrap_or(usize::MAX);
        let sender = if http2 {
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                // more than is let pass: what is a little too large is to be told from what is wrong
                .max_header_list_size(self.head.saturating_mul(2).max(16 << 10))
                .adaptive_window(true)
                .keep_alive_interval(PING.0)
                .keep_alive_timeout(PING.1)
                .keep_alive_while_idle(true)
                .handshake(io)
                .await?;
            // it ends with its last handle: the pool's, or a request's
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let mut builder = http1::Builder::new();
            builder.max_header_size(head).max_buf_size(head.max(64 << 10));
            let (sender, connection) = builder.handshake(io).await?;
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        let made = Connection { sender, address, relay, born: Instant::now(), users: Arc::default(), kept: false };
        if let Some(first) = made.share() {
            self.stock.share(origin, made);
            self.reap();
            return Ok(Connection { kept: false, ..first });
        }
        Ok(made)
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
}

impl From<TrySendError<Request<Sent>>> for Unanswered {
    fn from(mut error: TrySendError<Request<Sent>>) -> Self {
        let request = error.take_message();
        Self { error: error.into_error(), request }
    }
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
        match &mut self.connection.sender {
            Sender::Http1(sender) => Ok(sender.try_send_request(request).await?),
            Sender::Http2(sender) => Ok(sender.try_send_request(request).await?),
        }
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
