//! Whether a request's conditions hold, and which part of a file it wants (RFC 9110, 13 and 14).

use std::time::{Duration, SystemTime};

use http::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// A date tells two contents apart if it was over for so long when it was sent (RFC 9110, 8.8.2.2, which asks for a second and knows of
/// clocks that differ).
const STRONG_AFTER: Duration = Duration::from_secs(60);

/// What tells a file's content from its former one.
#[derive(Debug)]
pub(super) struct Validators {
    /// In quotes.
    pub(super) tag: String,
    /// Another content might have the same tag.
    pub(super) is_weak: bool,
    /// Whole seconds; `None` if the file system's date means nothing.
    pub(super) modified: Option<SystemTime>,
    pub(super) now: SystemTime,
}

/// What to answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Whole,
    /// From its first byte to its last, both included.
    Part(u64, u64),
    NotModified,
    PreconditionFailed,
    RangeNotSatisfiable,
}

/// In the order of RFC 9110, 13.2.2. The method is GET or HEAD.
pub(super) fn verdict(method: &Method, fields: &HeaderMap, validators: &Validators, size: u64) -> Verdict {
    let is_newer_than = |date: SystemTime| validators.modified.is_none_or(|modified| modified > date);
    if fields.contains_key(IF_MATCH) {
        if !validators.is_among(fields, &IF_MATCH, Validators::is_strongly) {
            return Verdict::PreconditionFailed;
        }
    } else if date(fields, &IF_UNMODIFIED_SINCE).is_some_and(is_newer_than) {
        return Verdict::PreconditionFailed;
    }
    if fields.contains_key(IF_NONE_MATCH) {
        if validators.is_among(fields, &IF_NONE_MATCH, Validators::is_weakly) {
            return Verdict::NotModified;
        }
    } else if date(fields, &IF_MODIFIED_SINCE).is_some_and(|date| !is_newer_than(date)) {
        return Verdict::NotModified;
    }
    // a range is for GET alone (14.2)
    if method != Method::GET || !validators.allow_range(fields) {
        return Verdict::Whole;
    }
    match only(fields, &RANGE).and_then(|range| wanted(range, size)) {
        None => Verdict::Whole,
        Some(None) => Verdict::RangeNotSatisfiable,
        Some(Some((first, last))) => Verdict::Part(first, last),
    }
}

impl Validators {
    /// As `ETag` has it.
    pub(super) fn etag(&self) -> String {
        if self.is_weak { format!("W/{}", self.tag) } else { self.tag.clone() }
    }

    fn is_weakly(&self, tag: &str) -> bool {
        tag.strip_prefix("W/").unwrap_or(tag) == self.tag
    }

    fn is_strongly(&self, tag: &str) -> bool {
        !self.is_weak && tag == self.tag
    }

    /// Whether a list has this tag, or is `*`. What is not a tag is none; a tag of ours has no comma, so that no quotes need be minded.
    fn is_among(&self, fields: &HeaderMap, name: &HeaderName, is_equal: fn(&Self, &str) -> bool) -> bool {
        let lines = fields.get_all(name).iter().filter_map(|line| line.to_str().ok());
        lines.flat_map(|line| line.split(',')).map(str::trim).any(|tag| tag == "*" || is_equal(self, tag))
    }

    /// RFC 9110, 13.1.5: a part is of use only to whoever has the other parts of the same content.
    fn allow_range(&self, fields: &HeaderMap) -> bool {
        if !fields.contains_key(IF_RANGE) {
            return true;
        }
        let Some(condition) = only(fields, &IF_RANGE) else { return false };
        if condition.contains('"') {
            return self.is_strongly(condition);
        }
        let is_strong = |modified: &SystemTime| self.now.duration_since(*modified).is_ok_and(|age| age >= STRONG_AFTER);
        let date = httpdate::parse_http_date(condition).ok();
        date.is_some() && date == self.modified.filter(is_strong)
    }
}

/// A field that may be there once: if there are several, nothing can be told.
fn only<'a>(fields: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut lines = fields.get_all(name).iter();
    lines.next().filter(|_| lines.next().is_none()).and_then(|line: &HeaderValue| line.to_str().ok()).map(str::trim)
}

