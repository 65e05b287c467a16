//! What the agent of an instrumented component tells its host and hands to it, and what the host itself has noted.

use std::ops::Range;

use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext};
use wasmtime::component::{ComponentType, Lift};

use crate::guest::kept_handles::KeptHandles;

/// Of more handles that were left behind the numbers are not noted: their instance is dropped.
pub(crate) const MOST_LEFT: u32 = 128;

/// What puts an instance back.
#[derive(Default)]
pub(crate) struct AgentState {
    /// It is called just now: nobody else may tell anything, and its turn does not end.
    pub is_called: bool,
    /// Where the guest's memories lie, as it told last.
    pub memories: Vec<Range<usize>>,
    /// Likewise the numbers of handles that the guest has left behind.
    pub left: Vec<u32>,
    /// The handles of the snapshot.
    pub kept: KeptHandles,
}

impl AgentState {
    /// Whoever imports the agent's functions without being one is refused.
    fn check(&mut self) -> wasmtime::Result<()> {
        match self.is_called {
            true => Ok(()),
            false => Err(wasmtime::Error::msg("this function is for instances that are put back")),
        }
    }

    pub(crate) fn tell_memory(&mut self, number: u32, range: Range<usize>) -> wasmtime::Result<()> {
        self.check()?;
        if number == 0 {
            self.memories.clear();
        }
        self.memories.push(range);
        Ok(())
    }

    pub(crate) fn tell_left(&mut self, number: u32) -> wasmtime::Result<()> {
        self.check()?;
        if self.left.len() < MOST_LEFT as usize {
            self.left.push(number);
        }
        Ok(())
    }
}

/// The handle of a number, taken from the guest: its place in the host's table. None if it is of no type that was tried.
pub(crate) struct Taken(pub Option<u32>);

// SAFETY: in the canonical ABI one resource is an i32, and a tuple of several is returned as a pointer, which is an i32; `Lower` is one.
unsafe impl ComponentType for Taken {
    type Lower = <u32 as ComponentType>::Lower;

    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::SCALAR4;

    fn typecheck(ty: &InterfaceType, _: &InstanceType<'_>) -> wasmtime::Result<()> {
        match ty {
            InterfaceType::Tuple(_) => Ok(()),
            _ => Err(wasmtime::Error::msg("not a tuple")),
        }
    }
}

// SAFETY: nothing is read from the guest's memory. What the core function returns is the number of a handle, which may be any: wasmtime
// looks for it in the guest's table and compares types before it takes anything out.
unsafe impl Lift for Taken {
    fn linear_lift_from_flat(
        context: &mut LiftContext<'_>,
        ty: InterfaceType,
        source: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        let InterfaceType::Tuple(tuple) = ty else { return Ok(Self(None)) };
        let types = context.types.clone();
        let number = source.get_u32();
        let taken = types[tuple].types.iter().find_map(|each| match each {
            // a handle of another type is an error, and stays where it is
            InterfaceType::Own(resource) => context.guest_resource_lift_own(*resource, number).ok(),
            _ => None,
        });
        Ok(Self(taken.map(|(place, ..)| place)))
    }

    fn linear_lift_from_memory(_: &mut LiftContext<'_>, _: InterfaceType, _: &[u8]) -> wasmtime::Result<Self> {
        Ok(Self(None))
    }
}
