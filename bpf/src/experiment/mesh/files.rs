//! IOChaos: faults of files below a volume, which are ours of `disk.*`.
//!
//! Their patterns are those of the crate `glob`, whose `*` is also of several names; their methods are operations of FUSE, some of which
//! nobody asks for by a call.

use serde_json::{Map, Value, json};

use super::{Fault, Fields, Import, duration};
use crate::disk::Ops;

/// Methods that are several operations of ours.
const METHODS: &[(&str, &str)] = &[("setattr", "setattr,truncate"), ("opendir", "readdir")];
/// What an attribute is called here; permissions are octal.
const ATTRIBUTES: &[(&str, &str)] = &[
    ("size", "size"),
    ("blocks", "blocks"),
    ("perm", "perm"),
    ("nlink", "links"),
    ("uid", "uid"),
    ("gid", "gid"),
];

/// A pattern below a volume as ours; nothing for all files.
fn pattern(path: &str, volume: &str) -> Option<String> {
    let below = path.strip_prefix(volume.trim_end_matches('/')).unwrap_or(path);
    let below = below.trim_matches('/');
    if below.split('/').all(|name| name.is_empty() || name == "*" || name == "**") {
        return None;
    }
    let names = below.split('/').map(|name| {
        let parts: Vec<&str> = name.split('*').filter(|part| !part.is_empty()).collect();
        let ends = |is_end: bool| if is_end { "**" } else { "" };
        if name.trim_matches('*').is_empty() {
            return "**".to_owned();
        }
        format!("{}{}{}", ends(name.starts_with('*')), parts.join("**"), ends(name.ends_with('*')))
    });
    Some(format!("/{}", names.collect::<Vec<_>>().join("/")))
}

impl Import {
    pub(super) fn io_chaos(&mut self, spec: &Fields<'_>) -> Vec<Fault> {
        let action = spec.text("action").unwrap_or_default();
        let (kind, mut params) = match action.as_str() {
            "latency" => ("disk.delay", self.latency(spec)),
            "fault" => {
                let errno = spec.get("errno").map(|errno| ("errno".to_owned(), errno.clone()));
                ("disk.error", errno.into_iter().collect())
            }
            "mistake" => ("disk.corrupt", self.mistake(spec)),
            "attrOverride" => ("disk.attributes", self.attributes(spec)),
            other => {
                self.unmapped(
                    "spec.action",
                    format_args!("{other:?}: there is nothing like it here"),
                );
                return Vec::new();
            }
        };
        let ops = self.methods(spec);
        match (kind, ops) {
            ("disk.attributes", Some(_)) => {
                self.note(&spec.path("methods"), "attributes are others whoever asks for them");
            }
            ("disk.attributes", None) => {}
            ("disk.corrupt", None) => {
                params.insert("op".to_owned(), Value::from("read,write"));
            }
            (_, ops) => params.extend(ops.map(|ops| ("op".to_owned(), Value::from(ops)))),
        }
        let volume = spec.text("volumePath").unwrap_or_default();
        let path = spec.text("path").unwrap_or_default();
        if path.contains('[') {
            self.unmapped(
                "spec.path",
                format_args!("{path}: sets of characters are not known here"),
            );
        }
        params.extend(pattern(&path, &volume).map(|name| ("name".to_owned(), Value::from(name))));
        self.note(
            "spec.volumePath",
            "files that are opened after the fault began are hit, and others are not",
        );
        let mut fault = Fault::new(kind, Value::Object(params)).on("path", volume);
        let percent = spec.get("percent").and_then(Value::as_f64);
        if let Some(percent) = percent.filter(|percent| *percent < 100.0) {
            fault = fault.share(json!({ "percent": percent }));
        }
        vec![fault]
    }

    fn latency(&mut self, spec: &Fields<'_>) -> Map<String, Value> {
        let text = spec.text("delay").unwrap_or_default();
        let Some(delay) = duration(&text) else {
            self.unmapped("spec.delay", format_args!("{text:?} is no duration"));
            return Map::new();
        };
        let delay = humantime::format_duration(delay).to_string();
        [("delay".to_owned(), Value::from(delay))].into_iter().collect()
    }

