//! What a start says on standard output, or in the log file: the lines redis-server's users and their scripts wait for.
//!
//! `Ready to accept connections` is last, when everything listens.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::command::REDIS_VERSION;

/// The lines of one start.
#[derive(Debug)]
pub struct Greeting {
    /// Where they go; `None` for standard output.
    pub log: Option<File>,
    /// Ports, sockets and shards.
    pub place: String,
    /// Directives that do not do what one may think.
    pub notes: Vec<String>,
    /// Wall clock in microseconds, set when the shards start.
    pub clock_us: Arc<AtomicU64>,
}

impl Greeting {
    /// Says that connections are accepted.
    pub fn say(self) {
        let (pid, time) = (std::process::id(), date(self.clock_us.load(Ordering::Relaxed)));
        let mut text = String::new();
        let mut line = |mark: char, words: &str| {
            text.push_str(&format!("{pid}:M {time} {mark} {words}\n"));
        };
        let version = env!("CARGO_PKG_VERSION");
        line('*', &format!("cache {version}, as Redis {REDIS_VERSION}: {}", self.place));
        self.notes.iter().for_each(|note| line('#', note));
        line('*', "Ready to accept connections");
        // Nobody may be listening.
        let _ = match self.log {
            Some(mut file) => file.write_all(text.as_bytes()),
            None => std::io::stdout().write_all(text.as_bytes()),
        };
    }

    /// What `--version` prints: redis-server's line, which scripts take apart, then our own.
    #[must_use]
    pub fn version() -> String {
        let version = env!("CARGO_PKG_VERSION");
        format!(
            "Redis server v={REDIS_VERSION} sha=00000000:0 malloc=mimalloc bits=64 build=0\n\
             cache {version}\n"
        )
    }
}

/// `27 Nov 2026 10:15:42.123`, in UTC.
fn date(unix_us: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, ms) = (unix_us / 86_400_000_000, unix_us / 1_000 % 86_400_000);
    // Days from civil, backwards (H. Hinnant): years begin in March, eras have 400 of them.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 2 } else { month - 10 };
    let year = era * 400 + year_of_era + u64::from(month < 2);
    let name = MONTHS.get(usize::try_from(month).unwrap_or(0)).copied().unwrap_or_default();
    let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1_000 % 60);
    format!("{day:02} {name} {year} {hours:02}:{minutes:02}:{seconds:02}.{:03}", ms % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), "01 Jan 1970 00:00:00.000");
        assert_eq!(date(951_782_400_000_000), "29 Feb 2000 00:00:00.000");
        assert_eq!(date(1_700_000_000_123_456), "14 Nov 2023 22:13:20.123");
    }

    #[test]
    fn the_version_is_taken_apart_as_that_of_redis() {
        assert!(Greeting::version().starts_with("Redis server v=7.0.15 sha="));
        assert!(Greeting::version().contains(env!("CARGO_PKG_VERSION")));
    }
}
