//! An instance that begins each exchange as it was after its instantiation: what the guest of an instrumented component exports for that, and
//! what the host puts back itself.
//!
//! The guest's memories are put back by the host (`snapshot.rs`), its globals by the guest's own agents, one for each component that it is
//! composed of, and so are the numbers of its handles: those that the guest has left behind are taken from it, whatever they are of. Whatever cannot be put back ends the instance: memory
//! that has grown, a trap, a handle of the snapshot's that is gone, one that cannot be taken.

use std::ops::Range;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use wasmtime::Store;
use wasmtime::component::{Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, TypedFunc};

use crate::guest::agent::{Taken, Told};
use crate::guest::snapshot::{Pages, Snapshot, pages};
use crate::guest::store::StoreState;
use crate::process::pagemap::faults;

/// Of more handles that were left behind in one component their instance is dropped.
const MOST_LEFT: u32 = 128;

/// Numbers of handles that an agent knows, and as many more for those of the snapshot. Where a guest may have had more, nobody tries.
const MOST_NUMBERS: u32 = 1 << 15;

/// Takes note of the globals and of the handles. Its argument: how many handles there can have been. Returns how many there are, and where
/// the first memory lies: see [`Told`].
pub(crate) const SAVE: &str = "wasgi-restore-save";
/// Puts the globals and the order of handles back. Returns how many handles were left behind, and where the first memory lies. The order is
/// theirs until they are taken, and `RESTORE` called again with their number. `u32::MAX`: one of the snapshot's is gone.
pub(crate) const RESTORE: &str = "wasgi-restore-restore";
/// The largest number of a handle that was left behind, below its argument.
pub(crate) const LEFT: &str = "wasgi-restore-left";
/// Hands the handle of this number to the host. Its result is a tuple of all types of resources: see [`Taken`].
pub(crate) const TAKE: &str = "wasgi-restore-take";

/// By which name the agent with this number, of all that a component has, exports a function.
pub(crate) fn name(function: &str, agent: usize) -> String {
    format!("{function}-a{agent}")
}

/// Likewise the one that tells where a memory lies that is not its component's first.
pub(crate) fn memory_name(agent: usize, memory: usize) -> String {
    format!("wasgi-restore-memory-a{agent}-m{memory}")
}

/// What an instrumented component exports besides: the functions of each of its agents.
pub(crate) struct Exports(Vec<AgentExports>);

struct AgentExports {
    save: ComponentExportIndex,
    restore: ComponentExportIndex,
    left: ComponentExportIndex,
    /// If its component imports any resources.
    take: Option<ComponentExportIndex>,
    memories: Vec<ComponentExportIndex>,
}

impl Exports {
    pub(crate) fn find(component: &Component) -> Option<Self> {
        let find = |name: String| component.get_export_index(None, name.as_str());
        let agent = |number| {
            Some(AgentExports {
                save: find(name(SAVE, number))?,
                restore: find(name(RESTORE, number))?,
                left: find(name(LEFT, number))?,
                take: find(name(TAKE, number)),
                memories: (1..).map_while(|memory| find(memory_name(number, memory))).collect(),
            })
        };
        let agents: Vec<_> = (0..).map_while(agent).collect();
        (!agents.is_empty()).then_some(Self(agents))
    }
}

/// The functions of an agent in an instance.
struct Agent {
    restore: TypedFunc<(u32,), (Told,)>,
    left: TypedFunc<(u32,), (u32,)>,
    take: Option<TypedFunc<(u32,), (Taken,)>>,
    memories: Vec<TypedFunc<(u32,), (Told,)>>,
}

impl Agent {
    fn new(store: &mut Store<StoreState>, instance: &Instance, exports: &AgentExports) -> wasmtime::Result<Self> {
        let mut memories = Vec::with_capacity(exports.memories.len());
        for memory in &exports.memories {
            memories.push(instance.get_typed_func(&mut *store, memory)?);
        }
        Ok(Self {
            restore: instance.get_typed_func(&mut *store, exports.restore)?,
            left: instance.get_typed_func(&mut *store, exports.left)?,
            take: exports.take.map(|take| instance.get_typed_func(&mut *store, take)).transpose()?,
            memories,
        })
    }

