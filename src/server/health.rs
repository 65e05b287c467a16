//! Whether the server lives and is ready, for whoever balances load: answered on a listener of its own, on the thread that accepts, which
//! no guest holds up.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet, yield_now};
use tokio::time::{sleep, timeout};

use crate::server::accept::watched;
use crate::server::bind::Listener;
use crate::server::connection::Socket;
use crate::server::progress::Stage;
use crate::server::shared::Common;
use crate::sync::lock;

/// How long a client may take to ask.
const WITHIN: Duration = Duration::from_secs(5);

/// How many are answered at once. One more takes the place of whoever has asked nothing for longest.
const AT_ONCE: usize = 64;

/// A descriptor that is kept for the moment in which the system has none left.
struct Spare {
    nothing: OwnedFd,
    kept: Option<OwnedFd>,
}

impl Spare {
    fn new() -> std::io::Result<Self> {
        let nothing = OwnedFd::from(std::fs::File::open("/dev/null")?);
        let kept = Some(nothing.try_clone()?);
        Ok(Self { nothing, kept })
    }

    /// Whether there was one, which whoever asks next can have.
    fn give(&mut self) -> bool {
        self.kept.take().is_some()
    }

    /// Takes back what was given: in one step, so that nobody else gets the descriptor.
    fn take(&mut self, mut given: OwnedFd) {
        if rustix::io::dup2(&self.nothing, &mut given).is_ok() {
            let _ = rustix::io::fcntl_setfd(&given, rustix::io::FdFlags::CLOEXEC);
            self.kept = Some(given);
        }
    }

    fn is_missing(&self) -> bool {
        self.kept.is_none()
    }

    /// Another one, if there is one.
    fn look(&mut self) {
        if self.kept.is_none() {
            self.kept = self.nothing.try_clone().ok();
        }
    }
}

/// Answers `/live` and `/ready` until the server has ended.
pub(super) async fn serve(listener: Listener, common: Arc<Common>, places: Arc<Semaphore>) {
    let (Ok(socket), Ok(mut spare)) = (watched(listener), Spare::new()) else { return };
    let mut asked = Asked::default();
    loop {
        asked.make_room().await;
        let accepted = match socket.get_ref().accept() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                tokio::select! {
                    ready = socket.readable() => match ready {
                        Ok(mut ready) => ready.clear_ready(),
                        Err(_) => return,
                    },
                    Some(_) = asked.tasks.join_next() => {}
                }
                continue;
            }
            Err(_) if spare.give() => socket.get_ref().accept(),
            other => other,
        };
        let Ok(accepted) = accepted else {
            spare.look();
            sleep(Duration::from_millis(20)).await;
            continue;
        };
        let answer = answers(&common, &places);
        let Ok(accepted) = accepted.register() else { continue };
        if spare.is_missing() {
            if let Ok(given) = answered_here(accepted, answer).await {
                spare.take(given);
            }
            continue;
        }
        asked.spawn(async move { drop(answered_here(accepted, answer).await) });
    }
}

/// Clients that are answered, in the order in which they came.
#[derive(Default)]
struct Asked {
    tasks: JoinSet<()>,
    order: VecDeque<AbortHandle>,
}

impl Asked {
    fn spawn(&mut self, answering: impl Future<Output = ()> + Send + 'static) {
        self.order.push_back(self.tasks.spawn(answering));
    }

    fn forget_answered(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        self.order.retain(|client| !client.is_finished());
    }

    /// Has room for one more: clients that connect and are silent keep nobody from asking.
    async fn make_room(&mut self) {
        self.forget_answered();
        if self.tasks.len() < AT_ONCE {
            return;
        }
        // whoever has asked by now gets an answer
        yield_now().await;
        self.forget_answered();
        while self.tasks.len() >= AT_ONCE {
            let Some(oldest) = self.order.pop_front() else { return };
            oldest.abort();
            self.tasks.join_next().await;
        }
    }
}

/// Why it is not ready, if it is not.
fn answers(common: &Common, places: &Semaphore) -> Option<&'static str> {
    if common.progress.has_reached(Stage::Drains) {
        return Some("draining");
    }
    if common.is_crowded.load(Ordering::Relaxed) {
        return Some("busy: no file descriptors are left");
    }
    if places.available_permits() == 0 {
        return Some("busy: as many connections as there may be");
    }
    let routes = lock(&common.routes).clone();
    if routes.apps().any(|app| app.app().is_closed()) {
        return Some("an app is closed");
    }
    let is_full = routes.apps().any(|app| {
        let app = app.app();
        app.limits.concurrency.is_some_and(|most| app.exchanges() as u64 >= most as u64)
    });
    is_full.then_some("busy: as many exchanges as there may be")
}

/// Answers, and gives the descriptor back.
async fn answered_here(socket: Socket, unready: Option<&'static str>) -> std::io::Result<OwnedFd> {
    match socket {
        Socket::Tcp(mut stream) => {
            reply(&mut stream, unready).await;
            stream.into_std().map(OwnedFd::from)
        }
        Socket::Unix(mut stream) => {
            reply(&mut stream, unready).await;
            stream.into_std().map(OwnedFd::from)
        }
    }
}

async fn reply(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin, unready: Option<&'static str>) {
    let answered = async {
        let mut read = Vec::with_capacity(1024);
        while !read.windows(4).any(|end| end == b"\r\n\r\n") && read.len() < 8 << 10 {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                break;
            }
        }
        let mut parts = read.split(|byte| *byte == b' ');
        let is_head = parts.next() == Some(b"HEAD");
        let path = parts.next().unwrap_or_default();
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        let (status, text) = match (path, unready) {
            (b"/live" | b"/livez" | b"/healthz" | b"/health", _) => ("200 OK", "alive"),
            (b"/ready" | b"/readyz", None) => ("200 OK", "ready"),
            (b"/ready" | b"/readyz", Some(why)) => ("503 Service Unavailable", why),
            _ => ("404 Not Found", "ask for /live or /ready"),
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            text.len() + 1
        );
        if !is_head {
            answer.push_str(text);
            answer.push('\n');
        }
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    };
    let _ = timeout(WITHIN, answered).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_was_answered_is_forgotten() {
        let mut asked = Asked::default();
        for _ in 0..10 * AT_ONCE {
            asked.make_room().await;
            asked.spawn(async {});
            yield_now().await;
        }
        assert!(asked.order.len() <= 2, "{}", asked.order.len());
    }

    #[tokio::test]
    async fn the_oldest_goes_for_one_more() {
        let mut asked = Asked::default();
        for _ in 0..2 * AT_ONCE {
            asked.make_room().await;
            asked.spawn(std::future::pending());
        }
        assert_eq!((asked.tasks.len(), asked.order.len()), (AT_ONCE, AT_ONCE));
    }
}
