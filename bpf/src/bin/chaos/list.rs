//! `chaos list`, `chaos describe` and `chaos doctor`: the tables of faults, and what of them works here, for people and programs.

use bpf::doctor;
use bpf::error::Result;
use bpf::fault::{self, Kind, Param, Type};
use bpf::scenario::{self, Scenario};
use serde_json::{Value, json};

/// What this host can do.
pub(crate) fn doctor(is_json: bool) -> Result<()> {
    let findings = doctor::all();
    if is_json {
        bpf::say!("{}", json!(findings));
        return Ok(());
    }
    for one in &findings {
        let works = if one.works { "yes" } else { "no" };
        let why = if one.why.is_empty() { String::new() } else { format!("  [{}]", one.why) };
        bpf::say!("{:<12} {works:<4} {}{why}", one.probe, one.about);
    }
    Ok(())
}

fn type_name(param: &Param) -> String {
    match param.ty {
        Type::Duration => "duration".into(),
        Type::Shift => "duration, or one with - in front".into(),
        Type::Integer => "whole number".into(),
        Type::Number => "number".into(),
        Type::Word([]) => "word".into(),
        Type::Word(words) => words.join(" | "),
    }
}

fn of(kind: &Kind) -> Value {
    let params = kind.params.iter().map(|param| {
        json!({ "name": param.name, "type": type_name(param), "default": param.default, "about": param.about })
    });
    json!({
        "fault": kind.name,
        "about": kind.about,
        "acts_on": format!("{:?}", kind.place).to_lowercase(),
        "shares": kind.shares,
        "params": params.collect::<Vec<_>>(),
    })
}

fn of_scenario(scenario: &Scenario) -> Value {
    json!({
        "scenario": scenario.name,
        "family": scenario.family,
        "about": scenario.about,
        "fault": scenario.fault,
        "share": scenario.share,
        "target": scenario.target,
        "params": scenario.params,
        "needs": scenario.needs,
    })
}

/// Names the faults, and the scenarios made of them.
pub(crate) fn list(is_json: bool) -> Result<()> {
    let scenarios = scenario::all()?;
    if is_json {
        let all = fault::all().map(of).chain(scenarios.iter().map(of_scenario));
        bpf::say!("{}", Value::from(all.collect::<Vec<_>>()));
        return Ok(());
    }
    bpf::say!("Faults:");
    for kind in fault::all() {
        bpf::say!("  {:<26} {}", kind.name, kind.about);
    }
    for family in scenarios.chunk_by(|one, next| one.family == next.family) {
        bpf::say!("Scenarios, {}:", family.first().map_or("", |one| one.family));
        for one in family {
            bpf::say!("  {:<26} {}", one.name, one.about);
        }
    }
    Ok(())
}

/// All about a fault or a scenario.
pub(crate) fn describe(name: &str, is_json: bool) -> Result<()> {
    if let Some(scenario) = scenario::find(name)? {
        let text = of_scenario(&scenario);
        if is_json {
            bpf::say!("{text}");
        } else {
            bpf::say!("{}: {}\n{text:#}", scenario.name, scenario.about);
        }
        return Ok(());
    }
    let kind = fault::find(name)?;
    if is_json {
        bpf::say!("{}", of(kind));
        return Ok(());
    }
    bpf::say!("{}: {}\nacts on: {:?}", kind.name, kind.about, kind.place);
    for param in kind.params {
        let default = param
            .default
            .map_or_else(|| "to be given".to_owned(), |default| format!("default {default}"));
        bpf::say!("  --{:<12} {} ({}; {default})", param.name, param.about, type_name(param));
    }
    bpf::say!("`chaos inject {} --help` has all options", kind.name);
    Ok(())
}
