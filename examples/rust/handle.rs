//! The core from Rust, without Python: loads a component, has it handle one request, and prints the response.
//!
//! `cargo run --no-default-features --example handle [COMPONENT]`

use std::error::Error;
use std::future::poll_fn;

use _wasgi::app::App;
use _wasgi::app::admission::Admission;
use _wasgi::component::Component;
use _wasgi::component::limits::ComponentLimits;
use _wasgi::component::loading::Order;
use _wasgi::component::variant::Variant;
use _wasgi::engine::process_state;
use _wasgi::exchange::guest_body::Next;
use _wasgi::guest::grants::Grants;
use _wasgi::limits::Limits;
use _wasgi::outgoing::upstream::Upstreams;
use http_body_util::{BodyExt, Empty};

const HELLO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guests/components/hello.wasm");

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let source = std::fs::read(std::env::args().nth(1).as_deref().unwrap_or(HELLO))?;
    // a component of a stranger's is loaded under limits, and its guests run under some
    let component = Component::new(&source, &Order::new(Variant::PLAIN, ComponentLimits::NONE, None))?;
    let app = App::new(component, Grants::default(), Limits::NONE, None);
    let permit = match app.admit(process_state()?)? {
        Admission::Permit(permit) => permit,
        // `Limits.concurrency` exchanges are under way
        Admission::Queued(mut queued) => poll_fn(|cx| queued.poll(cx)).await?,
    };
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    // without an `Upstream`, each outgoing request of the guest's is denied
    let mut exchange =
        app.start(permit, http::Request::get("http://example.com/").body(body)?, Upstreams::default())?;
    // a guest that waits for nothing is done on this thread; any other goes on on those of the scheduler
    if !exchange.run_here()? {
        exchange.hand_over()?;
    }
    let (head, mut body) = poll_fn(|cx| exchange.poll_head(cx)).await?.into_parts();
    println!("{} {:?}", head.status, head.headers);
    // the end is clean only if the guest has said so: a trap, or a limit, is an error here
    while let Next::Chunk(chunk) = poll_fn(|cx| body.poll_next(cx)).await? {
        print!("{}", String::from_utf8_lossy(&chunk));
    }
    println!();
    Ok(())
}
