//! Seconds since the Unix epoch as a date, in UTC.
//!
//! Days to a civil date as Howard Hinnant's `civil_from_days` does it. Next: `html`, `summary`.

const DAY_S: u64 = 86_400;

/// `2026-11-26`.
#[must_use]
pub fn day(unix_s: u64) -> String {
    let (year, month, day) = civil(unix_s / DAY_S);
    format!("{year:04}-{month:02}-{day:02}")
}

/// `2026-11-26 21:07 UTC`.
#[must_use]
pub fn minute(unix_s: u64) -> String {
    let second = unix_s % DAY_S;
    format!("{} {:02}:{:02} UTC", day(unix_s), second / 3600, second / 60 % 60)
}

/// Year, month and day of a number of days since 1970-01-01.
const fn civil(days: u64) -> (u64, u64, u64) {
    // Days since 0000-03-01: years that begin in March end with the leap day.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(day(0), "1970-01-01");
        assert_eq!(day(951_782_400), "2000-02-29");
        assert_eq!(day(951_868_800), "2000-03-01");
        assert_eq!(minute(1_795_728_425), "2026-11-26 21:27 UTC");
        assert_eq!(day(4_102_444_799), "2099-12-31");
    }
}
