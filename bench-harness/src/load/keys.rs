//! Which keys are asked for: all alike, some more often, the newest, or one after the other.
//!
//! [`KeyDist`] is what users write. The hot keys of `zipfian` and `hotspot` are spread over all keys by a multiplication
//! modulo their number: a bijection, so that shares are exactly the law's. (YCSB hashes ranks of ten billion instead,
//! where ranks collide and the hottest key has about half the share.)
//! Next: `zipf` for the law, `draws` for who draws when.

use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::zipf::Zipf;
use crate::rng::Rng;

/// YCSB's constant, which many others took over.
pub const SKEW: f64 = 0.99;
/// The flattest and the steepest law.
const SKEWS: (f64, f64) = (0.01, 10.0);
/// Share of keys that are hot, and of requests for them, unless it is said otherwise: YCSB's.
const HOTSPOT: (f64, f64) = (0.2, 0.8);

/// How requests fall on keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum KeyDist {
    /// All alike.
    #[default]
    Uniform,
    /// Zipf's law.
    Zipfian {
        /// The exponent.
        skew: f64,
        /// Hot keys lie anywhere; else they are the first.
        scrambled: bool,
    },
    /// Zipf's law by age: the newest key is the most frequent.
    Latest {
        /// The exponent.
        skew: f64,
    },
    /// Some keys get most requests, all of those alike.
    Hotspot {
        /// Share of the keys.
        keys: f64,
        /// Share of the requests.
        requests: f64,
    },
    /// One after the other, over all connections, and from the start again.
    Sequential,
}

/// What is understood, in words.
const FORMS: &str = "uniform, zipfian[:SKEW], zipfian-ordered[:SKEW], latest[:SKEW], hotspot[:KEYS:REQUESTS] or sequential";

impl FromStr for KeyDist {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let numbers = parts
            .map(|part| part.parse::<f64>().with_context(|| format!("{part:?} is not a number")))
            .collect::<Result<Vec<f64>>>()
            .with_context(|| format!("keys {text:?}"))?;
        let skew = || -> Result<f64> {
            let skew = numbers.first().copied().unwrap_or(SKEW);
            let (least, most) = SKEWS;
            ensure!(
                (least..=most).contains(&skew),
                "keys {text:?}: a skew is from {least} to {most}"
            );
            Ok(skew)
        };
        match (name, numbers.len()) {
            ("uniform", 0) => Ok(Self::Uniform),
            ("sequential", 0) => Ok(Self::Sequential),
            ("zipfian", 0 | 1) => Ok(Self::Zipfian { skew: skew()?, scrambled: true }),
            ("zipfian-ordered", 0 | 1) => Ok(Self::Zipfian { skew: skew()?, scrambled: false }),
            ("latest", 0 | 1) => Ok(Self::Latest { skew: skew()? }),
            ("hotspot", 0) => Ok(Self::Hotspot { keys: HOTSPOT.0, requests: HOTSPOT.1 }),
            ("hotspot", 2) => {
                let (keys, requests) = (numbers[0], numbers[1]);
                ensure!(
                    keys > 0.0 && keys < 1.0 && (0.0..=1.0).contains(&requests),
                    "keys {text:?}: a share of the keys between 0 and 1, and one of the requests from 0 to 1"
                );
                Ok(Self::Hotspot { keys, requests })
            }
            _ => bail!("keys {text:?}: {FORMS}"),
        }
    }
}

impl TryFrom<String> for KeyDist {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl std::fmt::Display for KeyDist {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Uniform => f.write_str("uniform"),
            Self::Sequential => f.write_str("sequential"),
            Self::Zipfian { skew, scrambled: true } => write!(f, "zipfian:{skew}"),
            Self::Zipfian { skew, scrambled: false } => write!(f, "zipfian-ordered:{skew}"),
            Self::Latest { skew } => write!(f, "latest:{skew}"),
            Self::Hotspot { keys, requests } => write!(f, "hotspot:{keys}:{requests}"),
        }
    }
}

impl From<KeyDist> for String {
    fn from(dist: KeyDist) -> Self {
        dist.to_string()
    }
}

/// Ranks to keys, one to one, neighbours far apart.
#[derive(Clone, Copy, Debug)]
struct Spread {
    keys: u64,
    step: u64,
}

impl Spread {
    fn new(keys: u32) -> Self {
        let keys = u64::from(keys.max(1));
        // The golden section: successive multiples of it stay apart as far as any can.
        let near = (keys as f64 * 0.618_033_988_749_895) as u64;
        let step = (near..near + keys).find(|&step| gcd(step, keys) == 1).unwrap_or(1);
        Self { keys, step }
    }

