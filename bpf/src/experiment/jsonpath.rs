//! JSONPath as tolerances use it: names, numbers, slices, `*`, `..`, unions and filters (RFC 9535, and the spellings of the
//! Chaos Toolkit's library: no `$` in front, `=` for `==`, `and`, `or` and `not`).
//!
//! Invariants: nesting and the number of results are bounded. Next: `tolerance`.

use std::cmp::Ordering;

use serde_json::Value;

use crate::error::{Error, Result};

/// Most values that are found on the way.
const FOUND_MAX: usize = 100_000;
/// Deepest nesting of filters.
const DEPTH_MAX: usize = 16;

/// A path that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq)]
struct Step {
    /// At any depth.
    descends: bool,
    pick: Vec<Pick>,
}

#[derive(Clone, Debug, PartialEq)]
enum Pick {
    All,
    Name(String),
    Index(i64),
    Slice(Option<i64>, Option<i64>, i64),
    Filter(Test),
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    Any(Vec<Self>),
    All(Vec<Self>),
    Not(Box<Self>),
    Exists(Operand),
    Compare(Operand, &'static str, Operand),
}

#[derive(Clone, Debug, PartialEq)]
enum Operand {
    /// From the item that is tested.
    Here(Path),
    Literal(Value),
}

/// Comparisons, those that begin alike with the longest first.
const COMPARISONS: &[&str] = &["==", "!=", "<=", ">=", "<", ">", "=", "contains"];

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    depth: usize,
}

impl std::str::FromStr for Path {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let mut reader = Reader { text, rest: text, depth: 0 };
        if text.is_empty() {
            return Err(reader.wrong("a path"));
        }
        let has_root = reader.eat("$");
        let path = reader.path(!has_root)?;
        if reader.rest.is_empty() { Ok(path) } else { Err(reader.wrong("the end")) }
    }
}

impl Reader<'_> {
    fn wrong(&self, wanted: &str) -> Error {
        let at = self.text.len() - self.rest.len();
        Error::usage(format!("JSON path {:?}: {wanted} is wanted at byte {at}", self.text))
    }

    fn eat(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn spaces(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Steps, the first of which may be a bare name.
    fn path(&mut self, mut is_bare: bool) -> Result<Path> {
        let mut steps = Vec::new();
        loop {
            let descends = self.eat("..");
            let step = if self.eat("[") {
                Step { descends, pick: self.bracket()? }
            } else if descends || self.eat(".") || (is_bare && self.rest.starts_with(is_name)) {
                let pick = if self.eat("*") { Pick::All } else { Pick::Name(self.name()?) };
                Step { descends, pick: vec![pick] }
            } else {
                return Ok(Path(steps));
            };
            is_bare = false;
            steps.push(step);
        }
    }

    fn name(&mut self) -> Result<String> {
        let len = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
        if len == 0 {
            return Err(self.wrong("a name"));
        }
        let (name, rest) = self.rest.split_at(len);
        self.rest = rest;
        Ok(name.to_owned())
    }

    fn bracket(&mut self) -> Result<Vec<Pick>> {
        let mut picks = Vec::new();
        loop {
            self.spaces();
            picks.push(self.pick()?);
            self.spaces();
            if self.eat("]") {
                return Ok(picks);
            }
            if !self.eat(",") {
                return Err(self.wrong("`,` or `]`"));
            }
        }
    }

    fn pick(&mut self) -> Result<Pick> {
        if self.eat("*") {
            return Ok(Pick::All);
        }
        if self.eat("?") {
            self.spaces();
            return Ok(Pick::Filter(self.any()?));
        }
        if self.rest.starts_with(['"', '\'']) {
            return Ok(Pick::Name(self.quoted()?));
        }
        let first = self.number()?;
        self.spaces();
        if !self.eat(":") {
            return first
                .map(Pick::Index)
                .ok_or_else(|| self.wrong("a name, a number, `*` or `?`"));
        }
        self.spaces();
        let end = self.number()?;
        self.spaces();
        let step = if self.eat(":") { self.number()?.unwrap_or(1) } else { 1 };
        if step == 0 {
            Err(self.wrong("a step other than 0"))
        } else {
            Ok(Pick::Slice(first, end, step))
        }
    }

    fn number(&mut self) -> Result<Option<i64>> {
        let is_digit = |c: char| c.is_ascii_digit() || c == '-';
        let len = self.rest.find(|c| !is_digit(c)).unwrap_or(self.rest.len());
        if len == 0 {
            return Ok(None);
        }
        let (digits, rest) = self.rest.split_at(len);
        let number = digits.parse().map_err(|_| self.wrong("a number"))?;
        self.rest = rest;
        Ok(Some(number))
    }

    fn quoted(&mut self) -> Result<String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push(chars.next().map_or('\\', |(_, c)| c)),
                c if Some(c) == quote => {
                    self.rest = self.rest.get(at + 1..).unwrap_or_default();
                    return Ok(text);
                }
                c => text.push(c),
            }
        }
        Err(self.wrong("a closing quote"))
    }

    fn any(&mut self) -> Result<Test> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong("less nesting"));
        }
        let mut all = vec![self.all()?];
        while self.word("||") || self.word("or ") {
            all.push(self.all()?);
        }
        self.depth -= 1;
        Ok(Test::Any(all))
    }

    fn all(&mut self) -> Result<Test> {
        let mut all = vec![self.unary()?];
        while self.word("&&") || self.word("and ") {
            all.push(self.unary()?);
        }
        Ok(Test::All(all))
    }

    fn word(&mut self, word: &str) -> bool {
        self.spaces();
        self.eat(word)
    }

    fn unary(&mut self) -> Result<Test> {
        self.spaces();
        if !self.rest.starts_with("!=") && (self.eat("!") || self.eat("not ")) {
            self.depth += 1;
            if self.depth > DEPTH_MAX {
                return Err(self.wrong("less nesting"));
            }
            let inner = self.unary()?;
            self.depth -= 1;
            return Ok(Test::Not(Box::new(inner)));
        }
        if self.eat("(") {
            let inner = self.any()?;
            return if self.word(")") { Ok(inner) } else { Err(self.wrong("`)`")) };
        }
        let left = self.operand()?;
        self.spaces();
        match COMPARISONS.iter().find(|comparison| self.rest.starts_with(**comparison)) {
            Some(comparison) => {
                self.eat(comparison);
                Ok(Test::Compare(left, comparison, self.operand()?))
            }
            None => Ok(Test::Exists(left)),
        }
    }

    fn operand(&mut self) -> Result<Operand> {
        self.spaces();
        if self.eat("@") {
            return Ok(Operand::Here(self.path(false)?));
        }
        if self.rest.starts_with(['"', '\'']) {
            return Ok(Operand::Literal(Value::from(self.quoted()?)));
        }
        let len = self
            .rest
            .find(|c: char| !(c.is_alphanumeric() || "+-.".contains(c)))
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(len);
        let value = serde_json::from_str(word)
            .map_err(|_| self.wrong("`@`, text in quotes, or a number"))?;
        self.rest = rest;
        Ok(Operand::Literal(value))
    }
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-' || c == '@'
}

