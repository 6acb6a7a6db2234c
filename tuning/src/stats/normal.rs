//! The normal distribution: shares and quantiles.
//!
//! Sources: W. J. Cody's and Numerical Recipes' rational approximation of the complementary error function (relative error below 1.2e-7),
//! P. J. Acklam's of the quantile (below 1.2e-9). More than the bootstrap's own scatter needs.

/// How much lies below `x`.
pub(super) fn below(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    const TERMS: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let beyond = t * (polynomial(&TERMS, t) - z * z).exp() / 2.0;
    if x > 0.0 { 1.0 - beyond } else { beyond }
}

/// What `share` lies below; `share` is between 0 and 1.
pub(super) fn quantile(share: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969_683_028_665_376e1,
        2.209_460_984_245_205e2,
        -2.759_285_104_469_687e2,
        1.383_577_518_672_69e2,
        -3.066_479_806_614_716e1,
        2.506_628_277_459_239,
    ];
    const B: [f64; 6] = [
        -5.447_609_879_822_406e1,
        1.615_858_368_580_409e2,
        -1.556_989_798_598_866e2,
        6.680_131_188_771_972e1,
        -1.328_068_155_288_572e1,
        1.0,
    ];
    const C: [f64; 6] = [
        -7.784_894_002_430_293e-3,
        -3.223_964_580_411_365e-1,
        -2.400_758_277_161_838,
        -2.549_732_539_343_734,
        4.374_664_141_464_968,
        2.938_163_982_698_783,
    ];
    const D: [f64; 5] = [
        7.784_695_709_041_462e-3,
        3.224_671_290_700_398e-1,
        2.445_134_137_142_996,
        3.754_408_661_907_416,
        1.0,
    ];
    if share > 0.5 {
        return -quantile(1.0 - share);
    }
    if share < 0.024_25 {
        let q = (-2.0 * share.ln()).sqrt();
        return polynomial(&C, q) / polynomial(&D, q);
    }
    let q = share - 0.5;
    polynomial(&A, q * q) * q / polynomial(&B, q * q)
}

/// The highest power first.
fn polynomial(terms: &[f64], x: f64) -> f64 {
    terms.iter().fold(0.0, |sum, term| sum * x + term)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (share, wanted) in
            [(0.975, 1.959_964), (0.5, 0.0), (0.01, -2.326_348), (1e-4, -3.719_016)]
        {
            assert!((quantile(share) - wanted).abs() < 1e-5, "{share}");
            assert!((below(quantile(share)) - share).abs() < 1e-6, "{share}");
        }
    }
}
