//! A guest as Spin's SDK has people write them, for WASI 0.3: it greets, echoes, asks an upstream, sleeps and panics.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::channel::oneshot;
use futures::{SinkExt as _, StreamExt as _};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use spin_sdk::http::body::{IncomingBodyExt as _, stream};
use spin_sdk::http::{BoxBody, FullBody, Request, Response, StatusCode, box_body, get, post};
use spin_sdk::http_service;
use spin_sdk::wasip3::http::types::ErrorCode;

type Answer = http::Response<BoxBody>;

/// Those who wait for another request.
static WAITING: Mutex<Vec<oneshot::Sender<String>>> = Mutex::new(Vec::new());

#[http_service]
async fn handle(request: Request) -> anyhow::Result<Answer> {
    let query = request.uri().query().unwrap_or("").to_owned();
    let arg = |name: &str| {
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map_or("", |(_, value)| value)
    };
    Ok(match request.uri().path() {
        "/hello" => text("Hello, World, from Spin's SDK"),
        "/print" => {
            println!("{}", arg("line"));
            text("printed")
        }
        "/echo" => Answer::new(box_body(request.into_body())),
        "/upper" => {
            let upper = request.into_body().stream().map(|chunk| Ok::<_, ErrorCode>(Frame::data(chunk?.to_ascii_uppercase().into())));
            Answer::new(box_body(StreamBody::new(upper)))
        }
        "/fetch" => text(said(get(arg("url")).await).await),
        "/post" => text(said(post(arg("url"), vec![b'x'; arg("bytes").parse()?]).await).await),
        "/sleep" => {
            spin_sdk::time::sleep(Duration::from_millis(arg("ms").parse()?)).await;
            text("slept")
        }
        // for another request, which comes with /wake
        "/wait" => {
            let (sender, receiver) = oneshot::channel();
            WAITING.lock().unwrap().push(sender);
            text(receiver.await?)
        }
        "/wake" => {
            let sender = WAITING.lock().unwrap().pop();
            let _ = sender.map(|sender| sender.send(arg("with").to_owned()));
            text("woken")
        }
        "/fail" => anyhow::bail!("on purpose"),
        "/raise" => panic!("on purpose"),
        "/raise-midway" => {
            let (mut sender, body) = stream::<&'static str>();
            spin_sdk::wasip3::spawn(async move {
                let _ = sender.send("some of it").await;
                spin_sdk::time::sleep(Duration::from_millis(1)).await;
                panic!("midway");
            });
            Answer::new(box_body(body))
        }
        _ => http::Response::builder().status(StatusCode::NOT_FOUND).body(box_body(FullBody::new(Bytes::from("no such route"))))?,
    })
}

fn text(content: impl Into<Bytes>) -> Answer {
    Answer::new(box_body(FullBody::new(content.into())))
}

async fn said(answer: Result<Response, ErrorCode>) -> String {
    match answer {
        Ok(response) => {
            let status = response.status().as_u16();
            match response.into_body().collect().await {
                Ok(content) => format!("{status} {}", String::from_utf8_lossy(&content.to_bytes())),
                Err(code) => format!("broken: {code:?}"),
            }
        }
        Err(code) => format!("error: {code:?}"),
    }
}
