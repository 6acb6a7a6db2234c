//! When requests leave: closed loop, or an open loop that is constant, Poisson, in steps or replayed.
//!
//! Why apart from the generator: arrivals are a function of the seed and the start alone, so two runs,
//! one of them in virtual time, can be held against each other request by request.
//! Invariants: times never go back; a schedule has at most [`SCHEDULE_MAX`] arrivals and [`STEPS_MAX`]
//! steps; a schedule that begins again takes time to do so, so every moment has finitely many arrivals.
//! Next: `generator`, which asks for the next one.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use serde::{Serialize, Serializer};

use crate::clock::{MICROSECOND_NS, SECOND_NS};
use crate::rng::Rng;

/// Arrivals in a replayed schedule, at most.
pub const SCHEDULE_MAX: usize = 1 << 24;
/// A file with a schedule, at most.
const SCHEDULE_MAX_BYTES: u64 = 512 << 20;
/// Steps of a load, at most.
pub const STEPS_MAX: usize = 256;
/// Requests a second, at most.
pub const RATE_MAX: f64 = 1e8;

/// When requests leave.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// Closed loop: each connection sends a pipeline, waits for its replies, sends the next.
    Closed {
        /// Requests in a pipeline.
        pipeline: u32,
    },
    /// Open loop: requests arrive whether or not the server keeps up; latency counts from the
    /// time a request was meant to leave.
    Open {
        /// Requests in a second, over all connections.
        rate: f64,
        /// Poisson arrivals on random connections; else evenly spaced, connections in turn.
        poisson: bool,
    },
    /// Open loop whose rate changes; it ends with the last step.
    Steps {
        /// One after the other, from the start on, the warm-up included.
        steps: Vec<Step>,
        /// As in [`Arrivals::Open`].
        poisson: bool,
    },
    /// Open loop with arrivals that were written down, connections in turn.
    Replay {
        /// The arrivals.
        schedule: Schedule,
        /// Begins again at its end; else the load ends there.
        looped: bool,
    },
}

impl Arrivals {
    /// Whether requests arrive by the clock.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self, Self::Closed { .. })
    }

    /// How long the load lasts by itself, where it ends by itself.
    #[must_use]
    pub fn length_ns(&self) -> Option<u64> {
        match self {
            Self::Steps { steps, .. } => Some(steps.iter().map(|step| step.length_ns).sum()),
            Self::Replay { schedule, looped: false } => schedule.offsets_ns.last().copied(),
            _ => None,
        }
    }

    /// Ends of the steps, counted from the start.
    pub(super) fn step_ends_ns(&self) -> Vec<u64> {
        let Self::Steps { steps, .. } = self else { return Vec::new() };
        let mut at_ns = 0;
        steps
            .iter()
            .map(|step| {
                at_ns += step.length_ns;
                at_ns
            })
            .collect()
    }
}

/// A time with one rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Step {
    /// How long.
    pub length_ns: u64,
    /// Requests in a second; none when zero.
    pub rate: f64,
}

/// Parses `SECONDS:RATE`, as in `2.5:10000`.
///
/// # Errors
/// It is not of that form, or out of range.
pub fn parse_step(text: &str) -> Result<Step> {
    let parts = text.split_once(':').and_then(|(seconds, rate)| {
        Some((seconds.trim().parse::<f64>().ok()?, rate.trim().parse::<f64>().ok()?))
    });
    let Some((seconds, rate)) = parts else {
        bail!("a step is SECONDS:RATE, as in 2.5:10000, not {text:?}");
    };
    if !(0.001..=3600.0).contains(&seconds) || !(0.0..=RATE_MAX).contains(&rate) {
        bail!(
            "a step takes 0.001 to 3600 seconds at 0 to {RATE_MAX} requests a second, not {text:?}"
        );
    }
    Ok(Step { length_ns: (seconds * SECOND_NS as f64) as u64, rate })
}

/// What the numbers of a schedule are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Unit {
    /// Microseconds.
    Us,
    /// Nanoseconds.
    Ns,
}

/// Arrivals by their time since the start, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    offsets_ns: Arc<[u64]>,
}

impl Serialize for Schedule {
    /// How many there are; the times stay in their file.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(self.offsets_ns.len() as u64)
    }
}

impl Schedule {
    /// These arrivals, which must not go back in time.
    ///
    /// # Errors
    /// They do, there is none, or there are too many.
    pub fn new(offsets_ns: &[u64]) -> Result<Self> {
        if offsets_ns.is_empty() || offsets_ns.len() > SCHEDULE_MAX {
            bail!("a schedule has 1 to {SCHEDULE_MAX} arrivals, not {}", offsets_ns.len());
        }
        if let Some(at) = offsets_ns.windows(2).position(|pair| pair[1] < pair[0]) {
            bail!("arrival {} is before the one above it", at + 2);
        }
        Ok(Self { offsets_ns: offsets_ns.into() })
    }

