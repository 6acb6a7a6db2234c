//! Names for the kernel's numbers: reasons of drops, opcodes, functions and control groups.
//!
//! Numbers of reasons differ between kernels, so that they are looked up in the types that this one describes itself by.
//! Invariants: a number without a name is shown as a number; what is kept of names is bounded.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::{Enum, Typedef};

use super::drop::Site;
use super::flow::Owner;
use crate::error::{During as _, Result};

/// Functions and groups whose names are kept.
const KEPT_MAX: usize = 4096;
/// Directories of control groups that are looked at.
const CGROUPS_MAX: usize = 16_384;
/// Where version 2 is mounted: beside version 1, or alone. The first that is there.
const CGROUP_ROOTS: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

/// Names by number.
#[derive(Clone, Debug, Default)]
pub struct Numbered(BTreeMap<u32, String>);

impl Numbered {
    fn read(btf: &Btf<'_>, name: &str, prefix: &str) -> Self {
        let Some(found) = btf.type_by_name::<Enum<'_>>(name) else { return Self::default() };
        let members = found.iter().filter_map(|member| {
            let number = u32::try_from(member.value).ok()?;
            let name = member.name?.to_str()?;
            Some((number, name.strip_prefix(prefix).unwrap_or(name).to_lowercase()))
        });
        Self(members.collect())
    }

    /// The name of a number, or the number itself.
    #[must_use]
    pub fn of(&self, number: u32) -> String {
        self.0.get(&number).cloned().unwrap_or_else(|| number.to_string())
    }
}

impl FromIterator<(u32, String)> for Numbered {
    fn from_iter<I: IntoIterator<Item = (u32, String)>>(names: I) -> Self {
        Self(names.into_iter().collect())
    }
}

/// All names.
#[derive(Debug, Default)]
pub struct Names {
    /// Why packets are dropped: `no_socket`.
    pub drops: Numbered,
    /// Why resets are sent.
    pub resets: Numbered,
    /// Operations of io_uring: `send_zc`.
    pub opcodes: Numbered,
    tracepoints: BTreeSet<String>,
    functions: BTreeMap<u64, String>,
    cgroups: BTreeMap<u64, String>,
}

impl Names {
    /// From the kernel's description of its types.
    ///
    /// # Errors
    /// It has none.
    pub fn read() -> Result<Self> {
        let btf = Btf::from_vmlinux()
            .during(|| "read the kernel's types (CONFIG_DEBUG_INFO_BTF)".to_owned())?;
        let groups = super::Group::ALL.iter().flat_map(|group| group.programs());
        let tracepoints = groups
            .filter(|name| btf.type_by_name::<Typedef<'_>>(&format!("btf_trace_{name}")).is_some())
            .map(|name| (*name).to_owned());
        Ok(Self {
            drops: Numbered::read(&btf, "skb_drop_reason", "SKB_DROP_REASON_"),
            resets: Numbered::read(&btf, "sk_rst_reason", "SK_RST_REASON_"),
            opcodes: Numbered::read(&btf, "io_uring_op", "IORING_OP_"),
            tracepoints: tracepoints.collect(),
            ..Self::default()
        })
    }

    /// Whether this kernel has a tracepoint.
    #[must_use]
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.tracepoints.contains(name)
    }

    /// Gives places in the kernel's code the names of their functions.
    pub fn resolve_sites(&mut self, sites: &mut [Site]) {
        let unknown: BTreeSet<u64> = sites
            .iter()
            .map(|site| site.address)
            .filter(|address| !self.functions.contains_key(address))
            .collect();
        if !unknown.is_empty() {
            if self.functions.len() > KEPT_MAX {
                self.functions.clear();
            }
            let symbols = File::open("/proc/kallsyms").map(BufReader::new);
            let lines =
                symbols.into_iter().flat_map(|file| file.lines().map_while(|line| line.ok()));
            self.functions.extend(functions(lines, unknown));
        }
        for site in sites {
            site.function = self.functions.get(&site.address).cloned().unwrap_or_default();
        }
    }

    /// Gives control groups the paths of their directories.
    pub fn resolve_cgroups(&mut self, owners: &mut [Owner]) {
        let is_unknown = |owner: &Owner| !self.cgroups.contains_key(&owner.id);
        if owners.iter().any(is_unknown) {
            let root = CGROUP_ROOTS.iter().map(Path::new).find(|root| root.is_dir());
            self.cgroups = root.map(directories).unwrap_or_default();
            // Those that are gone are not looked for each time.
            for owner in owners.iter().take(KEPT_MAX) {
                self.cgroups.entry(owner.id).or_insert_with(|| owner.id.to_string());
            }
        }
        for owner in owners {
            owner.name = self.cgroups.get(&owner.id).cloned().unwrap_or_default();
        }
    }
}

/// The function that each address is in, of lines as in `/proc/kallsyms`.
fn functions(
    lines: impl Iterator<Item = String>,
    addresses: BTreeSet<u64>,
) -> impl Iterator<Item = (u64, String)> {
    let mut found: Vec<(u64, u64, String)> =
        addresses.into_iter().map(|address| (address, 0, String::new())).collect();
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        let (Some(at), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Ok(at) = u64::from_str_radix(at, 16) else { continue };
        if !matches!(kind, "t" | "T" | "w" | "W") {
            continue;
        }
        // The first address that is not before it: those behind that one take it from there.
        let index = found.partition_point(|(address, ..)| *address < at);
        if let Some((_, best, best_name)) = found.get_mut(index).filter(|(_, best, _)| *best < at) {
            *best = at;
            name.clone_into(best_name);
        }
    }
    let mut last = (0, String::new());
    for (_, best, name) in &mut found {
        if *best < last.0 {
            (*best, *name) = last.clone();
        }
        last = (*best, name.clone());
    }
    found
        .into_iter()
        .filter(|(.., name)| !name.is_empty())
        .map(|(address, _, name)| (address, name))
}

/// Paths below a directory by the number of their directory, which is that of the control group.
fn directories(root: &Path) -> BTreeMap<u64, String> {
    let mut found = BTreeMap::new();
    let mut left: Vec<PathBuf> = vec![root.to_owned()];
    while let Some(path) = left.pop() {
        if found.len() >= CGROUPS_MAX {
            break;
        }
        let Ok(about) = fs::symlink_metadata(&path) else { continue };
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        found.insert(about.ino(), format!("/{name}"));
        let below = fs::read_dir(&path).into_iter().flatten().flatten();
        left.extend(
            below
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path())
                .take(CGROUPS_MAX.saturating_sub(left.len())),
        );
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Numbered, functions};

    #[test]
    fn an_address_is_in_the_function_before_it() {
        let symbols =
            "1000 T first\n1100 D data\n1200 t second\nzzzz T bad\n3000 T third [module]\n";
        let addresses: BTreeSet<u64> = [0xfff, 0x1000, 0x1150, 0x1200, 0x2fff, 0x9999].into();
        let found: Vec<_> = functions(symbols.lines().map(str::to_owned), addresses).collect();
        let expected = [
            (0x1000, "first"),
            (0x1150, "first"),
            (0x1200, "second"),
            (0x2fff, "second"),
            (0x9999, "third"),
        ];
        assert_eq!(found, expected.map(|(address, name)| (address, name.to_owned())));
    }

    #[test]
    fn a_number_without_a_name_is_shown() {
        let names: Numbered = [(3, "no_socket".to_owned())].into_iter().collect();
        assert_eq!((names.of(3), names.of(77)), ("no_socket".to_owned(), "77".to_owned()));
    }
}
