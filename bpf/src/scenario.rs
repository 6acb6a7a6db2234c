//! Named scenarios: faults with their share and parameters, a file each, compiled in.
//!
//! A file says what its fault does to a workload, too: the oracle tests run that and measure. Next: `scenarios/`,
//! `tests/oracle`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::select::{Share, Target};
use crate::spec::Spec;

const FILES: &[(&str, &str, &str)] = include!(concat!(env!("OUT_DIR"), "/scenarios.rs"));

/// Figures of a workload, each with the least and the most that is expected.
pub type Expected = BTreeMap<String, (f64, f64)>;

/// What a scenario does to a workload.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oracle {
    /// Which workload of the oracle tests.
    pub workload: String,
    /// What it is told.
    #[serde(default)]
    pub with: BTreeMap<String, Value>,
    /// What it measures while the fault is in force.
    pub armed: Expected,
    /// What is added to the fault's target for the test: such as the port that the workload uses.
    #[serde(default)]
    pub target: BTreeMap<String, Value>,
}

/// A named fault.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name on the command line.
    #[serde(skip)]
    pub name: &'static str,
    /// What it belongs to.
    #[serde(skip)]
    pub family: &'static str,
    /// One line.
    pub about: String,
    /// The kind of fault.
    pub fault: String,
    /// What of the target belongs to the scenario.
    #[serde(default)]
    pub target: Target,
    /// How much of it.
    #[serde(default)]
    pub share: Share,
    /// What the kind asks for.
    #[serde(default)]
    pub params: BTreeMap<String, Value>,
    /// What of the kernel's it needs beside the rest of its family: names of probes of the doctor.
    #[serde(default)]
    pub needs: Vec<String>,
    /// How it is tested.
    pub oracle: Oracle,
}

/// All scenarios, by family and name.
///
/// # Errors
/// A file is not one: a test sees to it that there is none.
pub fn all() -> Result<Vec<Scenario>> {
    FILES.iter().map(|(family, name, text)| read(family, name, text)).collect()
}

fn read(family: &'static str, name: &'static str, text: &str) -> Result<Scenario> {
    let wrong = |error| Error::failed(format!("scenario {family}/{name}: {error}"));
    let scenario: Scenario = toml::from_str(text).map_err(wrong)?;
    Ok(Scenario { name, family, ..scenario })
}

/// The scenario of that name, if there is one.
///
/// # Errors
/// As [`all`].
pub fn find(name: &str) -> Result<Option<Scenario>> {
    let file = FILES.iter().find(|(_, known, _)| *known == name);
    file.map(|(family, name, text)| read(family, name, text)).transpose()
}

impl Scenario {
    /// The fault, on a target that the scenario leaves open.
    #[must_use]
    pub fn spec(&self) -> Spec {
        Spec {
            target: self.target.clone(),
            share: self.share,
            params: self.params.clone(),
            ..Spec::new(&self.fault)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault;

    #[test]
    fn every_file_is_a_scenario_of_a_fault_that_there_is() {
        let all = all().expect("all are read");
        assert!(!all.is_empty());
        let mut names: Vec<&str> = all.iter().map(|one| one.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all.len(), "names are unique");
        for one in &all {
            let kind = fault::find(&one.fault).expect(one.name);
            assert!(kind.name != one.name, "{}: a scenario and a fault have one name", one.name);
            for name in one.params.keys() {
                assert!(kind.params.iter().any(|param| param.name == name), "{}: {name}", one.name);
            }
            one.spec().share.to_abi(0).expect(one.name);
            for need in &one.needs {
                assert!(crate::doctor::probes().any(|probe| probe == need), "{}: {need}", one.name);
            }
            assert!(!one.oracle.armed.is_empty(), "{}: nothing is measured", one.name);
        }
    }
}
