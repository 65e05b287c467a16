//! The state of one store, and what the guest was granted.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use http_body_util::BodyExt;
use wasmtime::component::{GuestTaskId, ResourceTable};
use wasmtime_wasi::filesystem::WasiFilesystemCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::p2::body::{HostFutureTrailers, HostIncomingBody, HostOutgoingBody, StreamContext};
use wasmtime_wasi_http::p2::types::{
    HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse,
    HostResponseOutparam,
};
use wasmtime_wasi_http::p3;
use wasmtime_wasi_http::{FieldMap, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::engine::ProcessState;
use crate::exchange::body_pipe::Unsent;
use crate::exchange::guest_stream::{GuestStream, Outlet};
use crate::exchange::guest_turn::GuestTurn;
use crate::exchange::guest_written::WrittenBodies;
use crate::exchange::handle::Gone;
use crate::exchange::stdio::{Stdio, Stream};
use crate::guest::exchange_context::{ExchangeContext, Nobody};
use crate::guest::files::FilesView;
use crate::guest::folders::NotOpened;
use crate::guest::grants::Grants;
use crate::guest::host_memory::weigh;
use crate::guest::kept_handles::KeptHandles;
use crate::guest::limiter::StoreLimiter;
use crate::guest::open_files::{Files, GuestFiles};
use crate::guest::seat::Seat;
use crate::guest::shared::{Shared, Siblings};
use crate::http::message::empty;
use crate::limits::{Limits, MOST_RANDOM};
use crate::outgoing::hooks::{HookFuture, Hooks};
use crate::outgoing::upstream::Import;
use crate::simulation::environment::{Scene, SimulatedWorld};

/// `T` of the guest's `Store<T>`.
pub struct StoreState {
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    /// Of the exchange that its guest acts for.
    exchange: Box<ExchangeContext>,
    nobody: Option<Nobody>,
    /// The others, in an instance that several exchanges share.
    siblings: Option<Box<Siblings>>,
    outlet: Outlet,
    staged: Option<SimulatedWorld>,
    files: GuestFiles,
    /// Of what its guest writes, if that is of WASI 0.3, those whose messages it has made and not sent.
    pub(crate) unsent: Unsent,
    /// Its turns, likewise.
    pub(crate) turn: Arc<GuestTurn>,
    /// The handles of its snapshot, if it has one; see `restoring.rs`.
    pub(crate) kept: KeptHandles,
    /// An agent is called just now, to put its instance back: its turn does not end, and its calls are not the guest's.
    pub(crate) is_restored: bool,
    /// Its guest lets no more calls in, as it was left.
    pub(crate) holds_back: bool,
    // after the table, so that what handles hold is gone when it goes
    pub(crate) limiter: StoreLimiter,
}

impl StoreState {
    pub(crate) fn new(
        grants: &Grants,
        stdio: &Arc<Stdio>,
        limiter: StoreLimiter,
        hooks: Hooks,
        app: &Arc<Files>,
    ) -> Self {
        let outlet = Outlet::new(stdio);
        let (wasi, staged) = context(grants, &outlet, hooks.process());
        let mut table = ResourceTable::new();
        limiter.bound_handles(&mut table);
        let mut http = WasiHttpCtx::new();
        let fields = hooks.limits.fields.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        http.set_field_size_limit(fields);
        let files = GuestFiles::new((!grants.dirs.is_empty()).then(|| app.clone()));
        let mut host = Self {
            table,
            wasi,
            http,
            exchange: Box::new(ExchangeContext::new(hooks, WrittenBodies::default())),
            nobody: None,
            siblings: None,
            outlet,
            staged,
            files,
            unsent: Unsent::default(),
            turn: Arc::default(),
            kept: KeptHandles::default(),
            is_restored: false,
            holds_back: false,
            limiter,
        };
        host.exchange.hooks.scene = host.staged.as_ref().map(SimulatedWorld::scene);
        host
    }

    /// Opens the folders that are granted.
    pub(crate) async fn open_folders(&mut self) -> Result<(), NotOpened> {
        if let Some(app) = self.files.app() {
            *self.wasi.filesystem() = app.folders.get(app.threads()).await?;
        }
        Ok(())
    }

    /// The next exchange of an instance that was kept. `hooks`: its own, unless it shares it with others.
    pub(crate) fn reset(&mut self, hooks: Option<Hooks>, stdio: &Arc<Stdio>, peak: Arc<AtomicU64>) {
        if let Some(hooks) = hooks {
            *self.exchange = ExchangeContext::new(hooks, WrittenBodies::default());
            self.outlet.lead_to(stdio);
        }
        self.limiter.reset(peak);
        self.files.reset();
        if let Some(staged) = &self.staged {
            self.exchange.hooks.scene = Some(staged.stage().begin());
        }
        self.enter_scene();
    }

    /// Its clocks and its randomness begin anew, as those of a new one.
    pub(crate) fn renew(&mut self, grants: &Grants) {
        match &self.staged {
            Some(staged) => staged.stage().restart(),
            None => {
                let (mut wasi, _) = context(grants, &self.outlet, self.limiter.process());
                std::mem::swap(wasi.filesystem(), self.wasi.filesystem());
                self.wasi = wasi;
            }
        }
    }

    /// Has its guest act for a warm-up from now on, until the second is dropped. Returns what is of the exchange that waits for it.
    pub(crate) fn begin_warm_up(&mut self) -> (ExchangeContext, Gone) {
        let (hooks, warm_up) = self.exchange.hooks.before();
        let mut context = ExchangeContext::new(hooks, WrittenBodies::default());
        context.hooks.scene = self.staged.as_ref().map(|staged| staged.stage().begin());
        (self.replace_context(context), warm_up)
    }

    /// Has it act for this exchange. Returns what is of the other.
    pub(crate) fn replace_context(&mut self, context: ExchangeContext) -> ExchangeContext {
        let before = std::mem::replace(&mut *self.exchange, context);
        self.outlet.lead_to(self.exchange.hooks.stdio());
        self.enter_scene();
        before
    }

    /// From now on several exchanges share it, each in a context of its own.
    pub(crate) fn share(&mut self, shared: &Arc<Shared>) {
        if !self.nobody.as_ref().is_some_and(|nobody| nobody.has(&self.exchange)) {
            self.make_nobodys();
        }
        self.outlet.is_shared();
        self.siblings = Some(Box::new(Siblings::new(shared.clone())));
    }

    pub(crate) fn is_shared(&self) -> bool {
        self.siblings.is_some()
    }

    /// None of them is left. Returns whether nothing of theirs is that somebody else takes part in.
    pub(crate) fn stop_sharing(&mut self) -> bool {
        self.lead(None);
        self.siblings.take().is_none_or(|siblings| siblings.is_clean())
    }

    fn make_nobodys(&mut self) {
        let scene = self.exchange.hooks.scene.take();
        let process = self.exchange.hooks.process();
        let nobody = self.nobody.take().filter(Nobody::is_silent).unwrap_or_else(|| Nobody::new(process));
        *self.exchange = ExchangeContext::nobodys(self.nobody.insert(nobody), &self.exchange.hooks.limits);
        self.exchange.hooks.scene = scene;
        self.outlet.lead_to(self.exchange.hooks.stdio());
    }

    /// Its guest acts for the exchange whose task this is; for none. Returns whether it did not before.
    pub(crate) fn lead(&mut self, task: Option<GuestTaskId>) -> bool {
        let Some(siblings) = &mut self.siblings else { return false };
        if !siblings.lead(task, &mut self.exchange) {
            return false;
        }
        self.outlet.lead_to(self.exchange.hooks.stdio());
        self.enter_scene();
        true
    }

    /// Its guest finds what its exchange does, in a simulation.
    fn enter_scene(&self) {
        if let (Some(staged), Some(scene)) = (&self.staged, &self.exchange.hooks.scene) {
            staged.lead_to(scene);
        }
    }

    /// In which place, if its instance is shared.
    pub(crate) fn seat(&self) -> Option<&Arc<Seat>> {
        self.siblings.as_ref()?.seat()
    }

    pub(crate) fn siblings(&mut self) -> Option<&mut Siblings> {
        self.siblings.as_deref_mut()
    }

    /// The bodies that the guest writes for this exchange.
    pub(crate) fn written(&self) -> &WrittenBodies {
        &self.exchange.written
    }

    /// The simulation, if there is one.
    pub(crate) fn staged(&self) -> Option<&SimulatedWorld> {
        self.staged.as_ref()
    }

    /// What the exchange finds, in a simulation.
    pub(crate) fn scene(&self) -> Option<&Scene> {
        self.exchange.hooks.scene.as_ref()
    }

    /// Breaks off the bodies that the guest has not finished. A body whose guest is gone would look complete to its reader:
    /// wasmtime-wasi-http takes a dropped sender for the end. Saying "abort" while the store still lives is what makes it look
    /// broken. Returns whether there were any.
    pub(crate) fn abort_bodies(&mut self, ended_well: bool) -> bool {
        if ended_well {
            self.turn.end();
        }
        let mut found = self.exchange.written.close(ended_well);
        for entry in self.table.iter_mut() {
            if let Some(body) = entry.downcast_mut::<HostOutgoingBody>() {
                let (empty, _) = HostOutgoingBody::new(StreamContext::Response, None, 1, 1);
                std::mem::replace(body, empty).abort();
                found = true;
            }
        }
        found
    }

    /// An exchange is over, and its instance may have another: what the guest has kept of it leads nowhere from now on. Guests
    /// whose garbage is collected late do keep handles. `kept`: what wasmtime keeps of its tasks and streams. Returns
    /// whether nothing is left that somebody else takes part in, and the next one has room.
    pub(crate) fn prepare_for_reuse(&mut self, kept: u64) -> bool {
        let (mut handles, mut asks) = (0, false);
        for entry in self.table.iter_mut() {
            handles += 1;
            // a request without an answer that is let go of takes note of that some time later, on another thread
            asks |= matches!(entry.downcast_ref(), Some(HostFutureIncomingResponse::Pending(_)));
            clear_handle(entry, &mut self.exchange.hooks);
        }
        let clean = !asks && !self.holds_back && !self.exchange.is_busy() && self.limiter.has_room(handles, kept);
        self.make_nobodys();
        clean
    }

    /// Whether a file is on its way: a guest of WASI 0.3 may have given it to the host, which goes on without it.
    pub(crate) fn streams_files(&self) -> bool {
        self.files.has_streams()
    }

    /// Whether a file is on its way into a body that somebody still reads.
    pub(crate) fn feeds_bodies(&mut self) -> bool {
        self.files.has_streams() && self.exchange.written.are_read()
    }

    /// The limit of fuel.
    pub(crate) fn fuel(&self) -> Option<u64> {
        self.exchange.hooks.limits.fuel
    }

    /// A line of the host's own about this guest.
    pub(crate) fn warn(&self, text: String) {
        self.exchange.hooks.warn(text);
    }

    /// Once an exchange.
    pub(crate) fn tell_of_too_many_fields(&mut self) {
        if !std::mem::replace(&mut self.exchange.told_of_fields, true) {
            self.exchange.hooks.tell("a set of fields has the maximum number of names; the guest is told `forbidden`");
        }
    }

    /// Has a request of its guest's answered.
    pub(crate) fn ask(
        &self,
        import: Import,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
    ) -> HookFuture {
        self.exchange.hooks.ask(import, request, options)
    }

    /// The URL of the exchange's own request, where it can be passed on.
    pub(crate) fn own_url(&self) -> Option<&http::Uri> {
        self.exchange.hooks.url.as_ref()
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.exchange.hooks.limits
    }

    pub(crate) fn files(&mut self) -> FilesView<'_> {
        let inner = WasiFilesystemCtxView { ctx: self.wasi.filesystem(), table: &mut self.table };
        FilesView::new(inner, &mut self.files, &self.exchange.hooks, &mut self.limiter)
    }

    /// The guest is about to have the host keep so many bytes more; an error if it has too many.
    pub(crate) fn grows(&mut self, bytes: usize) -> wasmtime::Result<()> {
        if self.limiter.takes(bytes) {
            self.limiter.weighed(weigh(&mut self.table) + self.files.held())?;
        }
        Ok(())
    }

    /// The guest has ended: its report is to say what it held, and no limit applies any more.
    pub(crate) fn weigh_last(&mut self) {
        if self.limiter.has_much_unweighed() {
            self.limiter.weighed_last(weigh(&mut self.table) + self.files.held());
        }
    }

    pub(crate) fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// The handles that there are now are those that each exchange begins with. Returns how many; none if they cannot be.
    pub(crate) fn keep_handles(&mut self) -> Option<usize> {
        let printing = self.outlet.streams().saturating_sub(PRINTING_OF_WASI);
        self.kept = KeptHandles::of(&mut self.table, printing)?;
        Some(self.kept.len())
    }

    /// A call of its guest's has ended.
    pub(crate) fn look_at_kept_handles(&mut self) {
        self.kept.look(&mut self.table);
    }

    /// All other handles go. Returns whether those are as they were.
    pub(crate) fn let_go_of_other_handles(&mut self) -> bool {
        self.kept.let_go_of_others(&mut self.table)
    }
}

