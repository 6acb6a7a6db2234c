//! Whether what a probe found is within its tolerance: a value, one of a list, between two, or a regular expression,
//! JSON path, range or probe of its own.
//!
//! As the Chaos Toolkit has it, an answer or an ended process is compared by its status, unless the tolerance names another `target`.
//! Differences: a process that judges has to exit with 0, and one that answers with less than 400, where the Chaos Toolkit takes
//! any end for a yes. Invariant: a tolerance that was checked is either met or not; it does not fail. Next: `jsonpath`, `run`.

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use super::jsonpath::{self, Path};
use super::text_of;
use crate::error::{Error, Result};

/// Most memory of a compiled expression.
const REGEX_SIZE_MAX: usize = 1 << 20;

/// Runs the probe of a tolerance, with the value that it judges.
pub type Judge<'a> = &'a mut dyn FnMut(&Value, &Value) -> Result<Value>;

/// Checks what does not depend on variables. The probe of a tolerance is checked as any other.
///
/// # Errors
/// It is none.
pub fn check(tolerance: &Value) -> Result<()> {
    match tolerance {
        Value::Null => Err(Error::usage("a value, a list or an object is wanted")),
        Value::Object(_) => check_object(tolerance),
        _ => Ok(()),
    }
}

fn check_object(tolerance: &Value) -> Result<()> {
    let text = |name: &str| {
        let text =
            tolerance.get(name).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| Error::usage(format!("a text {name:?} is wanted")))
    };
    let is_open = |text: &str| text.contains('$') && text.contains("${");
    match tolerance.get("type").and_then(Value::as_str) {
        Some("probe") => Ok(()),
        Some("regex") => {
            let pattern = text("pattern")?;
            if is_open(pattern) { Ok(()) } else { regex(pattern).map(|_| ()) }
        }
        Some("jsonpath") => {
            let path = text("path")?;
            if is_open(path) { Ok(()) } else { path.parse::<Path>().map(|_| ()) }
        }
        Some("range") => {
            match tolerance.get("range").and_then(Value::as_array).map(Vec::as_slice) {
                Some([low, high])
                    if [low, high].iter().all(|end| end.is_number() || end.is_string()) =>
                {
                    Ok(())
                }
                _ => Err(Error::usage("a range of two numbers is wanted")),
            }
        }
        other => Err(Error::usage(format!(
            "type {}: one of probe, regex, jsonpath, range is wanted",
            other.map_or_else(|| "missing".to_owned(), |ty| format!("{ty:?}"))
        ))),
    }
}

fn regex(pattern: &str) -> Result<Regex> {
    let compiled = RegexBuilder::new(pattern).size_limit(REGEX_SIZE_MAX).build();
    compiled.map_err(|error| {
        let what = format!("regular expression {pattern:?}: {error}");
        // They are expressions of Python, which has more than can be matched in linear time.
        let is_python = error.to_string().contains("not supported");
        if is_python { Error::unsupported(what) } else { Error::usage(what) }
    })
}

/// Whether a value is within a tolerance whose variables have their values.
///
/// # Errors
/// The tolerance is none, now that its variables have their values.
pub fn is_met(tolerance: &Value, value: &Value, judge: Judge<'_>) -> Result<bool> {
    check(tolerance)?;
    let status = value.get("status");
    Ok(match tolerance {
        Value::Number(_) => jsonpath::equal(tolerance, status.unwrap_or(value)),
        Value::Bool(wanted) => match value {
            // Of Python's numbers, 0 and 1 equal no and yes.
            Value::Number(number) => number.as_f64() == Some(f64::from(u8::from(*wanted))),
            value => value == tolerance,
        },
        Value::Array(items) => {
            let value = status.unwrap_or(value);
            match &items[..] {
                [low, high] if status.is_none() => is_between(value, low, high),
                items => items.iter().any(|item| jsonpath::equal(item, value)),
            }
        }
        Value::Object(map) => {
            let target = map.get("target").and_then(Value::as_str);
            let targeted = target.and_then(|target| value.get(target)).unwrap_or(value);
            match map.get("type").and_then(Value::as_str) {
                Some("regex") => regex(&text(map.get("pattern")))?.is_match(&text_of(targeted)),
                Some("jsonpath") => by_path(tolerance, targeted)?,
                Some("range") => in_range(tolerance, targeted),
                _ => judge(tolerance, value).is_ok_and(|found| is_yes(&found)),
            }
        }
        wanted => value == wanted,
    })
}

fn text(value: Option<&Value>) -> String {
    value.map(text_of).unwrap_or_default()
}

fn is_between(value: &Value, low: &Value, high: &Value) -> bool {
    let low = jsonpath::order(low, value).is_some_and(std::cmp::Ordering::is_le);
    low && jsonpath::order(value, high).is_some_and(std::cmp::Ordering::is_le)
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::String(text) => text.trim().parse().ok(),
        value => value.get("status").unwrap_or(value).as_f64(),
    }
}

