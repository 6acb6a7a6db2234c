//! What `check`, `apply` and `revert` found, for people.
//!
//! Places of one knob that are alike share a row. Next: `table`.

use crate::apply::Change;
use crate::check::{Finding, Options, Status};
use crate::host::Host;
use crate::revert::Step;
use crate::table::table;

/// So many differing values are named in one row.
const NAMED: usize = 3;

/// A row in the making: what is alike, and what of each place.
struct Group {
    alike: Vec<String>,
    instances: Vec<String>,
    wanted: Vec<String>,
}

/// Puts those together that are alike and follow each other.
fn group(rows: impl Iterator<Item = (Vec<String>, String, String)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (alike, instance, wanted) in rows {
        match groups.iter_mut().find(|group| group.alike == alike) {
            Some(group) => {
                group.instances.push(instance);
                group.wanted.push(wanted);
            }
            None => groups.push(Group { alike, instances: vec![instance], wanted: vec![wanted] }),
        }
    }
    groups
}

impl Group {
    fn place(&self) -> String {
        match self.instances.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first, .., last] => {
                let device = |name: &str| name.split_once(' ').map(|(device, _)| device.to_owned());
                let is_same = device(first).is_some() && device(first) == device(last);
                let last =
                    last.split_once(' ').filter(|_| is_same).map_or(&**last, |(_, last)| last);
                format!("{first} … {last} ({})", self.instances.len())
            }
        }
    }

    fn values(&self) -> String {
        let mut values: Vec<&str> = self.wanted.iter().map(String::as_str).collect();
        values.dedup();
        let more = if values.len() > NAMED { ", …" } else { "" };
        format!("{}{more}", values[..values.len().min(NAMED)].join(", "))
    }

    fn row(&self, order: &[Cell]) -> Vec<String> {
        let cell = |cell: &Cell| match cell {
            Cell::Alike(at) => self.alike.get(*at).cloned().unwrap_or_default(),
            Cell::Place => self.place(),
            Cell::Values => self.values(),
        };
        order.iter().map(cell).collect()
    }
}

/// What stands in a column.
enum Cell {
    Alike(usize),
    Place,
    Values,
}

const COLUMNS: &[Cell] =
    &[Cell::Alike(0), Cell::Alike(1), Cell::Place, Cell::Alike(2), Cell::Values, Cell::Alike(3)];

/// The result of `check`.
#[must_use]
pub fn check(host: &Host, options: Options, findings: &[Finding]) -> String {
    let rows = findings.iter().map(|one| {
        let current = one.current.clone().unwrap_or_else(|| "-".to_owned());
        let wanted = one.desired.clone().unwrap_or_else(|| "-".to_owned());
        let name = one.knob.name.to_owned();
        let reason = if one.status == Status::Ok { String::new() } else { one.reason.clone() };
        (vec![one.status.name().to_owned(), name, current, reason], one.instance.clone(), wanted)
    });
    let rows: Vec<Vec<String>> = group(rows).iter().map(|group| group.row(COLUMNS)).collect();
    let mut text = format!("{}; profile {}\n\n", host.line(), options.profile);
    text.push_str(&table(&["STATUS", "KNOB", "WHERE", "CURRENT", "WANTED", "REASON"], &rows));
    let all = [
        Status::Ok,
        Status::Drift,
        Status::ReadOnly,
        Status::NeedsReboot,
        Status::Unsupported,
        Status::Note,
    ];
    let count = |status: Status| findings.iter().filter(|one| one.status == status).count();
    let counts = all.map(|status| (count(status), status.name()));
    text.push_str(&format!("\n{}\n", counted(&counts)));
    text
}

/// `12 ok, 3 drift`, without those of which there are none.
fn counted(counts: &[(usize, &str)]) -> String {
    let some = counts.iter().filter(|(count, _)| *count > 0);
    let some: Vec<String> = some.map(|(count, name)| format!("{count} {name}")).collect();
    if some.is_empty() { "nothing".to_owned() } else { some.join(", ") }
}

/// The result of `apply`, with or without `--dry-run`.
#[must_use]
pub fn apply(host: &Host, options: Options, changes: &[Change]) -> String {
    use crate::apply::Done;
    let shown = changes.iter().filter(|change| change.done != Done::Unchanged);
    let rows = shown.map(|one| {
        let alike = [one.done.name(), &one.knob, &one.before, &one.reason].map(str::to_owned);
        (alike.to_vec(), one.instance.clone(), one.after.clone())
    });
    let rows: Vec<Vec<String>> = group(rows).iter().map(|group| group.row(COLUMNS)).collect();
    let mut text = format!("{}; profile {}\n\n", host.line(), options.profile);
    if !rows.is_empty() {
        text.push_str(&table(&["RESULT", "KNOB", "WHERE", "BEFORE", "AFTER", "REASON"], &rows));
        text.push('\n');
    }
    let all = [Done::Written, Done::WouldWrite, Done::NotApplied, Done::Unchanged];
    let count = |done: Done| changes.iter().filter(|one| one.done == done).count();
    text.push_str(&format!("{}\n", counted(&all.map(|done| (count(done), done.name())))));
    text
}

/// The result of `revert`.
#[must_use]
pub fn revert(steps: &[Step]) -> String {
    use crate::revert::Done;
    if steps.is_empty() {
        return "nothing to revert: the journal is empty\n".to_owned();
    }
    let rows = steps.iter().map(|one| {
        let current = one.current.as_deref().unwrap_or("-");
        let alike = [one.done.name(), &one.knob, current, &one.reason].map(str::to_owned);
        (alike.to_vec(), one.path.clone(), one.before.clone())
    });
    let rows: Vec<Vec<String>> = group(rows).iter().map(|group| group.row(COLUMNS)).collect();
    let mut text = table(&["RESULT", "KNOB", "FILE", "CURRENT", "BEFORE", "REASON"], &rows);
    let all = [
        Done::Restored,
        Done::AsBefore,
        Done::Gone,
        Done::Conflict,
        Done::Elsewhere,
        Done::Deserted,
        Done::Unknown,
        Done::Failed,
    ];
    let count = |done: Done| steps.iter().filter(|one| one.done == done).count();
    text.push_str(&format!("\n{}\n", counted(&all.map(|done| (count(done), done.name())))));
    text
}
