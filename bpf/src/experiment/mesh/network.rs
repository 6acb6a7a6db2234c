//! NetworkChaos, and the network actions of PhysicalMachineChaos. Next: `crate::faults`, which has the faults.

use serde_json::{Map, Value, json};

use super::{Fault, Fields, Import, duration};
use crate::select::Network;

/// All addresses: a target that is wide on purpose, and spares the ports that are spared.
const ANYWHERE: [&str; 2] = ["0.0.0.0/0", "::/0"];

/// Where faults of packets act.
struct Where {
    device: String,
    /// Of these directions, each `in` or `out`.
    ways: &'static [&'static str],
    peers: Vec<Peers>,
    /// What narrows it further: one set of selectors for each fault.
    more: Vec<Map<String, Value>>,
}

/// Networks, all of them at one port if there is one.
#[derive(Clone, Debug, Default)]
struct Peers {
    networks: Vec<Value>,
    port: Option<u16>,
}

impl Peers {
    fn of(networks: Vec<Value>) -> Self {
        Self { networks, port: None }
    }
}

fn ways(direction: Option<&str>) -> Option<&'static [&'static str]> {
    match direction {
        None | Some("to") => Some(&["out"]),
        Some("from") => Some(&["in"]),
        Some("both") => Some(&["out", "in"]),
        Some(_) => None,
    }
}

/// Each fault at each place.
fn spread(faults: &[Fault], place: &Where) -> Vec<Fault> {
    let mut all = Vec::new();
    for fault in faults {
        for way in place.ways {
            for peers in &place.peers {
                let (network, port) =
                    if *way == "out" { ("dst", "dport") } else { ("src", "sport") };
                let mut one = fault.clone().on("dev", place.device.as_str()).on("dir", *way);
                if !peers.networks.is_empty() {
                    one = one.on(network, peers.networks.clone());
                }
                if let Some(number) = peers.port {
                    one = one.on(port, number);
                }
                all.extend(place.more.iter().map(|more| {
                    let mut one = one.clone();
                    one.target.extend(more.clone());
                    one
                }));
            }
        }
    }
    all
}

impl Import {
    pub(super) fn network_chaos(&mut self, spec: &Fields<'_>) -> Vec<Fault> {
        let action = spec.text("action").unwrap_or_else(|| "delay".to_owned());
        let mut faults = match action.as_str() {
            "partition" => vec![Fault::new("net.loss", json!({}))],
            "netem" | "loss" | "delay" | "duplicate" | "corrupt" | "bandwidth" => Vec::new(),
            other => {
                self.unmapped(
                    "spec.action",
                    format_args!("{other}: there is nothing like it here"),
                );
                Vec::new()
            }
        };
        if action != "partition" {
            for name in ["loss", "duplicate", "corrupt"] {
                faults.extend(spec.inner(name).and_then(|inner| self.share(name, &inner, name)));
            }
            faults.extend(spec.inner("delay").and_then(|inner| self.delay(&inner)));
            for name in ["bandwidth", "rate"] {
                faults.extend(spec.inner(name).and_then(|inner| self.rate(&inner)));
            }
            if faults.is_empty() {
                self.unmapped("spec.action", format_args!("{action}: nothing is said of it"));
            }
        }
        let place = self.place(spec);
        spread(&faults, &place)
    }

    fn place(&mut self, spec: &Fields<'_>) -> Where {
        let device = self.device(spec);
        let direction = spec.text("direction");
        let ways = ways(direction.as_deref()).unwrap_or_else(|| {
            self.unmapped(
                "spec.direction",
                format_args!("{}: to, from or both is known", direction.unwrap_or_default()),
            );
            &["out"]
        });
        let outside = spec.get("externalTargets").and_then(Value::as_array);
        let mut peers = self.networks(outside.map_or(&[], Vec::as_slice), "spec.externalTargets");
        if let Some(target) = spec.inner("target") {
            self.note(
                &target.path,
                "its pods cannot be found from here: name their network as a variable",
            );
            peers.push(Peers::of(vec![Value::from(self.variable("peer", None))]));
        } else if outside.is_none() {
            self.note("spec", "it names no peers: all are hit, but the ports that are spared");
            peers.push(Peers::of(ANYWHERE.map(Value::from).to_vec()));
        }
        Where { device, ways, peers, more: vec![Map::new()] }
    }

    /// The device that is named, or was given, or a variable.
    fn device(&mut self, spec: &Fields<'_>) -> String {
        let named = spec.text("device").or_else(|| self.device.clone());
        named.unwrap_or_else(|| self.variable("device", Some("eth0")))
    }

