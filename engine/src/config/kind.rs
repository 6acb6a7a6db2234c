//! The types an option can have: how each is written, checked and shown.
//!
//! Invariant: [`Kind::parse`] accepts what [`Value`]'s `Display` prints, and gives the same value.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// The highest core number plus one.
pub const CPU_MAX: u32 = 4096;
/// The longest path of a Unix socket (`sun_path` of unix(7), less the closing zero).
pub const UNIX_PATH_MAX_BYTES: usize = 107;

/// Type and range of an option.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `true` or `false`; as a flag also `--name` and `--no-name`.
    Bool,
    /// A whole number, bounds included.
    Integer {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// Bytes with a unit: `64mb`, `1gb`; `k`, `m`, `g` are decimal, as in Redis.
    Size {
        /// The smallest.
        min_bytes: u64,
        /// The largest.
        max_bytes: u64,
    },
    /// Time with a unit: `250us`, `5ms`, `10s`, `2m`, `1h`, `7d`.
    Duration {
        /// The shortest.
        min_ns: u64,
        /// The longest.
        max_ns: u64,
    },
    /// `127.0.0.1:6379`, `[::1]:6379`, `localhost:6379`, `*:6379` for all interfaces.
    Address,
    /// A file or directory.
    Path,
    /// The path of a Unix socket.
    UnixPath,
    /// Cores: `0,2-5`.
    Cpus,
    /// Text of at most so many bytes.
    Text {
        /// The longest.
        max_bytes: usize,
    },
    /// One of these words.
    Choice(&'static [&'static str]),
}

/// A checked value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of [`Kind::Bool`].
    Bool(bool),
    /// Of [`Kind::Integer`].
    Integer(u64),
    /// Of [`Kind::Size`], in bytes.
    Size(u64),
    /// Of [`Kind::Duration`], in nanoseconds.
    Duration(u64),
    /// Of [`Kind::Address`].
    Address(SocketAddr),
    /// Of [`Kind::Path`] and [`Kind::UnixPath`].
    Path(PathBuf),
    /// Of [`Kind::Cpus`].
    Cpus(CpuList),
    /// Of [`Kind::Text`].
    Text(String),
    /// Of [`Kind::Choice`].
    Choice(&'static str),
}

/// Cores in ascending order, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuList(Vec<u32>);

impl CpuList {
    /// Reads `0,2-5`.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Some(first), Some(last)) = (parse_whole(first), parse_whole(last)) else {
                return Err("not a list of cores");
            };
            if first > last {
                return Err("a range that runs backwards");
            }
            if last >= u64::from(CPU_MAX) {
                return Err("no such core");
            }
            cpus.extend(first as u32..=last as u32);
            // Bounds the memory, however long the text.
            cpus.sort_unstable();
            cpus.dedup();
        }
        Ok(Self(cpus))
    }

    /// The cores.
    #[must_use]
    pub fn as_slice(&self) -> &[u32] {
        &self.0
    }
}

