//! Accepting connections, and giving each to the thread that has the fewest.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tracing::Level;

use crate::server::bind::Listener;
use crate::server::connection::{Socket, Terms};
use crate::server::peer::Peer;
use crate::server::progress::Stage;
use crate::server::shared::Common;

/// For so long connections are accepted when the server has begun to drain: clients that have not heard of it yet still come.
const ACCEPTS_ON: Duration = Duration::from_millis(250);

/// How long accepting pauses where the system has no descriptors left.
const PAUSE: Duration = Duration::from_millis(100);

/// For so long there have to be enough of them until it is said so: where one comes back now and then, two lines are enough.
const SHORT: Duration = Duration::from_secs(5);

/// A connection on its way to its thread.
pub(super) struct Accepted {
    pub socket: AcceptedSocket,
    pub peer: Peer,
    pub terms: Terms,
    /// Its place among all of them.
    pub place: OwnedSemaphorePermit,
}

pub(super) enum AcceptedSocket {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

/// A thread that serves connections.
#[derive(Clone)]
pub(super) struct Worker {
    pub sender: mpsc::UnboundedSender<Accepted>,
    /// How many it has.
    pub connections: Arc<AtomicUsize>,
}

impl AcceptedSocket {
    /// Takes a descriptor more.
    fn peer(&self, is_tls: bool) -> io::Result<Peer> {
        match self {
            Self::Tcp(socket) => Peer::new(socket.as_fd(), !is_tls),
            Self::Unix(socket) => Peer::new(socket.as_fd(), false),
        }
    }

    /// On the runtime of this thread.
    pub(super) fn register(self) -> io::Result<Socket> {
        match self {
            Self::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                TcpStream::from_std(socket).map(Socket::Tcp)
            }
            Self::Unix(socket) => {
                socket.set_nonblocking(true)?;
                UnixStream::from_std(socket).map(Socket::Unix)
            }
        }
    }
}

impl Listener {
    pub(super) fn accept(&self) -> io::Result<AcceptedSocket> {
        match self {
            Self::Tcp(listener) => listener.accept().map(|(socket, _)| AcceptedSocket::Tcp(socket)),
            Self::Unix(file) => file.listener.accept().map(|(socket, _)| AcceptedSocket::Unix(socket)),
        }
    }
}

impl AsRawFd for Listener {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(file) => file.listener.as_raw_fd(),
        }
    }
}

/// A listener whose connections can be waited for.
pub(super) fn watched(listener: Listener) -> io::Result<AsyncFd<Listener>> {
    // SAFETY: the listener has one descriptor all its life, and whoever has the `AsyncFd` can only look at it
    unsafe { AsyncFd::register_with_interest(listener, tokio::io::Interest::READABLE).map_err(io::Error::from) }
}

/// Accepts from one listener until the server drains.
pub(super) async fn accept(
    listener: Listener,
    terms: Terms,
    workers: Vec<Worker>,
    places: Arc<Semaphore>,
    common: Arc<Common>,
) -> io::Result<()> {
    let socket = watched(listener)?;
    let mut short: Option<Instant> = None;
    // one that has no descriptor for its peer yet
    let mut held: Option<AcceptedSocket> = None;
    let drained = async {
        common.progress.reached(Stage::Drains).await;
        sleep(ACCEPTS_ON).await;
    };
    tokio::pin!(drained);
    let mut is_last = false;
    loop {
        let place = if is_last {
            places.clone().try_acquire_owned().ok()
        } else {
            tokio::select! {
                biased;
                place = places.clone().acquire_owned() => place.ok(),
                () = &mut drained => None,
            }
        };
        let Some(place) = place else { return Ok(()) };
        let accepted = match held.take().map_or_else(|| socket.get_ref().accept(), Ok) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if is_last {
                    return Ok(()); // nobody is left in the queue
                }
                drop(place); // another listener's client may take it
                tokio::select! {
                    ready = socket.readable() => ready?.clear_ready(),
                    () = &mut drained => is_last = true,
                }
                continue;
            }
            accepted => accepted,
        };
        let accepted = accepted.and_then(|socket| match socket.peer(terms.tls.is_some()) {
            Ok(peer) => Ok((socket, peer)),
            Err(error) => {
                held = Some(socket);
                Err(error)
            }
        });
        match accepted {
            Ok((socket, peer)) => {
                common.is_crowded.store(false, Ordering::Relaxed);
                if short.take_if(|last| last.elapsed() > SHORT).is_some() {
                    common.accounts.journal(Level::INFO, "connections are accepted again");
                }
                give(&workers, Accepted { socket, peer, terms: terms.clone(), place });
            }
            // the client has left already
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            Err(_) if common.progress.has_reached(Stage::Ends) => return Ok(()),
            Err(error) => {
                common.is_crowded.store(true, Ordering::Relaxed);
                if short.replace(Instant::now()).is_none() {
                    common.accounts.journal(
                        Level::WARN,
                        format!("no connections can be accepted: {error}; hint: the limit of open files (`ulimit -n`)"),
                    );
                }
                drop(place);
                sleep(PAUSE).await;
            }
        }
    }
}

fn give(workers: &[Worker], accepted: Accepted) {
    let fewest = workers.iter().min_by_key(|worker| worker.connections.load(Ordering::Relaxed));
    if let Some(worker) = fewest {
        worker.connections.fetch_add(1, Ordering::Relaxed);
        // bounded by the places
        let _ = worker.sender.send(accepted);
    }
}
