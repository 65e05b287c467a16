//! `wasi:filesystem`, as guests call it.

#[cfg(unix)]
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;
#[cfg(unix)]
use wasmtime::component::{Resource, ResourceType};
#[cfg(unix)]
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types;

#[cfg(unix)]
use crate::guest::file_listing::Listing;
use crate::guest::files::HasFiles;
#[cfg(unix)]
use crate::guest::interfaces::interface;
use crate::guest::store::StoreState;

/// Puts this in the place of wasmtime-wasi's `wasi:filesystem/types`.
pub(crate) fn bound_files(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<StoreState, HasFiles>(linker, StoreState::files)?;
    #[cfg(unix)]
    add_listings(linker)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Puts this in the place of wasmtime-wasi's `directory-entry-stream`.
#[cfg(unix)]
fn add_listings(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    let mut types = interface(linker, "wasi:filesystem/types")?;
    types.resource("directory-entry-stream", ResourceType::host::<Listing>(), |mut store, number| {
        store.data_mut().table().delete(Resource::<Listing>::new_own(number))?;
        Ok(())
    })?;
    types.func_wrap_async(
        "[method]descriptor.read-directory",
        |mut store: StoreContextMut<'_, StoreState>, (folder,): (Resource<Descriptor>,)| {
            Box::new(async move {
                let mut files = store.data_mut().files();
                Ok((match files.list(folder).await {
                    Ok(listing) => Ok(listing),
                    Err(error) => Err(files.code(error)?),
                },))
            })
        },
    )?;
    types.func_wrap_async(
        "[method]directory-entry-stream.read-directory-entry",
        |mut store: StoreContextMut<'_, StoreState>, (listing,): (Resource<Listing>,)| {
            Box::new(async move {
                let listing = store.data_mut().table().get_mut(&listing)?;
                Ok((listing.next().await.transpose(),))
            })
        },
    )
}