impl From<Vec<u32>> for CpuList {
    fn from(mut cpus: Vec<u32>) -> Self {
        cpus.sort_unstable();
        cpus.dedup();
        Self(cpus)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, range) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if n == 0 { "" } else { "," };
            match range {
                [only] => write!(f, "{comma}{only}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl Kind {
    /// Reads and checks a value.
    ///
    /// # Errors
    /// Says what is wrong with the text; [`Kind::expected`] says what would be right.
    pub fn parse(self, text: &str) -> Result<Value, &'static str> {
        if text.contains('\0') {
            return Err("a zero byte");
        }
        match self {
            Self::Bool => match text {
                "true" | "yes" | "on" => Ok(Value::Bool(true)),
                "false" | "no" | "off" => Ok(Value::Bool(false)),
                _ => Err("neither true nor false"),
            },
            Self::Integer { min, max } => {
                let value = parse_whole(text).ok_or("not a whole number")?;
                in_range(value, min, max).map(Value::Integer)
            }
            Self::Size { min_bytes, max_bytes } => {
                in_range(parse_size(text)?, min_bytes, max_bytes).map(Value::Size)
            }
            Self::Duration { min_ns, max_ns } => {
                in_range(parse_duration(text)?, min_ns, max_ns).map(Value::Duration)
            }
            Self::Address => parse_address(text).map(Value::Address).ok_or("not an address"),
            Self::Path | Self::UnixPath if text.is_empty() => Err("empty"),
            Self::UnixPath if text.len() > UNIX_PATH_MAX_BYTES => Err("too long"),
            Self::Path | Self::UnixPath => Ok(Value::Path(PathBuf::from(text))),
            Self::Cpus => CpuList::parse(text).map(Value::Cpus),
            Self::Text { max_bytes } if text.len() > max_bytes => Err("too long"),
            Self::Text { .. } => Ok(Value::Text(text.to_owned())),
            Self::Choice(words) => {
                let word = words.iter().find(|word| **word == text);
                word.map(|word| Value::Choice(word)).ok_or("not one of the choices")
            }
        }
    }

    /// What a value must look like, to go after "give".
    #[must_use]
    pub fn expected(self) -> String {
        match self {
            Self::Bool => "true or false".to_owned(),
            Self::Integer { min, max } => match max {
                u64::MAX => format!("a whole number from {min}"),
                _ => format!("a whole number from {min} to {max}"),
            },
            Self::Size { min_bytes, max_bytes } => match max_bytes {
                u64::MAX => format!("a size from {}, such as 64mb", show_size(min_bytes)),
                _ => format!(
                    "a size from {} to {}, such as 64kb",
                    show_size(min_bytes),
                    show_size(max_bytes)
                ),
            },
            Self::Duration { min_ns, max_ns } => match max_ns {
                u64::MAX => format!("a time from {}, such as 5ms", show_duration(min_ns)),
                _ => format!(
                    "a time from {} to {}, such as 5ms",
                    show_duration(min_ns),
                    show_duration(max_ns)
                ),
            },
            Self::Address => {
                "an address and port, such as 127.0.0.1:6379, [::1]:6379 or *:6379".to_owned()
            }
            Self::Path => "a path".to_owned(),
            Self::UnixPath => format!("a path of at most {UNIX_PATH_MAX_BYTES} bytes"),
            Self::Cpus => format!("cores below {CPU_MAX}, such as 0,2-5"),
            Self::Text { max_bytes } => format!("text of at most {max_bytes} bytes"),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
        }
    }

    /// The placeholder in a synopsis.
    #[must_use]
    pub const fn placeholder(self) -> &'static str {
        match self {
            Self::Bool => "",
            Self::Integer { .. } => "N",
            Self::Size { .. } => "SIZE",
            Self::Duration { .. } => "TIME",
            Self::Address => "ADDR",
            Self::Path | Self::UnixPath => "PATH",
            Self::Cpus => "LIST",
            Self::Text { .. } => "TEXT",
            Self::Choice(_) => "WORD",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Integer(value) => value.fmt(f),
            Self::Size(bytes) => f.write_str(&show_size(*bytes)),
            Self::Duration(ns) => f.write_str(&show_duration(*ns)),
            Self::Address(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
            Self::Cpus(cpus) => cpus.fmt(f),
            Self::Text(text) => f.write_str(text),
            Self::Choice(word) => f.write_str(word),
        }
    }
}

fn in_range(value: u64, min: u64, max: u64) -> Result<u64, &'static str> {
    if value < min {
        Err("too small")
    } else if value > max {
        Err("too large")
    } else {
        Ok(value)
    }
}

/// Digits only: no sign, no blank.
fn parse_whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Splits `64mb` into 64 and `mb`.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(end)?;
    Some((parse_whole(number)?, unit))
}

const SIZE_UNITS: &[(&str, u64)] = &[
    ("tb", 1 << 40),
    ("gb", 1 << 30),
    ("mb", 1 << 20),
    ("kb", 1 << 10),
    ("t", 1_000_000_000_000),
    ("g", 1_000_000_000),
    ("m", 1_000_000),
    ("k", 1_000),
    ("b", 1),
    ("", 1),
];

const DURATION_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Reads a number of bytes with a unit in the notation of redis.conf: `kb`, `mb`, `gb`, `tb` are
/// powers of 1024, `k`, `m`, `g`, `t` of 1000, none or `b` is bytes; case does not matter.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number_and_unit(text).ok_or("not a size")?;
    let row = SIZE_UNITS.iter().find(|row| row.0.eq_ignore_ascii_case(unit));
    let (_unit, factor) = row.ok_or("an unknown unit")?;
    number.checked_mul(*factor).ok_or("too large")
}

/// Reads a time: a whole number and `ns`, `us`, `ms`, `s`, `m`, `h` or `d`; zero needs no unit.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = number_and_unit(text).ok_or("not a time")?;
    if unit.is_empty() {
        return if number == 0 { Ok(0) } else { Err("a time without a unit") };
    }
    let row = DURATION_UNITS.iter().find(|row| row.0 == unit);
    let (_unit, factor) = row.ok_or("an unknown unit")?;
    number.checked_mul(*factor).ok_or("too large")
}

