//! Files of guests: how many may be open, what may be opened at all, and the threads that wait for the disk.
//!
//! The operations are wasmtime-wasi's. Ours is around them: each app has threads of its own for them, so that a call that hangs (a
//! network file system, a disk that fails) takes a thread of its own app's and of nobody else's, not even when its guest is gone; and
//! each descriptor that a guest has the host open is counted until it is closed, whatever refers to it last.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use wasmtime::component::{HasData, Resource};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream, ErrorCode,
    Filesize, Host as _, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags,
    PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};
use wasmtime_wasi::runtime::spawn_blocking;

use crate::exchange::handle::ExchangeState;
use crate::guest::file_streams::{Behind, FileInput, FileOutput};
use crate::guest::host_memory::weigh;
use crate::guest::limiter::StoreLimiter;
use crate::guest::open_files::{BUFFER, Files, GuestFiles, Open, Streaming};
use crate::limits::Limits;
use crate::outgoing::hooks::Hooks;
use crate::process::blocking_threads::{Pool, within};

type Fd = Resource<Descriptor>;

pub(crate) struct FilesView<'a> {
    inner: WasiFilesystemCtxView<'a>,
    guest: &'a mut GuestFiles,
    hooks: &'a Hooks,
    limiter: &'a mut StoreLimiter,
}

impl<'a> FilesView<'a> {
    pub(crate) fn new(
        inner: WasiFilesystemCtxView<'a>,
        guest: &'a mut GuestFiles,
        hooks: &'a Hooks,
        limiter: &'a mut StoreLimiter,
    ) -> Self {
        Self { inner, guest, hooks, limiter }
    }

    /// What another stream of that descriptor needs.
    fn stream(&mut self, fd: &Fd) -> FsResult<Behind> {
        let threads = self.threads()?;
        self.guest.streams.fetch_add(1, Ordering::Relaxed);
        let streaming = Streaming(self.guest.streams.clone());
        if self.limiter.takes(BUFFER as usize) {
            self.limiter.weighed(weigh(self.inner.table) + self.guest.held()).map_err(FsError::trap)?;
        }
        Ok(Behind { threads, _open: self.guest.held.get(&fd.rep()).cloned(), _streaming: streaming })
    }

    /// Whose guest it is now.
    pub(crate) fn exchange(&self) -> Weak<ExchangeState> {
        self.hooks.exchange()
    }

    /// A stream that no handle of WASI 0.2 leads to.
    pub(crate) fn take_stream<S: Send + 'static>(&mut self, stream: Resource<S>) -> FsResult<S> {
        Ok(self.inner.table.delete(stream)?)
    }

    fn app(&self) -> FsResult<&(Arc<Files>, Arc<AtomicU64>)> {
        self.guest.app.as_ref().ok_or_else(|| ErrorCode::NotPermitted.into())
    }

    pub(crate) fn threads(&self) -> FsResult<Pool> {
        self.app()?.0.threads().ok_or_else(|| ErrorCode::InsufficientMemory.into())
    }

    /// Room for one more descriptor.
    pub(crate) fn reserve(&mut self) -> FsResult<Open> {
        let (app, guest) = self.app()?;
        let open = Open::new(app, guest);
        let Limits { files, files_per_app, .. } = self.hooks.limits;
        let past = |count: &AtomicU64, limit: Option<u64>| limit.filter(|most| count.load(Ordering::Relaxed) > *most);
        let met = match past(guest, files) {
            Some(most) => Some(("this exchange", most, "files")),
            None => past(&app.open, files_per_app).map(|most| ("this app", most, "files_per_app")),
        };
        let Some((whose, most, limit)) = met else { return Ok(open) };
        if !std::mem::replace(&mut self.guest.told, true) {
            self.hooks.tell(&format!(
                "a file was not opened: {whose} has {most} open (`Limits.{limit}`); the guest is told `quota`"
            ));
        }
        Err(ErrorCode::Quota.into())
    }

    pub(crate) fn descriptor(&self, fd: &Fd) -> FsResult<Descriptor> {
        Ok(self.inner.table.get(fd)?.clone())
    }

    /// A descriptor was opened: it counts until it is closed.
    pub(crate) fn hold(&mut self, opened: &Fd, mut open: Open) -> FsResult<()> {
        open.file = Some(file_of(self.descriptor(opened)?));
        self.guest.held.insert(opened.rep(), Arc::new(open));
        Ok(())
    }

    pub(crate) fn close(&mut self, fd: Fd) -> wasmtime::Result<()> {
        let number = fd.rep();
        self.inner.table.delete(fd)?;
        self.guest.held.remove(&number);
        Ok(())
    }

    /// Refuses what is there and is neither a file nor a folder. To open a FIFO waits for somebody at its other end, and to read
    /// a device may wait for ever.
    async fn check_plain(&mut self, folder: u32, follow: PathFlags, path: &str) -> FsResult<()> {
        let threads = self.threads()?;
        let stat = HostDescriptor::stat_at(&mut self.inner, Resource::new_borrow(folder), follow, path.to_owned());
        match within(&threads, stat).await {
            Ok(stat) if !is_plain(stat.type_) => Err(ErrorCode::NotPermitted.into()),
            // whatever else is wrong with it, opening it says
            _ => Ok(()),
        }
    }
}

