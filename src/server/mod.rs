//! The native HTTP server: HTTP/1.1 and HTTP/2 by hyper, with apps behind it, and no Python on the way.
//!
//! hyper leaves to its user what a server on the open internet needs (`/ARCHITECTURE.md` lists it): timeouts that cover each phase, requests
//! that two servers could read differently, clients that leave, answers before the request was read. Each has a room here.

mod accept;
pub mod access_log;
mod accounts;
mod address;
mod answer_body;
mod answered;
pub mod bind;
pub mod certificates;
mod client_body;
mod connection;
pub mod forwarded;
mod guarded;
mod head;
mod health;
pub mod inherited;
pub mod journal;
mod peer;
mod progress;
mod protocols;
pub mod proxy_protocol;
mod refusal;
mod request_id;
pub mod routes;
mod service;
pub mod settings;
mod shared;
pub mod static_files;
mod streams;
#[cfg(test)]
mod testing;
mod timed;
mod understood;
mod unix_socket;
mod watch;
mod worker;

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::sync::watch::Sender;
use tracing::Level;

use crate::error::Error;
use crate::process::fork::generation;
use crate::server::accept::accept;
use crate::server::access_log::log::AccessLog;
use crate::server::accounts::Accounts;
pub use crate::server::address::{Address, BindError};
use crate::server::bind::{BindOptions, Listener, bind_all};
use crate::server::certificates::{CertificateError, Certificates, Change, Reloading};
use crate::server::connection::Terms;
use crate::server::forwarded::Trusted;
use crate::server::journal::Journal;
use crate::server::progress::{Progress, Stage};
pub use crate::server::refusal::{status_of, status_of_code};
use crate::server::request_id::Ids;
use crate::server::routes::Routes;
use crate::server::settings::{Caps, Timeouts};
use crate::server::shared::Common;
use crate::server::worker::{Lives, start, worker};
use crate::sync::lock;

/// What a server is made of.
pub struct Settings {
    /// Where it listens.
    pub addresses: Vec<Address>,
    /// Where `/live` and `/ready` are answered, apart from all else.
    pub health: Option<Address>,
    /// How it listens.
    pub bind: BindOptions,
    /// How long connections may let others wait.
    pub timeouts: Timeouts,
    /// How long exchanges that are under way may take when the server closes, or another table of routes takes the place of theirs.
    pub drain: Duration,
    /// How much a client may have.
    pub caps: Caps,
    /// Whose words about clients are believed.
    pub trusted: Trusted,
    /// Whether a PROXY header comes before all else.
    pub proxy_protocol: bool,
    /// How many threads serve connections; none: as many as there are processors.
    pub threads: Option<NonZeroUsize>,
    /// Of TLS; none: none.
    pub tls: Option<Certificates>,
    /// Has a line for each request.
    pub access_log: Option<AccessLog>,
    /// Whether requests without `x-request-id` and `traceparent` get them.
    pub request_ids: bool,
    /// Takes what it says of itself.
    pub journal: Journal,
}

/// A server that listens. It serves when it was started, and ends when it was closed and nothing is under way.
pub struct Server {
    common: Arc<Common>,
    /// Those that live.
    threads: Sender<usize>,
    drain: Duration,
    addresses: Vec<String>,
    urls: Vec<String>,
    health: Option<String>,
    certificates: Option<Arc<Reloading>>,
    /// The process that has its threads, once it was started: a forked child has none of them.
    home: OnceLock<u64>,
    state: Mutex<State>,
}

struct State {
    /// Until it is started.
    to_start: Option<ToStart>,
    /// Tables of routes that others have taken the place of.
    old: Vec<Weak<Routes>>,
}

struct ToStart {
    listeners: Vec<Listener>,
    health: Vec<Listener>,
    terms: Terms,
    threads: NonZeroUsize,
}

/// What a server counts.
#[derive(Clone, Copy, Debug)]
pub struct ServerStats {
    /// Connections that are open.
    pub connections: usize,
    /// Those that there have been.
    pub accepted: u64,
    /// Requests that there have been, refused ones included.
    pub requests: u64,
    /// Tables of routes that were swapped and still have exchanges under way.
    pub old_routes: usize,
}