impl Path {
    /// The values that it leads to.
    ///
    /// # Errors
    /// They are too many.
    pub fn find<'v>(&self, value: &'v Value) -> Result<Vec<&'v Value>> {
        let mut found = vec![value];
        for step in &self.0 {
            let mut next = Vec::new();
            for value in found {
                if step.descends {
                    descend(value, step, &mut next)?
                } else {
                    step.pick(value, &mut next)?
                }
            }
            found = next;
        }
        Ok(found)
    }
}

fn descend<'v>(value: &'v Value, step: &Step, into: &mut Vec<&'v Value>) -> Result<()> {
    step.pick(value, into)?;
    children(value).try_for_each(|child| descend(child, step, into))
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => Box::new(std::iter::empty()),
    }
}

impl Step {
    fn pick<'v>(&self, value: &'v Value, into: &mut Vec<&'v Value>) -> Result<()> {
        for pick in &self.pick {
            match pick {
                Pick::All => into.extend(children(value)),
                Pick::Name(name) => into.extend(value.get(name)),
                Pick::Index(index) => {
                    into.extend(value.as_array().and_then(|items| at(items, *index)))
                }
                Pick::Slice(from, to, step) => {
                    into.extend(
                        value
                            .as_array()
                            .into_iter()
                            .flat_map(|items| slice(items, *from, *to, *step)),
                    );
                }
                Pick::Filter(test) => {
                    for child in children(value) {
                        if test.holds(child)? {
                            into.push(child);
                        }
                    }
                }
            }
        }
        if into.len() > FOUND_MAX {
            return Err(Error::failed(format!(
                "JSON path: more than {FOUND_MAX} values are found"
            )));
        }
        Ok(())
    }
}

fn at(items: &[Value], index: i64) -> Option<&Value> {
    let from_end = || items.len().checked_sub(usize::try_from(index.checked_neg()?).ok()?);
    items.get(usize::try_from(index).ok().or_else(from_end)?)
}

