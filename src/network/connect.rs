//! Connecting: a name resolved once, each address checked before it is used, through a proxy or not, with TLS or not.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use url::Host;

use crate::http::url_pattern::Target;
use crate::network::dns::Resolve;
use crate::network::error::{Prohibited, Undialled};
use crate::network::origin::Origin;
use crate::network::policy::Policy;
use crate::network::proxy::{Goal, Kind, NoTunnel, Proxies, Proxy};
use crate::network::stream::{Beneath, Early, Io, MonitoredStream};
use crate::network::tls::Tls;

/// How long one address is tried alone before the next one is tried as well (RFC 8305, 5).
const STAGGER: Duration = Duration::from_millis(250);

/// How far connecting has come, for whoever's patience ends.
#[derive(Default)]
pub(crate) struct ConnectPhase(AtomicU8);

impl ConnectPhase {
    /// For somebody else's connection to be given back, or to end.
    const WAITING: u8 = 0;
    const RESOLVING: u8 = 1;
    const CONNECTING: u8 = 2;

    /// For room, or for the connection that somebody else is making.
    pub(crate) fn waits_for_room(&self, for_room: bool) {
        self.reach(if for_room { Self::WAITING } else { Self::CONNECTING });
    }

    fn reach(&self, stage: u8) {
        self.0.store(stage, Ordering::Relaxed);
    }

    /// What it is that took longer than this.
    pub(crate) fn late(&self, limit: Duration) -> Undialled {
        match self.0.load(Ordering::Relaxed) {
            Self::WAITING => Undialled::Full(limit),
            Self::RESOLVING => Undialled::NameLate(limit),
            _ => Undialled::Late(limit),
        }
    }
}

/// A connection that has been made.
pub(crate) struct Connection {
    pub wire: MonitoredStream,
    pub http2: bool,
    /// Where it leads, if we know: a proxy that looks names up itself does not say.
    pub address: Option<IpAddr>,
    /// Whether a proxy reads the requests, and what each is to tell it.
    pub relay: Option<ForwardProxy>,
}

#[derive(Clone, Debug)]
pub(crate) struct ForwardProxy {
    pub authorization: Option<HeaderValue>,
}

/// Makes connections to addresses that the policy lets pass.
pub(crate) struct Dialer {
    pub policy: Arc<Policy>,
    pub resolver: Arc<dyn Resolve>,
    pub proxies: Arc<Proxies>,
    pub tls: Tls,
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113, 3.3).
    pub h2c: bool,
    /// How long a peer may leave unread what is written to it.
    pub unread: Option<Duration>,
}

impl Dialer {
    pub(crate) async fn dial(
        &self,
        origin: &Origin,
        target: &Target,
        stage: &ConnectPhase,
    ) -> Result<Connection, Undialled> {
        let (stream, socket, address, relay) = match self.proxies.proxy_for(origin) {
            None => {
                let (stream, address) = race(self.checked(origin, target, stage).await?, stage).await?;
                let socket = stream.as_raw_fd();
                let stream: Box<dyn Io> = Box::new(stream);
                (stream, socket, Some(address.ip()), None)
            }
            Some(proxy) => self.through(proxy, origin, target, stage).await?,
        };
        stage.reach(ConnectPhase::CONNECTING);
        if !origin.secure {
            return Ok(Connection {
                wire: MonitoredStream::new(stream, socket, self.unread),
                http2: self.h2c,
                address,
                relay,
            });
        }
        let since = Arc::new(AtomicU64::new(0));
        let beneath = Beneath { io: stream, since: since.clone() };
        let (stream, http2) = self.tls.with_server(&origin.host, beneath).await.map_err(Undialled::Tls)?;
        let mut wire = MonitoredStream::new(Box::new(stream), socket, self.unread);
        wire.beneath = Some(since);
        Ok(Connection { wire, http2, address, relay: None })
    }

    /// The addresses of an origin that may be connected to. What is checked here is what is connected to: nothing is resolved
    /// a second time.
    async fn checked(
        &self,
        origin: &Origin,
        target: &Target,
        stage: &ConnectPhase,
    ) -> Result<Vec<SocketAddr>, Undialled> {
        let mut refused = None;
        let mut allowed = Vec::new();
        for address in self.resolved(&origin.host, stage).await? {
            match self.policy.check_address(target, address) {
                Ok(()) => allowed.push((address, origin.port).into()),
                Err(class) => {
                    let address = (address, origin.port).into();
                    refused = Some(Undialled::Prohibited(Prohibited { address, class }));
                }
            }
        }
        match refused {
            Some(refused) if allowed.is_empty() => Err(refused),
            _ => Ok(allowed),
        }
    }

