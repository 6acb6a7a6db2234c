//! StressChaos, TimeChaos, and the actions of PhysicalMachineChaos that are not of the network. Next: `network`, `files`.

use serde_json::{Map, Value, json};

use super::{Fault, Fields, Import, duration};

/// Signals by their number on Linux.
const SIGNALS: &[(i64, &str)] = &[
    (9, "KILL"),
    (15, "TERM"),
    (2, "INT"),
    (1, "HUP"),
    (3, "QUIT"),
    (6, "ABRT"),
    (11, "SEGV"),
    (10, "USR1"),
    (12, "USR2"),
];
/// The one that pauses.
const STOP: i64 = 19;

impl Import {
    pub(super) fn stress_chaos(&mut self, spec: &Fields<'_>) -> Vec<Fault> {
        let mut faults = Vec::new();
        if let Some(stressors) = spec.inner("stressors") {
            faults.extend(stressors.inner("cpu").map(|cpu| self.stress("stress.cpu", &cpu)));
            faults.extend(
                stressors.inner("memory").map(|memory| self.stress("stress.memory", &memory)),
            );
            self.finish(&stressors);
        }
        if spec.get("stressngStressors").is_some() {
            self.unmapped(
                &spec.path("stressngStressors"),
                "stress-ng is not there: say it with stressors",
            );
        }
        faults
    }

    fn stress(&mut self, kind: &'static str, fields: &Fields<'_>) -> Fault {
        let mut params = Map::new();
        let workers = fields.get("workers");
        if kind == "stress.cpu" {
            params.extend(workers.map(|workers| ("threads".to_owned(), workers.clone())));
            params.extend(fields.get("load").map(|load| ("load".to_owned(), load.clone())));
        } else {
            if workers.is_some() {
                self.note(&fields.path("workers"), "one process takes all of it");
            }
            params.extend(self.amount(fields));
        }
        for (name, value) in
            [("options", "stress-ng is not there"), ("oomScoreAdj", "it is left as it is")]
        {
            let given = fields.get(name).filter(|given| given.as_i64() != Some(0));
            if given.is_some() {
                self.unmapped(&fields.path(name), value);
            }
        }
        self.finish(fields);
        Fault::new(kind, Value::Object(params))
    }

    pub(super) fn time_chaos(&mut self, spec: &Fields<'_>) -> Vec<Fault> {
        let process = self.variable("process", None);
        let clocks = spec.get("clockIds").and_then(Value::as_array);
        let clocks =
            clocks.map(|clocks| clocks.iter().map(super::text_of).collect::<Vec<_>>().join(","));
        let fault = self.clock(spec.text("timeOffset"), &spec.path("timeOffset"), clocks);
        fault.map(|fault| fault.on("comm", process)).into_iter().collect()
    }

    fn clock(
        &mut self,
        offset: Option<String>,
        path: &str,
        clocks: Option<String>,
    ) -> Option<Fault> {
        let offset = offset.unwrap_or_default();
        let Some(by) = duration(&offset) else {
            self.unmapped(path, format_args!("{offset:?} is no duration"));
            return None;
        };
        let sign = if offset.trim().starts_with('-') { "-" } else { "" };
        let mut params = json!({ "offset": format!("{sign}{}", humantime::format_duration(by)) });
        if let (Some(clocks), Value::Object(params)) = (clocks, &mut params) {
            params.insert("clocks".to_owned(), Value::from(clocks));
        }
        Some(Fault::new("clock.offset", params))
    }

