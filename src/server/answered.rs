//! One request from its head to the end of its answer: what is noted of it, once, however it ends.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::HeaderMap;

use crate::error::Error;
use crate::server::accounts::Accounts;
use crate::server::head::Head;
use crate::server::routes::{Failure, Hosted};
use crate::server::watch::Watch;

/// What the access log tells of a request.
pub(super) struct Asked {
    pub method: Bytes,
    /// As it came.
    pub target: Bytes,
    pub version: http::Version,
    pub scheme: &'static str,
    pub host: String,
    pub client: String,
    /// Only where there is a log.
    pub fields: HeaderMap,
    pub began: SystemTime,
    pub begun: Instant,
}

impl Asked {
    /// One that nobody was asked about.
    pub(super) fn of_head(head: &Head, peer: Option<SocketAddr>) -> Self {
        Self {
            method: Bytes::copy_from_slice(head.method()),
            target: Bytes::copy_from_slice(head.target()),
            version: if head.is_http10 { http::Version::HTTP_10 } else { http::Version::HTTP_11 },
            scheme: "http",
            host: String::new(),
            client: peer.map(|peer| peer.ip().to_canonical().to_string()).unwrap_or_default(),
            fields: HeaderMap::new(),
            began: SystemTime::now(),
            begun: Instant::now(),
        }
    }
}

/// See the module. Dropped at the end.
pub(super) struct Answered {
    watch: Arc<Watch>,
    number: u64,
    accounts: Arc<Accounts>,
    asked: Option<Box<Asked>>,
    app: Option<Arc<dyn Hosted>>,
    exchange: Option<u64>,
    /// None: nothing was answered.
    status: Option<u16>,
    fields: HeaderMap,
    bytes: u64,
    is_whole: bool,
    error: Option<Error>,
}

impl Answered {
    pub(super) fn new(watch: Arc<Watch>, number: u64, accounts: Arc<Accounts>) -> Self {
        Self {
            watch,
            number,
            accounts,
            asked: None,
            app: None,
            exchange: None,
            status: None,
            fields: HeaderMap::new(),
            bytes: 0,
            is_whole: false,
            error: None,
        }
    }

    pub(super) fn asked(&mut self, asked: Asked) {
        self.asked = Some(Box::new(asked));
    }

    pub(super) fn is_of(&mut self, app: &Arc<dyn Hosted>) {
        self.app = Some(app.clone());
    }

    pub(super) fn is_exchange(&mut self, number: u64) {
        self.exchange = Some(number);
    }

    /// The head of the answer is there.
    pub(super) fn answers(&mut self, status: u16, fields: &HeaderMap) {
        self.status = Some(status);
        if self.accounts.logs() {
            self.fields = fields.clone();
        }
        self.watch.answers();
    }

    /// Whether its app wants details.
    pub(super) fn debugs(&self) -> bool {
        self.app.as_ref().is_some_and(|app| app.debug())
    }

    pub(super) fn failed(&mut self, status: u16, error: Error) {
        self.tell(status, error, false);
    }

    pub(super) fn sends(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    pub(super) fn is_whole(&mut self) {
        self.is_whole = true;
    }

    pub(super) fn broke_off(&mut self, error: Error) {
        self.error = Some(error.clone());
        self.tell(self.status.unwrap_or_default(), error, true);
    }

    fn tell(&self, status: u16, error: Error, midway: bool) {
        let (Some(app), Some(asked)) = (&self.app, &self.asked) else { return };
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        app.failed(Failure {
            method: text(&asked.method),
            target: text(&asked.target),
            status,
            midway,
            error,
            exchange: self.exchange,
        });
    }
}

impl Drop for Answered {
    fn drop(&mut self) {
        self.watch.ends(self.number);
        let Some(asked) = self.asked.take() else { return };
        // 499: the client has left
        let status = self.status.unwrap_or(499);
        let fate = match (&self.error, self.is_whole) {
            (Some(_), _) => Fate::BrokeOff,
            (None, true) => Fate::Whole,
            (None, false) => Fate::ClientLeft,
        };
        let status = if fate == Fate::ClientLeft { 499 } else { status };
        self.accounts.tell(&Told {
            asked: &asked,
            status,
            bytes: self.bytes,
            fields: &self.fields,
            fate,
            exchange: self.exchange,
        });
    }
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Whole,
    /// The guest did not finish it.
    BrokeOff,
    ClientLeft,
}

/// A request that is over.
pub(super) struct Told<'a> {
    pub asked: &'a Asked,
    pub status: u16,
    pub bytes: u64,
    pub fields: &'a HeaderMap,
    pub fate: Fate,
    pub exchange: Option<u64>,
}
