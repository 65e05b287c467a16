//! The floor: a hello request in plain Rust on wasmtime-wasi-http, with wasgi's engine settings and nothing else.
//!
//! On a fresh instance for each request, or (WASI 0.3) on instances that have 128 requests each, 16 at once, as
//! `wasmtime serve` has them. Each request is made, handled, and its response's body read.
//!
//! What it does not do: it has one thread, no timer, no ticker of epochs and no call hook, so no guest is interrupted or ended;
//! it bounds linear memory and tables, but neither handles, fields, bodies nor fuel; nobody owns a request, waits for it
//! elsewhere or hears how it ended; what guests print is dropped, what they ask for is denied; and it trusts the guest
//! to end its bodies.
//!
//! Run by `benches/hello.py`, which prints it beside `app.handle` and `await app.handle_async`. Prints the µs of one
//! request for each line that it reads, so that its rounds alternate with the others'.

use std::io::BufRead;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt, Empty};
use wasmtime::component::{Accessor, Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store, StoreLimits,
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::{Service, ServicePre};
use wasmtime_wasi_http::{RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView};

struct Host {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Denied,
    limits: StoreLimits,
}

/// Of one instance: all that it has, and those that it has at once.
const REQUESTS: u32 = 128;
const AT_ONCE: usize = 16;

const HELLO: usize = "Hello, World!".len();

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
    let host = Host {
        table: ResourceTable::new(),
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        hooks: Denied,
        limits: StoreLimits::default(),
    };
    let mut store = Store::new(engine, host);
    store.limiter(|host| &mut host.limits);
    store.set_epoch_deadline(1);
    store.epoch_deadline_async_yield_and_update(1);
    store
}

async fn fresh(pre: &Pre) -> Result<()> {
    let length = match pre {
        Pre::P2(pre) => hello_p2(pre).await?,
        Pre::P3(pre) => {
            let mut store = store_of(pre.engine());
            let service = pre.instantiate_async(&mut store).await?;
            store.run_concurrent(async |accessor| hello_p3(accessor, &service).await).await??
        }
    };
    assert_eq!(length, HELLO);
    Ok(())
}

/// So many requests in one instance.
async fn reused(pre: &Pre, requests: u32) -> Result<()> {
    let Pre::P3(pre) = pre else { return Err(wasmtime::format_err!("guests of WASI 0.2 have one request at a time")) };
    let mut store = store_of(pre.engine());
    let service = pre.instantiate_async(&mut store).await?;
    let all = async |accessor: &Accessor<Host>| {
        let mut coming = (0..requests).map(|_| hello_p3(accessor, &service));
        let mut under_way: FuturesUnordered<_> = coming.by_ref().take(AT_ONCE).collect();
        while let Some(length) = under_way.next().await {
            assert_eq!(length?, HELLO);
            under_way.extend(coming.next());
        }
        Ok(())
    };
    store.run_concurrent(all).await?
}

async fn hello_p3(accessor: &Accessor<Host>, service: &Service) -> Result<usize> {
    let body = Empty::new().map_err(|never| -> wasmtime_wasi_http::Error { match never {} });
    let request = http::Request::get("http://example.com/hello?x=1").body(body)?;
    let request =
        accessor.with(|mut store| wasmtime_wasi_http::p3::Request::from_http(store.data_mut().http().hooks, request).0);
    let response = service.handle(accessor, request).await??;
    let response = accessor.with(|store| response.into_http(store, async { Ok(()) }))?;
    let body = response.into_body().collect().await.map_err(|error| wasmtime::format_err!("{error}"))?;
    Ok(body.to_bytes().len())
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

/// Has a guest do what it does without waiting for anything.
fn run(work: impl Future<Output = Result<()>>) -> Result<()> {
    let mut work = pin!(work);
    // guests of 0.3 are polled again for what their own tasks have woken
    for _ in 0..10_000 {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
    Err(wasmtime::format_err!("a guest that waits for nothing had to wait"))
}

fn main() -> Result<()> {
    let usage = || wasmtime::format_err!("usage: floor COMPONENT REQUESTS 0.2|0.3 fresh|reused");
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [path, requests, generation, instances] = given.as_slice() else { return Err(usage()) };
    let requests: u32 = requests.parse()?;
    let pre = prepare(path, generation == "0.3")?;
    for line in std::io::stdin().lock().lines() {
        line?;
        let begun = Instant::now();
        match instances.as_str() {
            "fresh" => (0..requests).try_for_each(|_| run(fresh(&pre)))?,
            "reused" => {
                let all = (0..requests).step_by(REQUESTS as usize);
                all.map(|had| REQUESTS.min(requests - had)).try_for_each(|next| run(reused(&pre, next)))?;
            }
            _ => return Err(usage()),
        }
        println!("{:.3}", begun.elapsed().as_secs_f64() * 1e6 / f64::from(requests));
    }
    Ok(())
}