    /// Peers by their addresses: those without a port together. Where all have only names, there are none, and nothing is hit.
    fn networks(&mut self, names: &[Value], path: &str) -> Vec<Peers> {
        let (mut together, mut all) = (Peers::default(), Vec::new());
        for (index, name) in names.iter().enumerate() {
            let name = super::text_of(name);
            let at_port = || {
                let (host, port) = name.rsplit_once(':')?;
                let network = host.trim_matches(['[', ']']).parse::<Network>().ok()?;
                Some((network, port.parse::<u16>().ok()?))
            };
            if let Ok(network) = name.parse::<Network>() {
                together.networks.push(Value::from(network.to_string()));
            } else if let Some((network, port)) = at_port() {
                let networks = vec![Value::from(network.to_string())];
                all.push(Peers { networks, port: Some(port) });
            } else {
                self.unmapped(
                    &format!("{path}[{index}]"),
                    format_args!("{name}: packets have addresses, no names: put its address there"),
                );
            }
        }
        if !together.networks.is_empty() {
            all.insert(0, together);
        }
        all
    }

    fn percent(&mut self, fields: &Fields<'_>, name: &str) -> Option<Value> {
        let text = fields.text(name).unwrap_or_default();
        let percent =
            text.trim().parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
        if percent.is_none() {
            self.unmapped(&fields.path(name), format_args!("{text:?} is no percentage"));
        }
        percent.map(|percent| json!({ "percent": percent }))
    }

    fn correlation(&mut self, fields: &Fields<'_>) {
        let text = fields.text("correlation").unwrap_or_default();
        if !text.is_empty() && text.trim().parse::<f64>().ok() != Some(0.0) {
            self.unmapped(
                &fields.path("correlation"),
                format_args!("{text}: each packet is chosen by itself"),
            );
        }
    }

    /// A fault that hits a share of packets, in percent.
    fn share(&mut self, kind: &str, fields: &Fields<'_>, percent: &str) -> Option<Fault> {
        let kind = match kind {
            "loss" => "net.loss",
            "duplicate" => "net.duplicate",
            _ => "net.corrupt",
        };
        self.correlation(fields);
        let share = self.percent(fields, percent)?;
        self.finish(fields);
        Some(Fault::new(kind, json!({})).share(share))
    }

    fn delay(&mut self, fields: &Fields<'_>) -> Option<Fault> {
        if fields
            .text("jitter")
            .and_then(|jitter| duration(&jitter))
            .is_some_and(|jitter| !jitter.is_zero())
        {
            self.correlation(fields);
        } else if fields.get("correlation").is_some() {
            self.note(&fields.path("correlation"), "of jitter, and there is none");
        }
        let latency = fields.text("latency").unwrap_or_default();
        let Some(delay) = duration(&latency) else {
            self.unmapped(&fields.path("latency"), format_args!("{latency:?} is no duration"));
            return None;
        };
        let mut params = json!({ "delay": humantime::format_duration(delay).to_string() });
        if let (Some(jitter), Value::Object(params)) = (fields.text("jitter"), &mut params) {
            match duration(&jitter) {
                Some(jitter) if jitter.is_zero() => {}
                Some(jitter) => {
                    params.insert(
                        "jitter".to_owned(),
                        Value::from(humantime::format_duration(jitter).to_string()),
                    );
                }
                None => {
                    self.unmapped(&fields.path("jitter"), format_args!("{jitter:?} is no duration"))
                }
            }
        }
        if let (Some(reorder), Value::Object(params)) = (fields.inner("reorder"), &mut params) {
            params.extend(self.pass(&reorder).map(|pass| ("pass".to_owned(), pass)));
        }
        self.finish(fields);
        Some(Fault::new("net.delay", params))
    }

    /// Of delayed packets, those that are not held and so overtake the others: how netem reorders.
    fn pass(&mut self, fields: &Fields<'_>) -> Option<Value> {
        self.correlation(fields);
        // Every packet may be the one; a gap says every so many.
        if fields.get("gap").and_then(Value::as_u64).is_some_and(|gap| gap > 1) {
            self.unmapped(&fields.path("gap"), "packets that overtake are chosen by chance");
        }
        let share = self.percent(fields, "reorder");
        self.finish(fields);
        share.and_then(|share| share.get("percent").cloned())
    }

    fn rate(&mut self, fields: &Fields<'_>) -> Option<Fault> {
        let text = fields.text("rate").unwrap_or_default();
        if fields.get("buffer").is_some() {
            self.note(
                &fields.path("buffer"),
                "net.throttle lets no more pass at once than the rate",
            );
        }
        let rate = rate(&text);
        if rate.is_none() {
            self.unmapped(&fields.path("rate"), format_args!("{text:?} is no rate"));
        }
        let rate = rate?;
        let limit = fields.get("limit").and_then(Value::as_u64);
        self.finish(fields);
        let mut params = json!({ "rate": rate });
        if let (Some(limit), Value::Object(params)) = (limit, &mut params) {
            params.insert("queue".to_owned(), Value::from(format!("{limit}B")));
        }
        Some(Fault::new("net.throttle", params))
    }

