//! Times as access logs write them, all in UTC.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

struct Civil {
    year: u64,
    /// From 1 on.
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    milliseconds: u32,
}

impl Civil {
    /// By the Gregorian calendar; what is before 1970 is 1970.
    fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
        // Years that begin in March, so that a leap day is a year's last one; 719,468 days lie between 0000-03-01 and 1970-01-01, and
        // 146,097 are 400 years (Howard Hinnant's `civil_from_days`).
        let days = days + 719_468;
        let (era, day) = (days / 146_097, days % 146_097);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        Self {
            year: era * 400 + year + u64::from(month >= 10),
            month: if month < 10 { month + 3 } else { month - 9 },
            day: day - (153 * month + 2) / 5 + 1,
            hour: second / 3_600,
            minute: second / 60 % 60,
            second: second % 60,
            milliseconds: since.subsec_millis(),
        }
    }
}

/// `[10/Oct/2000:13:55:36 +0000]`, as Apache and gunicorn write it.
pub(super) fn common(time: SystemTime, out: &mut Vec<u8>) {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::of(time);
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"-");
    _ = write!(out, "[{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000]");
}

/// `2000-10-10 13:55:36 +0000`, as granian writes it.
pub(super) fn spaced(time: SystemTime, out: &mut Vec<u8>) {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::of(time);
    _ = write!(out, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} +0000");
}

/// `2000-10-10T13:55:36.123Z` (RFC 3339).
pub(super) fn rfc_3339(time: SystemTime, out: &mut Vec<u8>) {
    let Civil { year, month, day, hour, minute, second, milliseconds } = Civil::of(time);
    _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milliseconds:03}Z");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use super::*;

    fn written(write: fn(SystemTime, &mut Vec<u8>), milliseconds: u64) -> String {
        let mut out = Vec::new();
        write(UNIX_EPOCH + Duration::from_millis(milliseconds), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn days_and_months() {
        assert_eq!(written(common, 971_186_136_000), "[10/Oct/2000:13:55:36 +0000]");
        assert_eq!(written(spaced, 971_186_136_999), "2000-10-10 13:55:36 +0000");
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (951_868_800, "2000-03-01T00:00:00.007Z"),
            (1_709_164_800, "2024-02-29T00:00:00.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (1_735_689_600, "2025-01-01T00:00:00.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.007Z"),
        ] {
            assert_eq!(written(rfc_3339, seconds * 1000 + 7), wanted);
        }
        let mut out = Vec::new();
        rfc_3339(UNIX_EPOCH - Duration::from_secs(1), &mut out);
        assert_eq!(out, b"1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn each_day_follows_the_one_before() {
        let mut last = (1970, 1, 0);
        for day in 0..200_000 {
            let civil = Civil::of(UNIX_EPOCH + Duration::from_secs(day * 86_400));
            let (year, month, day) = last;
            let follows = [(year, month, day + 1), (year, month + 1, 1), (year + 1, 1, 1)];
            last = (civil.year, civil.month, civil.day);
            assert!(follows.contains(&last), "{last:?}");
            assert!(day < 28 || last.2 <= 31);
        }
        assert_eq!(last, (2517, 7, 31));
    }
}
