//! A hello request by the core, from Rust and without Python: as `benches/floor.rs` has it, with all that wasgi does for one.
//!
//! Run by `benches/hello.py`. Prints the µs of one request for each line that it reads, so that its rounds alternate with the others'.

use std::error::Error;
use std::future::poll_fn;
use std::io::BufRead;
use std::time::{Duration, Instant};

use _wasgi::app::App;
use _wasgi::app::admission::Admission;
use _wasgi::component::Component;
use _wasgi::component::limits::ComponentLimits;
use _wasgi::component::loading::Order;
use _wasgi::component::variant::Variant;
use _wasgi::engine::process_state;
use _wasgi::exchange::guest_body::Next;
use _wasgi::guest::grants::Grants;
use _wasgi::guest::instance::Reuse;
use _wasgi::limits::Limits;
use _wasgi::outgoing::upstream::Upstreams;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http_body_util::{BodyExt, Empty};

type Failure = Box<dyn Error>;

/// As the floor has it.
const REQUESTS: u64 = 128;
const AT_ONCE: usize = 16;

const HELLO: &[u8] = b"Hello, World!";

/// One that nothing is left of when it has been read.
async fn hello(app: &App) -> Result<(), Failure> {
    let permit = match app.admit(process_state()?)? {
        Admission::Permit(permit) => permit,
        Admission::Queued(mut queued) => poll_fn(|cx| queued.poll(cx)).await?,
    };
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::get("http://example.com/hello?x=1").body(body)?;
    let mut exchange = app.start(permit, request, Upstreams::default())?;
    if !exchange.run_here()? {
        exchange.hand_over()?;
    }
    let (_, mut body) = poll_fn(|cx| exchange.poll_head(cx)).await?.into_parts();
    let mut read = Vec::new();
    while let Next::Chunk(chunk) = poll_fn(|cx| body.poll_next(cx)).await? {
        read.extend_from_slice(&chunk);
    }
    assert_eq!(read, HELLO);
    Ok(())
}

async fn at_once(app: &App, requests: usize) -> Result<(), Failure> {
    let mut coming = (0..requests).map(|_| hello(app));
    let mut under_way: FuturesUnordered<_> = coming.by_ref().take(AT_ONCE).collect();
    while let Some(done) = under_way.next().await {
        done?;
        under_way.extend(coming.next());
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let [path, requests, _, instances] = given.as_slice() else {
        return Err("usage: core COMPONENT REQUESTS 0.2|0.3 fresh|reused".into());
    };
    let requests: usize = requests.parse()?;
    let is_reused = instances == "reused";
    let idle = Some(Duration::from_secs(60));
    let reuse = Reuse { requests: Some(REQUESTS), concurrent: AT_ONCE, idle, isolated: false, ready: 0 };
    let component = Component::new(&std::fs::read(path)?, &Order::new(Variant::PLAIN, ComponentLimits::NONE, None))?;
    let app = App::new(component, Grants::default(), Limits::NONE, is_reused.then_some(reuse));
    for line in std::io::stdin().lock().lines() {
        line?;
        let begun = Instant::now();
        match is_reused {
            true => at_once(&app, requests).await?,
            false => {
                for _ in 0..requests {
                    hello(&app).await?;
                }
            }
        }
        println!("{:.3}", begun.elapsed().as_secs_f64() * 1e6 / requests as f64);
    }
    Ok(())
}
