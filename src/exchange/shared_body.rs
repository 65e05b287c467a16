//! A guest's body that several hold: whoever reads it, and tasks that read it on or to its end.

use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::error::Error;
use crate::exchange::guest_body::{GuestBody, Next};
use crate::exchange::unread::Past;
use crate::process::fork::ParentsLock;

/// What a guest may write of a body that nobody may have, and how long it has for that.
const WITHHELD: usize = 1 << 20;
const GRACE: Duration = Duration::from_secs(1);

/// A body that several may read or end. In a forked child it is out of reach, and perhaps locked for ever.
pub type SharedBody = ParentsLock<GuestBody>;

impl SharedBody {
    /// See [`GuestBody::poll_next`]; in a forked child an error.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Next, Error>> {
        match self.lock() {
            Some(mut body) => body.poll_next(cx),
            None => {
                let error = crate::exchange::handle::in_parent();
                let (reason, cause) = (error.to_string(), Some(Box::new(error)));
                Poll::Ready(Err(Error::Body { received: 0, reason, cause }))
            }
        }
    }

    /// Nobody will read on: the guest, if it is ours, is stopped.
    pub fn close(&self) {
        if let Some(mut body) = self.lock() {
            body.close();
        }
    }

    /// Reads on in the background, if nobody reads just now: its upstream has answered. Whoever reads it later finds the first
    /// 64 KiB, or all of it if there was no more. Returns whether nothing is left of it in the guest.
    pub fn read_on(this: &Arc<Self>, past: Past) -> bool {
        let Some(mut body) = this.lock() else { return true };
        if body.has_been_read() || body.owner.out_of_reach().is_some() {
            return true;
        }
        let Some(unread) = &mut body.unread else { return true };
        if unread.is_being_read() {
            return false; // it is being read
        }
        let turn = unread.stop();
        // now, what lies there: a small body costs no task
        if body.poll_read_on(past, &mut Context::from_waker(Waker::noop())).is_ready() {
            return body.has_been_read();
        }
        if let Ok(runtime) = body.owner.process().runtime.handle() {
            let weak = Arc::downgrade(this);
            let task = runtime.spawn(poll_fn(move |cx| match Weak::upgrade(&weak) {
                Some(body) => {
                    let Some(mut body) = body.lock() else { return Poll::Ready(()) };
                    match body.unread.as_ref().is_some_and(|unread| unread.is_turn_of(turn)) {
                        true => body.poll_read_on(past, cx),
                        false => Poll::Ready(()),
                    }
                }
                None => Poll::Ready(()),
            }));
            if let Some(unread) = &mut body.unread {
                unread.set_task(task.abort_handle());
            }
        }
        false
    }

    /// Reads what a guest writes though nobody may have it, so that it can end; but not for ever. What is returned is ready when
    /// that is over; nobody need wait for it.
    pub fn let_end(this: Arc<Self>) -> oneshot::Receiver<()> {
        let (over, is_over) = oneshot::channel();
        let mut left = WITHHELD;
        let body = this.clone();
        let mut poll = move |cx: &mut Context<'_>| {
            let Some(mut body) = body.lock() else { return Poll::Ready(()) };
            loop {
                match ready!(body.poll_next(cx)) {
                    Ok(Next::Chunk(chunk)) if chunk.len() <= left => left -= chunk.len(),
                    _ => {
                        // one that has ended well works on
                        body.may_end = false;
                        body.close();
                        return Poll::Ready(());
                    }
                }
            }
        };
        let Some(Ok(runtime)) = crate::engine::existing().map(|process| process.runtime.handle()) else {
            return is_over;
        };
        match this.lock() {
            Some(mut body) => body.may_end = true,
            None => return is_over,
        }
        // most have ended: no task is needed
        if poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            runtime.spawn(async move {
                if tokio::time::timeout(GRACE, poll_fn(poll)).await.is_err()
                    && let Some(mut body) = this.lock()
                {
                    body.may_end = false;
                    body.close();
                }
                drop(over);
            });
        }
        is_over
    }
}
