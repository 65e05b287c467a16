//! What the error that ended a guest means.

use std::sync::Arc;

use crate::error::Error;
use crate::error::trap::Trap;
use crate::exchange::stdio::Stdio;
use crate::guest::folders::NotOpened;
use crate::guest::limiter::StoreLimiter;
use crate::guest::panics::Panicked;
use crate::process::pagemap::SwitchedOn;

/// Why a guest has ended before its handler returned. `has_offsets`: its code is the component's own, as its author knows it.
pub(super) fn why_it_ended(error: &wasmtime::Error, stdio: &Stdio, limiter: &StoreLimiter, has_offsets: bool) -> Error {
    if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
        return Error::GuestExit { code: exit.0 };
    }
    if let Some(full) = error.downcast_ref::<wasmtime::PoolConcurrencyLimitError>() {
        return Error::Overloaded(format!(
            "all instance slots of this process are taken ({full}); hint: set `Limits.concurrency` lower"
        ));
    }
    if let Some(failed) = error.downcast_ref::<NotOpened>() {
        return failed.0.clone();
    }
    if let Some(late) = error.downcast_ref::<SwitchedOn>() {
        return Error::Overloaded(late.to_string());
    }
    if let Some(panicked) = error.downcast_ref::<Panicked>() {
        return Error::Host(panicked.to_string().into());
    }
    if let Some(wasmtime::Trap::NoAsyncResult) = error.downcast_ref() {
        return Error::NoResponse("the guest returned without setting a response".into());
    }
    if let Some(refused) = Error::refused_by_system(error) {
        return refused;
    }
    if let Some(reason) = limiter.refused_by_system() {
        return Error::Host(
            format!(
                "the system gives this process no more memory or addresses for a guest ({reason}); hint: fewer exchanges at once \
                 (`Limits.concurrency`), or a larger limit of this process (`ulimit -v`)"
            )
            .into(),
        );
    }
    let trap = Arc::new(Trap::read(error, stdio.last_words(), has_offsets));
    limiter.explain(error, &trap).unwrap_or(Error::Trap(trap))
}
