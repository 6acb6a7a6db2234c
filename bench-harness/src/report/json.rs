//! Reports as JSON, whose shape is `schema/bench-2.json`, and back.
//!
//! A reader passes over fields it does not know, so that a version may gain some; what is removed or
//! changes its meaning makes a new version. Invariant: what [`read`] gives, written again, is equal.
//! Next: `summary` for what is kept of a report in the repository.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Report, SCHEMA};
use crate::figures;

/// A report of either kind.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Saved {
    /// Of loads of requests: `bench cache`.
    Requests(Report),
    /// Of figures by name: `bench storage`, `bench broker`.
    Figures(figures::Report),
}

impl From<&Report> for Saved {
    fn from(report: &Report) -> Self {
        Self::Requests(report.clone())
    }
}

impl From<&figures::Report> for Saved {
    fn from(report: &figures::Report) -> Self {
        Self::Figures(report.clone())
    }
}

impl Saved {
    /// The report as text for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Requests(report) => report.text(),
            Self::Figures(report) => report.table(),
        }
    }

    /// The report as JSON.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn json(&self) -> Result<String> {
        let mut json = serde_json::to_string_pretty(self).context("encode the report")?;
        json.push('\n');
        Ok(json)
    }
}

/// The report in `json`.
///
/// # Errors
/// It is none, or of another version.
pub fn parse(json: &str) -> Result<Saved> {
    let value: Value = serde_json::from_str(json).context("not JSON")?;
    match value.get("schema").and_then(Value::as_str) {
        Some(SCHEMA) => {}
        Some(other) => bail!("its schema is {other}, and this program reads {SCHEMA}"),
        None => bail!("it names no schema: a report of `bench` is one of {SCHEMA}"),
    }
    serde_json::from_value(value).with_context(|| format!("not a report of {SCHEMA}"))
}

/// The report in the file `path`.
///
/// # Errors
/// There is none that can be read.
pub fn read(path: &Path) -> Result<Saved> {
    let json = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    parse(&json).with_context(|| path.display().to_string())
}

/// Figures of a sample as an object: name to value, without those that are no number.
pub mod figures_by_name {
    use std::collections::BTreeMap;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use crate::compare::Metric;

    /// As an object.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(
        values: &[(Metric, f64)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let finite = values.iter().copied().filter(|(_, value)| value.is_finite());
        finite.collect::<BTreeMap<Metric, f64>>().serialize(serializer)
    }

    /// From an object.
    ///
    /// # Errors
    /// The deserializer's.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(Metric, f64)>, D::Error> {
        let map = BTreeMap::<Metric, f64>::deserialize(deserializer)?;
        Ok(map.into_iter().collect())
    }
}
