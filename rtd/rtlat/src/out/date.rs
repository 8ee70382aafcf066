//! Dates and lengths of time. The wall clock is written as rt-tests do, but in UTC with any local
//! time zone, so that files of several machines compare.

const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

/// RFC 2822 date and time of `ns` since 1970: `Sun, 22 Nov 2026 18:57:53 +0000`.
pub fn rfc2822(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let weekday = pick(&WEEKDAYS, days % 7);
    let month = pick(&MONTHS, month);
    format!("{weekday}, {day:02} {month} {year} {} +0000", clock(of_day))
}

/// `2026-11-22 19:05:00 UTC`, of `ns` since 1970.
pub fn utc(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (year, month, day) = civil(seconds / 86_400);
    format!(
        "{year}-{:02}-{day:02} {} UTC",
        month + 1,
        clock(seconds % 86_400)
    )
}

/// `hh:mm:ss`.
pub fn clock(seconds: u64) -> String {
    format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    )
}

fn pick(names: &[&'static str], index: u64) -> &'static str {
    usize::try_from(index)
        .ok()
        .and_then(|i| names.get(i))
        .copied()
        .unwrap_or("?")
}

/// Year, month (0 is January) and day of month of a day after 1970-01-01. Walks the years: u64 ns
/// end in 2554.
fn civil(mut days: u64) -> (u64, u64, u64) {
    let mut year = 1970;
    while days >= 365 + leap(year) {
        days -= 365 + leap(year);
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + leap(year), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

fn leap(year: u64) -> u64 {
    u64::from(year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_782_399 * 1_000_000_000), "2000-02-28 23:59:59 UTC");
        assert_eq!(utc(951_782_400 * 1_000_000_000), "2000-02-29 00:00:00 UTC");
        assert_eq!(
            utc(1_795_374_448 * 1_000_000_000),
            "2026-11-22 19:07:28 UTC"
        );
        assert_eq!(utc(u64::MAX), "2554-07-21 23:34:33 UTC");
    }
}
