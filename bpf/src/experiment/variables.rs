//! Configuration and secrets of an experiment, and their use: `${name}` anywhere in its activities.
//!
//! A string that is nothing but `${name}` becomes the value with its type; inside a longer one the value becomes text. As in the
//! Chaos Toolkit, which uses Python's templates, `$name` is the same, `$$` is one dollar, and an unknown name stays as it is.
//! Invariants: values are not looked into once more, so that what comes from outside names no variable; secrets never enter the journal but by
//! the output of an activity. Next: `toolkit`, `provider`.

use serde_json::{Map, Value};

use super::text_of;
use crate::error::{Error, Result};

/// Longest value that a probe may give to a variable.
const DYNAMIC_MAX: usize = 64 << 10;

/// Values by name.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    configuration: Map<String, Value>,
    secrets: Map<String, Value>,
}

/// Runs the probe of a dynamic configuration, with the variables that there are so far.
pub type Probe<'a> = &'a mut dyn FnMut(&Value, &Variables) -> Result<Value>;

impl Variables {
    /// Values of the sections `configuration` and `secrets` of an experiment, over which `given` goes.
    ///
    /// # Errors
    /// One comes from the environment and is not there, or is of another type; a probe fails.
    pub fn load(experiment: &Value, given: &[(String, Value)], probe: Probe<'_>) -> Result<Self> {
        let mut all = Self::default();
        let empty = Map::new();
        let section =
            |name: &str| experiment.get(name).and_then(Value::as_object).unwrap_or(&empty);
        for (name, secret) in section("secrets") {
            all.secrets.insert(name.clone(), secret_of(name, secret)?);
        }
        let configuration = section("configuration");
        let is_given = |name: &str| given.iter().any(|(given, _)| given == name);
        // Probes may use what is constant, wherever it is written.
        for (name, value) in configuration.iter().filter(|(name, _)| !is_given(name)) {
            if !is_probe(value) {
                all.configuration.insert(name.clone(), constant(name, value)?);
            }
        }
        all.configuration.extend(given.iter().cloned());
        for (name, value) in configuration.iter().filter(|(name, _)| !is_given(name)) {
            if is_probe(value) {
                let found = probe(value, &all)
                    .map_err(|error| error.during(&format!("configuration.{name}")))?;
                let found = of_output(value, found);
                if text_of(&found).len() > DYNAMIC_MAX {
                    return Err(Error::failed(format!(
                        "configuration.{name}: longer than {DYNAMIC_MAX} bytes"
                    )));
                }
                all.configuration.insert(name.clone(), found);
            }
        }
        Ok(all)
    }

    fn find(&self, name: &str) -> Option<&Value> {
        let in_secrets =
            || self.secrets.values().filter_map(Value::as_object).find_map(|group| group.get(name));
        self.configuration.get(name).or_else(in_secrets)
    }

