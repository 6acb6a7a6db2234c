//! The kinds of faults there are: one row each, which the command line, scenarios, experiments and documentation read.
//!
//! A row says what the fault does, what it takes and how it is started. Next: `faults`, whose modules hold the rows.

use serde_json::Value;

use crate::abi::Counts;
use crate::error::{Error, Result};
use crate::registry::Journal;
use crate::spec::Spec;

/// A century, in nanoseconds.
const SHIFT_NS_MAX: i64 = 100 * 365 * 86_400 * 1_000_000_000;

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// `20ms`.
    Duration,
    /// `1h`, `-1h`.
    Shift,
    /// A whole number.
    Integer,
    /// A number of percent, or another with a fraction.
    Number,
    /// A word, of these when there are any.
    Word(&'static [&'static str]),
}

/// A parameter of a kind of fault.
#[derive(Clone, Copy, Debug)]
pub struct Param {
    /// Option of the command line, and key in files.
    pub name: &'static str,
    /// What it is.
    pub ty: Type,
    /// When it is not given; `None` if it has to be.
    pub default: Option<&'static str>,
    /// One line.
    pub about: &'static str,
}

/// Where a kind of fault acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On packets of a device.
    Device,
    /// On calls and packets of a control group.
    Cgroup,
    /// On processes: a pid, or a name.
    Process,
    /// On files below a directory.
    Path,
    /// On connections of the network namespace that the command is in.
    Netns,
    /// On the host.
    Host,
}

/// A fault that is in force. Dropping it undoes it.
pub trait Active {
    /// What it has met and done.
    ///
    /// # Errors
    /// The kernel does not say.
    fn counts(&self) -> Result<Counts>;

    /// Ends its effect at once, and leaves the counts to be read.
    ///
    /// # Errors
    /// The kernel refuses.
    fn disarm(&mut self) -> Result<()>;

    /// Makes what the kernel would drop with this process outlive it, below `dir`, a directory of a BPF file system, which is made.
    ///
    /// # Errors
    /// It cannot outlive the process.
    fn pin(&mut self, dir: &std::path::Path) -> Result<()> {
        let _ = dir;
        Err(Error::unsupported("detach this fault: it lives in its process, and ends with it"))
    }

    /// Numbers of the kernel's maps that hold [`Counts`], for who asks from outside.
    fn counters(&self) -> Vec<u32> {
        Vec::new()
    }

    /// Whether there is nothing more to do, before the time is over.
    fn is_done(&self) -> bool {
        false
    }
}

/// Starts a fault. What does not go with the process is noted in the journal before it is done.
pub type Start = fn(&Spec, &mut Journal) -> Result<Box<dyn Active>>;

/// A kind of fault.
pub struct Kind {
    /// `family.what`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Where it acts.
    pub place: Place,
    /// Whether packets, or calls, are chosen by a share.
    pub shares: bool,
    /// What it takes beside a target and a share.
    pub params: &'static [Param],
    /// Starts it.
    pub start: Start,
}

/// All kinds, in the order in which they are listed.
pub fn all() -> impl Iterator<Item = &'static Kind> {
    crate::faults::TABLES.iter().flat_map(|table| table.iter())
}

/// The kind of that name.
///
/// # Errors
/// There is none.
pub fn find(name: &str) -> Result<&'static Kind> {
    all().find(|kind| kind.name == name).ok_or_else(|| {
        Error::usage(format!("fault {name:?}: there is none; `chaos list` names them"))
    })
}

/// Checks a fault and starts it.
///
/// # Errors
/// It makes no sense, is too wide, or the kernel refuses.
pub fn start(spec: &Spec, journal: &mut Journal) -> Result<Box<dyn Active>> {
    let kind = find(&spec.fault)?;
    spec.check()?;
    kind.check(spec)?;
    (kind.start)(spec, journal).map_err(|error| error.during(kind.name))
}

