//! A connection under its times, and the server's end.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep_until};

use crate::server::peer::Peer;
use crate::server::progress::{GRACE, Stage};
use crate::server::protocols::Served;
use crate::server::shared::Common;
use crate::server::watch::{LOOK, Verdict, Watch};

/// See the module.
pub(super) struct Timed<T> {
    pub served: T,
    watch: Arc<Watch>,
    peer: Peer,
    /// The one timer. It is set anew when it has fired, and when the first exchange begins.
    timer: Pin<Box<Sleep>>,
    /// Whether it is set for the next look at the client.
    is_near: bool,
    common: Arc<Common>,
    /// Ready when the server drains. It is polled once to be told, and again when that is so.
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    is_told: bool,
    /// When a connection on which nothing is under way is closed.
    grace: Option<Instant>,
}

impl<T: Served + Unpin> Timed<T> {
    pub(super) fn new(served: T, watch: Arc<Watch>, peer: Peer, common: Arc<Common>) -> Self {
        let drains = common.clone();
        let draining = Box::pin(async move { drains.progress.reached(Stage::Drains).await });
        let timer = Box::pin(sleep_until(Instant::now().into()));
        Self { served, watch, peer, timer, is_near: true, common, draining, is_told: false, grace: None }
    }

    fn set(&mut self, now: Instant, until: Instant) {
        self.timer.as_mut().reset(until.into());
        self.is_near = until <= now + LOOK;
    }

    /// The server drains: whoever has sent nothing yet has a moment.
    fn look_at_end(&mut self, cx: &mut Context<'_>) {
        if self.is_told && !self.common.progress.has_reached(Stage::Drains) {
            return;
        }
        if self.grace.is_none() && self.draining.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            self.grace = Some(now + GRACE);
            self.set(now, now + GRACE);
        }
        self.is_told = true;
    }
}

impl<T: Served + Unpin> Future for Timed<T> {
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.look_at_end(cx);
            if let Poll::Ready(ended) = this.served.poll_served(cx) {
                return Poll::Ready(ended);
            }
            if !this.is_near && this.watch.is_busy() {
                let now = Instant::now();
                this.set(now, now + LOOK);
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if this.peer.has_left(&this.watch.awaits()) {
                return Poll::Ready(Err(io::Error::other("the client has left")));
            }
            let mut until = match this.watch.look(now) {
                Verdict::Wait(until) => until,
                Verdict::End => {
                    this.served.end();
                    continue;
                }
                Verdict::Close(why) => return Poll::Ready(Err(io::Error::other(why))),
            };
            if let Some(grace) = this.grace {
                if now >= grace && !this.watch.is_in_a_head() {
                    this.served.end();
                    this.watch.is_told_to_end(now);
                    this.grace = Some(now + Duration::from_secs(3600));
                    continue;
                }
                until = until.min(grace.max(now + LOOK));
            }
            this.set(now, until);
        }
    }
}
