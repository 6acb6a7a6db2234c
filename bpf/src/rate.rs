//! Rates as users write them: `5MB/s` of bytes, `1mbit` of bits, each in steps of a thousand.
//!
//! Invariant: never zero, which would be no rate but a stop. Next: `faults::pace`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Bytes in a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate(u64);

/// Units, and how many bytes a second each is, in eighths. The longest of those that end alike first.
const UNITS: &[(&str, f64)] = &[
    ("GB/s", 8e9),
    ("MB/s", 8e6),
    ("kB/s", 8e3),
    ("B/s", 8.0),
    ("gbit", 1e9),
    ("mbit", 1e6),
    ("kbit", 1e3),
    ("bit", 1.0),
];

/// Above this a rate is no limit of anything: 100 gbit.
const MOST: f64 = 12.5e9;

impl Rate {
    /// Bytes in a second.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "rate {text:?}: a number with B/s, kB/s, MB/s, GB/s, kbit, mbit or gbit, such as 5MB/s, is wanted"
            ))
        };
        let unit = UNITS.iter().find_map(|(name, bits)| Some((text.strip_suffix(name)?, bits)));
        let (number, bits) = unit.ok_or_else(wrong)?;
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * bits / 8.0;
        if !(1.0..=MOST).contains(&bytes) {
            return Err(wrong());
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and the most"
        )]
        Ok(Self(bytes.round() as u64))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes % 1_000_000 == 0 => write!(f, "{}MB/s", bytes / 1_000_000),
            bytes if bytes % 1000 == 0 => write!(f, "{}kB/s", bytes / 1000),
            bytes => write!(f, "{bytes}B/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read() {
        let bytes = |text: &str| text.parse::<Rate>().map(Rate::bytes).ok();
        assert_eq!(bytes("5MB/s"), Some(5_000_000));
        assert_eq!(bytes("128 kB/s"), Some(128_000));
        assert_eq!(bytes("1mbit"), Some(125_000));
        assert_eq!(bytes("1.5gbit"), Some(187_500_000));
        assert_eq!(bytes("9B/s"), Some(9));
        for wrong in ["", "5", "MB/s", "-1MB/s", "0kbit", "5 furlongs", "NaNMB/s", "1000gbit"] {
            assert_eq!(bytes(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn rates_are_written() {
        for text in ["5MB/s", "128kB/s", "9B/s"] {
            assert_eq!(text.parse::<Rate>().expect(text).to_string(), text);
        }
    }
}