impl Server {
    /// Listens at all of its addresses, or at none. Blocks while names are resolved.
    pub fn bind(settings: Settings, routes: Arc<Routes>) -> Result<Arc<Self>, ServerError> {
        let tls = settings.tls.map(Reloading::open).transpose()?.map(Arc::new);
        let listeners = bind_all(&settings.addresses, &settings.bind)?;
        let health = bind_all(settings.health.as_slice(), &settings.bind)?;
        let common = Arc::new(Common {
            routes: Mutex::new(routes),
            timeouts: settings.timeouts,
            caps: settings.caps,
            trusted: settings.trusted,
            accounts: Accounts::new(settings.journal, settings.access_log),
            ids: settings.request_ids.then(Ids::new),
            is_crowded: AtomicBool::new(false),
            progress: Progress::default(),
        });
        let of = |listeners: &[Listener]| listeners.iter().map(Listener::address).collect::<Vec<_>>();
        let threads = settings.threads.or_else(|| std::thread::available_parallelism().ok());
        let threads = threads.unwrap_or(NonZeroUsize::MIN);
        Ok(Arc::new(Self {
            addresses: of(&listeners),
            urls: listeners.iter().map(|listener| listener.url(tls.is_some())).collect(),
            health: of(&health).into_iter().next(),
            certificates: tls.clone(),
            common,
            threads: Sender::new(0),
            drain: settings.drain,
            home: OnceLock::new(),
            state: Mutex::new(State {
                to_start: Some(ToStart {
                    listeners,
                    health,
                    terms: Terms { tls, proxy_protocol: settings.proxy_protocol },
                    threads,
                }),
                old: Vec::new(),
            }),
        }))
    }

    /// Where it listens, with real ports.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// URLs that open on this machine.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Where `/live` and `/ready` are answered.
    pub fn health(&self) -> Option<&str> {
        self.health.as_deref()
    }

