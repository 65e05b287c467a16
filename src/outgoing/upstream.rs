//! Whoever answers the requests that guests send out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use wasmtime_wasi_http::WasiBody;

use crate::error::reason::CodeError;
use crate::exchange::guest_body::GuestBody;
use crate::exchange::stdio::Stdio;

/// What an upstream gives back, some time.
pub type Answer = Pin<Box<dyn Future<Output = Result<http::Response<WasiBody>, CodeError>> + Send>>;

/// Whoever answers the requests that a guest sends out. Called while the guest runs, on its stack: `send` must not
/// block, and must not run anything but its own bookkeeping; the work belongs in the future. Dropping the future, or
/// the body that it gave, means that nobody waits any more.
pub trait Upstream: Send + Sync + 'static {
    /// `warnings` takes what the host has to say of it to its user.
    fn send(&self, request: http::Request<GuestBody>, timeouts: Timeouts, warnings: &Arc<Stdio>) -> Answer;
}

/// Whoever answers what the guests of one exchange ask.
#[derive(Clone, Default)]
pub struct Upstreams {
    /// The requests that they send out.
    pub outgoing: Option<Arc<dyn Upstream>>,
    /// Those that they pass on, by `wasi:http/handler`.
    pub handler: Option<Arc<dyn Upstream>>,
}

/// By which import a guest asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Import {
    /// It sends a request out: `wasi:http/client`, `wasi:http/outgoing-handler`.
    Client,
    /// It passes a request on to the next handler, which is no network: `wasi:http/handler`.
    Handler,
}

/// The guest's `request-options`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    /// Until there is a connection.
    pub connect: Option<Duration>,
    /// From then on until the first byte of the response.
    pub first_byte: Option<Duration>,
    /// Between two chunks of its body.
    pub between_bytes: Option<Duration>,
}
