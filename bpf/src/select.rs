//! Which packets, and how many of them: as users write it, and as programs read it.
//!
//! Every field is text in files and on the command line, so that both say it alike. Next: `spec`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::abi;
use crate::error::{Error, Result};

/// A million.
pub const MILLION: f64 = 1e6;

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                // A number is as good as its text.
                let value = serde_json::Value::deserialize(deserializer)?;
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                text.parse().map_err(|error: Error| D::Error::custom(error))
            }
        }
    };
}

/// A network, such as `10.0.0.0/8` or `fd00::1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

impl FromStr for Network {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "network {text:?}: an address such as 10.0.0.0/8 or fd00::1 is wanted"
            ))
        };
        let (address, bits) =
            text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        if bits > most { Err(wrong()) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

as_text!(Network);

impl From<Network> for abi::Network {
    fn from(network: Network) -> Self {
        match network.address {
            IpAddr::V4(address) => Self {
                prefix_len: u32::from(network.bits) + 96,
                address: address.to_ipv6_mapped().octets(),
            },
            IpAddr::V6(address) => {
                Self { prefix_len: u32::from(network.bits), address: address.octets() }
            }
        }
    }
}

/// Ports or lengths, such as `80` or `8000-8999`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub u16, pub u16);

impl Span {
    const ANY: Self = Self(0, u16::MAX);

    const fn pair(self) -> [u16; 2] {
        [self.0, self.1]
    }
}

impl FromStr for Span {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let wrong = || {
            Error::usage(format!(
                "range {text:?}: a number such as 80 or a range such as 8000-8999 is wanted"
            ))
        };
        let span = Self(
            from.trim().parse().map_err(|_| wrong())?,
            to.trim().parse().map_err(|_| wrong())?,
        );
        if span.0 > span.1 { Err(wrong()) } else { Ok(span) }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

as_text!(Span);

/// A protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Protocol(u8);

const PROTOCOLS: &[(&str, u8)] =
    &[("tcp", 6), ("udp", 17), ("icmp", 1), ("icmpv6", 58), ("sctp", 132)];

impl FromStr for Protocol {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let known = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, number)| *number);
        known.or_else(|| text.parse().ok()).map(Self).ok_or_else(|| {
            Error::usage(format!(
                "protocol {text:?}: tcp, udp, icmp, icmpv6, sctp or a number is wanted"
            ))
        })
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match PROTOCOLS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => f.write_str(name),
            None => write!(f, "{}", self.0),
        }
    }
}

as_text!(Protocol);

/// TCP flags that are set, or with a `!` are not: `syn,!ack`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    mask: u8,
    value: u8,
}

const FLAGS: &[(&str, u8)] = &[
    ("fin", 1),
    ("syn", 2),
    ("rst", 4),
    ("psh", 8),
    ("ack", 16),
    ("urg", 32),
    ("ece", 64),
    ("cwr", 128),
];

impl FromStr for Flags {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut flags = Self { mask: 0, value: 0 };
        for word in text.split(',').map(str::trim) {
            let (name, is_set) = word.strip_prefix('!').map_or((word, true), |name| (name, false));
            let Some((_, bit)) = FLAGS.iter().find(|(known, _)| *known == name) else {
                return Err(Error::usage(format!(
                    "TCP flags {text:?}: words such as syn,!ack of fin syn rst psh ack urg ece cwr are wanted"
                )));
            };
            flags.mask |= bit;
            flags.value |= if is_set { *bit } else { 0 };
        }
        Ok(flags)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = FLAGS.iter().filter(|(_, bit)| self.mask & bit != 0);
        let words = named
            .map(|(name, bit)| format!("{}{name}", if self.value & bit == 0 { "!" } else { "" }));
        f.write_str(&words.collect::<Vec<_>>().join(","))
    }
}

as_text!(Flags);

/// The first bytes of a payload, with `\n`, `\r`, `\\` and `\xNN` for those that are no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix(Vec<u8>);

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::usage(format!(
                "payload prefix {text:?}: up to {} bytes, others than text as \\xNN, are wanted",
                abi::PREFIX_MAX
            ))
        };
        let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            let byte = match (first, rest.first()) {
                (b'\\', Some(b'x')) => {
                    let digits = rest
                        .get(1..3)
                        .and_then(|digits| std::str::from_utf8(digits).ok())
                        .ok_or_else(wrong)?;
                    rest = rest.get(3..).unwrap_or_default();
                    u8::from_str_radix(digits, 16).map_err(|_| wrong())?
                }
                (b'\\', Some(escaped)) => {
                    rest = rest.get(1..).unwrap_or_default();
                    match escaped {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b'\\' => b'\\',
                        _ => return Err(wrong()),
                    }
                }
                (b'\\', None) => return Err(wrong()),
                (byte, _) => *byte,
            };
            bytes.push(byte);
        }
        if bytes.is_empty() || bytes.len() > abi::PREFIX_MAX {
            Err(wrong())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in &self.0 {
            match byte {
                b'\\' => f.write_str("\\\\")?,
                0x20..0x7f => write!(f, "{}", char::from(*byte))?,
                byte => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

as_text!(Prefix);

/// One direction of a device, as seen from its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// Received.
    In,
    /// Sent.
    Out,
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::In => "in",
            Self::Out => "out",
        })
    }
}

/// Directions of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// Received.
    In,
    /// Sent.
    #[default]
    Out,
    /// Either.
    Both,
}

impl Direction {
    /// Those that it is made of.
    #[must_use]
    pub const fn ways(self) -> &'static [Way] {
        match self {
            Self::In => &[Way::In],
            Self::Out => &[Way::Out],
            Self::Both => &[Way::In, Way::Out],
        }
    }
}