impl Kind {
    /// Checks that a fault of this kind makes sense.
    ///
    /// # Errors
    /// It does not, or is too wide.
    pub fn check(&self, spec: &Spec) -> Result<()> {
        if let Some(name) =
            spec.params.keys().find(|name| self.params.iter().all(|param| param.name != **name))
        {
            return Err(Error::usage(format!(
                "{}: it has no parameter {name:?}; `chaos describe {}` names them",
                self.name, self.name
            )));
        }
        let target = &spec.target;
        let has_place = match self.place {
            Place::Device => target.dev.is_some(),
            Place::Cgroup => target.cgroup.is_some(),
            Place::Process => target.pid.is_some() || target.comm.is_some(),
            Place::Path => target.path.is_some(),
            Place::Netns | Place::Host => true,
        };
        if !has_place {
            let wanted = match self.place {
                Place::Device => "a device (--dev)",
                Place::Cgroup => "a control group (--cgroup)",
                Place::Process => "a process (--pid or --comm)",
                Place::Path => "a directory (--path)",
                Place::Netns | Place::Host => "nothing",
            };
            return Err(Error::usage(format!("{}: {wanted} is wanted to act on", self.name)));
        }
        if self.place == Place::Device && !target.is_narrow() && !spec.force {
            return Err(Error::usage(format!(
                "{}: all packets of {} is too wide; name a network, a port or a payload, or insist with --force",
                self.name,
                target.dev.as_deref().unwrap_or_default()
            )));
        }
        if self.place == Place::Netns && !target.is_narrow() && !spec.force {
            return Err(Error::usage(format!(
                "{}: all connections are too many; name a network or a port, or insist with --force",
                self.name
            )));
        }
        Ok(())
    }

    fn param(&self, spec: &Spec, name: &str) -> Result<String> {
        let param = self.params.iter().find(|param| param.name == name);
        let param = param
            .ok_or_else(|| Error::failed(format!("{}: no row for parameter {name}", self.name)))?;
        let given = spec
            .params
            .get(name)
            .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        given.or_else(|| param.default.map(str::to_owned)).ok_or_else(|| {
            Error::usage(format!("{}: {name} is wanted: {}", self.name, param.about))
        })
    }
}

/// Parameters of a spec, by the rows of its kind.
impl Spec {
    fn text(&self, name: &str) -> Result<String> {
        find(&self.fault)?.param(self, name)
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str, wanted: &str) -> Result<T> {
        let text = self.text(name)?;
        text.parse().map_err(|_| {
            Error::usage(format!("{}: {name} of {text:?}: {wanted} is wanted", self.fault))
        })
    }

    /// A duration.
    ///
    /// # Errors
    /// It is missing, or none.
    pub fn duration(&self, name: &str) -> Result<std::time::Duration> {
        Ok(self.parsed::<humantime::Duration>(name, "a duration such as 20ms")?.into())
    }

    /// A duration with a sign, in nanoseconds.
    ///
    /// # Errors
    /// It is missing, none, or centuries long.
    pub fn shift_ns(&self, name: &str) -> Result<i64> {
        let text = self.text(name)?;
        let (is_back, rest) = match text.strip_prefix(['-', '+']) {
            Some(rest) => (text.starts_with('-'), rest),
            None => (false, text.as_str()),
        };
        let duration = humantime::parse_duration(rest.trim()).ok();
        let ns = duration.and_then(|duration| i64::try_from(duration.as_nanos()).ok());
        let ns = ns.filter(|ns| *ns <= SHIFT_NS_MAX).ok_or_else(|| {
            Error::usage(format!(
                "{}: {name} of {text:?}: a duration such as 1h or -1h is wanted, a century at most",
                self.fault
            ))
        })?;
        Ok(if is_back { -ns } else { ns })
    }

    /// A whole number.
    ///
    /// # Errors
    /// It is missing, or none.
    pub fn integer(&self, name: &str) -> Result<u64> {
        self.parsed(name, "a whole number")
    }

    /// A number.
    ///
    /// # Errors
    /// It is missing, or none.
    pub fn number(&self, name: &str) -> Result<f64> {
        self.parsed(name, "a number")
    }

    /// One of the words of its row.
    ///
    /// # Errors
    /// It is missing, or another.
    pub fn word(&self, name: &str) -> Result<String> {
        let text = self.text(name)?;
        let kind = find(&self.fault)?;
        let row = kind.params.iter().find(|param| param.name == name).map(|param| param.ty);
        match row {
            Some(Type::Word(words)) if !words.is_empty() && !words.contains(&text.as_str()) => {
                Err(Error::usage(format!(
                    "{}: {name} of {text:?}: one of {} is wanted",
                    self.fault,
                    words.join(", ")
                )))
            }
            _ => Ok(text),
        }
    }

    /// With a parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.params.insert(name.to_owned(), value.into());
        self
    }
}
