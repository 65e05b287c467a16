//! Timers of guests whose time is virtual.

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::Host as _;
use wasmtime_wasi::p2::{DynPollable, subscribe};

use crate::guest::interfaces::interface;
use crate::guest::store::StoreState;
use crate::simulation::environment::Timer;

/// Replaces the timers of `wasi:clocks/monotonic-clock`, for guests whose world is staged.
pub(crate) fn stage_timers(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clocks = interface(linker, "wasi:clocks/monotonic-clock")?;
    clocks.func_wrap("subscribe-instant", |mut store: StoreContextMut<'_, StoreState>, (when,): (u64,)| {
        let host = store.data_mut();
        Ok((match host.staged().map(|stage| stage.timer_at(when)) {
            Some(timer) => pushed(host, timer)?,
            None => host.clocks().subscribe_instant(when)?,
        },))
    })?;
    clocks.func_wrap("subscribe-duration", |mut store: StoreContextMut<'_, StoreState>, (duration,): (u64,)| {
        let host = store.data_mut();
        Ok((match host.staged().map(|stage| stage.timer_at(stage.clock().now().saturating_add(duration))) {
            Some(timer) => pushed(host, timer)?,
            None => host.clocks().subscribe_duration(duration)?,
        },))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

fn pushed(host: &mut StoreState, timer: Timer) -> wasmtime::Result<Resource<DynPollable>> {
    let timer = host.table().push(timer)?;
    subscribe(host.table(), timer)
}
