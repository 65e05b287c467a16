//! Requests that a new instance handles before its first exchange: what its guest is after them is what each exchange begins with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;

use crate::error::Error;
use crate::exchange::handle::ExchangeState;
use crate::guest::instance::{Answer, Instance};

/// Those of an app.
pub struct WarmUps {
    requests: Vec<http::Request<Bytes>>,
    /// It was seen that a guest answers once more after them.
    is_tried: AtomicBool,
}

impl WarmUps {
    /// In this order.
    pub fn new(requests: Vec<http::Request<Bytes>>) -> Arc<Self> {
        Arc::new(Self { requests, is_tried: AtomicBool::new(false) })
    }

    /// Has a new instance handle them.
    pub(super) async fn run(&self, instance: &mut Instance, exchange: &ExchangeState) -> Result<(), Error> {
        for request in &self.requests {
            ask(instance, request, exchange, NOT_ANSWERED).await?;
        }
        let begin = |instance: &mut Instance, reason: &str| match instance.begin_warm() {
            Ok(true) => Ok(()),
            Ok(false) => Err(failed(reason)),
            Err(error) => instance.outcome(Err(error), exchange),
        };
        begin(instance, KEEPS)?;
        if let Some(first) = self.requests.first()
            && !self.is_tried.load(Ordering::Relaxed)
        {
            ask(instance, first, exchange, ANSWERS_ONCE).await?;
            begin(instance, CHANGES)?;
            self.is_tried.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

const NOT_ANSWERED: &str = "the guest returned without a response";
const KEEPS: &str = "the guest keeps a handle after them whose state cannot be put back (a timer, a stream, a response that it has not sent); \
                     hint: let it drop that handle, or do not warm it up with this request";
const CHANGES: &str = "the first of them was tried once more, and the instance cannot be put back to what it was before that: its memory has \
                       grown, or the guest has changed or dropped a handle that it keeps, or left too many behind; hint: a request that \
                       changes less";
const ANSWERS_ONCE: &str = "the guest has answered them, and then returned without a response to one more: guests of its toolchain can handle \
                            one request only (StarlingMonkey); hint: `Reuse(isolated=True)` without `warm`";

async fn ask(
    instance: &mut Instance,
    request: &http::Request<Bytes>,
    exchange: &ExchangeState,
    unanswered: &str,
) -> Result<(), Error> {
    match instance.warm_up(request).await {
        Ok(Answer::Whole) => Ok(()),
        Ok(Answer::Broken(reason)) => Err(failed(&reason)),
        Ok(Answer::None) => Err(failed(unanswered)),
        Err(error) => match instance.outcome(Err(error), exchange) {
            Err(Error::NoResponse(_)) => Err(failed(unanswered)),
            Err(Error::Trap(trap)) => Err(Error::Trap(Arc::new(trap.in_warm_up()))),
            outcome => outcome,
        },
    }
}

fn failed(reason: &str) -> Error {
    Error::NoResponse(format!("a warm-up request (`Reuse.warm`) failed: {reason}"))
}