    /// The value with all variables in it replaced.
    #[must_use]
    pub fn substitute(&self, value: &Value) -> Value {
        if self.configuration.is_empty() && self.secrets.is_empty() {
            return value.clone();
        }
        match value {
            Value::String(text) => self.in_text(text),
            Value::Array(items) => items.iter().map(|item| self.substitute(item)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (key.clone(), self.substitute(value)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    fn in_text(&self, text: &str) -> Value {
        let lone = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let lone = lone.filter(|name| name_len(name) == name.len());
        if let Some(value) = lone.and_then(|name| self.find(name)) {
            return value.clone();
        }
        let mut done = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            done.push_str(before);
            rest = after;
            if let Some(after) = after.strip_prefix('$') {
                done.push('$');
                rest = after;
                continue;
            }
            let braced = after.strip_prefix('{');
            let start = braced.unwrap_or(after);
            let (name, behind) = start.split_at(name_len(start));
            let behind = if braced.is_some() { behind.strip_prefix('}') } else { Some(behind) };
            match (self.find(name), behind) {
                (Some(value), Some(behind)) if !name.is_empty() => {
                    done.push_str(&text_of(value));
                    rest = behind;
                }
                _ => done.push('$'),
            }
        }
        done.push_str(rest);
        Value::String(done)
    }
}

/// Length of the name that a text begins with.
fn name_len(text: &str) -> usize {
    let is_first = |c: char| c.is_ascii_alphabetic() || c == '_';
    let is_next = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.starts_with(is_first) { text.find(|c| !is_next(c)).unwrap_or(text.len()) } else { 0 }
}

fn type_of(value: &Value) -> Option<&str> {
    value.get("type").and_then(Value::as_str)
}

/// Whether a variable's value is what a probe finds.
#[must_use]
pub fn is_probe(value: &Value) -> bool {
    type_of(value) == Some("probe")
}

/// Of a process what it printed, of an answer its body, and of others all.
fn of_output(probe: &Value, output: Value) -> Value {
    match probe.get("provider").and_then(type_of) {
        Some("process") => {
            Value::from(output.get("stdout").and_then(Value::as_str).unwrap_or_default().trim())
        }
        Some("http") => output.get("body").cloned().unwrap_or(Value::Null),
        _ => output,
    }
}

fn environment(path: &str, value: &Value) -> Result<Option<String>> {
    let key = value.get("key").and_then(Value::as_str);
    let key = key.ok_or_else(|| {
        Error::usage(format!("{path}: a key is wanted: the name of an environment variable"))
    })?;
    match std::env::var(key) {
        Ok(text) => Ok(Some(text)),
        Err(std::env::VarError::NotPresent) if value.get("default").is_some() => Ok(None),
        Err(error) => Err(Error::usage(format!("{path}: environment variable {key}: {error}"))),
    }
}

fn constant(name: &str, value: &Value) -> Result<Value> {
    if type_of(value) != Some("env") {
        return Ok(value.clone());
    }
    let path = format!("configuration.{name}");
    let ty = value.get("env_var_type").and_then(Value::as_str);
    match environment(&path, value)? {
        Some(text) => typed(&path, ty, &text),
        None => match value.get("default") {
            Some(Value::String(text)) => typed(&path, ty, text),
            default => Ok(default.cloned().unwrap_or(Value::Null)),
        },
    }
}

/// A text as a value of the type of that name.
///
/// # Errors
/// There is no such type, or it is none.
pub fn typed(path: &str, ty: Option<&str>, text: &str) -> Result<Value> {
    let wrong = |wanted: &str| Error::usage(format!("{path} of {text:?}: {wanted} is wanted"));
    match ty {
        None | Some("str" | "string" | "bytes") => Ok(Value::from(text)),
        Some("int" | "integer") => {
            text.trim().parse::<i64>().map(Value::from).map_err(|_| wrong("a whole number"))
        }
        Some("float" | "number") => {
            text.trim().parse::<f64>().map(Value::from).map_err(|_| wrong("a number"))
        }
        Some("bool") => {
            Ok(Value::from(!matches!(text.to_ascii_lowercase().as_str(), "false" | "0" | "no")))
        }
        Some("json") => serde_json::from_str(text).map_err(|_| wrong("JSON")),
        Some(other) => Err(Error::usage(format!(
            "{path}: type {other:?}: one of str, int, float, bytes, bool, json is wanted"
        ))),
    }
}

fn secret_of(path: &str, value: &Value) -> Result<Value> {
    let Value::Object(map) = value else { return Ok(value.clone()) };
    let full = format!("secrets.{path}");
    match type_of(value) {
        Some("env") => Ok(environment(&full, value)?
            .map_or_else(|| value.get("default").cloned().unwrap_or(Value::Null), Value::from)),
        Some("vault") => {
            Err(Error::unsupported(format!("{full}: secrets of a vault cannot be read")))
        }
        _ => {
            let inner = map
                .iter()
                .map(|(key, value)| Ok((key.clone(), secret_of(&format!("{path}.{key}"), value)?)));
            Ok(Value::Object(inner.collect::<Result<Map<_, _>>>()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn variables() -> Variables {
        let experiment = json!({
            "configuration": { "port": 8080, "host": "localhost", "missing": { "type": "env", "key": "NOT_THERE_AT_ALL", "default": "7", "env_var_type": "int" } },
            "secrets": { "group": { "token": "t0" } },
        });
        Variables::load(&experiment, &[("host".to_owned(), json!("h"))], &mut |_, _| {
            Ok(Value::Null)
        })
        .expect("it loads")
    }

    #[test]
    fn a_lone_variable_keeps_its_type_and_others_become_text() {
        let all = variables();
        assert_eq!(all.substitute(&json!("${port}")), json!(8080));
        assert_eq!(all.substitute(&json!("${missing}")), json!(7));
        assert_eq!(
            all.substitute(&json!("http://${host}:${port}/$token/$$x")),
            json!("http://h:8080/t0/$x")
        );
        assert_eq!(
            all.substitute(&json!({ "a": ["${none} ${port", "$", 1] })),
            json!({ "a": ["${none} ${port", "$", 1] })
        );
    }

    #[test]
    fn what_is_not_in_the_environment_is_an_error() {
        let experiment =
            json!({ "configuration": { "x": { "type": "env", "key": "NOT_THERE_AT_ALL" } } });
        let error = Variables::load(&experiment, &[], &mut |_, _| Ok(Value::Null))
            .expect_err("it is not there");
        assert!(error.to_string().contains("NOT_THERE_AT_ALL"), "{error}");
    }
}