fn is_plain(kind: DescriptorType) -> bool {
    matches!(kind, DescriptorType::RegularFile | DescriptorType::Directory | DescriptorType::SymbolicLink)
}

fn file_of(descriptor: Descriptor) -> Arc<File> {
    match descriptor {
        Descriptor::Dir(dir) => dir.dir,
        Descriptor::File(file) => file.file,
    }
}

/// Whether that is a file or a folder: it may be another one than was looked at before it was opened.
pub(crate) async fn is_plain_file(opened: Descriptor) -> bool {
    match opened {
        Descriptor::Dir(_) => true,
        Descriptor::File(file) => {
            spawn_blocking(move || file.file.metadata().is_ok_and(|metadata| metadata.is_file())).await
        }
    }
}

/// See [`HasData`].
pub(crate) struct HasFiles;

impl HasData for HasFiles {
    type Data<'a> = FilesView<'a>;
}

#[cfg(unix)]
impl FilesView<'_> {
    /// Begins to read a folder.
    pub(crate) async fn list(
        &mut self,
        fd: Resource<Descriptor>,
    ) -> FsResult<Resource<crate::guest::file_listing::Listing>> {
        let Descriptor::Dir(dir) = self.descriptor(&fd)? else { return Err(ErrorCode::NotDirectory.into()) };
        let open = self.reserve()?;
        let listing = crate::guest::file_listing::Listing::new(dir.dir, self.threads()?, open).await?;
        Ok(self.inner.table.push(listing)?)
    }

    pub(crate) fn code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        self.inner.convert_error_code(error)
    }

    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        self.inner.filesystem_error_code(error)
    }
}

/// The operations that both generations of WASI have, by the names of their types where this is used.
macro_rules! operations {
    ($use:ident) => {
        $use! {
            fn advise(fd: Fd, offset: Filesize, len: Filesize, advice: Advice) -> ();
            fn sync_data(fd: Fd) -> ();
            fn get_flags(fd: Fd) -> DescriptorFlags;
            fn get_type(fd: Fd) -> DescriptorType;
            fn set_size(fd: Fd, size: Filesize) -> ();
            fn set_times(fd: Fd, accessed: NewTimestamp, modified: NewTimestamp) -> ();
            fn sync(fd: Fd) -> ();
            fn create_directory_at(fd: Fd, path: String) -> ();
            fn stat(fd: Fd) -> DescriptorStat;
            fn stat_at(fd: Fd, follow: PathFlags, path: String) -> DescriptorStat;
            fn set_times_at(fd: Fd, follow: PathFlags, path: String, accessed: NewTimestamp, modified: NewTimestamp) -> ();
            fn link_at(fd: Fd, follow: PathFlags, path: String, new: Fd, new_path: String) -> ();
            fn readlink_at(fd: Fd, path: String) -> String;
            fn remove_directory_at(fd: Fd, path: String) -> ();
            fn rename_at(fd: Fd, path: String, new: Fd, new_path: String) -> ();
            fn symlink_at(fd: Fd, path: String, new_path: String) -> ();
            fn unlink_file_at(fd: Fd, path: String) -> ();
            fn metadata_hash(fd: Fd) -> MetadataHashValue;
            fn metadata_hash_at(fd: Fd, follow: PathFlags, path: String) -> MetadataHashValue;
        }
    };
}
pub(crate) use operations;

