//! The threads that serve connections: each with a runtime of its own, so that a request that no guest has to wait for stays on one
//! thread from its first byte to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Builder;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::error::Error;
use crate::error::reason::Reason;
use crate::process::fork::{can_start_thread, no_thread};
use crate::server::accept::{Accepted, Worker};
use crate::server::connection::serve;
use crate::server::progress::Stage;
use crate::server::shared::Common;

/// How often in a row one thread polls tasks before it looks at its sockets.
const EVENT_INTERVAL: u32 = 16;

/// How many threads of one may wait for files.
const BLOCKING_THREADS: usize = 16;

/// Tells when it is dropped: a thread has ended.
pub(super) struct Lives(watch::Sender<usize>);

impl Lives {
    pub(super) fn of(threads: &watch::Sender<usize>) -> Self {
        threads.send_modify(|number| *number += 1);
        Self(threads.clone())
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        self.0.send_modify(|number| *number = number.saturating_sub(1));
    }
}

/// A thread with a runtime of its own, which runs until what it is given has ended.
pub(super) fn start<F: Future<Output = ()>>(
    name: &str,
    lives: Lives,
    run: impl FnOnce() -> F + Send + 'static,
) -> Result<(), Error> {
    can_start_thread().map_err(|error| no_thread("the server", error))?;
    let runtime = Builder::new_current_thread()
        .event_interval(EVENT_INTERVAL)
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build();
    let runtime =
        runtime.map_err(|error| Error::Host(Reason::new(format!("cannot start the server: {error}"), error)))?;
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        crate::process::signals::open_here();
        runtime.block_on(run());
        runtime.shutdown_background(); // a file system that does not answer is not waited for
        drop(lives);
    });
    thread.map(drop).map_err(|error| no_thread("the server", error))
}

/// One more thread for connections.
pub(super) fn worker(common: Arc<Common>, lives: Lives) -> Result<Worker, Error> {
    // bounded by the places that each of them has
    let (sender, accepted) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let worker = Worker { sender, connections: connections.clone() };
    start("wasgi-server", lives, move || run(accepted, connections, common))?;
    Ok(worker)
}

async fn run(mut accepted: mpsc::UnboundedReceiver<Accepted>, connections: Arc<AtomicUsize>, common: Arc<Common>) {
    let mut tasks = JoinSet::new();
    let ends = common.progress.reached(Stage::Ends);
    tokio::pin!(ends);
    let mut takes = true;
    while takes || !tasks.is_empty() {
        tokio::select! {
            next = accepted.recv(), if takes => match next {
                Some(accepted) => begin(accepted, &connections, &common, &mut tasks),
                None => takes = false,
            },
            Some(_) = tasks.join_next() => {}
            () = &mut ends => return,
        }
    }
}

/// A connection that counts.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn begin(accepted: Accepted, connections: &Arc<AtomicUsize>, common: &Arc<Common>, tasks: &mut JoinSet<()>) {
    let counted = Counted(connections.clone());
    let Accepted { socket, peer, terms, place } = accepted;
    let Ok(socket) = socket.register() else { return };
    let common = common.clone();
    tasks.spawn(async move {
        let (_counted, _place) = (counted, place);
        serve(socket, peer, terms, common).await;
    });
}
