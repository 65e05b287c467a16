//! The limiter of one store: it counts what its instances take, and refuses what goes past a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use wasmtime::component::{ResourceTable, ResourceTableError};
use wasmtime_wasi_http::FieldMapError;

use crate::engine::ProcessState;
use crate::engine::heap_trim::HEAVY;
use crate::error::Error;
use crate::error::trap::Trap;
use crate::limits::{Limit, Limits};

/// What a handle takes, whatever it is of: its place in two tables, and what small things are behind it.
pub(crate) const HANDLE: u64 = 256;

/// Counts what the instances in one store take, and refuses what goes past a limit.
pub(crate) struct StoreLimiter {
    process: &'static ProcessState,
    limits: Limits,
    /// What all instances of its app have, where that is limited.
    of_app: Option<Arc<AtomicI64>>,
    memory: u64,
    /// What was behind its handles when they were weighed last, and the most that ever was.
    held: u64,
    most_held: u64,
    /// What it has had the host take since then.
    unweighed: u64,
    peak: Arc<AtomicU64>,
    elements: u64,
    /// By how much the memories and tables were to grow last: taken back if they did not.
    last_memory: u64,
    last_elements: u64,
    /// How often its guest has called the host in this exchange.
    calls: u32,
    /// The peak before that.
    before: u64,
    /// The growth that was refused: a trap that follows is the guest's way to say so.
    refused: Option<Limit>,
    /// Likewise by the system, with its words.
    refused_by_system: Option<String>,
}

impl StoreLimiter {
    pub(crate) fn new(
        process: &'static ProcessState,
        limits: &Limits,
        of_app: &Arc<AtomicI64>,
        peak: Arc<AtomicU64>,
    ) -> Self {
        Self {
            process,
            limits: *limits,
            of_app: limits.memory_per_app.map(|_| of_app.clone()),
            memory: 0,
            held: 0,
            most_held: 0,
            unweighed: 0,
            peak,
            elements: 0,
            last_memory: 0,
            last_elements: 0,
            calls: 0,
            before: 0,
            refused: None,
            refused_by_system: None,
        }
    }

