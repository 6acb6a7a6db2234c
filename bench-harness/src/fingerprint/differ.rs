//! In what two fingerprints differ, by the names of the fields.
//!
//! Invariants: an identity that is equal gives no difference that decides; a field only one of them has is a difference, since
//! a version that did not note it says nothing of it. Next: `gate`.

use serde::Serialize;
use serde_json::Value;

use super::Fingerprint;

/// A field that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its name, with a dot before a name within.
    pub field: String,
    /// What the first file has.
    pub base: String,
    /// What the second has.
    pub new: String,
    /// Whether figures may not be compared because of it.
    pub decides: bool,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} / {}", self.field, self.base, self.new)
    }
}

/// What differs between `base` and `new`: what decides first, then what was measured.
#[must_use]
pub fn differences(base: &Fingerprint, new: &Fingerprint) -> Vec<Difference> {
    let parts = [
        (serde_json::to_value(&base.identity), serde_json::to_value(&new.identity), true),
        (serde_json::to_value(&base.software), serde_json::to_value(&new.software), false),
        (
            serde_json::to_value(&base.network_devices),
            serde_json::to_value(&new.network_devices),
            false,
        ),
    ];
    let mut found = Vec::new();
    for (base, new, decides) in parts {
        let name = if base.as_ref().is_ok_and(Value::is_array) { "network_devices" } else { "" };
        compare(name, &base.unwrap_or_default(), &new.unwrap_or_default(), decides, &mut found);
    }
    found
}

fn compare(path: &str, base: &Value, new: &Value, decides: bool, found: &mut Vec<Difference>) {
    if base == new {
        return;
    }
    if let (Value::Object(left), Value::Object(right)) = (base, new) {
        let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let of =
                |side: &serde_json::Map<String, Value>| side.get(name).cloned().unwrap_or_default();
            compare(&path, &of(left), &of(right), decides, found);
        }
        return;
    }
    found.push(Difference { field: path.to_owned(), base: said(base), new: said(new), decides });
}

fn said(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::String(text) if text.is_empty() => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