    /// Reads one arrival a line; empty lines and those that begin with `#` do not count.
    ///
    /// # Errors
    /// The text holds something else, or goes back in time.
    pub fn parse(text: &str, unit: Unit) -> Result<Self> {
        let mut offsets_ns = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if offsets_ns.len() == SCHEDULE_MAX {
                bail!("a schedule has at most {SCHEDULE_MAX} arrivals");
            }
            let shown = || format!("line {}: {line:?} is not a number", index + 1);
            offsets_ns.push(match unit {
                Unit::Ns => line.parse::<u64>().with_context(shown)?,
                Unit::Us => {
                    let us: f64 = line.parse().with_context(shown)?;
                    if !(0.0..1e13).contains(&us) {
                        bail!("line {}: {line} is no offset in microseconds", index + 1);
                    }
                    (us * MICROSECOND_NS as f64) as u64
                }
            });
        }
        Self::new(&offsets_ns)
    }

    /// Reads a file of such lines.
    ///
    /// # Errors
    /// It cannot be read, is too long, or holds something else.
    pub fn read(path: &Path, unit: Unit) -> Result<Self> {
        let shown = || format!("read the schedule {}", path.display());
        let len = std::fs::metadata(path).with_context(shown)?.len();
        if len > SCHEDULE_MAX_BYTES {
            bail!("the schedule {} has more than {SCHEDULE_MAX_BYTES} bytes", path.display());
        }
        let text = std::fs::read_to_string(path).with_context(shown)?;
        Self::parse(&text, unit).with_context(|| format!("the schedule {}", path.display()))
    }

    /// Time from one begin to the next: the last arrival, and the mean gap after it.
    ///
    /// # Errors
    /// All arrivals are at the start, so there is no time between two of its begins.
    pub fn period_ns(&self) -> Result<u64> {
        let last_ns = self.offsets_ns.last().copied().unwrap_or(0);
        if last_ns == 0 {
            bail!("a schedule whose arrivals are all at 0 cannot begin again");
        }
        Ok(last_ns + last_ns / (self.offsets_ns.len() as u64 - 1).max(1))
    }
}

/// The intended times of one run, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    kind: Kind,
    /// Of the next arrival; `None` before the start, in closed loop and after the last.
    next_ns: Option<f64>,
}

#[derive(Clone, Debug)]
enum Kind {
    Closed,
    /// Steps by the time they end and their rate in arrivals for one nanosecond, and the current one.
    Steps {
        ends: Vec<(f64, f64)>,
        at: usize,
        poisson: bool,
    },
    Replay {
        schedule: Schedule,
        at: usize,
        begin_ns: u64,
        period_ns: Option<u64>,
    },
}

impl Times {
    pub(crate) fn new(arrivals: &Arrivals) -> Self {
        let per_ns = |rate: f64| rate.clamp(0.0, RATE_MAX) / SECOND_NS as f64;
        let kind = match arrivals {
            Arrivals::Closed { .. } => Kind::Closed,
            Arrivals::Open { rate, poisson } => {
                Kind::Steps { ends: vec![(f64::INFINITY, per_ns(*rate))], at: 0, poisson: *poisson }
            }
            Arrivals::Steps { steps, poisson } => {
                let mut end_ns = 0;
                let ends = steps.iter().take(STEPS_MAX).map(|step| {
                    end_ns += step.length_ns;
                    (end_ns as f64, per_ns(step.rate))
                });
                Kind::Steps { ends: ends.collect(), at: 0, poisson: *poisson }
            }
            Arrivals::Replay { schedule, looped } => {
                // One that cannot begin again ends.
                let period_ns = looped.then(|| schedule.period_ns().ok()).flatten();
                Kind::Replay { schedule: schedule.clone(), at: 0, begin_ns: 0, period_ns }
            }
        };
        Self { kind, next_ns: None }
    }

    /// The first arrival is due as soon as the rate is not zero.
    pub(crate) fn start(&mut self, now_ns: u64, rng: &mut Rng) {
        self.next_ns = Some(now_ns as f64);
        match &mut self.kind {
            Kind::Closed => self.next_ns = None,
            Kind::Steps { ends, .. } => {
                ends.iter_mut().for_each(|(end_ns, _)| *end_ns += now_ns as f64);
                if ends.first().is_none_or(|&(_, rate)| rate <= 0.0) {
                    self.advance(rng);
                }
            }
            Kind::Replay { schedule, begin_ns, .. } => {
                *begin_ns = now_ns;
                self.next_ns = Some((now_ns + schedule.offsets_ns[0]) as f64);
            }
        }
    }

    pub(crate) const fn next_ns(&self) -> Option<f64> {
        self.next_ns
    }

    /// Whether connections are drawn, instead of taking turns.
    pub(crate) const fn are_random(&self) -> bool {
        matches!(self.kind, Kind::Steps { poisson: true, .. })
    }