    /// Where the memories of its component lie, the first of which is known.
    fn memories(
        &self,
        store: &mut Store<StoreState>,
        first: Option<Range<usize>>,
        all: &mut Vec<Range<usize>>,
    ) -> wasmtime::Result<()> {
        all.extend(first);
        for memory in &self.memories {
            let (told,): (Told,) = at_once(store, memory, 0)?;
            all.extend(told.memory);
        }
        Ok(())
    }

    /// The guest has left so many handles behind: they are taken from it, and their numbers are free. Returns whether that could be done.
    fn take_left(&self, store: &mut Store<StoreState>, number: u32) -> wasmtime::Result<bool> {
        let Some(take) = &self.take else { return Ok(false) };
        if number > MOST_LEFT {
            return Ok(false); // or one of the snapshot's is gone
        }
        let mut handle = u32::MAX;
        for _ in 0..number {
            (handle,) = at_once(store, &self.left, handle)?;
            match at_once(store, take, handle)? {
                // what a guest had at its snapshot has another number now
                (Taken(Some(place)),) if store.data().kept.has(place) => return Ok(false),
                (Taken(Some(_)),) => {}
                (Taken(None),) => return Ok(false),
            }
        }
        let (told,) = at_once(store, &self.restore, number)?;
        Ok(told.number == 0)
    }
}

/// What puts an instance back.
pub(crate) struct Restoring {
    agents: Vec<Agent>,
    pages: Arc<Result<Pages, String>>,
    snapshot: Snapshot,
    /// Where its memories lie, as they were told last.
    memories: Vec<Range<usize>>,
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
        if most_handles > MOST_NUMBERS || store.data_mut().table().iter_mut().count() > MOST_NUMBERS as usize {
            return Ok(None);
        }
        let (mut agents, mut memories) = (Vec::new(), Vec::new());
        let mut kept = 0usize;
        for exports in &exports.0 {
            let agent = Agent::new(store, instance, exports)?;
            let save: TypedFunc<(u32,), (Told,)> = instance.get_typed_func(&mut *store, exports.save)?;
            let (told,) = at_once(store, &save, most_handles)?;
            agent.memories(store, told.memory, &mut memories)?;
            kept = kept.saturating_add(told.number as usize);
            agents.push(agent);
        }
        // several could give each other what they have, and have it back by another's number
        let with_handles = agents.iter().filter(|agent| agent.take.is_some()).count();
        if with_handles > 1 && kept > 1 {
            return Ok(None);
        }
        let host = store.data_mut();
        let counters = &host.limiter.process().counters;
        let Ok(snapshot) = Snapshot::take(found, &memories, counters) else { return Ok(None) };
        let restoring = Self { agents, pages, snapshot, memories, has_faulted: false };
        // more than the host knows of are streams, futures and the like, which nobody can look into
        Ok(host.keep_handles().is_some_and(|known| kept <= known).then_some(restoring))
    }

    /// How many bytes of memory it puts back, as far as is known.
    pub(crate) fn bytes(&self) -> usize {
        self.snapshot.bytes()
    }

    /// An exchange has ended well, which may have had so many handles. Returns whether its instance is as it was.
    pub(crate) fn restore(&mut self, store: &mut Store<StoreState>, most_handles: u32) -> wasmtime::Result<bool> {
        let Ok(pages) = &*self.pages else { return Ok(false) };
        if most_handles > MOST_NUMBERS {
            return Ok(false);
        }
        self.memories.clear();
        for agent in &self.agents {
            let (told,) = at_once(store, &agent.restore, most_handles)?;
            agent.memories(store, told.memory, &mut self.memories)?;
            if told.number != 0 && !agent.take_left(store, told.number)? {
                return Ok(false);
            }
        }
        let has_faulted = std::mem::take(&mut self.has_faulted);
        if !store.data_mut().let_go_of_other_handles() {
            return Ok(false);
        }
        self.snapshot.restore(pages, &self.memories, has_faulted).map_err(wasmtime::Error::new)
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
    // those that an agent takes for a moment are none of the guest's
    store.set_max_component_handles(usize::MAX);
    store.data_mut().is_restored = true;
    let polled = pin!(function.call_async(&mut *store, (argument,))).poll(&mut Context::from_waker(Waker::noop()));
    store.data_mut().is_restored = false;
    let most = store.data().limits().most_handles();
    store.set_max_component_handles(most);
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