    async fn resolved(&self, host: &Host, stage: &ConnectPhase) -> Result<Vec<IpAddr>, Undialled> {
        Ok(match host {
            Host::Ipv4(address) => vec![(*address).into()],
            Host::Ipv6(address) => vec![(*address).into()],
            Host::Domain(name) => {
                stage.reach(ConnectPhase::RESOLVING);
                let found = self.resolver.resolve(name.clone()).await?;
                if found.is_empty() {
                    return Err(crate::network::dns::Unresolved::NoAddress.into());
                }
                found
            }
        })
    }

    /// By a tunnel to an address that has been checked, or to a name if the proxy is to resolve it. The proxy's own address is
    /// its owner's choice, and not checked.
    async fn through(
        &self,
        proxy: &Proxy,
        origin: &Origin,
        target: &Target,
        stage: &ConnectPhase,
    ) -> Result<(Box<dyn Io>, RawFd, Option<IpAddr>, Option<ForwardProxy>), Undialled> {
        let goals: Vec<(Goal, Option<IpAddr>)> = match &origin.host {
            Host::Domain(name) if proxy.resolves => vec![(Goal::Name(name.clone(), origin.port), None)],
            _ => {
                let addresses = self.checked(origin, target, stage).await?;
                addresses.into_iter().map(|address| (Goal::Address(address), Some(address.ip()))).collect()
            }
        };
        let mut failure = Undialled::NoHost;
        for (goal, address) in goals {
            let (stream, socket) =
                self.reach(proxy, stage).await.map_err(|error| Undialled::NoProxy(Box::new(error)))?;
            // a name without TLS needs no tunnel: the proxy asks for us
            if !origin.secure && address.is_none() && proxy.kind != Kind::Socks && !self.h2c {
                return Ok((stream, socket, None, Some(ForwardProxy { authorization: proxy.authorization() })));
            }
            match proxy.tunnel(stream, &goal).await {
                Ok((stream, early)) if early.is_empty() => return Ok((stream, socket, address, None)),
                // a server of HTTP/2 may speak first (RFC 9113, 3.4), and is the only one
                Ok((stream, early)) if self.h2c && !origin.secure => {
                    return Ok((Box::new(Early { early, given: 0, io: stream }), socket, address, None));
                }
                Ok(_) => failure = NoTunnel::Early.into(),
                Err(error) => failure = error.into(),
            }
        }
        Err(failure)
    }

    /// A connection to a proxy.
    async fn reach(&self, proxy: &Proxy, stage: &ConnectPhase) -> Result<(Box<dyn Io>, RawFd), Undialled> {
        let found = self.resolved(&proxy.host, stage).await?;
        let (stream, _) = race(found.into_iter().map(|address| (address, proxy.port).into()).collect(), stage).await?;
        let socket = stream.as_raw_fd();
        let stream: Box<dyn Io> = match proxy.kind {
            Kind::Https => Box::new(self.tls.with_proxy(&proxy.host, stream).await.map_err(Undialled::Tls)?),
            Kind::Http | Kind::Socks => Box::new(stream),
        };
        Ok((stream, socket))
    }
}

