//! What the host provides to components: linked once for each engine.

use std::sync::{Arc, Mutex};

use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::engine::config::Features;
use crate::error::reason::Reason;
use crate::error::{Error, chain};
use crate::guest::store::StoreState;
use crate::process::fork::PerFork;
use crate::sync::lock;

/// One for each engine of the process, of which there are twelve at the most.
static LINKERS: PerFork<Mutex<Vec<Arc<Linker<StoreState>>>>> = PerFork::new();

/// The linker for components of this engine.
pub(crate) fn linker_for(engine: &Engine, features: Features) -> Result<Arc<Linker<StoreState>>, Error> {
    let linkers = LINKERS.get(Mutex::default);
    let mut linkers = lock(&linkers);
    if let Some(made) = linkers.iter().find(|linker| Engine::same(linker.engine(), engine)) {
        return Ok(made.clone());
    }
    let made = link(engine, features).map_err(|error| {
        let text = format!("cannot link what wasgi provides to components: {}", chain(&error));
        Error::Host(Reason::new(text, error))
    })?;
    let made = Arc::new(made);
    linkers.push(made.clone());
    Ok(made)
}

fn link(engine: &Engine, features: Features) -> wasmtime::Result<Linker<StoreState>> {
    let mut linker = Linker::new(engine);
    // what guests of WASI 0.3 are built with imports 0.2, too
    crate::guest::p2::link(&mut linker)?;
    if features.concurrency {
        crate::guest::p3::link(&mut linker)?;
    }
    Ok(linker)
}