impl FromStr for Direction {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "in" => Ok(Self::In),
            "out" => Ok(Self::Out),
            "both" => Ok(Self::Both),
            _ => Err(Error::usage(format!("direction {text:?}: in, out or both is wanted"))),
        }
    }
}

/// Where a fault acts, and which packets it meets there. What is not given is any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Target {
    /// Network device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dev: Option<String>,
    /// Direction on it.
    #[serde(skip_serializing_if = "is_default")]
    pub dir: Direction,
    /// Directory of a control group (version 2), below /sys/fs/cgroup or absolute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<String>,
    /// Process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Name of processes, as in /proc/PID/comm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comm: Option<String>,
    /// File or directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Protocol above IP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proto: Option<Protocol>,
    /// The sender is in one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub src: Vec<Network>,
    /// The receiver is in one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dst: Vec<Network>,
    /// Sender or receiver is in one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peer: Vec<Network>,
    /// The sender's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sport: Option<Span>,
    /// The receiver's port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dport: Option<Span>,
    /// Either port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<Span>,
    /// TCP flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flags: Option<Flags>,
    /// Length from the network header on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub len: Option<Span>,
    /// How the payload begins, in one packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<Prefix>,
    /// Only packets without payload, such as bare acknowledgements.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub without_payload: bool,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Target {
    /// Whether it names a network, a port or anything else that keeps it from meeting all.
    #[must_use]
    pub fn is_narrow(&self) -> bool {
        !self.src.is_empty()
            || !self.dst.is_empty()
            || !self.peer.is_empty()
            || self.sport.is_some()
            || self.dport.is_some()
            || self.port.is_some()
            || self.prefix.is_some()
            || self.pid.is_some()
    }

    /// As programs read it. Networks go into maps.
    #[must_use]
    pub fn to_abi(&self, spared: &[u16]) -> abi::Selector {
        let span = |span: Option<Span>| span.unwrap_or(Span::ANY).pair();
        let flags = self.flags.unwrap_or(Flags { mask: 0, value: 0 });
        let bytes = self.prefix.as_ref().map_or(&[][..], |prefix| &prefix.0);
        let mut prefix = [0; abi::PREFIX_MAX];
        prefix.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        let mut ports = [0; abi::SPARED_MAX];
        ports.iter_mut().zip(spared).for_each(|(to, from)| *to = *from);
        abi::Selector {
            sport: span(self.sport),
            dport: span(self.dport),
            port: span(self.port),
            len: span(self.len),
            spared: ports,
            family: 0,
            // Only TCP has flags.
            protocol: self.proto.map_or(if flags.mask == 0 { 0 } else { 6 }, |proto| proto.0),
            flags_mask: flags.mask,
            flags_value: flags.value,
            networks: u8::from(!self.src.is_empty())
                | u8::from(!self.dst.is_empty()) << 1
                | u8::from(!self.peer.is_empty()) << 2,
            unused: 0,
            prefix_len: u8::try_from(bytes.len()).unwrap_or(0),
            without_payload: u8::from(self.without_payload),
            prefix,
        }
    }
}

/// How many of what matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Share {
    /// Everything.
    #[default]
    All,
    /// Each packet by chance, in percent. A packet of several segments is hit when one of them is.
    Percent(f64),
    /// All packets of this many percent of flows.
    Flows(f64),
    /// Every n-th.
    Every(u32),
    /// The first n.
    First(u32),
    /// All, for so many milliseconds of each period.
    Burst {
        /// Of the period.
        on_ms: u32,
        /// From one burst's begin to the next.
        period_ms: u32,
    },
    /// Two states with a chance each (E. O. Elliott, Bell System Technical Journal 42, 1963), in percent.
    Gilbert {
        /// From good to bad, a packet.
        to_bad: f64,
        /// Back.
        to_good: f64,
        /// Hit in the bad state.
        #[serde(default = "hundred")]
        bad: f64,
        /// Hit in the good one.
        #[serde(default)]
        good: f64,
    },
}

const fn hundred() -> f64 {
    100.0
}

fn ppm(percent: f64) -> Result<u32> {
    if (0.0..=100.0).contains(&percent) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 0 and a million"
        )]
        return Ok((percent / 100.0 * MILLION).round() as u32);
    }
    Err(Error::usage(format!("share of {percent} %: 0 to 100 is wanted")))
}

impl Share {
    /// As programs read it.
    ///
    /// # Errors
    /// A percentage is none, or a number is 0.
    pub fn to_abi(self, seed: u32) -> Result<abi::Share> {
        let nonzero = |n: u32| {
            if n == 0 {
                Err(Error::usage("share of every 0th: 1 or more is wanted"))
            } else {
                Ok(n)
            }
        };
        let share = abi::Share { seed, ..abi::Share::default() };
        Ok(match self {
            Self::All => share,
            Self::Percent(percent) => abi::Share { kind: 1, ppm: ppm(percent)?, ..share },
            Self::Flows(percent) => abi::Share { kind: 2, ppm: ppm(percent)?, ..share },
            Self::Every(n) => abi::Share { kind: 3, n: nonzero(n)?, ..share },
            Self::First(n) => abi::Share { kind: 4, n, ..share },
            Self::Burst { on_ms, period_ms } => {
                abi::Share { kind: 5, on_ms, period_ms: nonzero(period_ms)?, ..share }
            }
            Self::Gilbert { to_bad, to_good, bad, good } => abi::Share {
                kind: 6,
                ppm: ppm(good)?,
                to_bad_ppm: ppm(to_bad)?,
                to_good_ppm: ppm(to_good)?,
                bad_ppm: ppm(bad)?,
                ..share
            },
        })
    }
}

#[cfg(test)]
mod tests;
