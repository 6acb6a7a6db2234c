//! Times as people write them: `250us`, `1.5ms`, `2s`.
//!
//! Invariants: a time without a unit is refused, because a guess would be off by a factor of a thousand.

use anyhow::{Result, bail};

use crate::clock::{MICROSECOND_NS, MILLISECOND_NS, SECOND_NS};

/// The longest time understood.
const LONGEST_NS: f64 = 3_600.0 * SECOND_NS as f64;

/// Parses a number followed by ns, us, ms or s, into nanoseconds.
///
/// # Errors
/// It is not of that form, or is negative or longer than an hour.
pub fn parse_duration(text: &str) -> Result<u64> {
    let text = text.trim();
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(unit_at);
    let scale = match unit {
        "ns" => 1,
        "us" => MICROSECOND_NS,
        "ms" => MILLISECOND_NS,
        "s" => SECOND_NS,
        _ => bail!("{text:?} needs a unit: ns, us, ms or s, as in 1.5ms"),
    };
    let Ok(number) = digits.trim().parse::<f64>() else {
        bail!("{text:?} is no time: a number and ns, us, ms or s, as in 1.5ms");
    };
    let ns = number * scale as f64;
    if !(0.0..=LONGEST_NS).contains(&ns) {
        bail!("{text:?} is not between 0 and an hour");
    }
    Ok(ns.round() as u64)
}

/// Writes nanoseconds with the unit that fits.
#[must_use]
pub fn duration(ns: f64) -> String {
    match ns {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.3} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(parse_duration("250us").expect("µs"), 250_000);
        assert_eq!(parse_duration(" 1.5 ms ").expect("ms"), 1_500_000);
        assert_eq!(parse_duration("2s").expect("s"), 2_000_000_000);
        assert_eq!(parse_duration("7ns").expect("ns"), 7);
        for text in ["", "5", "ms", "1m", "-1ms", "2h", "nans", "1e9s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
        assert_eq!(duration(1_234_000.0), "1.23 ms");
        assert_eq!(duration(999.0), "999 ns");
    }
}
