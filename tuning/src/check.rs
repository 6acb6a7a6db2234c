//! What is, beside what a profile wants.
//!
//! Reads only. Invariants: a value that differs and cannot be changed here says why; nothing is an error that a
//! reader can be told. Next: `apply`, `report`.

use serde::Serialize;

use crate::format::Want;
use crate::host::Host;
use crate::knob::{Context, How, Knob, Of, Place, Profile, Scope, Target, Wish};
use crate::knobs;
use crate::tree::{Refused, Tree, Unread};

/// How a knob stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As it is wanted.
    Ok,
    /// It differs, and `apply` would change it.
    Drift,
    /// This kernel, device or host does not have it.
    Unsupported,
    /// It differs, and cannot be changed from here.
    ReadOnly,
    /// It differs, and only the kernel's command line changes it.
    NeedsReboot,
    /// Only reported.
    Note,
}

impl Status {
    /// Its name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Drift => "drift",
            Self::Unsupported => "unsupported",
            Self::ReadOnly => "read-only",
            Self::NeedsReboot => "needs-reboot",
            Self::Note => "note",
        }
    }
}

/// What is looked at, and how.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// What the host is tuned for.
    pub profile: Profile,
    /// From within a container, also what is its host's.
    pub host_too: bool,
}

/// One place of a knob, compared.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// The row.
    pub knob: &'static Knob,
    /// Whom it concerns.
    pub scope: &'static str,
    /// Which of several; empty when there is only one.
    pub instance: String,
    /// Its file.
    pub path: String,
    /// What it is; none where it cannot be read.
    pub current: Option<String>,
    /// What is wanted.
    pub desired: Option<String>,
    /// How they compare.
    pub status: Status,
    /// Why it is so, where that is not plain.
    pub reason: String,
    /// The file's text.
    #[serde(skip)]
    pub text: String,
    /// What is wanted, to be written.
    #[serde(skip)]
    pub want: Option<Want>,
    /// A change would fail or not last, for the reason given.
    #[serde(skip)]
    pub in_vain: bool,
}

impl Finding {
    /// One of which nothing is known yet.
    fn of(knob: &'static Knob, target: &Target<'_>) -> Self {
        Self {
            knob,
            scope: knob.scope.name(),
            instance: target.instance.clone(),
            path: target.path.clone(),
            current: None,
            desired: None,
            status: Status::Unsupported,
            reason: String::new(),
            text: String::new(),
            want: None,
            in_vain: false,
        }
    }
}

/// Compares everything that the profile wants, and reports what is worth knowing.
#[must_use]
pub fn check(tree: &Tree, host: &Host, options: Options) -> Vec<Finding> {
    knobs::all().flat_map(|knob| check_knob(tree, host, options, knob)).collect()
}

/// All places of one knob; nothing when the profile does not want it and it is not reported either.
#[must_use]
pub fn check_knob(tree: &Tree, host: &Host, options: Options, knob: &'static Knob) -> Vec<Finding> {
    if knob.desire(options.profile).is_none() && !knob.wants.is_empty() {
        return Vec::new();
    }
    if host.is_sys_foreign && knob.is_of_nics() {
        return vec![foreign(knob)];
    }
    let targets = knob.targets(tree, host);
    targets.into_iter().map(|target| compare(tree, host, options, knob, &target)).collect()
}

/// What is said of network devices while `/sys` shows those of another namespace.
fn foreign(knob: &'static Knob) -> Finding {
    let target = Target { path: knob.path(), instance: String::new(), of: Of::Host };
    let mut finding = Finding::of(knob, &target);
    finding.reason = "/sys shows the devices of another network namespace: mount a sysfs of this one, as ip netns exec does"
        .to_owned();
    finding
}