fn in_range(tolerance: &Value, value: &Value) -> bool {
    let end =
        |index: usize| tolerance.get("range").and_then(|range| range.get(index)).and_then(number);
    match (end(0), number(value), end(1)) {
        (Some(low), Some(value), Some(high)) => (low..=high).contains(&value),
        _ => false,
    }
}

fn by_path(tolerance: &Value, value: &Value) -> Result<bool> {
    let path: Path = text(tolerance.get("path")).parse()?;
    // A body or an output that is JSON is looked into.
    let parsed = value.as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let found = path.find(parsed.as_ref().unwrap_or(value))?;
    if let Some(wanted) = tolerance.get("expect") {
        let one = std::slice::from_ref(wanted);
        let wanted = wanted.as_array().map_or(one, Vec::as_slice);
        return Ok(found.len() == wanted.len()
            && found.iter().zip(wanted).all(|(found, wanted)| jsonpath::equal(found, wanted)));
    }
    Ok(match tolerance.get("count").and_then(Value::as_u64) {
        Some(count) => found.len() as u64 == count,
        None => !found.is_empty(),
    })
}

/// Whether a probe that judges says yes.
fn is_yes(output: &Value) -> bool {
    match output {
        Value::Null => false,
        Value::Bool(yes) => *yes,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => match map.get("status").and_then(Value::as_i64) {
            Some(status) if map.contains_key("stdout") => status == 0,
            Some(status) => status < 400,
            None => !map.is_empty(),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn met(tolerance: Value, value: Value) -> bool {
        check(&tolerance).expect("a tolerance");
        is_met(&tolerance, &value, &mut |_, value| Ok(json!({ "status": value, "stdout": "" })))
            .expect("it is judged")
    }

    #[test]
    fn scalars_and_lists_compare_values_or_statuses() {
        let answer = json!({ "status": 200, "headers": {}, "body": "ok" });
        let process = json!({ "status": 1, "stdout": "7\n", "stderr": "" });
        assert!(met(json!(200), answer.clone()) && !met(json!(201), answer.clone()));
        assert!(met(json!(1), process.clone()) && met(json!(1.0), json!(1)));
        assert!(
            met(json!([200, 204]), answer.clone()) && !met(json!([100, 300]), answer),
            "a list of statuses is no range"
        );
        assert!(met(json!([1, 3]), json!(2.5)) && !met(json!([1, 2]), json!(2.5)), "two are ends");
        assert!(
            met(json!([1, 5, 9]), json!(9)) && !met(json!([1, 5, 9]), json!(6)),
            "three are a set"
        );
        assert!(
            met(json!(true), json!(true))
                && !met(json!(true), json!("true"))
                && met(json!(false), json!(0))
        );
        assert!(met(json!("OK"), json!("OK")) && !met(json!("OK"), json!("OK ")));
        assert!(!met(json!(true), process));
    }

    #[test]
    fn objects_look_at_their_target() {
        let answer = json!({ "status": 200, "body": "{\"items\":[{\"n\":4},{\"n\":5}]}" });
        let process = json!({ "status": 0, "stdout": "load 42.5\n", "stderr": "" });
        let regex =
            |pattern: &str| json!({ "type": "regex", "target": "stdout", "pattern": pattern });
        assert!(met(regex("[0-9]{2}\\.5"), process.clone()) && !met(regex("^x"), process.clone()));
        let path = |more: Value| {
            let mut path = json!({ "type": "jsonpath", "target": "body", "path": "$.items[*].n" });
            path.as_object_mut().expect("a map").extend(more.as_object().expect("a map").clone());
            path
        };
        assert!(
            met(path(json!({})), answer.clone())
                && met(path(json!({ "count": 2 })), answer.clone())
        );
        assert!(
            met(path(json!({ "expect": [4, 5] })), answer.clone())
                && !met(path(json!({ "expect": 4 })), answer.clone())
        );
        let range =
            |target: &str| json!({ "type": "range", "target": target, "range": [1.5, 200] });
        assert!(met(range("status"), answer.clone()) && !met(range("body"), answer));
        assert!(met(json!({ "type": "range", "range": [40, 43] }), json!(" 42.5\n")));
        assert!(!met(range("status"), process));
        let probe = json!({ "type": "probe", "name": "judge", "provider": { "type": "process" } });
        assert!(met(probe.clone(), json!(0)) && !met(probe, json!(1)));
    }

    #[test]
    fn what_is_no_tolerance_is_refused() {
        for wrong in [
            json!(null),
            json!({}),
            json!({ "type": "regex" }),
            json!({ "type": "regex", "pattern": "(" }),
            json!({ "type": "range", "range": [1] }),
            json!({ "type": "jsonpath", "path": "$[" }),
            json!({ "type": "other" }),
        ] {
            check(&wrong).expect_err(&wrong.to_string());
        }
        for pattern in ["a(?=b)", "(?<!a)b", r"(a)\1"] {
            let python = check(&json!({ "type": "regex", "pattern": pattern }));
            assert_eq!(python.expect_err(pattern).kind, crate::error::Kind::Unsupported);
        }
    }
}
