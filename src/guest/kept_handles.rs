//! The handles that a guest has at its snapshot, as the host's table has them: they stay, and all others go.
//!
//! What is behind them is not put back, so only such are allowed as an exchange cannot change, or as show that one did.

use std::any::{Any, TypeId};

use http::HeaderMap;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::DynOutputStream;
use wasmtime_wasi_http::p2::body::HostFutureTrailers;
use wasmtime_wasi_http::p2::types::{HostFutureIncomingResponse, HostIncomingRequest, HostIncomingResponse};
use wasmtime_wasi_http::{FieldMap, RequestOptions};

/// What is behind a handle of the snapshot.
enum Content {
    /// A guest cannot change it.
    Constant,
    /// A set of fields; a change copies it, since it is kept here as well.
    Fields(FieldMap),
    /// A guest may be rid of them, and wasmtime-wasi-http keeps them.
    Options(RequestOptions),
}

impl Content {
    /// None if it could be changed unseen. Streams are to be looked at elsewhere.
    fn of(entry: &dyn Any) -> Option<Self> {
        if let Some(fields) = entry.downcast_ref::<FieldMap>() {
            Some(Self::Fields(fields.clone()))
        } else if let Some(options) = entry.downcast_ref::<RequestOptions>() {
            Some(Self::Options(*options))
        } else {
            (entry.is::<DynOutputStream>() || is_constant(entry)).then_some(Self::Constant)
        }
    }

    fn is_in(&self, entry: &dyn Any) -> bool {
        match self {
            Self::Constant => true,
            Self::Fields(before) => {
                entry.downcast_ref::<FieldMap>().is_some_and(|now| std::ptr::eq::<HeaderMap>(&**before, &**now))
            }
            Self::Options(before) => entry.downcast_ref() == Some(before),
        }
    }
}

/// Whether it has nothing that a guest can change: its body was taken out of it.
fn is_constant(entry: &dyn Any) -> bool {
    if let Some(request) = entry.downcast_ref::<HostIncomingRequest>() {
        request.body.is_none()
    } else if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
        response.body.is_none()
    } else if let Some(answer) = entry.downcast_ref::<HostFutureIncomingResponse>() {
        matches!(answer, HostFutureIncomingResponse::Consumed)
    } else {
        matches!(entry.downcast_ref(), Some(HostFutureTrailers::Consumed))
    }
}

/// A handle of the snapshot.
struct Kept {
    /// Where in the host's table.
    place: u32,
    of: TypeId,
    content: Content,
}

impl Kept {
    fn is_there(&self, table: &mut ResourceTable) -> bool {
        table.get_any_mut(self.place).is_ok_and(|entry| (*entry).type_id() == self.of)
    }

    fn is_as_it_was(&self, table: &mut ResourceTable) -> bool {
        table.get_any_mut(self.place).is_ok_and(|entry| (*entry).type_id() == self.of && self.content.is_in(entry))
    }
}

/// The handles of a snapshot.
#[derive(Default)]
pub(crate) struct KeptHandles {
    handles: Vec<Kept>,
    /// One of them is gone, whatever has its place now.
    is_one_gone: bool,
}

impl KeptHandles {
    /// All that there are, so many streams to stdout and stderr among them. None if there is one whose state an exchange could change.
    pub(crate) fn of(table: &mut ResourceTable, printing: usize) -> Option<Self> {
        let mut handles = Vec::new();
        let mut streams = 0;
        for place in occupied(table) {
            let entry = table.get_any_mut(place).ok()?;
            streams += usize::from(entry.is::<DynOutputStream>());
            handles.push(Kept { place, of: (*entry).type_id(), content: Content::of(entry)? });
        }
        (streams <= printing).then_some(Self { handles, is_one_gone: false })
    }

    pub(crate) fn len(&self) -> usize {
        self.handles.len()
    }

    /// Whether one of them has this place.
    pub(crate) fn has(&self, place: u32) -> bool {
        self.handles.iter().any(|kept| kept.place == place)
    }

    /// To be called after each call of the guest's, none of which drops a handle and makes another one of its type: one that has a place
    /// later is told from the one that was there.
    pub(crate) fn look(&mut self, table: &mut ResourceTable) {
        self.is_one_gone |= self.handles.iter().any(|kept| !kept.is_there(table));
    }

    /// Lets go of all others. Returns whether these are all that is left, as they were.
    pub(crate) fn let_go_of_others(&self, table: &mut ResourceTable) -> bool {
        if self.is_one_gone || !self.handles.iter().all(|kept| kept.is_as_it_was(table)) {
            return false;
        }
        if self.handles.is_empty() && table.is_empty() {
            return true;
        }
        let mut others = occupied(table);
        others.retain(|place| !self.has(*place));
        // one that another was made of goes after it
        while !others.is_empty() {
            let before = others.len();
            others.retain(|place| {
                // it goes whatever it is of: only then its type is looked at, which nothing has
                let _ = table.delete(Resource::<Nothing>::new_own(*place));
                table.get_any_mut(*place).is_ok()
            });
            if others.len() == before {
                return false;
            }
        }
        true
    }
}

/// The places that are taken.
fn occupied(table: &mut ResourceTable) -> Vec<u32> {
    let live = table.iter_mut().count();
    let mut found = Vec::with_capacity(live);
    for place in 0..u32::MAX {
        if found.len() == live {
            break;
        }
        if table.get_any_mut(place).is_ok() {
            found.push(place);
        }
    }
    found
}

/// What no handle is of.
struct Nothing;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn fields() -> FieldMap {
        FieldMap::new_mutable(1000)
    }

    #[test]
    fn handles_that_are_left_behind_go_whatever_they_are_of() {
        let mut table = ResourceTable::new();
        table.push(fields()).unwrap();
        let kept = KeptHandles::of(&mut table, 0).unwrap();
        let parent = table.push(1u8).unwrap();
        table.push_child(2u16, &parent).unwrap();
        table.push("left").unwrap();
        assert!(kept.let_go_of_others(&mut table));
        assert_eq!(occupied(&mut table), [0]);
        assert!(kept.let_go_of_others(&mut table));
    }

    #[test]
    fn one_that_is_gone_is_missed_whatever_has_its_place() {
        let mut table = ResourceTable::new();
        let first = table.push(fields()).unwrap();
        let mut kept = KeptHandles::of(&mut table, 0).unwrap();
        kept.look(&mut table);
        assert!(kept.let_go_of_others(&mut table));
        let content = table.delete(first).unwrap();
        assert!(!kept.let_go_of_others(&mut table));
        kept.look(&mut table);
        table.push(content).unwrap();
        assert!(!kept.let_go_of_others(&mut table), "another is in its place");
    }

    #[test]
    fn fields_that_were_changed_are_noticed() {
        let mut table = ResourceTable::new();
        let first = table.push(fields()).unwrap();
        let kept = KeptHandles::of(&mut table, 0).unwrap();
        let before = table.get(&first).unwrap().clone();
        // as one that is changed while somebody else has it, too
        *table.get_mut(&first).unwrap() = fields();
        assert!(!kept.let_go_of_others(&mut table));
        *table.get_mut(&first).unwrap() = before;
        assert!(kept.let_go_of_others(&mut table));
    }

    #[test]
    fn what_could_be_changed_unseen_is_refused() {
        let mut table = ResourceTable::new();
        table.push("of some state").unwrap();
        assert!(KeptHandles::of(&mut table, 0).is_none());
    }
}
