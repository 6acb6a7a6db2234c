//! What a profile wants of this host, in the files of other tools: for those who manage hosts by them, and for what only they change.
//!
//! Invariant: nothing that lowers security, and no comment without its reason. Next: `check`.

use std::fmt::Write as _;

use crate::check::{Finding, Status};
use crate::knob::{How, Knob, Place, Profile};

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For `/etc/sysctl.d`.
    Sysctl,
    /// A profile of tuned: `tuned.conf`.
    Tuned,
    /// A drop-in of a service, for limits of its process.
    Systemd,
    /// Parameters for the kernel.
    Cmdline,
}

impl Format {
    /// All of them, with their names.
    pub const ALL: &'static [(&'static str, Self)] = &[
        ("sysctl", Self::Sysctl),
        ("tuned", Self::Tuned),
        ("systemd", Self::Systemd),
        ("cmdline", Self::Cmdline),
    ];
}

/// The file.
#[must_use]
pub fn export(format: Format, profile: Profile, findings: &[Finding]) -> String {
    match format {
        Format::Sysctl => sysctl(profile, findings),
        Format::Tuned => tuned(profile, findings),
        Format::Systemd => systemd(profile, findings),
        Format::Cmdline => cmdline(findings),
    }
}

/// A finding that has a value to write, and the value.
fn valued(finding: &Finding) -> Option<(&'static Knob, &Finding, String)> {
    let want = finding.want.as_ref()?;
    let is_there = finding.status != Status::Unsupported;
    let is_safe = finding.knob.how != How::Security;
    let value = want.to_write(finding.knob.format, &finding.text);
    let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
    (is_there && is_safe).then_some((finding.knob, finding, value))
}

fn head(profile: Profile, what: &str) -> String {
    format!("# Profile {profile} of tune: {}.\n# {what}\n", profile.about())
}

fn sysctl(profile: Profile, findings: &[Finding]) -> String {
    let mut text =
        head(profile, "Settings of devices are not in here: tune export --format tuned.");
    for (knob, _, value) in findings.iter().filter_map(valued) {
        if knob.how == How::Write && matches!(knob.place, Place::Sysctl) {
            let _ = writeln!(text, "\n# {}.\n{} = {value}", knob.why, knob.name);
        }
    }
    text
}

fn tuned(profile: Profile, findings: &[Finding]) -> String {
    let mut text = head(profile, "Devices are those of the host that it was exported on.");
    let _ = writeln!(text, "[main]\nsummary=Profile {profile} of tune: {}", profile.about());
    let (mut settings, mut files, mut boot) = (String::new(), String::new(), Vec::new());
    for (knob, finding, value) in findings.iter().filter_map(valued) {
        match (knob.how, knob.place) {
            (How::Write, Place::Sysctl) => {
                let _ = writeln!(settings, "# {}.\n{}={value}", knob.why, knob.name);
            }
            // tuned has no netlink.
            (How::Write, Place::Ethtool(_) | Place::Napi(_)) => {}
            (How::Write, _) => {
                let _ = writeln!(files, "{}={value}", finding.path);
            }
            (How::Boot, Place::Cmdline(name)) => boot.push(format!("{name}={value}")),
            _ => {}
        }
    }
    for (name, lines) in [("sysctl", settings), ("sysfs", files)] {
        if !lines.is_empty() {
            let _ = write!(text, "\n[{name}]\n{lines}");
        }
    }
    if !boot.is_empty() {
        let _ = writeln!(text, "\n[bootloader]\ncmdline_tune={}", boot.join(" "));
    }
    text
}

fn systemd(profile: Profile, findings: &[Finding]) -> String {
    let mut text = head(profile, "For /etc/systemd/system/SERVICE.service.d/tune.conf.");
    text.push_str("[Service]\n");
    for (knob, finding, value) in findings.iter().filter_map(valued) {
        // A limit that is high enough already is not to be lowered to the least that will do.
        if knob.how == How::Start && finding.status != Status::Ok {
            let name = knob.name.rsplit('.').next().unwrap_or(knob.name).to_uppercase();
            let value = if value == "unlimited" { "infinity" } else { &value };
            let _ = writeln!(text, "# {}.\nLimit{name}={value}", knob.why);
        }
    }
    text
}

fn cmdline(findings: &[Finding]) -> String {
    let parameter = |(knob, _, value): (&'static Knob, &Finding, String)| match knob.place {
        Place::Cmdline(name) => Some(format!("{name}={value}")),
        _ => None,
    };
    let all: Vec<String> = findings.iter().filter_map(valued).filter_map(parameter).collect();
    format!("{}\n", all.join(" "))
}
