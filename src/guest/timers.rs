//! Timers of guests whose time is virtual.

use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::clocks::WasiClocksView;
use wasmtime_wasi::p2::bindings::clocks::monotonic_clock::{self, Host as _};
use wasmtime_wasi::p2::{DynPollable, subscribe};

use crate::guest::interfaces::{interface, interface_p3};
use crate::guest::seat::Seat;
use crate::guest::store::StoreState;
use crate::simulation::environment::{Scene, Timer};

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
        Ok((match host.staged().map(|stage| stage.timer_at(stage.scene().clock().now().saturating_add(duration))) {
            Some(timer) => pushed(host, timer)?,
            None => host.clocks().subscribe_duration(duration)?,
        },))
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// The same for guests of WASI 0.3.
pub(crate) fn stage_timers_p3(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut clocks = interface_p3(linker, "wasi:clocks/monotonic-clock")?;
    clocks.func_wrap_concurrent("wait-until", |accessor: &Accessor<StoreState>, (when,): (u64,)| {
        Box::pin(async move { wait(accessor, |_| when).await })
    })?;
    clocks.func_wrap_concurrent("wait-for", |accessor: &Accessor<StoreState>, (duration,): (u64,)| {
        Box::pin(async move { wait(accessor, |now| now.saturating_add(duration)).await })
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Until a time of the guest's own, which `when` makes of the present one.
async fn wait(accessor: &Accessor<StoreState>, when: impl FnOnce(u64) -> u64) -> wasmtime::Result<()> {
    let (left, timer, _waits) = accessor.with(|mut access| -> wasmtime::Result<_> {
        let host = access.data_mut();
        let waits = host.seat().map(Seat::waits);
        let (left, timer) = match host.scene().map(Scene::clock) {
            Some(clock) => {
                let end = when(clock.now());
                (0, Some(clock.until(end, clock.due(end))))
            }
            None => {
                let now = monotonic_clock::Host::now(&mut host.clocks())?;
                (when(now).saturating_sub(now), None)
            }
        };
        Ok((left, timer, waits))
    })?;
    match timer {
        Some(timer) => timer.await,
        None if left > 0 => tokio::time::sleep(Duration::from_nanos(left)).await,
        None => {}
    }
    Ok(())
}

fn pushed(host: &mut StoreState, timer: Timer) -> wasmtime::Result<Resource<DynPollable>> {
    let timer = host.table().push(timer)?;
    subscribe(host.table(), timer)
}
