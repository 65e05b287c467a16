//! Where a guest's turn ends besides the epoch, and whose a call of the host is where several exchanges share a store.

use std::pin::Pin;
use std::task::{Context, Poll};

use wasmtime::{CallHook, CallHookHandler, StoreContextMut};

use crate::guest::store::StoreState;

/// Ends a guest's turn after a host call, or an instruction that the host carries out (`memory.fill`), if it is over by then: code
/// without loops and calls of its own never looks at the epoch.
pub(super) struct Turns;

impl CallHookHandler<StoreState> for Turns {
    fn handle_call_event<'life0, 'life1, 'async_trait>(
        &'life0 self,
        mut store: StoreContextMut<'life1, StoreState>,
        event: CallHook,
    ) -> Pin<Box<dyn Future<Output = wasmtime::Result<()>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        if store.data().is_shared()
            && let Err(error) = attribute(&mut store, event)
        {
            return Box::pin(std::future::ready(Err(error)));
        }
        let host = store.data_mut();
        let is_guests = !host.is_restored;
        match event {
            CallHook::CallingHost if is_guests => host.limiter.calls_host(),
            CallHook::ReturningFromHost if is_guests => host.look_at_kept_handles(),
            _ => {}
        }
        let ends = matches!(event, CallHook::ReturningFromHost) && is_guests;
        if ends && crate::scheduler::is_turn_over() {
            store.data().turn.interrupt();
            Box::pin(Yield::default())
        } else {
            Box::pin(GoOn) // of no size: nothing is allocated
        }
    }
}

/// A guest of a store that several exchanges share calls the host, or goes on: it does so in its own exchange.
fn attribute(store: &mut StoreContextMut<'_, StoreState>, event: CallHook) -> wasmtime::Result<()> {
    let task = match event {
        CallHook::ReturningFromWasm => None,
        CallHook::CallingWasm | CallHook::CallingHost | CallHook::ReturningFromHost => store.async_call_stack()?.last(),
    };
    let is_metered = store.data().fuel().is_some();
    let before = if is_metered { store.data().seat().cloned() } else { None };
    if !store.data_mut().lead(task) || !is_metered {
        return Ok(());
    }
    if let Some(before) = before {
        before.set_fuel_left(store.get_fuel()?);
    }
    if let Some(seat) = store.data().seat() {
        let fuel = seat.fuel_left();
        store.set_fuel(fuel)?;
    }
    Ok(())
}

struct GoOn;

impl Future for GoOn {
    type Output = wasmtime::Result<()>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(()))
    }
}

/// Ends the turn.
#[derive(Default)]
pub(super) struct Yield {
    has_yielded: bool,
}

impl Future for Yield {
    type Output = wasmtime::Result<()>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.has_yielded {
            return Poll::Ready(Ok(()));
        }
        self.has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
