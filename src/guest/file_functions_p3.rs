//! `wasi:filesystem`, as guests of WASI 0.3 call it: bounded as that of 0.2 is. What a guest waits for here holds none of its other
//! tasks.

use tokio::sync::oneshot;
use wasmtime::component::{Access, Accessor, FutureReader, Linker, Resource, StreamReader};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{ErrorCode as P2ErrorCode, HostDescriptor as P2HostDescriptor};
use wasmtime_wasi::p2::{FsError, FsResult};
use wasmtime_wasi::p3::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, ErrorCode, Filesize,
    HostDescriptorWithStore, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p3::filesystem::{FilesystemError, FilesystemResult};

use crate::guest::file_streams_p3::{End, FromFile, ToFile};
use crate::guest::files::{FilesView, HasFiles, is_plain_file, operations};
use crate::guest::store::StoreState;
use crate::process::blocking_threads::{Pool, within};

/// Puts this in the place of wasmtime-wasi's `wasi:filesystem/types`.
pub(crate) fn bound_files_p3(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    types::add_to_linker::<StoreState, HasFiles>(linker, StoreState::files)?;
    linker.allow_shadowing(false);
    Ok(())
}

/// What 0.2 says, in the words of 0.3.
fn in_p3(error: FsError) -> FilesystemError {
    macro_rules! same {
        ($code:expr, $($name:ident)*) => {
            match $code {
                $(P2ErrorCode::$name => ErrorCode::$name,)*
                P2ErrorCode::WouldBlock => ErrorCode::Io,
            }
        };
    }
    match error.downcast() {
        Ok(code) => same!(code, Access Already BadDescriptor Busy Deadlock Quota Exist FileTooLarge IllegalByteSequence InProgress
            Interrupted Invalid Io IsDirectory Loop TooManyLinks MessageSize NameTooLong NoDevice NoEntry NoLock InsufficientMemory
            InsufficientSpace NotDirectory NotEmpty NotRecoverable Unsupported NoTty NoSuchDevice Overflow NotPermitted Pipe ReadOnly
            InvalidSeek TextFileBusy CrossDevice)
        .into(),
        Err(error) => FilesystemError::trap(error),
    }
}

type Fd = Resource<Descriptor>;
type Store = Accessor<StoreState, HasFiles>;
type Ended = FutureReader<Result<(), ErrorCode>>;

fn with<R>(store: &Store, ask: impl FnOnce(&mut FilesView<'_>) -> FsResult<R>) -> FilesystemResult<R> {
    store.with(|mut access| ask(&mut access.get())).map_err(in_p3)
}

fn threads(store: &Store) -> FilesystemResult<Pool> {
    with(store, |files| files.threads())
}

/// For wasmtime-wasi's own functions.
fn inner(store: &Store) -> Accessor<StoreState, WasiFilesystem> {
    store.with_getter::<WasiFilesystem>(WasiFilesystemView::filesystem)
}

/// Refuses what is there and is neither a file nor a folder: see `FilesView::check_plain`.
async fn check_plain(
    store: &Store,
    threads: &Pool,
    folder: u32,
    follow: PathFlags,
    path: &str,
) -> FilesystemResult<()> {
    let inner = inner(store);
    let stat = WasiFilesystem::stat_at(&inner, Resource::new_borrow(folder), follow, path.to_owned());
    match within(threads, stat).await {
        Ok(DescriptorStat { type_, .. }) if !is_plain(&type_) => Err(ErrorCode::NotPermitted.into()),
        // whatever else is wrong with it, opening it says
        _ => Ok(()),
    }
}

fn is_plain(kind: &DescriptorType) -> bool {
    matches!(kind, DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink)
}

/// How a stream that is refused, or was never begun, ends.
fn refused(end: &mut End, error: FsError) -> wasmtime::Result<()> {
    end.say(Err(in_p3(error).downcast()?));
    Ok(())
}

fn ended(
    store: Access<'_, StoreState, HasFiles>,
    end: oneshot::Receiver<Result<(), ErrorCode>>,
) -> wasmtime::Result<Ended> {
    FutureReader::new(store, end)
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FilesystemError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }
}

impl types::HostDescriptor for FilesView<'_> {
    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.close(fd)
    }
}

/// Operations that are wasmtime-wasi's, on threads of the app's.
macro_rules! on_threads {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $returned:ty;)*) => {
        $(async fn $name(store: &Store, $($argument: $type),*) -> FilesystemResult<$returned> {
            let threads = threads(store)?;
            within(&threads, WasiFilesystem::$name(&inner(store), $($argument),*)).await
        })*
    };
}

impl HostDescriptorWithStore<StoreState> for HasFiles {
    operations!(on_threads);

