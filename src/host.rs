//! The state of one store: what the guest was granted, and what it may use up.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::http::types::ErrorCode as P2ErrorCode;
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::code::ErrorCode;
use crate::error::{Error, chain};
use crate::outgoing::Hooks;
use crate::stdio::{GuestStream, Stdio, Stream};

/// What a guest may see: nothing unless it is listed here.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    pub env: Vec<(String, String)>,
    pub args: Vec<String>,
    pub dirs: Vec<DirGrant>,
}

/// A directory of the host's that the guest sees as `guest`.
#[derive(Clone, Debug)]
pub struct DirGrant {
    pub guest: String,
    pub host: PathBuf,
    pub write: bool,
}

/// What a guest may use up. `None` lifts a limit.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes, all linear memories of an instance together.
    pub memory: Option<u64>,
    /// From the guest's first instruction to the end of the exchange.
    pub timeout: Option<Duration>,
    /// Exchanges of one app at once.
    pub concurrency: Option<usize>,
}

/// `T` of the guest's `Store<T>`.
pub struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Hooks,
    pub(crate) memory: MemoryMeter,
}

impl Host {
    pub(crate) fn new(
        grants: &Grants,
        limits: &Limits,
        stdio: &Arc<Stdio>,
        peak: Arc<AtomicU64>,
        hooks: Hooks,
    ) -> Result<Self, Error> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(GuestStream { stdio: stdio.clone(), stream: Stream::Stdout })
            .stderr(GuestStream { stdio: stdio.clone(), stream: Stream::Stderr })
            .allow_tcp(false)
            .allow_udp(false);
        if !grants.env.is_empty() {
            wasi.envs(&grants.env);
        }
        if !grants.args.is_empty() {
            wasi.args(&grants.args);
        }
        for dir in &grants.dirs {
            let perms = if dir.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            wasi.preopened_dir(&dir.host, &dir.guest, perms).map_err(|error| {
                Error::Host(format!("cannot open the granted directory `{}`: {}", dir.host.display(), chain(&error)))
            })?;
        }
        Ok(Self {
            table: ResourceTable::new(),
            wasi: wasi.build(),
            http: WasiHttpCtx::new(),
            hooks,
            memory: MemoryMeter { limit: limits.memory, total: 0, peak, refused: false },
        })
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.hooks }
    }
}

/// Replaces `wasi:http/types.http-error-code`: the one of wasmtime-wasi-http 48 looks for an error of the guest's bindings,
/// but a body that breaks off puts one of the host's there, so that a guest was never told why.
pub(crate) fn mend_http_error_code(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    linker.instance("wasi:http/types@0.2.12")?.func_wrap(
        "http-error-code",
        |mut store: StoreContextMut<'_, Host>, (error,): (Resource<wasmtime::Error>,)| {
            let error = store.data_mut().table().get(&error)?;
            let code = match error.downcast_ref::<P2ErrorCode>() {
                Some(code) => Some(code.clone()),
                None => error
                    .downcast_ref::<wasmtime_wasi_http::Error>()
                    .and_then(ErrorCode::from_host)
                    .map(ErrorCode::into_p2),
            };
            Ok((code,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Counts the linear memory of an instance, and refuses to let it grow past the limit.
pub(crate) struct MemoryMeter {
    limit: Option<u64>,
    total: u64,
    peak: Arc<AtomicU64>,
    /// Whether a growth was refused: a trap that follows is the guest's way to say so.
    pub refused: bool,
}

impl wasmtime::ResourceLimiter for MemoryMeter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.total.saturating_sub(current as u64).saturating_add(desired as u64);
        if self.limit.is_some_and(|limit| total > limit) {
            self.refused = true;
            return Ok(false);
        }
        self.total = total;
        self.peak.fetch_max(total, Ordering::Relaxed);
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, _: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(true)
    }
}
