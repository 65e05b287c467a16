//! An instance that begins each exchange as it was after its instantiation: what the guest of an instrumented component exports for that, and
//! what the host puts back itself.
//!
//! The guest's memories are put back by the host (`snapshot.rs`), its globals by the guest's own agent, and so are the numbers of its handles.
//! Whatever cannot be put back ends the instance: memory that has grown, a trap, a handle of the snapshot's that is gone.

use std::any::TypeId;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{
    Component, ComponentExportIndex, Instance, Linker, Resource, ResourceTable, TypedFunc, WasmList,
};
use wasmtime::{Store, StoreContextMut};

use crate::guest::snapshot::{Pages, Snapshot, pages};
use crate::guest::store::StoreState;
use crate::process::pagemap::faults;

/// The function of the host's that is told where a memory lies: its number, an empty list at its beginning, its size in pages.
pub(crate) const TELL: &str = "wasgi-restore-memory";
/// Takes note of the globals, and tells of the memories.
pub(crate) const SAVE: &str = "wasgi-restore-save";
/// Puts the globals back, and tells of the memories. Its argument: how many numbers of handles are put in order, from the first.
pub(crate) const RESTORE: &str = "wasgi-restore-restore";

/// What an instrumented component exports besides.
pub(crate) struct Exports {
    save: ComponentExportIndex,
    restore: ComponentExportIndex,
}

impl Exports {
    pub(crate) fn find(component: &Component) -> Option<Self> {
        let find = |name| component.get_export_index(None, name);
        Some(Self { save: find(SAVE)?, restore: find(RESTORE)? })
    }
}

/// The function of the host's that is told of memories.
pub(crate) fn link(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.root().func_wrap(
        TELL,
        |mut store: StoreContextMut<'_, StoreState>, (memory, base, pages): (u32, WasmList<u8>, u32)| {
            let start = base.as_le_slice(&store).as_ptr() as usize;
            let end = start.saturating_add((pages as usize) << 16);
            let memories = &mut store.data_mut().memories;
            if memory == 0 {
                memories.clear();
            }
            memories.push(start..end);
            Ok(())
        },
    )
}

/// What puts an instance back.
pub(crate) struct Restoring {
    restore: TypedFunc<(u32,), ()>,
    pages: Arc<Result<Pages, String>>,
    snapshot: Snapshot,
    /// The handles of the snapshot: their places in the host's table, and what they are of.
    handles: Vec<(u32, TypeId)>,
    /// How many others were left behind so far.
    left: u64,
    /// The exchange has had faults.
    has_faulted: bool,
}

impl Restoring {
    /// Of an instance in which nothing runs. None where the system does not tell what would have to be put back.
    pub(crate) fn new(
        store: &mut Store<StoreState>,
        instance: &Instance,
        exports: &Exports,
    ) -> wasmtime::Result<Option<Self>> {
        let pages = pages();
        let Ok(found) = &*pages else { return Ok(None) };
        let save = instance.get_typed_func::<(), ()>(&mut *store, exports.save)?;
        let restore = instance.get_typed_func::<(u32,), ()>(&mut *store, exports.restore)?;
        at_once(store, async |store| save.call_async(store, ()).await)?;
        let host = store.data_mut();
        let counters = &host.limiter.process().counters;
        let Ok(snapshot) = Snapshot::take(found, &host.memories, counters) else { return Ok(None) };
        let handles = occupied(host.table());
        Ok(Some(Self { restore, pages, snapshot, handles, left: 0, has_faulted: false }))
    }

    /// An exchange has ended well, which may have had so many handles. Returns whether its instance is as it was.
    pub(crate) fn restore(&mut self, store: &mut Store<StoreState>, most_handles: u32) -> wasmtime::Result<bool> {
        let Ok(pages) = &*self.pages else { return Ok(false) };
        let restore = &self.restore;
        at_once(store, async |store| restore.call_async(store, (most_handles,)).await)?;
        let has_faulted = std::mem::take(&mut self.has_faulted);
        let host = store.data_mut();
        let now = std::mem::take(&mut host.memories);
        let is_as_before = self.snapshot.restore(pages, &now, has_faulted)?;
        host.memories = now;
        let Some(left) = let_go(host.table(), &self.handles) else { return Ok(false) };
        self.left += left;
        Ok(is_as_before)
    }

    /// How many numbers of handles are taken for good.
    pub(crate) fn taken(&self) -> u64 {
        self.left.saturating_add(self.handles.len() as u64)
    }

    /// How many handles its exchanges have left behind: their numbers are taken.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }
}

/// Runs a function of the guest's that neither waits nor computes, and whose turn does not end.
fn at_once(
    store: &mut Store<StoreState>,
    run: impl AsyncFnOnce(&mut Store<StoreState>) -> wasmtime::Result<()>,
) -> wasmtime::Result<()> {
    const MANY: u64 = 1 << 40;
    store.set_epoch_deadline(MANY);
    if store.data().fuel().is_some() {
        store.set_fuel(u64::MAX)?;
    }
    store.data_mut().is_put_back = true;
    let polled = pin!(run(&mut *store)).poll(&mut Context::from_waker(Waker::noop()));
    store.data_mut().is_put_back = false;
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(wasmtime::Error::msg("the guest waits where it cannot")),
    }
}

/// The handles that there are: where in the table, and of what.
fn occupied(table: &mut ResourceTable) -> Vec<(u32, TypeId)> {
    let live = table.iter_mut().count();
    let mut found = Vec::with_capacity(live);
    for place in 0..u32::MAX {
        if found.len() == live {
            break;
        }
        if let Ok(entry) = table.get_any_mut(place) {
            found.push((place, (*entry).type_id()));
        }
    }
    found
}

/// Lets go of all handles but these. Returns how many that were; none if one of these is gone, or another has its place.
fn let_go(table: &mut ResourceTable, kept: &[(u32, TypeId)]) -> Option<u64> {
    if kept.is_empty() && table.is_empty() {
        return Some(0);
    }
    let mut others = occupied(table);
    for handle in kept {
        let at = others.iter().position(|other| other == handle)?;
        others.swap_remove(at);
    }
    let number = others.len() as u64;
    // one that another was made of goes after it
    while !others.is_empty() {
        let before = others.len();
        others.retain(|(place, _)| {
            // it goes whatever it is of: only then its type is looked at, which nothing has
            let _ = table.delete(Resource::<Nothing>::new_own(*place));
            table.get_any_mut(*place).is_ok()
        });
        if others.len() == before {
            return None;
        }
    }
    Some(number)
}

/// What no handle is of.
struct Nothing;

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

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn handles_that_are_left_behind_go_whatever_they_are_of() {
        let mut table = ResourceTable::new();
        let kept = table.push("kept").unwrap();
        let handles = occupied(&mut table);
        let parent = table.push(1u8).unwrap();
        table.push_child(2u16, &parent).unwrap();
        table.push("left").unwrap();
        assert_eq!(let_go(&mut table, &handles), Some(3));
        assert_eq!(occupied(&mut table), handles);
        assert_eq!(let_go(&mut table, &handles), Some(0));
        table.delete(kept).unwrap();
        assert_eq!(let_go(&mut table, &handles), None);
        table.push(3u32).unwrap();
        assert_eq!(let_go(&mut table, &handles), None, "another has its place");
    }
}