fn slice(items: &[Value], from: Option<i64>, to: Option<i64>, step: i64) -> Vec<&Value> {
    let len = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let bound = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let (least, most) = if step > 0 { (0, len) } else { (-1, len - 1) };
    let (first, last) = if step > 0 { (0, len) } else { (len - 1, -1) };
    let mut index = from.map_or(first, bound).clamp(least, most);
    let end = to.map_or(last, bound).clamp(least, most);
    let mut found = Vec::new();
    while if step > 0 { index < end } else { index > end } {
        found.extend(usize::try_from(index).ok().and_then(|index| items.get(index)));
        index = index.saturating_add(step);
    }
    found
}

impl Test {
    fn holds(&self, item: &Value) -> Result<bool> {
        let each = |tests: &[Self], until: bool| {
            for test in tests {
                if test.holds(item)? == until {
                    return Ok(until);
                }
            }
            Ok(!until)
        };
        match self {
            Self::Any(tests) => each(tests, true),
            Self::All(tests) => each(tests, false),
            Self::Not(test) => test.holds(item).map(|holds| !holds),
            Self::Exists(operand) => Ok(operand.value(item)?.is_some()),
            Self::Compare(left, comparison, right) => {
                Ok(compare(left.value(item)?, comparison, right.value(item)?))
            }
        }
    }
}

impl Operand {
    fn value<'v>(&'v self, item: &'v Value) -> Result<Option<&'v Value>> {
        match self {
            Self::Here(path) => Ok(path.find(item)?.first().copied()),
            Self::Literal(value) => Ok(Some(value)),
        }
    }
}

/// Whether two values are equal, numbers by what they are worth.
#[must_use]
pub fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// How two numbers, or two texts, are ordered.
#[must_use]
pub fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64()?.partial_cmp(&other.as_f64()?),
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}

fn compare(left: Option<&Value>, comparison: &str, right: Option<&Value>) -> bool {
    let (Some(left), Some(right)) = (left, right) else {
        return comparison == "!=" && left != right;
    };
    let order = order(left, right);
    match comparison {
        "!=" => !equal(left, right),
        "<" => order == Some(Ordering::Less),
        ">" => order == Some(Ordering::Greater),
        "<=" => order.is_some_and(Ordering::is_le),
        ">=" => order.is_some_and(Ordering::is_ge),
        "contains" => match (left, right) {
            (Value::String(text), Value::String(part)) => text.contains(part),
            (left, right) => children(left).any(|child| equal(child, right)),
        },
        _ => equal(left, right),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(path: &str) -> Value {
        let value = json!({
            "foo": [{ "baz": 1, "name": "a" }, { "baz": 2, "name": "b", "tags": ["x"] }, { "name": "c" }],
            "odd name": { "x": { "baz": 3 } },
        });
        let path: Path = path.parse().expect("a path");
        path.find(&value).expect("few").into_iter().cloned().collect()
    }

    #[test]
    fn each_kind_of_step_finds_what_it_names() {
        for (path, found) in [
            ("$.foo[*].baz", json!([1, 2])),
            ("foo[*].baz", json!([1, 2])),
            ("$.foo[0,2].name", json!(["a", "c"])),
            ("$.foo[-1].name", json!(["c"])),
            ("$.foo[0:2].name", json!(["a", "b"])),
            ("$.foo[::-1].name", json!(["c", "b", "a"])),
            ("$['odd name'].x.baz", json!([3])),
            ("$..baz", json!([1, 2, 3])),
            ("$.foo[?(@.baz)].name", json!(["a", "b"])),
            ("$.foo[?(@.baz > 1)].name", json!(["b"])),
            ("$.foo[?(@.name = 'a' or @.name == \"c\")].name", json!(["a", "c"])),
            ("$.foo[?(not @.baz && !(@.name == 'x'))].name", json!(["c"])),
            ("$.foo[?(@.tags contains 'x')].name", json!(["b"])),
            ("$.foo[9].name", json!([])),
            ("$.none.*", json!([])),
        ] {
            assert_eq!(find(path), found, "{path}");
        }
    }

    #[test]
    fn what_is_no_path_says_where() {
        for path in [
            "",
            "$.",
            "$.foo[",
            "$.foo[?(@.a",
            "$.foo[0:1:0]",
            "$ foo",
            "$['a",
            "$.a[1-]",
            &format!("$[?{}", "(".repeat(50)),
        ] {
            path.parse::<Path>().expect_err(path);
        }
    }
}