    /// Serves, on threads of its own. Once.
    pub fn start(&self) -> Result<(), Error> {
        let Some(ToStart { listeners, health, terms, threads }) = lock(&self.state).to_start.take() else {
            return Ok(());
        };
        let _ = self.home.set(generation());
        let routes = lock(&self.common.routes).clone();
        // what cannot serve does not listen, either: clients would wait
        ready(&routes).inspect_err(|_| self.end())?;
        let mut workers = Vec::new();
        for _ in 0..threads.get() {
            workers.push(worker(self.common.clone(), Lives::of(&self.threads))?);
        }
        let places = Arc::new(Semaphore::new(self.common.caps.connections));
        let (common, certificates, mut live) =
            (self.common.clone(), self.certificates.clone(), self.threads.subscribe());
        start("wasgi-accept", Lives::of(&self.threads), move || async move {
            let mut tasks = tokio::task::JoinSet::new();
            for listener in listeners {
                tasks.spawn(accept(listener, terms.clone(), workers.clone(), places.clone(), common.clone()));
            }
            drop(workers);
            if let Some(certificates) = certificates {
                tasks.spawn(keep_certificates(certificates, common.clone()));
            }
            let mut healths = tokio::task::JoinSet::new();
            for listener in health {
                healths.spawn(health::serve(listener, common.clone(), places.clone()));
            }
            while let Some(ended) = tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    common.accounts.journal(Level::WARN, format!("a listener failed: {error}"));
                }
            }
            // the health of a server that drains is asked for, too: until this thread is the last
            let _ = live.wait_for(|number| *number <= 1).await;
            common.accounts.flush();
        })
    }

    /// Has requests that come from now on served by others. Those under way keep theirs, for as long as draining may take.
    pub fn swap(&self, routes: Arc<Routes>) -> Result<(), Error> {
        ready(&routes)?;
        let old = std::mem::replace(&mut *lock(&self.common.routes), routes);
        old.expire(self.drain);
        let mut state = lock(&self.state);
        state.old.retain(|old| old.strong_count() > 0);
        state.old.push(Arc::downgrade(&old));
        Ok(())
    }

    /// Reads certificates anew, and opens the access log anew: files that others have moved or written.
    pub fn reopen(&self) {
        let accounts = &self.common.accounts;
        if let Some(certificates) = &self.certificates
            && let Some(change) = certificates.reload()
        {
            tell(accounts, &change);
        }
        accounts.reopen();
    }

    /// Whether another process serves, which this one was forked from. What it does is its own business.
    fn is_foreign(&self) -> bool {
        self.home.get().is_some_and(|home| *home != generation())
    }

    /// Takes no more connections; what is under way may end, within so long. The shortest time counts of those that are said.
    pub fn close(&self, within: Duration) {
        if self.is_foreign() {
            return;
        }
        // one that never began has nothing to end
        let never = lock(&self.state).to_start.take();
        drop(never);
        self.common.progress.reach(Stage::Drains);
        if within.is_zero() {
            return self.end();
        }
        if *self.threads.borrow() > 0 {
            let (common, mut threads) = (self.common.clone(), self.threads.subscribe());
            let bound = async move {
                let ended = threads.wait_for(|number| *number == 0);
                if tokio::time::timeout(within, ended).await.is_err() {
                    common.progress.reach(Stage::Ends);
                }
            };
            // its own thread: the others may be busy, and the bound holds all the same
            if start("wasgi-closing", Lives::of(&Sender::new(0)), move || bound).is_err() {
                self.end();
            }
        }
    }

    /// Ends everything at once.
    pub fn end(&self) {
        if self.is_foreign() {
            return;
        }
        self.common.progress.reach(Stage::Ends);
    }

    /// Whether it takes no more connections.
    pub fn is_closing(&self) -> bool {
        self.is_foreign() || self.common.progress.has_reached(Stage::Drains)
    }

    /// Whether nothing is left of it in this process.
    pub fn has_ended(&self) -> bool {
        self.is_foreign() || *self.threads.borrow() == 0
    }

    /// Waits until nothing is left of it in this process.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        let threads = (!self.is_foreign()).then(|| self.threads.subscribe());
        async move {
            if let Some(mut threads) = threads {
                let _ = threads.wait_for(|number| *number == 0).await;
            }
        }
    }

    /// What it counts.
    pub fn stats(&self) -> ServerStats {
        let (accepted, requests) = self.common.accounts.totals();
        let mut state = lock(&self.state);
        state.old.retain(|old| old.strong_count() > 0);
        ServerStats { connections: self.common.accounts.connections(), accepted, requests, old_routes: state.old.len() }
    }
}

/// Has apps begin without a wait, or tells which one cannot.
fn ready(routes: &Routes) -> Result<(), Error> {
    for hosted in routes.apps() {
        let app = hosted.app();
        if app.is_closed() {
            return Err(Error::Closed);
        }
        app.warm()?;
    }
    Ok(())
}

/// How often the files of certificates are looked at.
const LOOK: Duration = Duration::from_secs(1);

async fn keep_certificates(certificates: Arc<Reloading>, common: Arc<Common>) -> std::io::Result<()> {
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = common.progress.reached(Stage::Drains) => return Ok(()),
        }
        // a file system may take its time, or not answer at all: whoever accepts connections does not wait for it
        let looked_at = certificates.clone();
        let checked = tokio::task::spawn_blocking(move || looked_at.check());
        tokio::select! {
            checked = checked => if let Ok(Some(change)) = checked {
                tell(&common.accounts, &change);
            },
            () = common.progress.reached(Stage::Drains) => return Ok(()),
        }
    }
}

fn tell(accounts: &Accounts, change: &Change) {
    match change {
        Change::Reloaded => accounts.journal(Level::INFO, "the certificates were loaded anew"),
        Change::Failed(error) => {
            accounts.journal(Level::WARN, format!("{error}; the certificates that were loaded before stay in use"));
        }
    }
}

/// Why a server cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened at.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
