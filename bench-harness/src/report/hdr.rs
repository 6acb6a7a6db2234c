//! Histograms as text: V2 of HdrHistogram, deflated, in base64, as every port of it reads.
//!
//! Invariant: what is decoded has the counts that were encoded. Next: `hlog` for logs of them.

use anyhow::{Context, Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

/// `histogram` as text; empty when it cannot be written, which memory alone could prevent.
#[must_use]
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    match V2DeflateSerializer::new().serialize(histogram, &mut bytes) {
        Ok(_) => STANDARD.encode(bytes),
        Err(_) => String::new(),
    }
}

/// The histogram in `text`.
///
/// # Errors
/// It is none.
pub fn decode(text: &str) -> Result<Histogram<u64>> {
    let bytes = STANDARD.decode(text).context("a histogram in base64")?;
    let histogram = Deserializer::new().deserialize(&mut bytes.as_slice());
    histogram.map_err(|error| anyhow!("a histogram: {error}"))
}

/// The counts of all of `texts`; `None` without any that can be read.
pub fn sum<'a>(texts: impl Iterator<Item = &'a str>) -> Option<Histogram<u64>> {
    let mut total: Option<Histogram<u64>> = None;
    for histogram in texts.filter(|text| !text.is_empty()).filter_map(|text| decode(text).ok()) {
        match &mut total {
            // One whose range does not fit is left out; ours all have the same.
            Some(total) => drop(total.add(&histogram)),
            None => total = Some(histogram),
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::generator;

    #[test]
    fn counts_come_back() {
        let mut histogram = generator::histogram();
        for value in 1..20_000 {
            histogram.saturating_record(value * 137);
        }
        let text = encode(&histogram);
        assert_eq!(decode(&text).expect("readable"), histogram);
        let twice = sum([text.as_str(), "", text.as_str()].into_iter()).expect("two");
        assert_eq!(twice.len(), 2 * histogram.len());
        assert!(decode("no").is_err() && sum(["no"].into_iter()).is_none());
    }
}