    fn key(self, rank: u32) -> u32 {
        u32::try_from((u64::from(rank) + 1) * self.step % self.keys).unwrap_or(0)
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Draws keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    /// Those that were there before the run.
    stored: u32,
    spread: Spread,
    how: How,
}

#[derive(Clone, Debug)]
enum How {
    Uniform,
    Zipfian { law: Zipf, scrambled: bool },
    Latest { law: Zipf },
    Hotspot { hot: u32, requests: f64 },
    Sequential { next: u32 },
}

impl Keys {
    /// Of `stored` keys, of which there is at least one.
    pub(super) fn new(dist: KeyDist, stored: u32) -> Self {
        let stored = stored.max(1);
        let how = match dist {
            KeyDist::Uniform => How::Uniform,
            KeyDist::Zipfian { skew, scrambled } => {
                How::Zipfian { law: Zipf::new(stored, skew), scrambled }
            }
            KeyDist::Latest { skew } => How::Latest { law: Zipf::new(stored, skew) },
            KeyDist::Hotspot { keys, requests } => {
                // At least one on either side, where there are two.
                let hot = (f64::from(stored) * keys).round() as u32;
                How::Hotspot { hot: hot.clamp(1, (stored - 1).max(1)), requests }
            }
            KeyDist::Sequential => How::Sequential { next: 0 },
        };
        Self { stored, spread: Spread::new(stored), how }
    }