    pub(crate) fn process(&self) -> &'static ProcessState {
        self.process
    }

    /// The same when the guest has ended: for its report, and no limit applies any more.
    pub(crate) fn weighed_last(&mut self, held: u64) {
        let refused = self.refused;
        let _ = self.weighed(held);
        self.refused = refused;
    }

    /// The next exchange of the same instance: what it holds already is where its peak begins.
    pub(crate) fn reset(&mut self, peak: Arc<AtomicU64>) {
        let total = self.memory + self.held;
        peak.store(total, Ordering::Relaxed);
        self.peak = peak;
        self.before = total;
        (self.last_memory, self.last_elements) = (0, 0);
        self.calls = 0;
        self.refused = None;
        self.refused_by_system = None;
    }

    /// What it has, and its app, is more by so many bytes, or less. Whether that is within the app's limit.
    fn counts(&self, bytes: i64) -> bool {
        self.process.counters.memory_grew(bytes);
        match (&self.of_app, self.limits.memory_per_app) {
            (Some(of_app), Some(limit)) => {
                of_app.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) <= signed(limit)
            }
            _ => true,
        }
    }

    /// The growth that the system refused, if a guest has ended because of it.
    pub(crate) fn refused_by_system(&self) -> Option<String> {
        self.refused_by_system.clone()
    }

    /// Whether so many handles, and the memory, leave the next exchange of the same instance room. `kept`: streams, futures, tasks and the
    /// like that wasmtime keeps for a guest of WASI 0.3, which count as handles.
    pub(crate) fn has_room(&self, handles: u64, kept: u64) -> bool {
        let fits = |held: u64, limit: Option<u64>| limit.is_none_or(|limit| held <= limit / 4 * 3);
        let memory = self.memory + self.held + kept.saturating_mul(HANDLE);
        fits(memory, self.limits.memory) && fits(handles.saturating_add(kept), self.limits.handles)
    }

    /// The guest has the host take so many bytes more behind a handle. Returns whether its handles are to be weighed: seldom enough
    /// to cost little, and often enough that what it may hold is never passed by more than a quarter.
    pub(crate) fn takes(&mut self, bytes: usize) -> bool {
        self.unweighed = self.unweighed.saturating_add(bytes as u64).saturating_add(HANDLE);
        self.unweighed >= WEIGHED_EACH.max(self.held / 4)
    }

    /// Whether there is as much as is weighed in the first place.
    pub(crate) fn has_much_unweighed(&self) -> bool {
        self.unweighed >= WEIGHED_EACH
    }

    /// What its handles weigh now; an error if that is more than it may have.
    pub(crate) fn weighed(&mut self, held: u64) -> wasmtime::Result<()> {
        self.unweighed = 0;
        let fits_app = self.counts(signed(held) - signed(self.held));
        let grows = held > self.held;
        self.held = held;
        self.most_held = self.most_held.max(held);
        let total = self.memory.saturating_add(held);
        self.peak.fetch_max(total, Ordering::Relaxed);
        if self.limits.memory.is_some_and(|limit| total > limit) {
            self.refused = Some(Limit::Memory);
            wasmtime::bail!(
                "the host holds {held} bytes behind the guest's handles, and the guest has {}",
                self.memory
            );
        }
        if grows && !fits_app {
            self.refused = Some(Limit::MemoryPerApp);
            wasmtime::bail!("the host holds {held} bytes behind the guest's handles, and its app has too many");
        }
        Ok(())
    }

    /// What the host is to keep for an instance, before there is one. Whether that is within the limit.
    pub(crate) fn takes_instance(&mut self, bytes: u64) -> bool {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        wasmtime::ResourceLimiter::memory_growing(self, 0, bytes, None).unwrap_or(false)
    }

    /// The guest calls the host, perhaps to grow something. A growth that failed is told also where it was never asked for (one past what
    /// an index can name): it must not take back an earlier one.
    pub(crate) fn calls_host(&mut self) {
        (self.last_memory, self.last_elements) = (0, 0);
        self.calls = self.calls.saturating_add(1);
    }

    /// What it has called for is over.
    pub(crate) fn forget_calls(&mut self) {
        self.calls = 0;
    }

    /// How often its guest has called the host in this exchange, or more often.
    pub(crate) fn calls(&self) -> u32 {
        self.calls
    }

    /// The limit that ended a guest, if one did.
    pub(crate) fn explain(&self, error: &wasmtime::Error, trap: &Arc<Trap>) -> Option<Error> {
        let trapped = error.is::<wasmtime::WasmBacktrace>() || error.is::<wasmtime::Trap>();
        let full = matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full))
            || is_out_of_handles(error);
        let which = if error.downcast_ref::<wasmtime::Trap>() == Some(&wasmtime::Trap::OutOfFuel) {
            Limit::Fuel
        } else if full {
            Limit::Handles
        } else if matches!(error.downcast_ref::<FieldMapError>(), Some(FieldMapError::TotalSizeTooBig)) {
            Limit::Fields
        } else if let Some(refused) = self.refused {
            refused
        } else if !trapped && is_out_of_instances(error) {
            Limit::Instances
        } else {
            return None;
        };
        let value = match which {
            Limit::Memory => self.limits.memory,
            Limit::MemoryPerApp => self.limits.memory_per_app,
            Limit::TableElements => self.limits.table_elements,
            Limit::Instances => self.limits.instances,
            Limit::Handles => self.limits.handles,
            Limit::Fields => self.limits.fields,
            Limit::Fuel => self.limits.fuel,
        }?;
        Some(Error::Limit { limit: which, value, trap: trapped.then(|| trap.clone()) })
    }

    pub(crate) fn bound_handles(&self, table: &mut ResourceTable) {
        table.set_max_capacity(self.limits.most_handles());
    }
}