/// The first of these that answers; each is tried when the one before has failed, or has had its time alone.
async fn race(addresses: Vec<SocketAddr>, stage: &ConnectPhase) -> Result<(TcpStream, SocketAddr), Undialled> {
    stage.reach(ConnectPhase::CONNECTING);
    let connect = |address| async move { TcpStream::connect(address).await.map(|stream| (stream, address)) };
    let mut left = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
    if let Some(first) = left.next() {
        attempts.spawn(connect(first));
    }
    while !attempts.is_empty() {
        match tokio::time::timeout(STAGGER, attempts.join_next()).await {
            Ok(Some(Ok(Ok((stream, address))))) => {
                let _ = stream.set_nodelay(true);
                return Ok((stream, address));
            }
            Ok(Some(Ok(Err(error)))) => failure = error,
            Ok(Some(Err(_)) | None) | Err(_) => {}
        }
        if let Some(next) = left.next() {
            attempts.spawn(connect(next));
        }
    }
    Err(Undialled::Tcp(failure))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::net::TcpListener;
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::http::url_pattern::Pattern;
    use crate::network::dns::Resolving;
    use crate::network::options::Caps;
    use crate::network::places::Apps;
    use crate::network::pool::Pool;
    use crate::network::tls::Trust;
    use crate::sync::lock;

    /// Answers from a list, one after the other: `None` is never an answer.
    struct Told(Mutex<Vec<Option<Vec<IpAddr>>>>);

    impl Resolve for Told {
        fn resolve(&self, _: String) -> Resolving {
            let next = lock(&self.0).remove(0);
            Box::pin(async move {
                match next {
                    Some(addresses) => Ok(addresses),
                    None => std::future::pending().await,
                }
            })
        }
    }

    /// A pool under a policy that allows any public address, and these.
    fn pool(told: Vec<Option<Vec<&str>>>, addresses: &[&str]) -> Arc<Pool> {
        let told = told.into_iter().map(|told| told.map(|texts| texts.iter().map(|ip| ip.parse().unwrap()).collect()));
        let policy = Policy {
            allow: vec![Pattern::parse("*").unwrap()],
            deny: Vec::new(),
            methods: None,
            allow_private: false,
            addresses: addresses.iter().map(|network| network.parse().unwrap()).collect(),
        };
        let trust = Trust { authorities: None, only_these: false, client: None };
        let dialer = Dialer {
            policy: Arc::new(policy),
            resolver: Arc::new(Told(Mutex::new(told.collect()))),
            proxies: Arc::new(Proxies::none()),
            tls: Tls::new(trust.config().unwrap(), true),
            h2c: false,
            unread: None,
        };
        let caps = Caps { total: 4, per_origin: 4, idle: Duration::from_secs(9), lifetime: None };
        Arc::new(Pool::new(dialer, caps, 65536, false, Apps::default()))
    }

    /// Asks for a connection to a name, as a request would.
    fn checkout(pool: &Arc<Pool>, port: u16, patience: Duration) -> Result<(), Undialled> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let uri: http::Uri = format!("http://name.example:{port}/").parse().unwrap();
            let (target, stage) = (Target::of(&uri).unwrap(), ConnectPhase::default());
            let origin = Origin::of(&target).unwrap();
            match tokio::time::timeout(patience, pool.checkout(&origin, &target, &stage, None)).await {
                Ok(made) => made.map(drop),
                Err(_) => Err(stage.late(patience)),
            }
        })
    }

    fn was_reached(listener: &TcpListener) -> bool {
        listener.set_nonblocking(true).unwrap();
        listener.accept().is_ok()
    }

    #[test]
    fn a_name_that_changes_its_address_gains_nothing() {
        let inside = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = inside.local_addr().unwrap().port();
        // were it asked once to check and once more to connect, the second answer would be connected to
        let pool = pool(vec![Some(vec!["127.0.0.2"]), Some(vec!["127.0.0.1"])], &["127.0.0.2/32"]);
        let first = checkout(&pool, port, Duration::from_secs(9));
        assert!(matches!(&first, Err(Undialled::Tcp(_))), "it was to 127.0.0.2, where nobody listens: {first:?}");
        let second = checkout(&pool, port, Duration::from_secs(9));
        assert!(matches!(&second, Err(Undialled::Prohibited(found)) if found.address.port() == port), "{second:?}");
        assert!(!was_reached(&inside));
    }

    #[test]
    fn of_mixed_addresses_only_those_that_may_be_are_tried() {
        let (inside, outside) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.2:0").unwrap());
        let told = || Some(vec!["127.0.0.1", "::ffff:127.0.0.1", "::1", "169.254.169.254", "127.0.0.2"]);
        let pool = pool(vec![told(), told()], &["127.0.0.2/32"]);
        let port = inside.local_addr().unwrap().port();
        assert!(matches!(checkout(&pool, port, Duration::from_secs(9)), Err(Undialled::Tcp(_))));
        checkout(&pool, outside.local_addr().unwrap().port(), Duration::from_secs(9)).unwrap();
        assert!(!was_reached(&inside) && was_reached(&outside));
    }

    #[test]
    fn a_resolver_that_never_answers_is_told_from_a_peer_that_does_not() {
        let late = checkout(&pool(vec![None], &[]), 80, Duration::from_millis(20));
        assert!(matches!(late, Err(Undialled::NameLate(_))), "{late:?}");
        assert_eq!(crate::network::error::code_of(&late.unwrap_err()).0.name, "DNS-timeout");
        let nothing = checkout(&pool(vec![Some(vec![])], &[]), 80, Duration::from_secs(9));
        assert_eq!(crate::network::error::code_of(&nothing.unwrap_err()).0.name, "DNS-error");
    }
}