/// One that is no date is ignored (13.1.3, 13.1.4).
fn date(fields: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(only(fields, name)?).ok()
}

/// The part that is wanted, `Some(None)` if the file has none of it. `None` where the whole is to be sent: with a unit that is not known
/// (14.2: MUST), rubbish, or several ranges, which anybody may ignore.
fn wanted(range: &str, size: u64) -> Option<Option<(u64, u64)>> {
    let (unit, range) = range.split_once('=')?;
    let (first, last) = range.trim().split_once('-')?;
    // a number that is too large for us is beyond the end of each file
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let end = size.checked_sub(1);
    match (first, last) {
        ("", last) => match (number(last)?, end) {
            (0, _) => Some(None),
            // the last bytes of nothing are all of it
            (_, None) => None,
            (count, Some(end)) => Some(Some((size.saturating_sub(count), end))),
        },
        (first, "") => Some(part(number(first)?, u64::MAX, end)),
        (first, last) => match (number(first)?, number(last)?) {
            (first, last) if first > last => None,
            (first, last) => Some(part(first, last, end)),
        },
    }
}

fn part(first: u64, last: u64, end: Option<u64>) -> Option<(u64, u64)> {
    end.filter(|end| first <= *end).map(|end| (first, last.min(end)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const MODIFIED: u64 = NOW - 3_600;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn of(seconds: u64) -> String {
        httpdate::fmt_http_date(at(seconds))
    }

    fn strong() -> Validators {
        Validators { tag: "\"a\"".to_owned(), is_weak: false, modified: Some(at(MODIFIED)), now: at(NOW) }
    }

    fn ask(validators: &Validators, method: Method, lines: &[(HeaderName, &str)]) -> Verdict {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(name, HeaderValue::from_str(value).unwrap());
        }
        verdict(&method, &fields, validators, 10)
    }

    #[test]
    fn each_condition() {
        use Verdict::{NotModified, PreconditionFailed, Whole};
        let (earlier, same, later) = (of(MODIFIED - 1), of(MODIFIED), of(MODIFIED + 1));
        for (name, value, wanted) in [
            (IF_MATCH, "\"a\"", Whole),
            (IF_MATCH, "\"b\" , \"a\"", Whole),
            (IF_MATCH, "*", Whole),
            (IF_MATCH, "\"b\"", PreconditionFailed),
            (IF_MATCH, "W/\"a\"", PreconditionFailed),
            (IF_MATCH, "a", PreconditionFailed),
            (IF_UNMODIFIED_SINCE, &same, Whole),
            (IF_UNMODIFIED_SINCE, &later, Whole),
            (IF_UNMODIFIED_SINCE, &earlier, PreconditionFailed),
            (IF_UNMODIFIED_SINCE, "yesterday", Whole),
            (IF_NONE_MATCH, "\"a\"", NotModified),
            (IF_NONE_MATCH, "\"b\",W/\"a\"", NotModified),
            (IF_NONE_MATCH, "*", NotModified),
            (IF_NONE_MATCH, "\"b\"", Whole),
            (IF_NONE_MATCH, "a", Whole),
            (IF_MODIFIED_SINCE, &same, NotModified),
            (IF_MODIFIED_SINCE, &later, NotModified),
            (IF_MODIFIED_SINCE, &earlier, Whole),
            (IF_MODIFIED_SINCE, "0", Whole),
        ] {
            for method in [Method::GET, Method::HEAD] {
                assert_eq!(ask(&strong(), method, &[(name.clone(), value)]), wanted, "{name}: {value}");
            }
        }
        // two lines of one
        let two = [(IF_MODIFIED_SINCE, &*same), (IF_MODIFIED_SINCE, &*same)];
        assert_eq!(ask(&strong(), Method::GET, &two), Whole);
        assert_eq!(ask(&strong(), Method::GET, &[(IF_NONE_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")]), NotModified);
    }

    #[test]
    fn their_order() {
        use Verdict::{NotModified, Part, PreconditionFailed, Whole};
        let (earlier, later) = (&*of(MODIFIED - 1), &*of(MODIFIED + 1));
        for (lines, wanted) in [
            (&[(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, earlier)][..], Whole),
            (&[(IF_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")], PreconditionFailed),
            (&[(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"a\"")], NotModified),
            (&[(IF_UNMODIFIED_SINCE, earlier), (IF_MODIFIED_SINCE, later)], PreconditionFailed),
            (&[(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, later)], Whole),
            (&[(IF_NONE_MATCH, "\"a\""), (RANGE, "bytes=0-1")], NotModified),
            (&[(IF_NONE_MATCH, "\"b\""), (RANGE, "bytes=0-1")], Part(0, 1)),
            (&[(IF_MATCH, "\"a\""), (IF_RANGE, "\"b\""), (RANGE, "bytes=0-1")], Whole),
        ] {
            assert_eq!(ask(&strong(), Method::GET, lines), wanted, "{lines:?}");
        }
    }

    #[test]
    fn a_stale_part_is_never_added_to() {
        use Verdict::{Part, Whole};
        let with = |validators: &Validators, condition: &str| {
            ask(validators, Method::GET, &[(IF_RANGE, condition), (RANGE, "bytes=1-2")])
        };
        assert_eq!(with(&strong(), "\"a\""), Part(1, 2));
        for stale in ["\"b\"", "W/\"a\"", "a", "", "*", "\"a\", \"b\"", &of(MODIFIED - 1), &of(MODIFIED + 1)] {
            assert_eq!(with(&strong(), stale), Whole, "{stale}");
        }
        assert_eq!(with(&strong(), &of(MODIFIED)), Part(1, 2));
        let young = Validators { modified: Some(at(NOW - 59)), ..strong() };
        assert_eq!(with(&young, &of(NOW - 59)), Whole);
        let weak = Validators { is_weak: true, ..strong() };
        assert_eq!((with(&weak, "\"a\""), with(&weak, "W/\"a\"")), (Whole, Whole));
        assert_eq!(ask(&weak, Method::GET, &[(IF_NONE_MATCH, &weak.etag())]), Verdict::NotModified);
        let undated = Validators { modified: None, ..strong() };
        assert_eq!(with(&undated, &of(MODIFIED)), Whole);
        assert_eq!(ask(&undated, Method::GET, &[(IF_MODIFIED_SINCE, &of(NOW))]), Whole);
        let two = [(IF_RANGE, "\"a\""), (IF_RANGE, "\"a\""), (RANGE, "bytes=1-2")];
        assert_eq!(ask(&strong(), Method::GET, &two), Whole);
    }

    #[test]
    fn ranges() {
        let huge = format!("{}0", u64::MAX);
        for (range, wanted) in [
            ("bytes=0-0", Some(Some((0, 0)))),
            ("bytes=2-5", Some(Some((2, 5)))),
            ("Bytes=2-5", Some(Some((2, 5)))),
            ("bytes=2-", Some(Some((2, 9)))),
            ("bytes=2-99", Some(Some((2, 9)))),
            (&*format!("bytes=2-{huge}"), Some(Some((2, 9)))),
            ("bytes=-3", Some(Some((7, 9)))),
            ("bytes=-99", Some(Some((0, 9)))),
            ("bytes=10-", Some(None)),
            ("bytes=10-12", Some(None)),
            (&*format!("bytes={huge}-"), Some(None)),
            ("bytes=-0", Some(None)),
            // the whole
            ("bytes=5-2", None),
            ("bytes=0-1,3-4", None),
            ("bytes=0-1,", None),
            ("lines=1-2", None),
            ("bytes=", None),
            ("bytes=-", None),
            ("bytes=a-b", None),
            ("bytes=+1-2", None),
            ("bytes=1-2-3", None),
            ("bytes 1-2", None),
            ("bytes", None),
        ] {
            assert_eq!(super::wanted(range, 10), wanted, "{range}");
        }
        assert_eq!(super::wanted("bytes=0-", 0), Some(None));
        assert_eq!(super::wanted("bytes=-5", 0), None);
        let get = |lines: &[(HeaderName, &str)]| ask(&strong(), Method::GET, lines);
        assert_eq!(get(&[(RANGE, "bytes=10-")]), Verdict::RangeNotSatisfiable);
        assert_eq!(get(&[(RANGE, "bytes=0-1"), (RANGE, "bytes=0-1")]), Verdict::Whole);
        assert_eq!(ask(&strong(), Method::HEAD, &[(RANGE, "bytes=0-1")]), Verdict::Whole);
    }
}