/// Operations that are wasmtime-wasi's, on threads of the app's.
macro_rules! on_threads {
    ($(fn $name:ident($($argument:ident: $type:ty),*) -> $returned:ty;)*) => {
        $(async fn $name(&mut self, $($argument: $type),*) -> FsResult<$returned> {
            let threads = self.threads()?;
            within(&threads, HostDescriptor::$name(&mut self.inner, $($argument),*)).await
        })*
    };
}

impl HostDescriptor for FilesView<'_> {
    operations!(on_threads);

    on_threads! {
        fn read(fd: Fd, len: Filesize, offset: Filesize) -> (Vec<u8>, bool);
        fn write(fd: Fd, bytes: Vec<u8>, offset: Filesize) -> Filesize;
        fn read_directory(fd: Fd) -> Resource<DirectoryEntryStream>;
    }

    async fn is_same_object(&mut self, one: Fd, other: Fd) -> wasmtime::Result<bool> {
        let threads = self.threads().map_err(wasmtime::Error::from)?;
        within(&threads, self.inner.is_same_object(one, other)).await
    }

    async fn open_at(
        &mut self,
        fd: Fd,
        follow: PathFlags,
        path: String,
        how: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Fd> {
        let threads = self.threads()?;
        // before it may be created
        let open = self.reserve()?;
        self.check_plain(fd.rep(), follow, &path).await?;
        let opened = within(&threads, self.inner.open_at(fd, follow, path, how, flags)).await?;
        self.hold(&opened, open)?;
        if within(&threads, is_plain_file(self.descriptor(&opened)?)).await {
            return Ok(opened);
        }
        self.close(opened).map_err(FsError::trap)?;
        Err(ErrorCode::NotPermitted.into())
    }

    fn drop(&mut self, fd: Fd) -> wasmtime::Result<()> {
        self.close(fd)
    }

    fn read_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let behind = self.stream(&fd)?;
        let stream = self.inner.read_via_stream(fd, offset)?;
        FileInput::around(self.inner.table.get_mut(&stream)?, behind);
        Ok(stream)
    }

    fn write_via_stream(&mut self, fd: Fd, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        let behind = self.stream(&fd)?;
        let stream = self.inner.write_via_stream(fd, offset)?;
        FileOutput::around(self.inner.table.get_mut(&stream)?, behind);
        Ok(stream)
    }

    fn append_via_stream(&mut self, fd: Fd) -> FsResult<Resource<DynOutputStream>> {
        let behind = self.stream(&fd)?;
        let stream = self.inner.append_via_stream(fd)?;
        FileOutput::around(self.inner.table.get_mut(&stream)?, behind);
        Ok(stream)
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.inner.read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        HostDirectoryEntryStream::drop(&mut self.inner, stream)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;
    use crate::guest::open_files::THREADS;

    /// A call that hangs until the sender is dropped, as one of a network file system would. Its guest is stopped when it has begun.
    async fn hang(threads: &Pool) -> Sender<()> {
        let (end, ended) = channel::<()>();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let call = within(threads, async { spawn_blocking(move || (begun.send(()).unwrap(), ended.recv())).await });
        tokio::select! {
            _ = call => unreachable!("it hangs"),
            begun = begins => begun.unwrap(),
        }
        end
    }

    #[test]
    fn calls_that_hang_take_threads_of_their_own_app_and_of_no_other() {
        let (app, other) = (Files::new(&[]), Files::new(&[]));
        let (threads, others) = (app.threads().unwrap(), other.threads().unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut hanging = Vec::new();
            for _ in 0..THREADS {
                hanging.push(hang(&threads).await);
            }
            // all threads are taken, though their guests are gone
            let next = within(&threads, async { spawn_blocking(|| 7).await });
            assert!(tokio::time::timeout(Duration::from_millis(50), next).await.is_err());
            assert_eq!(within(&others, async { spawn_blocking(|| 7).await }).await, 7);
            hanging.pop();
            assert_eq!(within(&threads, async { spawn_blocking(|| 7).await }).await, 7);
            // an app that goes does not wait for them
            drop((app, threads));
            drop(hanging);
        });
    }

    #[test]
    fn a_descriptor_counts_until_the_last_who_refers_to_it_is_gone() {
        let (app, guest) = (Files::new(&[]), Arc::default());
        let open = Arc::new(Open::new(&app, &guest));
        let by_a_stream = open.clone();
        drop(open);
        let count = || (app.open.load(Ordering::Relaxed), guest.load(Ordering::Relaxed));
        assert_eq!(count(), (1, 1));
        drop(by_a_stream);
        assert_eq!(count(), (0, 0));
    }
}
