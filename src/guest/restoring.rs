//! An instance that begins each exchange as it was after its instantiation: what the guest of an instrumented component exports for that, and
//! what the host puts back itself.
//!
//! The guest's memories are put back by the host (`snapshot.rs`), its globals by the guest's own agent, and so are the numbers of its handles:
//! those that the guest has left behind are taken from it, whatever they are of. Whatever cannot be put back ends the instance: memory
//! that has grown, a trap, a handle of the snapshot's that is gone, one that cannot be taken.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{
    Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Linker, TypedFunc, WasmList,
};
use wasmtime::{Store, StoreContextMut};

use crate::guest::agent::{MOST_LEFT, Taken};
use crate::guest::snapshot::{Pages, Snapshot, pages};
use crate::guest::store::StoreState;
use crate::process::pagemap::faults;

/// The function of the host's that is told where a memory lies: its number, an empty list at its beginning, its size in pages.
pub(crate) const TELL: &str = "wasgi-restore-memory";
/// The function of the host's that is told the number of a handle that the guest has left behind.
pub(crate) const LEFT: &str = "wasgi-restore-left";
/// Takes note of the globals and of the handles, and tells of the memories. Its argument: how many handles there can have been. Returns how
/// many there are.
pub(crate) const SAVE: &str = "wasgi-restore-save";
/// Puts the globals and the order of handles back, and tells of the memories. Returns how many handles were left behind: the order is theirs
/// until they are taken, and `RESTORE` called again with their number. `u32::MAX`: one of the snapshot's is gone.
pub(crate) const RESTORE: &str = "wasgi-restore-restore";
/// Hands the handle of this number to the host. Its result is a tuple of all types of resources: see [`Taken`].
pub(crate) const TAKE: &str = "wasgi-restore-take";

/// What an instrumented component exports besides.
pub(crate) struct Exports {
    save: ComponentExportIndex,
    restore: ComponentExportIndex,
    /// If the guest imports any resources.
    take: Option<ComponentExportIndex>,
}

impl Exports {
    pub(crate) fn find(component: &Component) -> Option<Self> {
        let find = |name| component.get_export_index(None, name);
        Some(Self { save: find(SAVE)?, restore: find(RESTORE)?, take: find(TAKE) })
    }
}

/// The functions of the host's that the agent calls.
pub(crate) fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.root().func_wrap(
        TELL,
        |mut store: StoreContextMut<'_, StoreState>, (memory, base, pages): (u32, WasmList<u8>, u32)| {
            let start = base.as_le_slice(&store).as_ptr() as usize;
            let end = start.saturating_add((pages as usize) << 16);
            store.data_mut().agent.tell_memory(memory, start..end)
        },
    )?;
    linker.root().func_wrap(LEFT, |mut store: StoreContextMut<'_, StoreState>, (number,): (u32,)| {
        store.data_mut().agent.tell_left(number)
    })
}

/// What puts an instance back.
pub(crate) struct Restoring {
    restore: TypedFunc<(u32,), (u32,)>,
    take: Option<TypedFunc<(u32,), (Taken,)>>,
    pages: Arc<Result<Pages, String>>,
    snapshot: Snapshot,
    /// The exchange has had faults.
    has_faulted: bool,
}

impl Restoring {
    /// Of an instance in which nothing runs, and which can have had so many handles. None where the system does not tell what would have to
    /// be put back, or where a handle could be changed unseen.
    pub(crate) fn new(
        store: &mut Store<StoreState>,
        instance: &Instance,
        exports: &Exports,
        most_handles: u32,
    ) -> wasmtime::Result<Option<Self>> {
        let pages = pages();
        let Ok(found) = &*pages else { return Ok(None) };
        let save = instance.get_typed_func(&mut *store, exports.save)?;
        let restore = instance.get_typed_func(&mut *store, exports.restore)?;
        let take = exports.take.map(|take| instance.get_typed_func(&mut *store, take)).transpose()?;
        let (kept,): (u32,) = at_once(store, &save, most_handles)?;
        let host = store.data_mut();
        let counters = &host.limiter.process().counters;
        let Ok(snapshot) = Snapshot::take(found, &host.agent.memories, counters) else { return Ok(None) };
        let restoring = Self { restore, take, pages, snapshot, has_faulted: false };
        // more than the host knows of are streams, futures and the like, which nobody can look into
        Ok(host.keep_handles().is_some_and(|known| kept as usize <= known).then_some(restoring))
    }

    /// An exchange has ended well, which may have had so many handles. Returns whether its instance is as it was.
    pub(crate) fn restore(&mut self, store: &mut Store<StoreState>, most_handles: u32) -> wasmtime::Result<bool> {
        let Ok(pages) = &*self.pages else { return Ok(false) };
        let (left,) = at_once(store, &self.restore, most_handles)?;
        if left != 0 && !self.take_left(store, left)? {
            return Ok(false);
        }
        let has_faulted = std::mem::take(&mut self.has_faulted);
        let host = store.data_mut();
        if !host.let_go_of_other_handles() {
            return Ok(false);
        }
        self.snapshot.restore(pages, &host.agent.memories, has_faulted).map_err(wasmtime::Error::new)
    }

    /// The guest has left so many handles behind: they are taken from it, and their numbers are free. Returns whether that could be done.
    fn take_left(&self, store: &mut Store<StoreState>, number: u32) -> wasmtime::Result<bool> {
        let left = std::mem::take(&mut store.data_mut().agent.left);
        let Some(take) = &self.take else { return Ok(false) };
        if number > MOST_LEFT || left.len() != number as usize {
            return Ok(false); // or one of the snapshot's is gone
        }
        for handle in left {
            match at_once(store, take, handle)? {
                // what a guest had at its snapshot has another number now
                (Taken(Some(place)),) if store.data().agent.kept.has(place) => return Ok(false),
                (Taken(Some(_)),) => {}
                (Taken(None),) => return Ok(false),
            }
        }
        let (left,) = at_once(store, &self.restore, number)?;
        Ok(left == 0)
    }
}

/// Calls a function of the agent's, which neither waits nor computes, and whose turn does not end.
fn at_once<R>(store: &mut Store<StoreState>, function: &TypedFunc<(u32,), R>, argument: u32) -> wasmtime::Result<R>
where
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    const MANY: u64 = 1 << 40;
    store.set_epoch_deadline(MANY);
    if store.data().fuel().is_some() {
        store.set_fuel(u64::MAX)?;
    }
    store.data_mut().agent.is_called = true;
    let polled = pin!(function.call_async(&mut *store, (argument,))).poll(&mut Context::from_waker(Waker::noop()));
    store.data_mut().agent.is_called = false;
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(wasmtime::Error::msg("the guest waits where it cannot")),
    }
}

/// Notes whether its guest writes pages for the first time.
pub(crate) struct Watched<'a, F> {
    run: F,
    restoring: Option<&'a mut Restoring>,
}

impl<'a, F> Watched<'a, F> {
    pub(crate) fn new(run: F, restoring: Option<&'a mut Restoring>) -> Self {
        Self { run, restoring }
    }
}

impl<F: Future + Unpin> Future for Watched<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(restoring) = &mut this.restoring else { return Pin::new(&mut this.run).poll(cx) };
        // of this thread: the next turn may be another one's
        let before = faults();
        let polled = Pin::new(&mut this.run).poll(cx);
        restoring.has_faulted |= faults() != before;
        polled
    }
}
