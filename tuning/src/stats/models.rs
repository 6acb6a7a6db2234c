//! Noise as machines have it, for tests: pairs whose true ratio is known.
//!
//! Each model is one row of the table in docs/decisions/0014-comparing-pairs.md.

use super::bootstrap::Random;

/// What there is, by number.
pub(super) const MODELS: [&str; 6] = [
    "rounds differ by 1 %, trials by 0.5 %",
    "rounds differ by 5 %, trials by 1 %",
    "heavy tails, and one trial in twenty disturbed by 3 to 30 %",
    "a drift of 8 %, a random walk, and an order that matters",
    "a machine that is noisy for some rounds on end",
    "skewed: trials take longer, never shorter",
];

/// `count` pairs of model `model` whose second side is `effect` of the first.
pub(super) fn pairs(model: usize, seed: u64, count: usize, effect: f64) -> Vec<(f64, f64)> {
    let mut random = Random(seed.wrapping_mul(7919) ^ (model as u64) << 32);
    let mut walk = 0.0;
    let mut noisy = false;
    let pair = |at: usize| {
        let random = &mut random;
        let (level, scale, kind) = match model {
            0 => (1.0 + 0.01 * (2.0 * unit(random) - 1.0), 0.005, Kind::Normal),
            1 => (1.0 + 0.05 * normal(random), 0.01, Kind::Normal),
            2 => (1.0 + 0.01 * (2.0 * unit(random) - 1.0), 0.005, Kind::Disturbed),
            3 => {
                walk += 0.005 * normal(random);
                (1.0 + 0.08 * at as f64 / count as f64 + walk, 0.005, Kind::Normal)
            }
            4 => {
                noisy ^= unit(random) < 0.2;
                let level = 1.0 + 0.01 * (2.0 * unit(random) - 1.0);
                if noisy {
                    (level + 0.04, 0.012, Kind::Normal)
                } else {
                    (level, 0.004, Kind::Normal)
                }
            }
            _ => (1.0 + 0.02 * (2.0 * unit(random) - 1.0), 0.007, Kind::Skewed),
        };
        // Whoever runs second in a round that drifts upwards has more.
        let order = if model != 3 {
            0.0
        } else if at.is_multiple_of(2) {
            0.0015
        } else {
            -0.0015
        };
        let first = 4_000.0 * level * (1.0 - order) * (1.0 + scale * kind.noise(random));
        let second = 4_000.0 * level * effect * (1.0 + order) * (1.0 + scale * kind.noise(random));
        (first, second)
    };
    (0..count).map(pair).collect()
}

#[derive(Clone, Copy)]
enum Kind {
    Normal,
    Disturbed,
    Skewed,
}

impl Kind {
    fn noise(self, random: &mut Random) -> f64 {
        match self {
            Self::Normal => normal(random),
            Self::Disturbed => {
                let hit = if unit(random) < 0.05 { 6.0 + 54.0 * unit(random) } else { 0.0 };
                // Student's t with three degrees of freedom.
                let squares: f64 = (0..3).map(|_| normal(random).powi(2)).sum();
                hit + normal(random) / (squares / 3.0).sqrt()
            }
            Self::Skewed => -(1.0 - unit(random)).ln(),
        }
    }
}

fn unit(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Twelve uniform numbers are nearly normal.
fn normal(random: &mut Random) -> f64 {
    (0..12).map(|_| unit(random)).sum::<f64>() - 6.0
}