    async fn is_same_object(store: &Store, one: Fd, other: Fd) -> wasmtime::Result<bool> {
        let threads = threads(store).map_err(wasmtime::Error::from)?;
        within(&threads, WasiFilesystem::is_same_object(&inner(store), one, other)).await
    }

    async fn open_at(
        store: &Store,
        fd: Fd,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FilesystemResult<Fd> {
        let threads = threads(store)?;
        // before it may be created
        let open = with(store, |files| files.reserve())?;
        check_plain(store, &threads, fd.rep(), follow, &path).await?;
        let opened = within(&threads, WasiFilesystem::open_at(&inner(store), fd, follow, path, how, flags)).await?;
        // at once: the guest may call this off while the rest of it is under way
        with(store, |files| files.hold(&opened, open))?;
        let looked_at = with(store, |files| files.descriptor(&opened))?;
        if within(&threads, is_plain_file(looked_at)).await {
            return Ok(opened);
        }
        with(store, |files| files.close(opened).map_err(FsError::trap))?;
        Err(ErrorCode::NotPermitted.into())
    }

    fn read_via_stream(
        mut store: Access<'_, StoreState, Self>,
        fd: Fd,
        offset: Filesize,
    ) -> wasmtime::Result<(StreamReader<u8>, Ended)> {
        let (mut end, told) = End::new();
        let mut files = store.get();
        let exchange = files.exchange();
        let stream = match files.descriptor(&fd) {
            Ok(Descriptor::Dir(_)) => Err(P2ErrorCode::IsDirectory.into()),
            Ok(Descriptor::File(_)) => files.read_via_stream(fd, offset).and_then(|stream| files.take_stream(stream)),
            Err(error) => Err(error),
        };
        let stream = match stream {
            Ok(stream) => StreamReader::new(&mut store, FromFile::new(stream, end, exchange))?,
            Err(error) => {
                refused(&mut end, error)?;
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((stream, ended(store, told)?))
    }

    fn write_via_stream(
        mut store: Access<'_, StoreState, Self>,
        fd: Fd,
        data: StreamReader<u8>,
        offset: Filesize,
    ) -> wasmtime::Result<Ended> {
        let mut files = store.get();
        let stream = files.write_via_stream(fd, offset).and_then(|stream| files.take_stream(stream));
        write(store, data, stream)
    }

    fn append_via_stream(
        mut store: Access<'_, StoreState, Self>,
        fd: Fd,
        data: StreamReader<u8>,
    ) -> wasmtime::Result<Ended> {
        let mut files = store.get();
        let stream = files.append_via_stream(fd).and_then(|stream| files.take_stream(stream));
        write(store, data, stream)
    }

    #[cfg(unix)]
    fn read_directory(
        mut store: Access<'_, StoreState, Self>,
        fd: Fd,
    ) -> wasmtime::Result<(StreamReader<DirectoryEntry>, Ended)> {
        use crate::guest::file_listing_p3::Entries;
        let (mut end, told) = End::new();
        let mut files = store.get();
        let folder = match files.descriptor(&fd) {
            Ok(Descriptor::Dir(dir)) => Ok(dir.dir),
            Ok(Descriptor::File(_)) => Err(P2ErrorCode::NotDirectory.into()),
            Err(error) => Err(error),
        };
        let begun = folder.and_then(|folder| Ok((folder, files.threads()?, files.reserve()?)));
        let entries = match begun {
            Ok((folder, threads, open)) => StreamReader::new(&mut store, Entries::new(folder, threads, open, end))?,
            Err(error) => {
                refused(&mut end, error)?;
                StreamReader::new(&mut store, std::iter::empty())?
            }
        };
        Ok((entries, ended(store, told)?))
    }

    #[cfg(not(unix))]
    fn read_directory(
        mut store: Access<'_, StoreState, Self>,
        fd: Fd,
    ) -> wasmtime::Result<(StreamReader<DirectoryEntry>, Ended)> {
        let threads = store.get().threads();
        let _entered = threads.as_ref().ok().map(Pool::enter);
        let store = wasmtime::AsContextMut::as_context_mut(&mut store);
        WasiFilesystem::read_directory(Access::new(store, WasiFilesystemView::filesystem), fd)
    }
}

/// Has a stream of the guest's written to a file.
fn write(
    mut store: Access<'_, StoreState, HasFiles>,
    mut data: StreamReader<u8>,
    stream: FsResult<wasmtime_wasi::p2::DynOutputStream>,
) -> wasmtime::Result<Ended> {
    let (mut end, told) = End::new();
    match stream {
        Ok(stream) => data.pipe(&mut store, ToFile::new(stream, end))?,
        Err(error) => {
            data.close(&mut store)?;
            refused(&mut end, error)?;
        }
    }
    ended(store, told)
}