/// The shortest exact way to write `bytes` in powers of 1024.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    let binary = &SIZE_UNITS[..4];
    let row = binary.iter().find(|row| bytes != 0 && bytes.is_multiple_of(row.1));
    row.map_or_else(|| bytes.to_string(), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// The shortest exact way to write `ns`.
#[must_use]
pub fn show_duration(ns: u64) -> String {
    if ns == 0 {
        return "0s".to_owned();
    }
    let row = DURATION_UNITS.iter().find(|row| ns.is_multiple_of(row.1));
    row.map_or_else(|| format!("{ns}ns"), |(unit, factor)| format!("{}{unit}", ns / factor))
}

fn parse_address(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    // Names are not resolved: an address in a configuration must not depend on a server.
    let (host, port) = text.rsplit_once(':')?;
    let ip = match host {
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        "*" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "[*]" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let port = u16::try_from(parse_whole(port)?).ok()?;
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_written_as_in_redis() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("1k", 1_000),
            ("1kb", 1_024),
            ("64MB", 64 << 20),
            ("1gB", 1 << 30),
            ("5m", 5_000_000),
            ("2tb", 2 << 40),
            ("7b", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "mb", "-1", "1.5gb", "1 gb", "1xb", "99999999999999999999", "16777216tb"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        assert_eq!(show_size(64 << 20), "64mb");
        assert_eq!((show_size(0), show_size(1_000)), ("0".to_owned(), "1000".to_owned()));
    }

    #[test]
    fn times_need_a_unit() {
        for (text, ns) in
            [("0", 0), ("250us", 250_000), ("5ms", 5_000_000), ("1h", 3_600_000_000_000)]
        {
            assert_eq!(parse_duration(text), Ok(ns), "{text}");
        }
        assert_eq!(parse_duration("5"), Err("a time without a unit"));
        assert_eq!(parse_duration("5x"), Err("an unknown unit"));
        assert_eq!(parse_duration("999999999999d"), Err("too large"));
        assert_eq!(show_duration(90_000_000_000), "90s");
        assert_eq!(show_duration(120_000_000_000), "2m");
    }

    #[test]
    fn addresses_are_not_resolved() {
        let show = |text| Kind::Address.parse(text).map(|value| value.to_string());
        assert_eq!(show("127.0.0.1:6379").unwrap(), "127.0.0.1:6379");
        assert_eq!(show("[::1]:80").unwrap(), "[::1]:80");
        assert_eq!(show("localhost:1").unwrap(), "127.0.0.1:1");
        assert_eq!(show("*:2").unwrap(), "0.0.0.0:2");
        assert_eq!(show("[*]:2").unwrap(), "[::]:2");
        for text in ["", "6379", "example.org:80", "127.0.0.1", "*:70000", "*:+1", "::1:80"] {
            assert_eq!(show(text), Err("not an address"), "{text}");
        }
    }

    #[test]
    fn cores_are_listed_once() {
        let show = |text| CpuList::parse(text).map(|cpus| cpus.to_string());
        assert_eq!(show("5,0,2-4,3").unwrap(), "0,2-5");
        assert_eq!(show("7").unwrap(), "7");
        assert_eq!(show("4095").unwrap(), "4095");
        assert_eq!(show("4096"), Err("no such core"));
        assert_eq!(show("3-1"), Err("a range that runs backwards"));
        for text in ["", ",", "1,", "a", "1-", "-1", "1-2-3", "0 ,1"] {
            assert!(show(text).is_err(), "{text}");
        }
        let hostile = "0-4095,".repeat(100) + "0";
        assert_eq!(CpuList::parse(&hostile).unwrap().as_slice().len(), 4096);
        assert_eq!(CpuList::from(vec![3, 1, 3]).to_string(), "1,3");
    }

    #[test]
    fn bounds_are_part_of_the_range() {
        let kind = Kind::Integer { min: 1, max: 8 };
        assert_eq!(kind.parse("1"), Ok(Value::Integer(1)));
        assert_eq!(kind.parse("8"), Ok(Value::Integer(8)));
        assert_eq!(kind.parse("0"), Err("too small"));
        assert_eq!(kind.parse("9"), Err("too large"));
        assert_eq!(kind.parse("+3"), Err("not a whole number"));
        assert_eq!(kind.parse("18446744073709551616"), Err("not a whole number"));
        assert_eq!(kind.expected(), "a whole number from 1 to 8");
        let kind = Kind::Size { min_bytes: 1 << 10, max_bytes: 1 << 20 };
        assert_eq!(kind.parse("1023"), Err("too small"));
        assert_eq!(kind.expected(), "a size from 1kb to 1mb, such as 64kb");
        let path = "x".repeat(UNIX_PATH_MAX_BYTES);
        assert!(Kind::UnixPath.parse(&path).is_ok());
        assert_eq!(Kind::UnixPath.parse(&(path + "x")), Err("too long"));
        assert_eq!(Kind::Path.parse("a\0b"), Err("a zero byte"));
        assert_eq!(Kind::Text { max_bytes: 2 }.parse("abc"), Err("too long"));
        assert_eq!(Kind::Choice(&["a", "b"]).parse("b"), Ok(Value::Choice("b")));
        assert_eq!(Kind::Choice(&["a", "b"]).expected(), "one of a, b");
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::Bool),
            Just(Kind::Integer { min: 0, max: u64::MAX }),
            Just(Kind::Size { min_bytes: 0, max_bytes: u64::MAX }),
            Just(Kind::Duration { min_ns: 0, max_ns: u64::MAX }),
            Just(Kind::Address),
            Just(Kind::Path),
            Just(Kind::Cpus),
            Just(Kind::Text { max_bytes: 64 }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_shown_can_be_read(
            kind in kinds(),
            text in "[0-9]{1,6}(b|kb|mb|ms|s|us|d)?|[0-9]{1,3}(,[0-9]{1,3}(-[0-9]{4})?)?|true|\\*:[0-9]{1,5}|.{0,9}",
        ) {
            if let Ok(value) = kind.parse(&text) {
                prop_assert_eq!(kind.parse(&value.to_string()), Ok(value));
            }
        }
    }
}
