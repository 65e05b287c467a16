//! Formats of access logs: two that everybody reads, JSON, and templates of atoms as gunicorn and granian name them.

use std::io::Write;
use std::time::Duration;

use http::HeaderName;
use http::header::{REFERER, USER_AGENT};

use crate::server::access_log::entry::{Entry, joined};
use crate::server::access_log::{escape, json, time};

const COMMON: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s"#;
const COMBINED: &str = r#"%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s""#;

/// How a line is written.
#[derive(Clone, Debug)]
pub enum Format {
    /// A JSON object a line (RFC 8259).
    Json,
    /// A template: `common` and `combined` are two of them.
    Template(Vec<Piece>),
}

/// A part of a template.
#[derive(Clone, Debug)]
pub enum Piece {
    /// As it stands there.
    Text(String),
    /// What is known of the request.
    Atom(Atom),
    /// A duration with so many decimals.
    Decimals(Unit, usize),
}

/// What a template can name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table of names says it")]
pub enum Atom {
    Client,
    Nothing,
    User,
    Time,
    SpacedTime,
    RequestLine,
    Method,
    Path,
    Query,
    Protocol,
    Status,
    Bytes,
    BytesOrDash,
    Duration(Unit),
    Process,
    Scheme,
    Host,
    RequestId,
    Traceparent,
    Component,
    Exchange,
    Outcome,
    RequestField(HeaderName),
    ResponseField(HeaderName),
}

/// Of durations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    /// Seconds with six decimals.
    DecimalSeconds,
}

/// By their names: gunicorn's, granian's, ours.
const ATOMS: [(&str, Atom); 34] = [
    ("h", Atom::Client),
    ("l", Atom::Nothing),
    ("u", Atom::User),
    ("t", Atom::Time),
    ("r", Atom::RequestLine),
    ("m", Atom::Method),
    ("U", Atom::Path),
    ("q", Atom::Query),
    ("H", Atom::Protocol),
    ("s", Atom::Status),
    ("b", Atom::BytesOrDash),
    ("B", Atom::Bytes),
    ("f", Atom::RequestField(REFERER)),
    ("a", Atom::RequestField(USER_AGENT)),
    ("T", Atom::Duration(Unit::Seconds)),
    ("M", Atom::Duration(Unit::Milliseconds)),
    ("D", Atom::Duration(Unit::Microseconds)),
    ("L", Atom::Duration(Unit::DecimalSeconds)),
    ("p", Atom::Process),
    ("addr", Atom::Client),
    ("time", Atom::SpacedTime),
    ("method", Atom::Method),
    ("path", Atom::Path),
    ("query_string", Atom::Query),
    ("protocol", Atom::Protocol),
    ("scheme", Atom::Scheme),
    ("status", Atom::Status),
    ("dt_ms", Atom::Duration(Unit::Milliseconds)),
    ("host", Atom::Host),
    ("request_id", Atom::RequestId),
    ("traceparent", Atom::Traceparent),
    ("component", Atom::Component),
    ("exchange", Atom::Exchange),
    ("outcome", Atom::Outcome),
];

/// What is wrong with a format.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Neither a name nor a template.
    #[error(
        "the log format `{0}` has no atom; hint: `common`, `combined`, `json`, or a template like `%(h)s \"%(r)s\" %(s)s`"
    )]
    NoAtom(String),
    /// An atom that is none.
    #[error(
        "the log format has an unknown atom `%({0})s`; hint: there are {atoms}, {{name}}i for a field of the request and {{name}}o for one \
         of the response",
        atoms = ATOMS.map(|(name, _)| name).join(", ")
    )]
    Unknown(String),
    /// `%` alone.
    #[error("the log format has a `%` that begins no atom; hint: `%(name)s`, or `%%` for itself")]
    Percent,
    /// Not `s`, `d`, `f`.
    #[error("the log format has no `s` behind `%({0})`; hint: `%({0})s`, or of a duration with decimals `%({0}).3f`")]
    Conversion(String),
    /// It would make two lines of one.
    #[error("the log format has a control character; hint: a line ends by itself")]
    ControlCharacter,
}