    /// An action `network-…` of a machine, whose fields are under its name.
    pub(super) fn machine_network(&mut self, action: &str, fields: &Fields<'_>) -> Vec<Fault> {
        let fault = match action {
            "network-loss" | "network-duplicate" | "network-corrupt" => {
                let place = self.machine_place(fields);
                let fault = self.share(action.trim_start_matches("network-"), fields, "percent");
                return fault.map(|fault| spread(&[fault], &place)).unwrap_or_default();
            }
            "network-delay" => {
                let place = self.machine_place(fields);
                let fault = self.delay(fields);
                return fault.map(|fault| spread(&[fault], &place)).unwrap_or_default();
            }
            "network-bandwidth" => {
                let place = self.machine_place(fields);
                let fault = self.rate(fields);
                return fault.map(|fault| spread(&[fault], &place)).unwrap_or_default();
            }
            "network-down" => {
                self.note(&fields.path, "the device stays up, and all of its packets are lost but those of the spared ports");
                if fields.get("duration").is_some() {
                    self.note(&fields.path("duration"), "spec.duration counts");
                }
                Fault::new("net.loss", json!({}))
            }
            _ => Fault::new("net.loss", json!({})),
        };
        let mut place = self.machine_place(fields);
        if action == "network-down" {
            place.ways = &["out", "in"];
        }
        self.finish(fields);
        spread(&[fault], &place)
    }

    fn machine_place(&mut self, fields: &Fields<'_>) -> Where {
        let device = self.device(fields);
        let direction = fields.text("direction");
        let ways = ways(direction.as_deref()).unwrap_or_else(|| {
            self.unmapped(&fields.path("direction"), "to, from or both is known");
            &["out"]
        });
        let host = fields.text("hostname");
        let has_host = host.is_some();
        if let Some(host) = host {
            self.unmapped(
                &fields.path("hostname"),
                format_args!(
                    "{host}: packets have addresses, no names: put its address to ip-address"
                ),
            );
        }
        if fields.get("accept-tcp-flags").is_some() {
            self.unmapped(&fields.path("accept-tcp-flags"), "packets are chosen by the flags that they have, not by those that they are spared for");
        }
        let addresses = fields.text("ip-address").unwrap_or_default();
        let addresses: Vec<Value> = addresses
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
            .map(Value::from)
            .collect();
        let mut peers = self.networks(&addresses, &fields.path("ip-address"));
        let mut more = vec![Map::new()];
        for (name, key) in [("source-port", "sport"), ("egress-port", "dport")] {
            let text = fields.text(name).unwrap_or_default();
            let ports: Vec<String> = text
                .split(',')
                .map(|port| port.trim().replace(':', "-"))
                .filter(|port| !port.is_empty())
                .collect();
            if !ports.is_empty() {
                let with = |port: &String, one: &Map<String, Value>| {
                    let mut one = one.clone();
                    one.insert(key.to_owned(), Value::from(port.as_str()));
                    one
                };
                more = ports
                    .iter()
                    .flat_map(|port| {
                        more.iter().map(move |one| with(port, one)).collect::<Vec<_>>()
                    })
                    .collect();
            }
        }
        if let Some(protocol) = fields.text("ip-protocol").filter(|protocol| protocol != "all") {
            for one in &mut more {
                one.insert("proto".to_owned(), Value::from(protocol.as_str()));
            }
        }
        let has_ports =
            more.iter().any(|one| one.contains_key("sport") || one.contains_key("dport"));
        if !addresses.is_empty() || has_host {
            // It is narrowed by them, or nothing is hit.
        } else if has_ports {
            peers.push(Peers::default());
        } else {
            self.note(
                &fields.path,
                "it names no peers: all are hit, but the ports that are spared",
            );
            peers.push(Peers::of(ANYWHERE.map(Value::from).to_vec()));
        }
        Where { device, ways, peers, more }
    }
}

/// A rate of Chaos Mesh, where `mbit` is bits and `mbps` bytes a second, as ours is written.
fn rate(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let at = text.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
    let (number, unit) = text.split_at(at);
    let number: f64 = number.parse().ok()?;
    let unit = unit.trim();
    let bits = unit.strip_suffix("bit").map(|prefix| (prefix, 1.0));
    let (prefix, bits) = bits.or_else(|| unit.strip_suffix("bps").map(|prefix| (prefix, 8.0)))?;
    let number = number * bits;
    let (number, unit) = match prefix {
        "" => (number / 8.0, "B"),
        "k" => (number, "kbit"),
        "m" => (number, "Mbit"),
        "g" => (number, "Gbit"),
        "t" => (number * 1e3, "Gbit"),
        _ => return None,
    };
    Some(format!("{number}{unit}/s"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn rates_have_units_of_ours() {
        for (text, ours) in [
            ("1mbps", "8Mbit/s"),
            ("10 kbit", "10kbit/s"),
            ("1.5mbit", "1.5Mbit/s"),
            ("100bps", "100B/s"),
            ("1tbit", "1000Gbit/s"),
        ] {
            assert_eq!(super::rate(text).as_deref(), Some(ours), "{text}");
        }
        for wrong in ["", "fast", "10", "10xbit", "10mb"] {
            assert_eq!(super::rate(wrong), None, "{wrong}");
        }
    }
}