    /// Draws one; `known` is how many there are now, of which `latest` takes the last as the newest.
    #[inline]
    pub(super) fn draw(&mut self, known: u32, rng: &mut Rng) -> u32 {
        let below = |bound: u32, rng: &mut Rng| rng.below(u64::from(bound)) as u32;
        match &mut self.how {
            How::Uniform => below(self.stored, rng),
            How::Zipfian { law, scrambled: true } => self.spread.key(law.draw(rng)),
            How::Zipfian { law, scrambled: false } => law.draw(rng),
            How::Latest { law } => {
                if law.ranks() != known {
                    law.resize(known);
                }
                known.saturating_sub(1).saturating_sub(law.draw(rng))
            }
            How::Hotspot { hot, requests } => {
                let rank = if rng.unit() < *requests || *hot == self.stored {
                    below(*hot, rng)
                } else {
                    *hot + below(self.stored - *hot, rng)
                };
                self.spread.key(rank)
            }
            How::Sequential { next } => {
                let key = *next;
                *next = if key + 1 == self.stored { 0 } else { key + 1 };
                key
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::zipf::tests::{chi_squared, shares};

    fn counts(dist: KeyDist, keys: u32, draws: u32) -> Vec<u64> {
        let mut rng = Rng::new(23);
        let mut drawn = Keys::new(dist, keys);
        let mut counts = vec![0; keys as usize];
        for _ in 0..draws {
            counts[drawn.draw(keys, &mut rng) as usize] += 1;
        }
        counts
    }

    #[test]
    fn every_form_is_read_and_written() {
        for (text, written) in [
            ("uniform", "uniform"),
            ("zipfian", "zipfian:0.99"),
            ("zipfian:1", "zipfian:1"),
            ("zipfian-ordered:0.5", "zipfian-ordered:0.5"),
            ("latest", "latest:0.99"),
            ("hotspot", "hotspot:0.2:0.8"),
            ("hotspot:0.01:1", "hotspot:0.01:1"),
            ("sequential", "sequential"),
        ] {
            let dist: KeyDist = text.parse().expect(text);
            assert_eq!(dist.to_string(), written);
            assert_eq!(written.parse::<KeyDist>().expect(written), dist);
            let json = serde_json::to_string(&dist).expect("JSON");
            assert_eq!(serde_json::from_str::<KeyDist>(&json).expect("JSON"), dist);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_in_words() {
        for (text, words) in [
            ("", "uniform, zipfian"),
            ("gauss", "uniform, zipfian"),
            ("uniform:1", "uniform, zipfian"),
            ("zipfian:x", "\"x\" is not a number"),
            ("zipfian:0.009", "from 0.01 to 10"),
            ("zipfian:10.1", "from 0.01 to 10"),
            ("latest:nan", "from 0.01 to 10"),
            ("hotspot:0.2", "uniform, zipfian"),
            ("hotspot:0:0.5", "between 0 and 1"),
            ("hotspot:1:0.5", "between 0 and 1"),
            ("hotspot:0.5:1.1", "from 0 to 1"),
        ] {
            let error = text.parse::<KeyDist>().expect_err(text);
            assert!(format!("{error:#}").contains(words), "{text}: {error:#}");
        }
        for text in ["zipfian:0.01", "zipfian:10", "hotspot:0.5:0"] {
            assert!(text.parse::<KeyDist>().is_ok(), "{text}");
        }
    }

    #[test]
    fn spreading_is_one_to_one_and_takes_neighbours_apart() {
        for keys in [1, 2, 3, 10, 1_000, 65_536, 99_991, 100_000] {
            let spread = Spread::new(keys);
            let mut seen = vec![false; keys as usize];
            for rank in 0..keys {
                let key = spread.key(rank) as usize;
                assert!(!seen[key], "{keys}: two ranks on {key}");
                seen[key] = true;
            }
        }
        let spread = Spread::new(100_000);
        let mut hottest: Vec<u32> = (0..100).map(|rank| spread.key(rank)).collect();
        hottest.sort_unstable();
        let gaps = hottest.windows(2).map(|pair| pair[1] - pair[0]);
        let (least, most) = (gaps.clone().min(), gaps.max());
        assert!(least > Some(300) && most < Some(2_000), "{least:?} {most:?}");
        assert!(Spread::new(u32::MAX).key(u32::MAX - 1) < u32::MAX);
    }

    #[test]
    fn a_scrambled_law_is_the_law_of_ranks_on_spread_keys() {
        let keys = 10_000;
        let scrambled = counts("zipfian".parse().expect("a form"), keys, 500_000);
        let spread = Spread::new(keys);
        let by_rank: Vec<u64> =
            (0..keys).map(|rank| scrambled[spread.key(rank) as usize]).collect();
        assert!(chi_squared(&by_rank, &shares(keys, SKEW)) < 4.0);
        let ordered = counts("zipfian-ordered".parse().expect("a form"), keys, 500_000);
        assert!(chi_squared(&ordered, &shares(keys, SKEW)) < 4.0);
    }

    #[test]
    fn the_hottest_keys_have_their_share_and_the_rare_ones_are_met() {
        let (keys, draws) = (100_000, 1_000_000);
        let found = counts("zipfian-ordered".parse().expect("a form"), keys, draws);
        let law = shares(keys, SKEW);
        for top in [1, 10, 100, 10_000] {
            let expected: f64 = law[..top].iter().sum();
            let share = found[..top].iter().sum::<u64>() as f64 / f64::from(draws);
            assert!((share / expected - 1.0).abs() < 0.01, "top {top}: {share} for {expected}");
        }
        // Keys that are drawn at least once in so many draws.
        let expected: f64 = law.iter().map(|share| 1.0 - (1.0 - share).powi(draws as i32)).sum();
        let distinct = found.iter().filter(|&&count| count > 0).count() as f64;
        assert!((distinct / expected - 1.0).abs() < 0.01, "{distinct} for {expected}");
    }

    #[test]
    fn a_hotspot_has_its_share_of_keys_and_requests() {
        let mut found = counts("hotspot:0.1:0.9".parse().expect("a form"), 1_000, 1_000_000);
        found.sort_unstable_by(|a, b| b.cmp(a));
        let hot = found[..100].iter().sum::<u64>() as f64 / 1e6;
        assert!((hot - 0.9).abs() < 0.002, "{hot}");
        assert!(chi_squared(&found[..100], &[0.01; 100]) < 4.0, "alike among themselves");
        assert!(chi_squared(&found[100..], &[1.0 / 900.0; 900]) < 4.0, "and the others too");
        // Few keys: one on either side, and one alone is the only one.
        assert!(counts("hotspot:0.01:0.5".parse().expect("a form"), 2, 1_000)[0] > 300);
        assert_eq!(counts("hotspot:0.9:0".parse().expect("a form"), 1, 10), [10]);
    }

    #[test]
    fn keys_in_sequence_begin_again() {
        let mut keys = Keys::new(KeyDist::Sequential, 3);
        let mut rng = Rng::new(1);
        let drawn: Vec<u32> = (0..7).map(|_| keys.draw(3, &mut rng)).collect();
        assert_eq!(drawn, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn the_latest_are_those_at_the_end_as_it_moves() {
        let mut keys = Keys::new("latest".parse().expect("a form"), 1_000);
        let mut rng = Rng::new(9);
        for known in [1_000, 1_500] {
            let mut by_age = vec![0; known as usize];
            for _ in 0..200_000 {
                by_age[(known - 1 - keys.draw(known, &mut rng)) as usize] += 1;
            }
            assert!(chi_squared(&by_age, &shares(known, SKEW)) < 4.0, "{known}");
        }
    }
}