/// The fields that atoms name.
fn each_once(pieces: &[Piece], field: impl Fn(&Atom) -> Option<&HeaderName>) -> Vec<HeaderName> {
    let mut names = Vec::new();
    for piece in pieces {
        if let Piece::Atom(atom) = piece
            && let Some(name) = field(atom)
            && !names.contains(name)
        {
            names.push(name.clone());
        }
    }
    names
}

impl Format {
    /// Reads `common`, `combined`, `json` or a template.
    pub fn parse(text: &str) -> Result<Self, FormatError> {
        Ok(match text {
            "json" => Self::Json,
            "common" => Self::Template(template(COMMON)?),
            "combined" => Self::Template(template(COMBINED)?),
            _ => Self::Template(template(text)?),
        })
    }

    /// The fields of the request that lines have, each once: all that must be kept of them until it is over.
    pub fn of_request(&self) -> Vec<HeaderName> {
        let Self::Template(pieces) = self else { return vec![REFERER, USER_AGENT] };
        each_once(pieces, |atom| if let Atom::RequestField(name) = atom { Some(name) } else { None })
    }

    /// The same of the response.
    pub fn of_response(&self) -> Vec<HeaderName> {
        let Self::Template(pieces) = self else { return Vec::new() };
        each_once(pieces, |atom| if let Atom::ResponseField(name) = atom { Some(name) } else { None })
    }

    /// Adds one line, whatever the client has sent, with its end.
    pub fn write_line(&self, entry: &Entry<'_>, out: &mut Vec<u8>) {
        match self {
            Self::Json => json::write(entry, out),
            Self::Template(pieces) => {
                for piece in pieces {
                    match piece {
                        Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Piece::Atom(atom) => write_atom(atom, entry, out),
                        Piece::Decimals(unit, decimals) => _ = write!(out, "{:.decimals$}", unit.of(entry.duration)),
                    }
                }
            }
        }
        out.push(b'\n');
    }
}

fn template(text: &str) -> Result<Vec<Piece>, FormatError> {
    if text.contains(char::is_control) {
        return Err(FormatError::ControlCharacter);
    }
    let mut pieces = Vec::new();
    let (mut plain, mut rest) = (String::new(), text);
    while let Some((before, behind)) = rest.split_once('%') {
        plain.push_str(before);
        if let Some(behind) = behind.strip_prefix('%') {
            plain.push('%');
            rest = behind;
            continue;
        }
        let (name, behind) =
            behind.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or(FormatError::Percent)?;
        let atom = atom(name).ok_or_else(|| FormatError::Unknown(name.to_owned()))?;
        if !plain.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut plain)));
        }
        let (piece, behind) = converted(atom, behind).ok_or_else(|| FormatError::Conversion(name.to_owned()))?;
        pieces.push(piece);
        rest = behind;
    }
    if pieces.is_empty() {
        return Err(FormatError::NoAtom(text.to_owned()));
    }
    plain.push_str(rest);
    pieces.push(Piece::Text(plain));
    Ok(pieces)
}

/// By `%`'s rules: `s`, `d`, `f`, `.3f`. What stands behind it is given back.
fn converted(atom: Atom, behind: &str) -> Option<(Piece, &str)> {
    if let Some(behind) = behind.strip_prefix(['s', 'd']) {
        return Some((Piece::Atom(atom), behind));
    }
    let Atom::Duration(unit) = atom else { return None };
    let Some(precision) = behind.strip_prefix('.') else {
        return Some((Piece::Decimals(unit, 6), behind.strip_prefix('f')?));
    };
    let (digits, behind) = precision.split_once('f')?;
    let decimals = digits.parse::<u8>().ok().filter(|decimals| *decimals <= 9)?;
    Some((Piece::Decimals(unit, usize::from(decimals)), behind))
}