    fn mistake(&mut self, spec: &Fields<'_>) -> Map<String, Value> {
        let Some(mistake) = spec.inner("mistake") else { return Map::new() };
        let mut params = Map::new();
        params.extend(mistake.text("filling").map(|fill| ("fill".to_owned(), Value::from(fill))));
        for (theirs, ours) in [("maxOccurrences", "count"), ("maxLength", "bytes")] {
            params.extend(mistake.get(theirs).map(|most| (ours.to_owned(), most.clone())));
        }
        if !params.is_empty() {
            self.note(
                &mistake.path,
                "each operation has as many mistakes as are allowed, as long as they may be",
            );
        }
        self.finish(&mistake);
        params
    }

    fn attributes(&mut self, spec: &Fields<'_>) -> Map<String, Value> {
        let Some(attr) = spec.inner("attr") else { return Map::new() };
        let mut params = Map::new();
        for (theirs, ours) in ATTRIBUTES {
            let Some(value) = attr.get(theirs) else { continue };
            let value = match (*theirs, value.as_u64()) {
                ("perm", Some(number)) => Value::from(format!("{number:o}")),
                _ => value.clone(),
            };
            params.insert((*ours).to_owned(), value);
        }
        self.finish(&attr);
        params
    }

    /// The operations that methods are; nothing for any.
    fn methods(&mut self, spec: &Fields<'_>) -> Option<String> {
        let methods = spec.get("methods").and_then(Value::as_array)?;
        let mut ops = Vec::new();
        for (index, method) in methods.iter().enumerate() {
            let method = super::text_of(method).to_ascii_lowercase();
            let known = METHODS.iter().find(|(theirs, _)| *theirs == method);
            let op = known.map_or(&*method, |(_, ours)| *ours);
            if Ops::parse(op).is_ok() {
                ops.push(op.to_owned());
            } else {
                let path = format!("{}[{index}]", spec.path("methods"));
                self.unmapped(&path, format_args!("{method}: there is nothing like it here"));
            }
        }
        (!ops.is_empty()).then(|| ops.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::mesh::import;

    #[test]
    fn patterns_are_below_the_volume() {
        let of = |path| pattern(path, "/var/lib/etcd");
        assert_eq!(of("/var/lib/etcd/**/*"), None);
        assert_eq!(of(""), None);
        assert_eq!(of("/var/lib/etcd/member/wal/*").as_deref(), Some("/member/wal/**"));
        assert_eq!(of("/var/lib/etcd/*.snap").as_deref(), Some("/**.snap"));
        assert_eq!(of("/var/lib/etcd/a*b/c").as_deref(), Some("/a**b/c"));
    }

    #[test]
    fn actions_become_faults_of_files() {
        let of = |spec: &str| {
            let text = format!(
                "apiVersion: chaos-mesh.org/v1alpha1\nkind: IOChaos\nmetadata: {{name: n}}\nspec:\n  volumePath: /data\n  duration: 5s\n  {spec}"
            );
            let imported = import(&text, None).expect("it is read");
            let provider = imported.experiment["method"][0]["provider"].clone();
            (provider["fault"].clone(), provider["params"].clone(), imported.unmapped)
        };
        let (fault, params, left) =
            of("action: attrOverride\n  attr: {perm: 72, size: 0, kind: dir}\n  path: /data/*");
        assert_eq!(
            (fault, params),
            (json!("disk.attributes"), json!({ "perm": "110", "size": 0 }))
        );
        assert!(left.len() == 1 && left[0].contains("spec.attr.kind"), "{left:?}");
        let (fault, params, left) =
            of("action: fault\n  errno: 5\n  methods: [WRITE, SETATTR, BMAP]\n  path: /data/a.db");
        assert_eq!(fault, json!("disk.error"));
        assert_eq!(params, json!({ "errno": 5, "op": "write,setattr,truncate", "name": "/a.db" }));
        assert!(left.len() == 1 && left[0].contains("spec.methods[2]"), "{left:?}");
    }
}