    pub(super) fn machine_chaos(&mut self, spec: &Fields<'_>) -> Vec<Fault> {
        let action = spec.text("action").unwrap_or_default();
        spec.get("uid");
        let Some(fields) = spec.inner(&action) else {
            self.unmapped(&spec.path("action"), format_args!("{action:?}: nothing is said of it"));
            return Vec::new();
        };
        match action.as_str() {
            "network-loss" | "network-delay" | "network-duplicate" | "network-corrupt"
            | "network-partition" | "network-bandwidth" | "network-down" => {
                self.machine_network(&action, &fields)
            }
            "stress-cpu" => vec![self.stress("stress.cpu", &fields)],
            "stress-mem" => vec![self.stress("stress.memory", &fields)],
            "disk-fill" => self.disk_fill(&fields),
            "process" => self.process(&fields),
            "clock" => {
                let clocks = fields.text("clock-ids-slice");
                let fault =
                    self.clock(fields.text("time-offset"), &fields.path("time-offset"), clocks);
                let pid = fields.get("pid").cloned().unwrap_or_default();
                self.finish(&fields);
                fault.map(|fault| fault.on("pid", pid)).into_iter().collect()
            }
            _ => {
                self.unmapped(&fields.path, "there is nothing like it here");
                Vec::new()
            }
        }
    }

    /// What `size` says: bytes, or a share.
    fn amount(&mut self, fields: &Fields<'_>) -> Option<(String, Value)> {
        let text = fields.text("size")?;
        let found = amount(&text);
        if found.is_none() {
            self.unmapped(&fields.path("size"), "a size such as 256MB or 50% is wanted");
        }
        found
    }

    fn disk_fill(&mut self, fields: &Fields<'_>) -> Vec<Fault> {
        let params: Map<String, Value> = self.amount(fields).into_iter().collect();
        if fields.get("fill-by-fallocate").is_some() {
            self.note(&fields.path("fill-by-fallocate"), "disk.fill decides how");
        }
        let fault = Fault::new("disk.fill", Value::Object(params))
            .on("path", fields.text("path").unwrap_or_else(|| "/".to_owned()));
        self.finish(fields);
        vec![fault]
    }

    fn process(&mut self, fields: &Fields<'_>) -> Vec<Fault> {
        let name = fields.text("process").unwrap_or_default();
        let signal = fields.get("signal").and_then(Value::as_i64).unwrap_or(9);
        if let Some(command) = fields.text("recoverCmd") {
            self.rollbacks.push(json!({
                "type": "action",
                "name": format!("recover {name}"),
                "provider": { "type": "process", "path": "sh", "arguments": ["-c", command] },
            }));
        }
        let fault = if signal == STOP {
            Fault::new("process.pause", json!({}))
        } else {
            let word = SIGNALS.iter().find(|(number, _)| *number == signal).map(|(_, word)| *word);
            let Some(word) = word else {
                self.unmapped(&fields.path("signal"), format_args!("{signal}: it is not sent"));
                return Vec::new();
            };
            Fault::new("process.kill", json!({ "signal": word }))
        };
        self.finish(fields);
        // A number is one process, a text all of that name.
        let pid = name.parse::<u32>().map(|pid| fault.clone().on("pid", pid));
        vec![pid.unwrap_or_else(|_| fault.on("comm", name))]
    }
}

/// Units of sizes, each 1,024 of the one before.
const UNITS: &str = "BKMGT";

/// A size as Chaos Mesh writes it, `256MB` or `50%`, as a parameter of ours.
fn amount(text: &str) -> Option<(String, Value)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let unit = unit.trim().to_ascii_uppercase();
    if unit == "%" {
        return Some(("percent".to_owned(), number.into()));
    }
    let power = match unit.trim_end_matches('B').trim_end_matches('I') {
        "" => 0,
        unit if unit.len() == 1 => u32::try_from(UNITS.find(unit)?).ok()?,
        _ => return None,
    };
    let bytes = number.checked_mul(1024_u64.checked_pow(power)?)?;
    Some(("bytes".to_owned(), bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes_or_a_share() {
        let of = |text| amount(text).map(|(name, value)| (name, value.as_u64().unwrap_or(0)));
        let bytes = |bytes| Some(("bytes".to_owned(), bytes));
        assert_eq!(of("256MB"), bytes(256 << 20));
        assert_eq!(of("1GiB"), bytes(1 << 30));
        assert_eq!(of("10k"), bytes(10 << 10));
        assert_eq!((of("512"), of("512B")), (bytes(512), bytes(512)));
        assert_eq!(of("50%"), Some(("percent".to_owned(), 50)));
        assert_eq!((of("much"), of("1XB"), of("")), (None, None, None));
    }
}
