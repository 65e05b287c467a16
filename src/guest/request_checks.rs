//! A guest's outgoing request, where it enters the host: bounds of its parts, and the URL that they make. What is no URL is
//! refused here, before a policy, a route or an upstream is asked: all that they see is a URL.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentNamedList, Lift, Linker, LinkerInstance, Resource};
use wasmtime_wasi_http::p2::bindings::http::outgoing_handler::Host as _;
use wasmtime_wasi_http::p2::bindings::http::types::{
    Host as _, HostOutgoingRequest as _, Method, RequestOptions, Scheme,
};
use wasmtime_wasi_http::p2::types::HostOutgoingRequest;
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use crate::guest::interfaces::{interface, interface_p3};
use crate::guest::store::StoreState;
use crate::http::error_code::ErrorCode;
use crate::http::url::{self, UrlError};

/// The most bytes of a method, a scheme or an authority that a guest may make, and of a path with its query.
const MOST_TOKEN: usize = 4 << 10;
const MOST_PATH: usize = 32 << 10;

/// Puts our setters in the place of wasmtime-wasi-http 48's. Those keep strings of any length, of which a guest with many handles
/// can make more than any limit of memory; take `""` for a scheme, `host:x` and `[::1]x` for authorities; and refuse an empty
/// path and a percent-encoded host.
pub(crate) fn bound_requests(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = interface(linker, "wasi:http/types")?;
    set(&mut types, "[method]outgoing-request.set-method", |http, request, method: Method| match &method {
        Method::Other(text) if text.len() > MOST_TOKEN => Ok(Err(())),
        _ => http.set_method(request, method),
    })?;
    set(&mut types, "[method]outgoing-request.set-scheme", |http, request, scheme: Option<Scheme>| match &scheme {
        Some(Scheme::Other(text)) if text.len() > MOST_TOKEN || !url::is_scheme(text) => Ok(Err(())),
        _ => http.set_scheme(request, scheme),
    })?;
    set(&mut types, "[method]outgoing-request.set-authority", |http, request, authority: Option<String>| {
        match checked_authority(authority) {
            Ok(authority) => http.set_authority(request, authority),
            Err(()) => Ok(Err(())),
        }
    })?;
    set(
        &mut types,
        "[method]outgoing-request.set-path-with-query",
        |http, request, path: Option<String>| match path {
            Some(text) if text.len() > MOST_PATH => Ok(Err(())),
            // an empty one is what `none` means, and no `http::Uri` holds it
            path => http.set_path_with_query(request, path.filter(|text| !text.is_empty())),
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

type Setter<R, T> = fn(&mut WasiHttpCtxView<'_>, Resource<R>, T) -> wasmtime::Result<Result<(), ()>>;

fn set<R: 'static, T: Lift + Send + Sync + 'static>(
    types: &mut LinkerInstance<'_, StoreState>,
    name: &str,
    setter: Setter<R, T>,
) -> wasmtime::Result<()>
where
    (Resource<R>, T): ComponentNamedList + Lift,
{
    types.func_wrap(name, move |mut store: StoreContextMut<'_, StoreState>, (request, value)| {
        store.data_mut().grows(MOST_PATH / 4)?; // what it is of its length; most are short
        Ok((setter(&mut store.data_mut().http(), request, value)?,))
    })
}

/// The same for guests of WASI 0.3.
pub(crate) fn bound_requests_p3(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    use wasmtime_wasi_http::p3::bindings::http::types::{HostRequest, Method, Scheme};
    linker.allow_shadowing(true);
    let mut types = interface_p3(linker, "wasi:http/types")?;
    set(&mut types, "[method]request.set-method", |http, request, method: Method| match &method {
        Method::Other(text) if text.len() > MOST_TOKEN => Ok(Err(())),
        _ => HostRequest::set_method(http, request, method),
    })?;
    set(&mut types, "[method]request.set-scheme", |http, request, scheme: Option<Scheme>| match &scheme {
        Some(Scheme::Other(text)) if text.len() > MOST_TOKEN || !url::is_scheme(text) => Ok(Err(())),
        _ => HostRequest::set_scheme(http, request, scheme),
    })?;
    set(
        &mut types,
        "[method]request.set-authority",
        |http, request, authority: Option<String>| match checked_authority(authority) {
            Ok(authority) => HostRequest::set_authority(http, request, authority),
            Err(()) => Ok(Err(())),
        },
    )?;
    set(&mut types, "[method]request.set-path-with-query", |http, request, path: Option<String>| match path {
        Some(text) if text.len() > MOST_PATH => Ok(Err(())),
        path => HostRequest::set_path_with_query(http, request, path.filter(|text| !text.is_empty())),
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

/// An authority as it may stand in a URL.
fn checked_authority(authority: Option<String>) -> Result<Option<String>, ()> {
    match authority {
        Some(text) if text.len() > MOST_TOKEN || !url::is_authority(&text) => Err(()),
        Some(text) => url::decoded(&text).map(|text| Some(text.into_owned())).map_err(drop),
        None => Ok(None),
    }
}

/// Has each request that a guest sends be one for a URL, whole and valid: that of `http::Uri` is both more and less.
pub(crate) fn check_requests(linker: &mut Linker<StoreState>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    interface(linker, "wasi:http/outgoing-handler")?.func_wrap(
        "handle",
        |mut store: StoreContextMut<'_, StoreState>,
         (request, options): (Resource<HostOutgoingRequest>, Option<Resource<RequestOptions>>)| {
            let host = store.data_mut();
            host.grows(0)?;
            if let Err((code, why)) = complete(host.table().get_mut(&request)?) {
                host.warn(format!("an outgoing request was refused: {why}; the guest is told `{}`", code.name));
                host.table().delete(request)?;
                return Ok((Err(code.into_p2()),));
            }
            let mut http = host.http();
            Ok((match http.handle(request, options) {
                Ok(answer) => Ok(answer),
                Err(error) => Err(http.convert_error_code(error)?),
            },))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

/// Puts in what a guest has left out, and writes its URL as it will be read by whoever is asked.
fn complete(request: &mut HostOutgoingRequest) -> Result<(), (ErrorCode, String)> {
    let scheme = match &request.scheme {
        Some(Scheme::Http) => Some("http"),
        Some(Scheme::Https) => Some("https"),
        Some(Scheme::Other(text)) => Some(text.as_str()),
        None => None,
    };
    let (is_http, uri) = whole(scheme, request.authority.as_deref(), request.path_with_query.as_deref())?;
    request.scheme = Some(if is_http { Scheme::Http } else { Scheme::Https });
    request.authority = uri.authority().map(|authority| authority.as_str().to_owned());
    request.path_with_query = uri.path_and_query().map(|target| target.as_str().to_owned());
    Ok(())
}

/// Why a request is refused: for its guest, and for its user.
type Refused = (ErrorCode, String);

/// The same for a request of WASI 0.3.
pub(crate) fn url_of(request: &wasmtime_wasi_http::p3::Request) -> Result<http::Uri, Refused> {
    let authority = request.authority.as_ref().map(http::uri::Authority::as_str);
    let scheme = request.scheme.as_ref().map(http::uri::Scheme::as_str);
    let path = request.path_with_query.as_ref().map(http::uri::PathAndQuery::as_str);
    whole(scheme, authority, path).map(|(_, uri)| uri)
}

/// The URL of a request that is passed on, as its guest has it: it may be for `*`. `own` is that of the request that the guest has
/// got, of which a new one has what it does not say.
pub(crate) fn url_passed_on(
    request: &wasmtime_wasi_http::p3::Request,
    own: Option<&http::Uri>,
) -> Result<http::Uri, Refused> {
    let scheme =
        request.scheme.as_ref().or_else(|| own.and_then(http::Uri::scheme)).unwrap_or(&http::uri::Scheme::HTTP);
    let authority = request.authority.as_ref().or_else(|| own.and_then(http::Uri::authority));
    let authority = authority.map_or("", http::uri::Authority::as_str);
    let target = request.path_with_query.as_ref().map(http::uri::PathAndQuery::as_str);
    url::of_passed_on(scheme.as_str(), authority, target).map_err(|why| {
        let code = match why {
            UrlError::TooLong => "HTTP-request-URI-too-long",
            _ => "HTTP-request-URI-invalid",
        };
        (ErrorCode::plain(code), format!("its URL is invalid: {why}: {authority:?}"))
    })
}

/// The URL of a request, and whether its scheme is `http`. WIT leaves the default to us.
fn whole(
    scheme: Option<&str>,
    authority: Option<&str>,
    path: Option<&str>,
) -> Result<(bool, http::Uri), (ErrorCode, String)> {
    let refused = |code, why: String| Err((ErrorCode::plain(code), why));
    let invalid = "HTTP-request-URI-invalid";
    // RFC 3986, 3.1: of any case
    let name = match scheme {
        Some(text) if text.eq_ignore_ascii_case("http") => "http",
        None => "https",
        Some(text) if text.eq_ignore_ascii_case("https") => "https",
        Some(text) => {
            return refused("HTTP-protocol-error", format!("its scheme is neither http nor https: {text}"));
        }
    };
    let Some(authority) = authority.filter(|text| !text.is_empty()) else {
        return refused(invalid, "it has no authority".into());
    };
    match url::of_guest(name, authority, path) {
        Ok(uri) => Ok((name == "http", uri)),
        Err(why @ UrlError::TooLong) => refused("HTTP-request-URI-too-long", why.to_string()),
        Err(why) => refused(invalid, format!("its URL is invalid: {why}: {authority:?}")),
    }
}
