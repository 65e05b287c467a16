//! Absolute URLs, from whoever makes a request, as `http::Uri`.

use http::Uri;
use http::uri::PathAndQuery;

/// Reads an absolute URL. Characters that a URL cannot hold are percent-encoded in its path and query; a fragment is left out.
/// The error says what is wrong with it.
pub fn parse(url: &str) -> Result<Uri, String> {
    let Some((scheme, rest)) = url.split_once("://") else {
        return Err("it must be absolute, like \"http://example.com/path\"".into());
    };
    if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) {
        return Err("its scheme must begin with a letter".into());
    }
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    build(scheme, authority, encode(target.as_bytes())?)
}

/// Puts together what a server has read: the target (a path with its query, or `*`) as it came, byte for byte, where
/// a URL can hold it.
pub fn of_server(scheme: &str, authority: &str, target: &[u8]) -> Result<Uri, String> {
    let as_it_is = std::str::from_utf8(target)
        .ok()
        .filter(|target| target.is_ascii() && !target.contains('#') && target.parse::<PathAndQuery>().is_ok());
    let target = match as_it_is {
        Some("*") => "*".to_owned(),
        Some(target) if target.starts_with('/') => target.to_owned(),
        _ => encode(target)?,
    };
    build(scheme, authority, target)
}

/// The port that a scheme implies.
pub fn implied_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// A server's own address as an authority, without the port that the scheme implies.
pub fn authority_of(scheme: &str, host: &str, port: Option<u16>) -> String {
    let implied = implied_port(scheme);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    match port.filter(|port| Some(*port) != implied) {
        None => host,
        Some(port) => format!("{host}:{port}"),
    }
}

fn build(scheme: &str, authority: &str, target: String) -> Result<Uri, String> {
    if authority.is_empty() || authority.starts_with(':') {
        return Err("it has no host".into());
    }
    if authority.contains('@') {
        return Err("it has credentials; hint: send an `authorization` header".into());
    }
    if !authority.is_ascii() {
        return Err("its host is not ASCII; hint: encode it by IDNA (\"xn--…\")".into());
    }
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(target)
        .build()
        .map_err(|error| error.to_string())?;
    if uri.authority().is_some_and(|authority| authority.port_u16().is_none() && authority.as_str() != authority.host())
    {
        return Err("its port is no number up to 65535".into());
    }
    Ok(uri)
}

/// A path with its query, encoded where it has to be.
fn encode(target: &[u8]) -> Result<String, String> {
    let mut encoded = String::with_capacity(target.len() + 1);
    if !target.starts_with(b"/") {
        encoded.push('/');
    }
    for &byte in target {
        match byte {
            b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b'#' | b' ' => {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            _ if byte.is_ascii_graphic() => encoded.push(char::from(byte)),
            _ if byte.is_ascii_control() => return Err("it has a control character".into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    Ok(encoded)
}
