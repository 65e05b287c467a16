//! Commands: guests that export `wasi:cli/run`, and run once.

use std::future::poll_fn;
use std::pin::pin;

use wasmtime::Store;
use wasmtime::component::{Accessor, Instance, InstancePre};
use wasmtime_wasi::{p2, p3};

use crate::engine::config::Features;
use crate::guest::panics::UntilItPanics;
use crate::guest::store::StoreState;

/// Where its export is, by its generation of WASI.
pub(crate) enum CommandIndices {
    P2(p2::bindings::CommandIndices),
    P3(p3::bindings::CommandIndices),
}

/// A command that is there.
pub(crate) enum Command {
    P2(p2::bindings::Command),
    P3(p3::bindings::Command),
}

impl CommandIndices {
    pub(crate) fn new(pre: &InstancePre<StoreState>, features: Features) -> wasmtime::Result<Self> {
        match features.concurrency {
            true => p3::bindings::CommandIndices::new(pre).map(Self::P3),
            false => p2::bindings::CommandIndices::new(pre).map(Self::P2),
        }
    }

    pub(crate) fn load(&self, store: &mut Store<StoreState>, instance: &Instance) -> wasmtime::Result<Command> {
        match self {
            Self::P2(indices) => indices.load(store, instance).map(Command::P2),
            Self::P3(indices) => indices.load(store, instance).map(Command::P3),
        }
    }
}

impl Command {
    /// Has it run. Returns whether it says that it has done what it should.
    pub(crate) async fn run(&self, store: &mut Store<StoreState>) -> wasmtime::Result<bool> {
        let done = match self {
            Self::P2(command) => command.wasi_cli_run().call_run(store).await?,
            Self::P3(command) => {
                let turn = store.data().turn.clone();
                let work = async |accessor: &Accessor<StoreState>| {
                    turn.inside(pin!(async {
                        let done = command.wasi_cli_run().call_run(accessor).await?;
                        // it may work on after its result: what it has begun to print, say
                        poll_fn(|cx| accessor.poll_no_interesting_tasks(cx)).await;
                        wasmtime::error::Ok(done)
                    }))
                    .await
                };
                UntilItPanics::new(async { turn.around(pin!(store.run_concurrent(work))).await }).await??
            }
        };
        Ok(done.is_ok())
    }
}
