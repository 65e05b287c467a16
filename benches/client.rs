//! A plain loop of hyper-util's client: what a request to a server on loopback costs without a guest and without a policy.
//!
//! Run by `benches/network.py`. Prints the µs of one request for each line that it reads, so that its rounds alternate
//! with the others'.

use std::io::BufRead;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let url: http::Uri = std::env::args().nth(1).ok_or("usage: client URL REQUESTS")?.parse()?;
    let requests: u32 = std::env::args().nth(2).and_then(|n| n.parse().ok()).unwrap_or(1000);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    for line in std::io::stdin().lock().lines() {
        line?;
        let (client, url) = (client.clone(), url.clone());
        let asking = async move {
            let begun = Instant::now();
            for _ in 0..requests {
                let response = client.get(url.clone()).await?;
                response.into_body().collect().await?;
            }
            Ok::<_, Failure>(begun.elapsed())
        };
        let taken = runtime.block_on(runtime.spawn(asking))??;
        println!("{:.3}", taken.as_secs_f64() * 1e6 / f64::from(requests));
    }
    Ok(())
}