/// One place of a knob.
#[must_use]
pub fn compare(
    tree: &Tree,
    host: &Host,
    options: Options,
    knob: &'static Knob,
    target: &Target<'_>,
) -> Finding {
    let mut finding = Finding::of(knob, target);
    match knob.read(tree, host, target) {
        Ok(text) => {
            finding.current = Some(knob.format.value(&text));
            finding.text = text;
        }
        Err(Unread::Missing) => {
            let context = Context { tree, host, of: target.of };
            let wish = knob.desire(options.profile).map(|desire| desire.wish(&context));
            finding.reason = match wish {
                Some(Wish::NotHere(reason)) => reason,
                _ => missing(knob, target),
            };
            return finding;
        }
        Err(Unread::Denied) => {
            finding.status = Status::ReadOnly;
            finding.reason = format!("{} is not for this user: run as root", target.path);
            return finding;
        }
    }
    let context = Context { tree, host, of: target.of };
    match knob.desire(options.profile).map(|desire| desire.wish(&context)) {
        Some(Wish::Want(want)) => {
            finding.desired = Some(want.shown());
            let holds = want.holds(knob.format, &finding.text);
            finding.want = Some(want);
            if holds {
                finding.status = Status::Ok;
            } else {
                differs(&mut finding, &context, options);
            }
        }
        Some(Wish::NotHere(reason)) => finding.reason = reason,
        None => {
            finding.status = Status::Note;
            finding.reason = told(knob);
        }
    }
    finding
}

/// Why a knob is only reported.
fn told(knob: &Knob) -> String {
    match knob.how {
        How::Tell(reason) => reason.to_owned(),
        How::Security => {
            "would make the host less safe: never applied, see `tune explain`".to_owned()
        }
        _ => String::new(),
    }
}

fn missing(knob: &Knob, target: &Target<'_>) -> String {
    match knob.place {
        Place::Napi(_) => "the kernel does not have it".to_owned(),
        Place::Ethtool(_) => "the device or the kernel does not have it".to_owned(),
        Place::Derived(path, _) => format!("cannot be seen from here: {path}"),
        _ => format!("no {}", target.path),
    }
}

/// What can be done about a value that is not as it should be.
fn differs(finding: &mut Finding, context: &Context<'_>, options: Options) {
    let knob = finding.knob;
    let is_outside =
        is_of_all(knob) && !options.host_too && matches!(knob.how, How::Write | How::Boot);
    if let Some(container) = context.host.container.as_ref().filter(|_| is_outside) {
        finding.status = Status::ReadOnly;
        finding.reason = format!(
            "of the host, not of this container ({container}): run tune there, or give --host-too"
        );
        return;
    }
    match knob.how {
        How::Tell(_) | How::Security => {
            finding.status = Status::Note;
            finding.reason = told(knob);
        }
        How::Start => {
            finding.status = Status::Note;
            finding.reason =
                "set by whoever starts the process: tune export --format systemd".to_owned();
        }
        How::Boot => {
            finding.status = Status::NeedsReboot;
            finding.reason =
                "on the kernel's command line: tune export --format cmdline".to_owned();
        }
        How::Write => {
            finding.status = Status::Drift;
            if let Some(reason) = knob.in_vain.and_then(|in_vain| in_vain(context)) {
                finding.reason = reason;
                finding.in_vain = true;
            }
            match context.tree.writable(&finding.path) {
                Ok(()) => {}
                Err(Refused::ReadOnly(reason)) => {
                    finding.status = Status::ReadOnly;
                    finding.reason = reason;
                }
                Err(Refused::Failed(reason)) => {
                    finding.reason = reason;
                    finding.in_vain = true;
                }
            }
        }
    }
}

/// Whether a change would concern the neighbours of a container. Its network devices are its own.
const fn is_of_all(knob: &Knob) -> bool {
    match knob.scope {
        Scope::Host | Scope::Boot => true,
        Scope::Netns | Scope::Process | Scope::Cgroup => false,
        // Interrupts are the machine's.
        Scope::Device => matches!(knob.place, Place::NicIrq) || !knob.is_of_nics(),
    }
}

/// The exit code of a check: 0 as wanted, 2 something differs, 4 nothing can be done from here.
#[must_use]
pub fn verdict(findings: &[Finding]) -> u8 {
    let has = |status: Status| {
        findings.iter().any(|one| one.knob.how == How::Write && one.status == status)
    };
    match () {
        () if has(Status::Drift) => 2,
        () if has(Status::ReadOnly) || !has(Status::Ok) => 4,
        () => 0,
    }
}