fn atom(name: &str) -> Option<Atom> {
    if let Some((field, side)) = name.strip_prefix('{').and_then(|rest| rest.split_once('}')) {
        let field = HeaderName::from_bytes(field.as_bytes()).ok()?;
        return match side {
            "i" => Some(Atom::RequestField(field)),
            "o" => Some(Atom::ResponseField(field)),
            _ => None,
        };
    }
    ATOMS.into_iter().find(|(known, _)| *known == name).map(|(_, atom)| atom)
}

impl Unit {
    fn of(self, duration: Duration) -> f64 {
        match self {
            Self::Seconds | Self::DecimalSeconds => duration.as_secs_f64(),
            Self::Milliseconds => duration.as_secs_f64() * 1e3,
            Self::Microseconds => duration.as_secs_f64() * 1e6,
        }
    }
}

/// What is not known is `-`; but a query that is empty is empty.
fn write_atom(atom: &Atom, entry: &Entry<'_>, out: &mut Vec<u8>) {
    let mut or_dash = |bytes: Option<&[u8]>| match bytes.filter(|bytes| !bytes.is_empty()) {
        Some(bytes) => escape::text(bytes, out),
        None => out.push(b'-'),
    };
    match atom {
        Atom::Nothing => or_dash(None),
        Atom::User => or_dash(entry.user.map(str::as_bytes)),
        Atom::Method => or_dash(Some(entry.method.as_bytes())),
        Atom::Path => or_dash(Some(entry.path_and_query().0)),
        Atom::Query => escape::text(entry.path_and_query().1, out),
        Atom::Scheme => or_dash(entry.scheme.map(str::as_bytes)),
        Atom::Host => or_dash(entry.host.map(str::as_bytes)),
        Atom::RequestId => or_dash(entry.request_id.map(str::as_bytes)),
        Atom::Traceparent => or_dash(entry.traceparent.map(str::as_bytes)),
        Atom::Component => or_dash(entry.component.map(str::as_bytes)),
        Atom::Outcome => or_dash(entry.outcome.map(str::as_bytes)),
        Atom::RequestField(name) => or_dash(joined(entry.request, name).as_deref()),
        Atom::ResponseField(name) => or_dash(joined(entry.response, name).as_deref()),
        Atom::Time => time::common(entry.started, out),
        Atom::SpacedTime => time::spaced(entry.started, out),
        Atom::RequestLine if entry.method.is_empty() && entry.target.is_empty() => out.push(b'-'),
        Atom::RequestLine => {
            escape::text(entry.method.as_bytes(), out);
            out.push(b' ');
            escape::text(entry.target, out);
            if let Some(version) = entry.version {
                _ = write!(out, " {version:?}");
            }
        }
        Atom::Duration(Unit::Seconds) => _ = write!(out, "{}", entry.duration.as_secs()),
        Atom::Duration(Unit::Milliseconds) => _ = write!(out, "{}", entry.duration.as_millis()),
        Atom::Duration(Unit::Microseconds) => _ = write!(out, "{}", entry.duration.as_micros()),
        Atom::Duration(Unit::DecimalSeconds) => _ = write!(out, "{:.6}", entry.duration.as_secs_f64()),
        Atom::Process => _ = write!(out, "<{}>", std::process::id()),
        Atom::Status => _ = write!(out, "{}", entry.status),
        Atom::Bytes => _ = write!(out, "{}", entry.sent),
        Atom::BytesOrDash if entry.sent == 0 => out.push(b'-'),
        Atom::BytesOrDash => _ = write!(out, "{}", entry.sent),
        Atom::Client => shown(entry.client, out),
        Atom::Protocol => shown(entry.version.map(|version| format!("{version:?}")), out),
        Atom::Exchange => shown(entry.exchange, out),
    }
}

fn shown(value: Option<impl std::fmt::Display>, out: &mut Vec<u8>) {
    match value {
        Some(value) => _ = write!(out, "{value}"),
        None => out.push(b'-'),
    }
}

#[cfg(test)]
mod tests;
