//! When a packet leaves a delay line: rules without a clock or a device of their own.
//!
//! Invariants: times are nanoseconds of CLOCK_MONOTONIC and given by who asks; a packet is never due before it came, and
//! never later than [`DELAY_MAX_NS`] and a slot after, except behind a rate, whose queue is bounded by bytes.
//! Next: `faults::delay`, which makes them of parameters.

use crate::time::SECOND_NS;

/// The longest that a packet is held.
pub const DELAY_MAX_NS: u64 = 60 * SECOND_NS;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Leaves then.
    At(u64),
    /// Is lost: the queue is full.
    Lost,
}

/// A packet as rules see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Now.
    pub now_ns: u64,
    /// On the wire: of all its segments, each with headers.
    pub wire_bytes: u64,
    /// Of all that is held.
    pub held_bytes: u64,
}

/// A rule.
pub trait Timing: Send {
    /// What becomes of a packet that comes now.
    fn fate(&mut self, packet: Packet) -> Fate;
}

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Equal seeds give equal numbers.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Above 0 and at most 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1_u64 << 53) as f64
    }

    fn is(&mut self, percent: f64) -> bool {
        percent > 0.0 && self.unit() * 100.0 <= percent
    }
}

/// How jitter is distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Distribution {
    /// Evenly, from the delay less the jitter to the delay and the jitter.
    Uniform,
    /// Around the delay, with the jitter as standard deviation, cut at four of them.
    Normal,
    /// Never less than the delay; beyond by the jitter in the mean, with a long tail (shape 3), cut at a hundred times the jitter.
    Pareto,
}

impl Distribution {
    /// In jitters.
    fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Uniform => random.unit().mul_add(2.0, -1.0),
            // G. E. P. Box and M. E. Muller, 1958.
            Self::Normal => {
                let radius = (-2.0 * random.unit().ln()).sqrt();
                (radius * (std::f64::consts::TAU * random.unit()).cos()).clamp(-4.0, 4.0)
            }
            Self::Pareto => (2.0 * (random.unit().cbrt().recip() - 1.0)).min(100.0),
        }
    }
}

/// Later by a time of each packet's own.
#[derive(Clone, Debug)]
pub struct Delay {
    /// The rule's beginning.
    pub since_ns: u64,
    /// Of each packet.
    pub delay_ns: u64,
    /// Around it.
    pub jitter_ns: u64,
    /// How.
    pub distribution: Distribution,
    /// In percent of packets: later by `spike_ns` more.
    pub spike_percent: f64,
    /// How much.
    pub spike_ns: u64,
    /// Packets leave together, at multiples of this; 0 for whenever they are due.
    pub slot_ns: u64,
    /// The delay grows from nothing for so long.
    pub ramp_ns: u64,
    /// In percent of packets: not held.
    pub pass_percent: f64,
    /// Nothing overtakes.
    pub keeps_order: bool,
    /// Of the packet before.
    pub last_ns: u64,
    /// Its numbers.
    pub random: Random,
}

impl Delay {
    /// By a time that is the same for all.
    #[must_use]
    pub const fn fixed(since_ns: u64, delay_ns: u64, random: Random) -> Self {
        Self {
            since_ns,
            delay_ns,
            jitter_ns: 0,
            distribution: Distribution::Uniform,
            spike_percent: 0.0,
            spike_ns: 0,
            slot_ns: 0,
            ramp_ns: 0,
            pass_percent: 0.0,
            keeps_order: false,
            last_ns: 0,
            random,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a minute of nanoseconds fits, and casts of floats saturate"
    )]
    fn held_ns(&mut self, now_ns: u64) -> u64 {
        let jitter = self.distribution.draw(&mut self.random) * self.jitter_ns as f64;
        let spike = if self.random.is(self.spike_percent) { self.spike_ns as f64 } else { 0.0 };
        let age_ns = now_ns.saturating_sub(self.since_ns);
        let grown = if age_ns < self.ramp_ns { age_ns as f64 / self.ramp_ns as f64 } else { 1.0 };
        ((self.delay_ns as f64 + jitter + spike) * grown) as u64
    }
}

impl Timing for Delay {
    fn fate(&mut self, packet: Packet) -> Fate {
        let now_ns = packet.now_ns;
        if self.random.is(self.pass_percent) {
            return Fate::At(now_ns);
        }
        let mut due_ns = now_ns + self.held_ns(now_ns).min(DELAY_MAX_NS);
        if self.slot_ns > 0 {
            due_ns =
                self.since_ns + due_ns.saturating_sub(self.since_ns).next_multiple_of(self.slot_ns);
        }
        if self.keeps_order {
            due_ns = due_ns.max(self.last_ns);
            self.last_ns = due_ns;
        }
        Fate::At(due_ns)
    }
}

/// At a rate, behind a queue: a link that is slow.
#[derive(Clone, Debug)]
pub struct Throttle {
    /// Bytes of packets with their headers.
    pub bytes_per_s: u64,
    /// What waits at most; more is lost.
    pub queue_bytes: u64,
    /// When the packet before has left.
    pub free_ns: u64,
}

