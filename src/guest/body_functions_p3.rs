//! Functions of `wasi:http/types` of WASI 0.3 that make bodies and give them to guests.

use http::uri::{Authority, PathAndQuery, Scheme};
use tokio::sync::oneshot;
use wasmtime::component::{FutureConsumer, FutureReader, Linker, Resource, Source, StreamReader};
use wasmtime::{AsContextMut, StoreContextMut};
use wasmtime_wasi_http::p3::bindings::http::types::{ErrorCode as Code, RequestOptions};
use wasmtime_wasi_http::p3::{Request, Response};
use wasmtime_wasi_http::{Error as HostError, FieldMap, WasiHttpView};

use crate::exchange::body_pipe::Pipe;
use crate::guest::body_streams_p3::{Trailers, code_of, of_guest, to_guest};
use crate::guest::interfaces::interface_p3;
use crate::guest::seat::Seat;
use crate::guest::store::StoreState;
use crate::http::error_code::ErrorCode;

type Store<'a> = StoreContextMut<'a, StoreState>;

/// How a message was transmitted, or handled.
type Went = FutureReader<Result<(), Code>>;

/// What a request is made of.
type Parts = (Resource<FieldMap>, Option<StreamReader<u8>>, Trailers, Option<Resource<RequestOptions>>);

/// Has bodies be made by [`crate::guest::body_streams_p3`], whichever message they are of.
pub(crate) fn make_bodies(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = interface_p3(linker, "wasi:http/types")?;
    types.func_wrap("[static]request.new", |mut store: Store<'_>, (headers, contents, trailers, options): Parts| {
        let (body, pipe) = of_guest(store.as_context_mut(), contents, trailers)?;
        let table = store.data_mut().table();
        let headers = given(table.delete(headers)?);
        let options = options.map(|options| table.delete(options)).transpose()?.map(Into::into);
        let (request, went) = Request::new(http::Method::GET, None, None, None, headers, options, body);
        let request = store.data_mut().table().push(request)?;
        unsent(&mut store, request.rep(), pipe);
        Ok(((request, told(store, went)?),))
    })?;
    types.func_wrap(
        "[static]response.new",
        |mut store: Store<'_>,
         (headers, contents, trailers): (Resource<FieldMap>, Option<StreamReader<u8>>, Trailers)| {
            let (body, pipe) = of_guest(store.as_context_mut(), contents, trailers)?;
            let host = store.data_mut();
            let headers = given(host.table().delete(headers)?);
            let (mut response, went) = Response::from_http(host.http().hooks, http::Response::new(body));
            response.headers = headers;
            let response = host.table().push(response)?;
            unsent(&mut store, response.rep(), pipe);
            Ok(((response, told(store, went)?),))
        },
    )?;
    types.func_wrap(
        "[static]request.consume-body",
        |mut store: Store<'_>, (request, handled): (Resource<Request>, Went)| {
            let mut request = store.data_mut().table().delete(request)?;
            // of its head, which nobody sees, nothing may be amiss
            request.headers = FieldMap::default();
            request.scheme = Some(Scheme::HTTP);
            request.authority = Some(Authority::from_static("localhost"));
            request.path_with_query = Some(PathAndQuery::from_static("/"));
            let handled = handled_by(&mut store, handled)?;
            let (request, _) = match request.into_http_with_getter(&mut store, handled, StoreState::http) {
                Ok(taken) => taken,
                Err(error) => return Err(wasmtime::Error::msg(format!("a request has no body: {error:?}"))),
            };
            Ok((to_guest(store, request.into_body())?,))
        },
    )?;
    types.func_wrap(
        "[static]response.consume-body",
        |mut store: Store<'_>, (response, handled): (Resource<Response>, Went)| {
            let mut response = store.data_mut().table().delete(response)?;
            response.headers = FieldMap::default();
            let handled = handled_by(&mut store, handled)?;
            let response = response.into_http_with_getter(&mut store, handled, StoreState::http)?;
            Ok((to_guest(store, response.into_body())?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn unsent(store: &mut Store<'_>, message: u32, pipe: Option<Pipe>) {
    if let Some(pipe) = pipe {
        store.data_mut().unsent.add(message, &pipe);
    }
}

/// Fields that are a message's from now on: nobody changes them.
fn given(mut fields: FieldMap) -> FieldMap {
    fields.set_immutable();
    fields
}

/// The future that tells a guest how its message went.
fn told(
    store: Store<'_>,
    went: impl Future<Output = Result<(), HostError>> + Send + 'static,
) -> wasmtime::Result<Went> {
    let seat = store.data().seat().cloned();
    FutureReader::new(store, async move {
        let _waits = seat.as_ref().map(Seat::waits); // it is polled when the guest reads of it
        wasmtime::error::Ok(went.await.map_err(|error| code_of(&error).into_p3()))
    })
}

/// What a guest says of a message that it has got, once it says so.
fn handled_by(
    store: &mut Store<'_>,
    handled: Went,
) -> wasmtime::Result<impl Future<Output = Result<(), HostError>> + Send + 'static> {
    let (tell, told) = oneshot::channel();
    handled.pipe(store, Handled(Some(tell)))?;
    Ok(async move {
        match told.await {
            Ok(Err(code)) => Err(ErrorCode::of_guest(code).into_host()),
            Ok(Ok(())) | Err(_) => Ok(()),
        }
    })
}

struct Handled(Option<oneshot::Sender<Result<(), Code>>>);

impl FutureConsumer<StoreState> for Handled {
    type Item = Result<(), Code>;

    fn poll_consume(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        store: Store<'_>,
        mut from: Source<'_, Self::Item>,
        _: bool,
    ) -> std::task::Poll<wasmtime::Result<()>> {
        let mut said = None;
        from.read(store, &mut said)?;
        if let (Some(said), Some(tell)) = (said, self.0.take()) {
            let _ = tell.send(said);
        }
        std::task::Poll::Ready(Ok(()))
    }
}
