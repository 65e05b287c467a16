//! One request from its head to the end of its answer: what is noted of it, once, however it ends.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use tracing::Level;

use crate::error::Error;
use crate::server::access_log::entry::Entry;
use crate::server::client_body::BodyState;
use crate::server::progress::Stage;
use crate::server::request_id::{REQUEST_ID, TRACEPARENT};
use crate::server::routes::{Failure, Hosted, Routes};
use crate::server::shared::Connection;

/// What the access log tells of a request.
pub(super) struct Asked {
    pub method: Bytes,
    /// As it came.
    pub target: Bytes,
    pub version: http::Version,
    pub scheme: &'static str,
    pub host: String,
    pub client: Option<IpAddr>,
    /// Those that the log's format asks for.
    pub fields: HeaderMap,
    pub began: SystemTime,
    pub begun: Instant,
}

impl Asked {
    /// As its first line says, before it is understood. The scheme is the connection's, the client its other end.
    pub(super) fn new(
        (method, target, version): (Bytes, Bytes, http::Version),
        scheme: &'static str,
        client: Option<IpAddr>,
    ) -> Self {
        let (host, fields) = (String::new(), HeaderMap::new());
        let (began, begun) = (SystemTime::now(), Instant::now());
        Self { method, target, version, scheme, host, client, fields, began, begun }
    }
}

/// See the module. Dropped at the end.
pub(super) struct Answered {
    connection: Arc<Connection>,
    number: u64,
    /// The table that it is served by.
    routes: Arc<Routes>,
    asked: Option<Box<Asked>>,
    /// The request's, if it has one.
    body: Option<Arc<BodyState>>,
    app: Option<Arc<dyn Hosted>>,
    exchange: Option<u64>,
    /// None: nothing was answered.
    status: Option<u16>,
    fields: HeaderMap,
    bytes: u64,
    is_whole: bool,
    /// Why there is not all of it, if the client has not left.
    broken: Option<&'static str>,
    request_id: Option<HeaderValue>,
    traceparent: Option<HeaderValue>,
}

impl Answered {
    pub(super) fn new(connection: Arc<Connection>, number: u64, routes: Arc<Routes>) -> Self {
        Self {
            connection,
            number,
            routes,
            asked: None,
            body: None,
            app: None,
            exchange: None,
            status: None,
            fields: HeaderMap::new(),
            bytes: 0,
            is_whole: false,
            broken: None,
            request_id: None,
            traceparent: None,
        }
    }

    /// What the guest and the log name it by.
    pub(super) fn is_named(&mut self, fields: &HeaderMap) {
        if self.connection.common.accounts.logs() {
            self.request_id = fields.get(&REQUEST_ID).cloned();
            self.traceparent = fields.get(&TRACEPARENT).cloned();
        }
    }

    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    pub(super) fn has_body(&mut self, body: &Arc<BodyState>) {
        self.body = Some(body.clone());
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
        self.fields = self.connection.common.accounts.of_response(fields);
        self.connection.watch.answers();
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
        let status = self.status.unwrap_or_default();
        let Some((_, why)) = self.body.as_ref().and_then(|body| body.fault()) else {
            self.broken = Some("broke off");
            return self.tell(status, error, true);
        };
        // a guest that has not got all of its request has nothing to end its response with
        self.broken = Some("the request broke off");
        let Some(asked) = &self.asked else { return };
        let (method, target) = (String::from_utf8_lossy(&asked.method), String::from_utf8_lossy(&asked.target));
        let line = format!("{method} {target:?}: the response with {status} broke off: {why}");
        self.connection.common.accounts.journal(Level::INFO, line);
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
        self.connection.watch.ends(self.number);
        let Some(asked) = self.asked.take() else { return };
        let (status, outcome) = match (self.broken, self.is_whole, self.status) {
            (Some(broken), _, status) => (status.unwrap_or_default(), Some(broken)),
            (None, true, Some(status)) => (status, None),
            _ if self.connection.common.progress.has_reached(Stage::Ends) => {
                (self.status.unwrap_or(503), Some("the server ended"))
            }
            _ => (499, Some("the client left")),
        };
        let text =
            |value: &Option<HeaderValue>| value.as_ref().and_then(|value| value.to_str().ok().map(str::to_owned));
        let (request_id, traceparent) = (text(&self.request_id), text(&self.traceparent));
        self.connection.common.accounts.tell(&Entry {
            client: asked.client,
            user: None,
            started: asked.began,
            duration: asked.begun.elapsed(),
            method: std::str::from_utf8(&asked.method).unwrap_or_default(),
            target: &asked.target,
            version: Some(asked.version).filter(|_| !asked.target.is_empty()),
            scheme: Some(asked.scheme),
            host: Some(asked.host.as_str()).filter(|host| !host.is_empty()),
            status,
            sent: self.bytes,
            request_id: request_id.as_deref(),
            traceparent: traceparent.as_deref(),
            component: self.app.as_ref().map(|app| app.label()),
            exchange: self.exchange,
            outcome,
            request: &asked.fields,
            response: &self.fields,
        });
    }
}
