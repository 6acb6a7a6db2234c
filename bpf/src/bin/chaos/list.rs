//! `chaos list` and `chaos describe`: the tables of faults, for people and programs.

use bpf::error::Result;
use bpf::fault::{self, Kind, Param, Type};
use serde_json::{Value, json};

fn type_name(param: &Param) -> String {
    match param.ty {
        Type::Duration => "duration".into(),
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

/// Names the faults.
pub(crate) fn list(is_json: bool) -> Result<()> {
    if is_json {
        println!("{}", Value::from(fault::all().map(of).collect::<Vec<_>>()));
    } else {
        for kind in fault::all() {
            println!("{:<18} {}", kind.name, kind.about);
        }
    }
    Ok(())
}

/// All about one.
pub(crate) fn describe(name: &str, is_json: bool) -> Result<()> {
    let kind = fault::find(name)?;
    if is_json {
        println!("{}", of(kind));
        return Ok(());
    }
    println!("{}: {}\nacts on: {:?}", kind.name, kind.about, kind.place);
    for param in kind.params {
        let default = param
            .default
            .map_or_else(|| "to be given".to_owned(), |default| format!("default {default}"));
        println!("  --{:<12} {} ({}; {default})", param.name, param.about, type_name(param));
    }
    println!("`chaos inject {} --help` has all options", kind.name);
    Ok(())
}
