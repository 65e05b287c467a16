//! The floor: a hello request in plain Rust on wasmtime-wasi-http, with wasgi's engine settings and nothing else.
//!
//! Run by `benches/hello.py`, which prints it beside `app.handle` and `await app.handle_async`. Prints the µs of one
//! request for each line that it reads, so that its rounds alternate with the others'.

use std::io::BufRead;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use http_body_util::{BodyExt, Empty};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Denied,
}

struct Denied;

type Sent = Result<
    (http::Response<WasiBody>, Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>),
    wasmtime_wasi_http::Error,
>;

impl WasiHttpHooks for Denied {
    fn send_request(
        &mut self,
        _: http::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), wasmtime_wasi_http::Error>> + Send>,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        Box::new(async { Err(wasmtime_wasi_http::Error::HttpRequestDenied) })
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

/// A component of either generation of WASI.
enum Pre {
    P2(ProxyPre<Host>),
    P3(ServicePre<Host>),
}

fn prepare(path: &str, is_p3: bool) -> Result<Pre> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_stacks(if is_p3 { 8192 } else { 1024 })
        .total_memories(1024)
        .total_component_instances(1024)
        .total_core_instances(8192)
        .total_tables(4096)
        .max_tables_per_module(8)
        .table_elements(100_000)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(64 << 10)
        .async_stack_keep_resident(64 << 10)
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .concurrency_support(is_p3)
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    let engine = Engine::new(&config)?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    if is_p3 {
        wasmtime_wasi::p3::add_to_linker(&mut linker)?;
        wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    }
    let component = Component::from_file(&engine, path)?;
    let pre = linker.instantiate_pre(&component)?;
    Ok(if is_p3 { Pre::P3(ServicePre::new(pre)?) } else { Pre::P2(ProxyPre::new(pre)?) })
}

fn store_of(engine: &Engine) -> Store<Host> {
    let host =
        Host { table: ResourceTable::new(), wasi: WasiCtx::builder().build(), http: WasiHttpCtx::new(), hooks: Denied };
    let mut store = Store::new(engine, host);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

async fn hello(pre: &Pre) -> Result<usize> {
    match pre {
        Pre::P2(pre) => hello_p2(pre).await,
        Pre::P3(pre) => hello_p3(pre).await,
    }
}

async fn hello_p3(pre: &ServicePre<Host>) -> Result<usize> {
    let body = Empty::new().map_err(|never| -> wasmtime_wasi_http::Error { match never {} });
    let request = http::Request::get("http://example.com/hello?x=1").body(body)?;
    let mut store = store_of(pre.engine());
    let service = pre.instantiate_async(&mut store).await?;
    let (request, _) = wasmtime_wasi_http::p3::Request::from_http(store.data_mut().http().hooks, request);
    store
        .run_concurrent(async |accessor| {
            let response = service.handle(accessor, request).await??;
            let response = accessor.with(|store| response.into_http(store, async { Ok(()) }))?;
            let body = response.into_body().collect().await.map_err(|error| wasmtime::format_err!("{error}"))?;
            Ok(body.to_bytes().len())
        })
        .await?
}

async fn hello_p2(pre: &ProxyPre<Host>) -> Result<usize> {
    let request = http::Request::get("http://example.com/hello?x=1").body(Empty::new())?;
    let mut store = store_of(pre.engine());
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let request = store.data_mut().http().new_incoming_request(Scheme::Http, request)?;
    let out = store.data_mut().http().new_response_outparam(sender)?;
    let proxy = pre.instantiate_async(&mut store).await?;
    proxy.wasi_http_incoming_handler().call_handle(&mut store, request, out).await?;
    drop(store);
    let response = receiver.await??;
    let body = response.into_body().collect().await.map_err(|error| wasmtime::format_err!("{error}"))?;
    Ok(body.to_bytes().len())
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1).ok_or_else(|| wasmtime::format_err!("usage: floor COMPONENT REQUESTS [0.3]"))?;
    let requests: u32 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let pre = prepare(&path, std::env::args().nth(3).is_some_and(|generation| generation == "0.3"))?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let begun = Instant::now();
        for _ in 0..requests {
            let mut hello = pin!(hello(&pre));
            // one of 0.3 is polled again for what its own tasks have woken
            let done = (0..9).find_map(|_| match hello.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(length) => Some(length),
                Poll::Pending => None,
            });
            let length = done.ok_or_else(|| wasmtime::format_err!("a guest that waits for nothing had to wait"))?;
            assert_eq!(length?, "Hello, World!".len());
        }
        println!("{:.3}", begun.elapsed().as_secs_f64() * 1e6 / f64::from(requests));
    }
    Ok(())
}