/// Stdout and stderr, which `context` attaches.
const PRINTING_OF_WASI: usize = 2;

/// What wasmtime-wasi keeps for a guest.
fn context(grants: &Grants, outlet: &Outlet, process: &'static ProcessState) -> (WasiCtx, Option<SimulatedWorld>) {
    let mut wasi = WasiCtxBuilder::new();
    wasi.max_random_size(MOST_RANDOM).allow_tcp(false).allow_udp(false);
    match &grants.stdio {
        Some(stdio) => stdio.attach(&mut wasi, process),
        None => {
            wasi.stdout(GuestStream::new(outlet, Stream::Stdout));
            wasi.stderr(GuestStream::new(outlet, Stream::Stderr));
        }
    }
    if !grants.env.is_empty() {
        wasi.envs(&grants.env);
    }
    if !grants.args.is_empty() {
        wasi.args(&grants.args);
    }
    let staged = grants.simulation.map(|simulation| simulation.simulate(&mut wasi));
    (wasi.build(), staged)
}

impl WasiView for StoreState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for StoreState {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.table, hooks: &mut self.exchange.hooks }
    }
}

/// What a handle of wasi:http's holds of an exchange.
fn clear_handle(entry: &mut (dyn Any + Send), hooks: &mut Hooks) {
    if let Some(request) = entry.downcast_mut::<HostIncomingRequest>() {
        request.body = None;
    } else if let Some(response) = entry.downcast_mut::<HostIncomingResponse>() {
        response.body = None;
    } else if let Some(request) = entry.downcast_mut::<HostOutgoingRequest>() {
        request.body = None;
    } else if let Some(response) = entry.downcast_mut::<HostOutgoingResponse>() {
        response.body = None;
    } else if let Some(body) = entry.downcast_mut::<HostIncomingBody>() {
        *body = HostIncomingBody::new(http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync());
    } else if let Some(trailers) = entry.downcast_mut::<HostFutureTrailers>() {
        *trailers = HostFutureTrailers::Consumed;
    } else if let Some(answer) = entry.downcast_mut::<HostFutureIncomingResponse>() {
        *answer = HostFutureIncomingResponse::Consumed;
    } else if let Some(request) = entry.downcast_mut::<p3::Request>() {
        let method = std::mem::take(&mut request.method);
        let headers = std::mem::replace(&mut request.headers, FieldMap::new_mutable(0));
        (*request, _) = p3::Request::new(method, None, None, None, headers, None, empty());
    } else if let Some(response) = entry.downcast_mut::<p3::Response>() {
        (*response, _) = p3::Response::from_http(hooks, http::Response::new(empty()));
    } else if let Some(out) = entry.downcast_mut::<HostResponseOutparam>() {
        out.send = Box::new(|_| ());
    }
}

#[cfg(test)]
mod tests {
    /// What [`super::let_go`] knows, and what holds nothing of an exchange.
    const KNOWN: &[&str] = &[
        "fields",
        "future-incoming-response",
        "future-trailers",
        "incoming-body",
        "incoming-request",
        "incoming-response",
        "outgoing-body", // broken off by `abort_bodies`, or whole
        "outgoing-request",
        "outgoing-response",
        "request-options",
        "response-outparam",
    ];

    #[test]
    fn each_resource_of_http_is_known() {
        let wit = include_str!("../../wit/deps/http.wit");
        let named = wit.lines().filter_map(|line| line.trim().strip_prefix("resource "));
        let mut resources: Vec<&str> = named.map(|rest| rest.trim_end_matches([' ', '{', ';'])).collect();
        resources.sort_unstable();
        assert_eq!(resources, KNOWN, "does `let_go` have to know it?");
    }
}
