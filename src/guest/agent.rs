//! What the agents of an instrumented component tell their host and hand to it.

use std::ops::Range;

use wasmtime::component::__internal::{CanonicalAbiInfo, InstanceType, InterfaceType, LiftContext};
use wasmtime::component::{ComponentType, Lift};

/// A number that an agent returns, and where the memory lies that it does so with.
pub(crate) struct Told {
    pub number: u32,
    pub memory: Option<Range<usize>>,
}

// SAFETY: in the canonical ABI a tuple of one number is an i32, and one of two is returned as a pointer, which is an i32; `Lower` is one.
unsafe impl ComponentType for Told {
    type Lower = <u32 as ComponentType>::Lower;

    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::SCALAR4;

    fn typecheck(ty: &InterfaceType, _: &InstanceType<'_>) -> wasmtime::Result<()> {
        check_tuple(ty)
    }
}

// SAFETY: nothing is read from the guest's memory: what the core function returns is taken as a number, not as a pointer.
unsafe impl Lift for Told {
    fn linear_lift_from_flat(
        context: &mut LiftContext<'_>,
        ty: InterfaceType,
        source: &Self::Lower,
    ) -> wasmtime::Result<Self> {
        let has_memory = matches!(ty, InterfaceType::Tuple(tuple) if context.types[tuple].types.len() > 1);
        let memory = has_memory.then(|| context.memory().as_ptr_range());
        let memory = memory.map(|memory| memory.start as usize..memory.end as usize);
        Ok(Self { number: source.get_u32(), memory })
    }

    fn linear_lift_from_memory(_: &mut LiftContext<'_>, _: InterfaceType, _: &[u8]) -> wasmtime::Result<Self> {
        Err(wasmtime::Error::msg("a number that is in no list"))
    }
}

fn check_tuple(ty: &InterfaceType) -> wasmtime::Result<()> {
    match ty {
        InterfaceType::Tuple(_) => Ok(()),
        _ => Err(wasmtime::Error::msg("not a tuple")),
    }
}

/// The handle of a number, taken from the guest: its place in the host's table. None if it is of no type that was tried.
pub(crate) struct Taken(pub Option<u32>);

// SAFETY: in the canonical ABI one resource is an i32, and a tuple of several is returned as a pointer, which is an i32; `Lower` is one.
unsafe impl ComponentType for Taken {
    type Lower = <u32 as ComponentType>::Lower;

    const ABI: CanonicalAbiInfo = CanonicalAbiInfo::SCALAR4;

    fn typecheck(ty: &InterfaceType, _: &InstanceType<'_>) -> wasmtime::Result<()> {
        check_tuple(ty)
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