impl Timing for Throttle {
    fn fate(&mut self, packet: Packet) -> Fate {
        // One always has room, however long it is.
        if packet.held_bytes > 0 && packet.held_bytes + packet.wire_bytes > self.queue_bytes {
            return Fate::Lost;
        }
        let took = u128::from(packet.wire_bytes) * u128::from(SECOND_NS)
            / u128::from(self.bytes_per_s.max(1));
        self.free_ns =
            self.free_ns.max(packet.now_ns).saturating_add(u64::try_from(took).unwrap_or(u64::MAX));
        Fate::At(self.free_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const BEGIN: u64 = 5 * SECOND_NS;

    fn packet(now_ns: u64) -> Packet {
        Packet { now_ns, wire_bytes: 1000, held_bytes: 0 }
    }

    fn fixed() -> Delay {
        Delay::fixed(BEGIN, 20 * MS, Random::new(1))
    }

    /// How long each of many packets is held, in milliseconds, in order of length.
    fn held(rule: &mut dyn Timing) -> Vec<f64> {
        let mut all: Vec<f64> = (0..20_000)
            .map(|_| match rule.fate(packet(BEGIN)) {
                Fate::At(due_ns) => (due_ns - BEGIN) as f64 / MS as f64,
                other => panic!("{other:?}"),
            })
            .collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn assert_near(value: f64, expected: f64) {
        assert!((value - expected).abs() <= 0.05 * expected, "{value}, expected {expected}");
    }

    #[test]
    fn a_delay_is_the_same_for_all() {
        assert_eq!(fixed().fate(packet(BEGIN)), Fate::At(BEGIN + 20 * MS));
        let mut far = Delay::fixed(BEGIN, u64::MAX, Random::new(1));
        assert_eq!(far.fate(packet(BEGIN)), Fate::At(BEGIN + DELAY_MAX_NS));
    }

    #[test]
    fn jitter_has_its_distribution() {
        let with = |distribution| held(&mut Delay { jitter_ns: 5 * MS, distribution, ..fixed() });
        let all = with(Distribution::Uniform);
        assert!(all[0] >= 15.0 && all[19_999] <= 25.0);
        assert_near(all[5000], 17.5);
        assert_near(all[15_000], 22.5);
        let all = with(Distribution::Normal);
        assert_near(all[10_000], 20.0);
        assert_near(all[16_827], 25.0);
        let all = with(Distribution::Pareto);
        assert!(all[0] >= 20.0);
        assert_near(all.iter().sum::<f64>() / 20_000.0, 25.0);
        assert_near(all[19_800], 20.0 + 5.0 * 7.28);
    }

    #[test]
    fn spikes_and_passing_packets_have_their_share() {
        let all = held(&mut Delay { spike_percent: 10.0, spike_ns: 80 * MS, ..fixed() });
        assert_near(all.iter().filter(|ms| **ms == 100.0).count() as f64, 2000.0);
        let all = held(&mut Delay { pass_percent: 25.0, ..fixed() });
        assert_near(all.iter().filter(|ms| **ms == 0.0).count() as f64, 5000.0);
    }

    #[test]
    fn slots_round_up_and_ramps_grow() {
        let mut slotted = Delay { slot_ns: 50 * MS, ..fixed() };
        assert_eq!(slotted.fate(packet(BEGIN + MS)), Fate::At(BEGIN + 50 * MS));
        assert_eq!(slotted.fate(packet(BEGIN + 31 * MS)), Fate::At(BEGIN + 100 * MS));
        let mut ramp = Delay { ramp_ns: SECOND_NS, ..fixed() };
        assert_eq!(ramp.fate(packet(BEGIN)), Fate::At(BEGIN));
        let half = BEGIN + SECOND_NS / 2;
        assert_eq!(ramp.fate(packet(half)), Fate::At(half + 10 * MS));
        let end = BEGIN + SECOND_NS;
        assert_eq!(ramp.fate(packet(end)), Fate::At(end + 20 * MS));
    }

    #[test]
    fn order_is_kept_if_asked_for() {
        let mut rule = Delay { jitter_ns: 20 * MS, keeps_order: true, ..fixed() };
        let dues: Vec<Fate> = (0..1000).map(|n| rule.fate(packet(BEGIN + n * 1000))).collect();
        let times = dues.iter().map(|fate| match fate {
            Fate::At(due_ns) => *due_ns,
            other => panic!("{other:?}"),
        });
        assert!(times.is_sorted());
    }

    #[test]
    fn a_rate_is_kept_and_its_queue_is_bounded() {
        let mut slow = Throttle { bytes_per_s: 1_000_000, queue_bytes: 3000, free_ns: 0 };
        let with = |held_bytes| Packet { held_bytes, ..packet(BEGIN) };
        assert_eq!(slow.fate(with(0)), Fate::At(BEGIN + MS));
        assert_eq!(slow.fate(with(1000)), Fate::At(BEGIN + 2 * MS));
        assert_eq!(slow.fate(with(2000)), Fate::At(BEGIN + 3 * MS));
        assert_eq!(slow.fate(with(3000)), Fate::Lost);
        // Idle time is not saved up.
        assert_eq!(slow.fate(packet(BEGIN + 50 * MS)), Fate::At(BEGIN + 51 * MS));
        let long = Packet { wire_bytes: 60_000, ..packet(BEGIN + 60 * MS) };
        assert_eq!(slow.fate(long), Fate::At(BEGIN + 120 * MS));
    }
}