    /// On to the arrival after the next one.
    pub(crate) fn advance(&mut self, rng: &mut Rng) {
        let Some(mut now_ns) = self.next_ns else { return };
        self.next_ns = match &mut self.kind {
            Kind::Closed => None,
            Kind::Steps { ends, at, poisson } => {
                // Arrivals to let pass, at whatever rates lie ahead: exact for Poisson too.
                let mut left = if *poisson { rng.exponential() } else { 1.0 };
                loop {
                    let Some(&(end_ns, rate)) = ends.get(*at) else { break None };
                    let here = if rate > 0.0 { (end_ns - now_ns) * rate } else { 0.0 };
                    if here > left {
                        break Some(now_ns + left / rate);
                    }
                    left -= here;
                    now_ns = end_ns;
                    *at += 1;
                }
            }
            Kind::Replay { schedule, at, begin_ns, period_ns } => {
                *at += 1;
                if *at == schedule.offsets_ns.len()
                    && let Some(period_ns) = period_ns
                {
                    *at = 0;
                    *begin_ns += *period_ns;
                }
                schedule.offsets_ns.get(*at).map(|offset_ns| (*begin_ns + offset_ns) as f64)
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: &Arrivals, start_ns: u64, most: usize) -> Vec<u64> {
        let mut rng = Rng::new(5);
        let mut times = Times::new(arrivals);
        times.start(start_ns, &mut rng);
        let mut all = Vec::new();
        while let Some(next_ns) = times.next_ns()
            && all.len() < most
        {
            all.push(next_ns.round() as u64);
            times.advance(&mut rng);
        }
        all
    }

    fn steps(text: &[&str], poisson: bool) -> Arrivals {
        let steps = text.iter().map(|text| parse_step(text).expect("a step")).collect();
        Arrivals::Steps { steps, poisson }
    }

    #[test]
    fn constant_arrivals_are_evenly_spaced() {
        let open = Arrivals::Open { rate: 1e6, poisson: false };
        assert_eq!(times(&open, 7, 4), [7, 1_007, 2_007, 3_007]);
        assert_eq!(open.length_ns(), None);
        assert!(times(&Arrivals::Open { rate: 0.0, poisson: true }, 0, 4).is_empty());
        assert!(times(&Arrivals::Closed { pipeline: 1 }, 0, 4).is_empty());
    }

    #[test]
    fn steps_have_their_rates_and_an_end() {
        let arrivals = steps(&["1:100", "1:0", "2:400"], false);
        assert_eq!(arrivals.length_ns(), Some(4 * SECOND_NS));
        assert_eq!(arrivals.step_ends_ns(), [SECOND_NS, 2 * SECOND_NS, 4 * SECOND_NS]);
        let all = times(&arrivals, 0, 10_000);
        let within = |from, to| {
            all.iter().filter(|&&at| (from * SECOND_NS..to * SECOND_NS).contains(&at)).count()
        };
        assert!(within(0, 1).abs_diff(100) <= 1 && within(1, 2) <= 1, "{}", within(1, 2));
        assert!(within(2, 4).abs_diff(800) <= 1 && within(4, 100) == 0, "{}", within(2, 4));
        assert!(all.is_sorted());
        let late = times(&steps(&["1:0", "1:10"], false), 50, 100);
        assert!(late[0] > SECOND_NS && late.len().abs_diff(10) <= 1, "{late:?}");
        let random = times(&steps(&["1:10000", "1:20000"], true), 0, 100_000);
        let first = random.iter().filter(|&&at| at < SECOND_NS).count();
        assert!(first.abs_diff(10_000) < 300, "{first}");
        assert!((random.len() - first).abs_diff(20_000) < 450, "{}", random.len());
    }

    #[test]
    fn a_schedule_is_replayed_and_begins_again() {
        let schedule =
            Schedule::parse("# times\n0\n1.5\n\n10\n10\n", Unit::Us).expect("a schedule");
        let once = Arrivals::Replay { schedule: schedule.clone(), looped: false };
        assert_eq!(times(&once, 100, 100), [100, 1_600, 10_100, 10_100]);
        assert_eq!(once.length_ns(), Some(10_000));
        let looped = Arrivals::Replay { schedule, looped: true };
        // The mean gap, 10 µs over 3, stands between the end and the next begin.
        assert_eq!(times(&looped, 0, 6), [0, 1_500, 10_000, 10_000, 13_333, 14_833]);
        assert_eq!(Schedule::parse("5\n7\n", Unit::Ns).expect("ns").offsets_ns[..], [5, 7]);
    }

    #[test]
    fn what_is_no_schedule_is_refused_by_line() {
        let refused = |text, unit| format!("{:#}", Schedule::parse(text, unit).expect_err(text));
        assert!(refused("1\nx\n", Unit::Ns).contains("line 2"));
        assert!(refused("1\n-5\n", Unit::Us).contains("line 2"));
        assert!(refused("5\n4\n", Unit::Ns).contains("arrival 2"));
        assert!(refused("# nothing\n", Unit::Ns).contains("not 0"));
        let burst = Schedule::parse("0\n0\n", Unit::Ns).expect("once");
        assert!(burst.period_ns().is_err());
        let burst = Arrivals::Replay { schedule: burst, looped: true };
        assert_eq!(times(&burst, 3, 100), [3, 3], "it ends rather than loop in place");
        assert!(parse_step("5").is_err() && parse_step("0:5").is_err());
        assert!(parse_step("1:-1").is_err() && parse_step("1:nan").is_err());
    }
}