/// Whether wasmtime had no more handles for a resource of the guest's own: it tells that in words only.
fn is_out_of_handles(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().ends_with("store handle limit exceeded")
}

/// Whether a component has more core instances than it may: wasmtime tells that in words only.
fn is_out_of_instances(error: &wasmtime::Error) -> bool {
    error.root_cause().to_string().contains("instance count too high")
}

impl Drop for StoreLimiter {
    fn drop(&mut self) {
        self.counts(-signed(self.memory.saturating_add(self.held)));
        // the handles are gone: they are dropped first
        if self.most_held >= HEAVY {
            self.process.trimming.ask(&self.process.runtime);
        }
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// How much a guest has the host take before its handles are weighed again.
const WEIGHED_EACH: u64 = 1 << 20;

impl wasmtime::ResourceLimiter for StoreLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_sub(current as u64).saturating_add(desired as u64);
        let with_held = total.saturating_add(self.held);
        if self.limits.memory.is_some_and(|limit| with_held > limit) {
            self.refused = Some(Limit::Memory);
            return Ok(false);
        }
        let more = total.saturating_sub(self.memory);
        if !self.counts(signed(more)) && more > 0 {
            self.counts(-signed(more));
            self.refused = Some(Limit::MemoryPerApp);
            return Ok(false);
        }
        self.last_memory = more;
        self.memory = total;
        self.before = self.peak.fetch_max(with_held, Ordering::Relaxed);
        // it coped with what was refused before
        self.refused = None;
        self.refused_by_system = None;
        Ok(true)
    }

    /// It was allowed, but the memory's own maximum or the allocator was against it.
    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refused_by_system = crate::error::refused_by_system(&error);
        if self.refused.is_none() {
            self.memory = self.memory.saturating_sub(self.last_memory);
            self.counts(-signed(self.last_memory));
            self.peak.store(self.before, Ordering::Relaxed);
        }
        self.last_memory = 0;
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.elements.saturating_sub(current as u64).saturating_add(desired as u64);
        if self.limits.table_elements.is_some_and(|limit| total > limit) {
            self.refused = Some(Limit::TableElements);
            return Ok(false);
        }
        self.last_elements = total.saturating_sub(self.elements);
        self.elements = total;
        self.refused = None;
        Ok(true)
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        if self.refused.is_none() {
            self.elements = self.elements.saturating_sub(self.last_elements);
        }
        self.last_elements = 0;
        Ok(())
    }

    fn instances(&self) -> usize {
        self.limits.instances.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX))
    }

    fn tables(&self) -> usize {
        usize::MAX
    }

    fn memories(&self) -> usize {
        usize::MAX
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};

    use super::*;

    /// Has one core instance, and makes two handles.
    const COMPONENT: &str = r#"
        (component
          (type $resource (resource (rep i32)))
          (core func $new (canon resource.new $resource))
          (core module $module
            (import "" "new" (func $new (param i32) (result i32)))
            (func $start (drop (call $new (i32.const 1))) (drop (call $new (i32.const 2))))
            (start $start))
          (core instance (instantiate $module (with "" (instance (export "new" (func $new)))))))"#;

    /// What wasmtime says of it under such limits; `None`: that it works.
    fn told(instances: usize, handles: usize) -> Option<wasmtime::Error> {
        let engine = Engine::default();
        let component = Component::new(&engine, COMPONENT).unwrap();
        let mut store = Store::new(&engine, StoreLimitsBuilder::new().instances(instances).build());
        store.limiter(|limits: &mut StoreLimits| limits);
        store.set_max_component_handles(handles);
        Linker::new(&engine).instantiate(&mut store, &component).err()
    }

    #[test]
    fn limits_are_told_in_the_words_that_are_looked_for() {
        assert!(told(10, 10).is_none());
        assert!(is_out_of_instances(&told(0, 10).unwrap()));
        assert!(is_out_of_handles(&told(10, 1).unwrap()));
    }
}
