//! Sessions of known truth: what a gate must catch, pass, and refuse.

use std::collections::BTreeMap;

use super::*;
use crate::fingerprint::{Fingerprint, Identity};
use crate::rng::Rng;

const ROUNDS: usize = 20;

/// What is wrong with a session.
#[derive(Clone, Copy, Debug)]
struct Truth {
    /// CPU time and latencies of ours, as a factor.
    slower: f64,
    /// How far the whole machine is off in this session, as a deviation.
    session: f64,
    /// Noise of a trial, as a deviation.
    noise: f64,
    /// A server of others takes part.
    control: bool,
    rounds: usize,
}

const USUAL: Truth =
    Truth { slower: 1.0, session: 0.05, noise: 0.01, control: true, rounds: ROUNDS };

fn side(label: &str, own: bool) -> Side {
    Side { label: label.to_owned(), version: "1".to_owned(), own, ..Side::default() }
}

/// Rounds differ by 3 %; one trial in twenty is disturbed by up to 30 %.
fn session(seed: u64, truth: Truth) -> Session {
    let mut rng = Rng::new(seed.wrapping_mul(0x1234_5677));
    let level = 1.0 + truth.session * rng.normal();
    let first = if truth.control { "redis" } else { "ours" };
    let again = format!("{first} again");
    let mut sides = vec![side(first, !truth.control)];
    if truth.control {
        sides.push(side("ours", true));
    }
    sides.push(side(&again, !truth.control));
    for _ in 0..truth.rounds {
        let round = 1.0 + 0.03 * rng.normal();
        for side in &mut sides {
            let ours = side.label.starts_with("ours");
            let slower = if ours { truth.slower } else { 1.0 };
            let hit = if rng.unit() < 0.05 { 1.0 + 0.3 * rng.unit() } else { 1.0 };
            let mut time = |usual: f64, noise: f64| {
                usual * level * round * slower * hit * (1.0 + noise * rng.normal())
            };
            let cpu = time(4_000.0, truth.noise);
            let values = [
                ("cpu_ns_per_op", cpu),
                ("rate", 1e9 / time(5_000.0, truth.noise)),
                ("p50_ns", time(50_000.0, truth.noise)),
                ("p99_ns", time(200_000.0, 4.0 * truth.noise)),
            ];
            side.rounds.push(values.map(|(name, value)| (name.to_owned(), value)).into());
        }
    }
    let cell =
        Cell { name: "3 GET".to_owned(), timing: "1000 ms".to_owned(), claimed: Vec::new(), sides };
    Session {
        fingerprint: Some(Fingerprint::default()),
        subject: "requests".to_owned(),
        transport: "ring".to_owned(),
        void: Vec::new(),
        cells: vec![cell],
    }
}

fn exits(base: Truth, new: Truth, budgets: &[&str]) -> BTreeMap<u8, usize> {
    let budgets = budgets.iter().map(|text| text.parse().expect("a budget")).collect();
    let options = Options { budgets, force: false };
    let mut counts = BTreeMap::new();
    for seed in 0..100 {
        let outcome = compare(&session(2 * seed, base), &session(2 * seed + 1, new), &options);
        *counts.entry(outcome.exit.code()).or_default() += 1;
    }
    counts
}

fn of(exits: &BTreeMap<u8, usize>, code: u8) -> usize {
    exits.get(&code).copied().unwrap_or(0)
}

#[test]
fn a_tenth_more_is_caught_and_equal_sessions_pass() {
    for (truth, slower) in [
        (USUAL, 1.10),
        (Truth { session: 0.0, ..USUAL }, 1.10),
        (Truth { noise: 0.02, ..USUAL }, 1.10),
        // Without a control, what moves whole rounds is noise too.
        (Truth { control: false, session: 0.005, ..USUAL }, 1.13),
    ] {
        let worse = exits(truth, Truth { slower, ..truth }, &[]);
        assert!(of(&worse, 3) >= 95, "{truth:?}, {slower} times: {worse:?}");
        let equal = exits(truth, truth, &[]);
        assert!(of(&equal, 0) >= 95, "{truth:?}, equal: {equal:?}");
        let better = exits(truth, Truth { slower: 0.8, ..truth }, &[]);
        assert!(of(&better, 0) >= 95, "{truth:?}, better: {better:?}");
    }
}

#[test]
fn each_figure_alone_is_caught() {
    for budget in ["cpu_ns_per_op=5", "rate=5", "p50_ns=5", "p99_ns=5"] {
        let worse = exits(USUAL, Truth { slower: 1.15, ..USUAL }, &[budget]);
        assert!(of(&worse, 3) >= 95, "{budget}: {worse:?}");
        let equal = exits(USUAL, USUAL, &[budget]);
        assert!(of(&equal, 0) >= 95, "{budget}: {equal:?}");
    }
}

#[test]
fn a_change_of_the_size_of_the_budget_is_no_regression_and_one_well_beyond_is() {
    let at = exits(USUAL, Truth { slower: 1.05, ..USUAL }, &["cpu_ns_per_op=5"]);
    assert!(of(&at, 3) <= 5, "{at:?}");
    let beyond = exits(USUAL, Truth { slower: 1.08, ..USUAL }, &["cpu_ns_per_op=5"]);
    assert!(of(&beyond, 3) >= 95, "{beyond:?}");
    // What a rate may lose is a share of it: a tenth less is 1/0.9 of the time.
    let within = exits(USUAL, Truth { slower: 1.08, ..USUAL }, &["rate=10"]);
    assert!(of(&within, 0) >= 95, "{within:?}");
    let beyond = exits(USUAL, Truth { slower: 1.16, ..USUAL }, &["rate=10"]);
    assert!(of(&beyond, 3) >= 95, "{beyond:?}");
}

#[test]
fn a_machine_that_is_slower_as_a_whole_is_no_regression_where_there_is_a_control() {
    let base = session(1, Truth { session: 0.0, ..USUAL });
    let mut new = session(2, Truth { session: 0.0, ..USUAL });
    let slow = |session: &mut Session| {
        let rounds = session.cells[0].sides.iter_mut().flat_map(|side| &mut side.rounds);
        for value in rounds.filter_map(|round| round.get_mut("cpu_ns_per_op")) {
            *value *= 1.3;
        }
    };
    slow(&mut new);
    assert_eq!(compare(&base, &new, &Options::default()).exit, Exit::Ok);
    let alone = Truth { session: 0.0, control: false, ..USUAL };
    let (base, mut new) = (session(1, alone), session(2, alone));
    slow(&mut new);
    let outcome = compare(&base, &new, &Options::default());
    assert_eq!(outcome.exit, Exit::Regression);
    assert!(outcome.text().contains("a machine that was slower"), "{}", outcome.text());
}

#[test]
fn a_control_of_another_version_is_judged_instead() {
    let (base, mut new) = (session(1, USUAL), session(2, USUAL));
    for side in &mut new.cells[0].sides {
        side.version = "2".to_owned();
    }
    let outcome = compare(&base, &new, &Options::default());
    assert!(outcome.rows.iter().any(|row| row.side == "redis"), "{}", outcome.text());
    assert!(outcome.rows.iter().all(|row| row.control.is_none()), "{}", outcome.text());
}

#[test]
fn within_what_equal_servers_are_apart_nothing_is_said() {
    let mut base = session(1, USUAL);
    let new = session(3, Truth { slower: 1.15, ..USUAL });
    assert_eq!(compare(&base, &new, &Options::default()).exit, Exit::Regression);
    // One file alone, in which equal servers were apart by more.
    for round in &mut base.cells[0].sides[2].rounds {
        for value in round.values_mut() {
            *value *= 1.3;
        }
    }
    let outcome = compare(&base, &new, &Options::default());
    assert_eq!(outcome.exit, Exit::Noisy, "{}", outcome.text());
    assert!(outcome.text().contains("equal servers were 1.3"), "{}", outcome.text());
    base.cells[0].sides.remove(2);
    let mut without = new;
    without.cells[0].sides.remove(2);
    let outcome = compare(&base, &without, &Options::default());
    assert_eq!(outcome.exit, Exit::Noisy);
    assert!(outcome.text().contains("no A/A says"), "{}", outcome.text());
}

#[test]
fn a_void_session_and_too_few_rounds_decide_nothing() {
    let (base, mut new) = (session(1, USUAL), session(3, Truth { slower: 2.0, ..USUAL }));
    new.void.push("3 GET".to_owned());
    let outcome = compare(&base, &new, &Options::default());
    assert_eq!(outcome.exit, Exit::Noisy);
    assert!(outcome.text().contains("VOID: equal servers came out apart in NEW: 3 GET"));
    let rounds = |rounds| {
        let slow = Truth { slower: 2.0, rounds, ..USUAL };
        compare(&session(1, Truth { rounds, ..USUAL }), &session(3, slow), &Options::default()).exit
    };
    assert_eq!(rounds(crate::stats::SOLID_PAIRS - 1), Exit::Noisy);
    assert_eq!(rounds(crate::stats::SOLID_PAIRS + 1), Exit::Regression);
}

#[test]
fn what_the_load_limited_is_not_taken_for_the_servers() {
    let (mut base, mut new) = (session(1, USUAL), session(3, USUAL));
    for session in [&mut base, &mut new] {
        session.cells[0].sides[1].client_bound = true;
    }
    let asked = |budgets: &[&str]| {
        let budgets = budgets.iter().map(|text| text.parse().expect("a budget")).collect();
        compare(&base, &new, &Options { budgets, force: false })
    };
    assert_eq!(asked(&["rate=5"]).exit, Exit::ClientBound);
    assert_eq!(asked(&["cpu_ns_per_op=5"]).exit, Exit::Ok);
    let usual = asked(&[]);
    assert_eq!(usual.exit, Exit::Ok);
    assert!(usual.text().contains("not judged: the load was the limit"), "{}", usual.text());
}

#[test]
fn a_bound_of_the_load_on_one_side_still_says_something() {
    let budgets = vec!["rate=5".parse().expect("one")];
    let options = Options { budgets, force: false };
    for (slower, base_bound, exit) in [
        (1.0, false, Exit::Ok),
        (1.3, false, Exit::ClientBound),
        (1.0, true, Exit::ClientBound),
        (1.3, true, Exit::Regression),
    ] {
        let (mut base, mut new) = (session(1, USUAL), session(3, Truth { slower, ..USUAL }));
        base.cells[0].sides[1].client_bound = base_bound;
        new.cells[0].sides[1].client_bound = !base_bound;
        let outcome = compare(&base, &new, &options);
        assert_eq!(outcome.exit, exit, "{slower} {base_bound}: {}", outcome.text());
    }
    // A control that the load limited is none for a rate, and still one for CPU time.
    let (mut base, new) = (session(1, USUAL), session(3, USUAL));
    base.cells[0].sides[0].client_bound = true;
    let controls = |figure: &str| {
        let outcome = compare(&base, &new, &Options::default());
        let row = outcome.rows.into_iter().find(|row| row.figure == figure).expect("a row");
        row.control
    };
    assert_eq!((controls("rate"), controls("cpu_ns_per_op")), (None, Some("redis".to_owned())));
}

#[test]
fn other_machines_give_no_ratio_unless_forced() {
    let (base, mut new) = (session(1, USUAL), session(3, USUAL));
    new.fingerprint = Some(Fingerprint {
        identity: Identity {
            kernel: "7.0".to_owned(),
            governor: "powersave".to_owned(),
            ..Identity::default()
        },
        ..Fingerprint::default()
    });
    let outcome = compare(&base, &new, &Options::default());
    assert_eq!((outcome.exit, outcome.rows.len()), (Exit::NotComparable, 0));
    let text = outcome.text();
    assert!(
        text.contains("differ in kernel: nothing / 7.0") && text.contains("governor"),
        "{text}"
    );
    let forced = compare(&base, &new, &Options { force: true, ..Options::default() });
    assert_eq!(forced.exit, Exit::Ok);
    assert!(!forced.rows.is_empty() && forced.text().contains("differ in kernel"));
    new.fingerprint = None;
    let outcome = compare(&base, &new, &Options::default());
    assert!(outcome.text().contains("NEW has no fingerprint"), "{}", outcome.text());
    // What was measured may differ: that is what is looked at.
    let mut other = Fingerprint::default();
    other.software.git = "f00".to_owned();
    new.fingerprint = Some(other);
    let outcome = compare(&base, &new, &Options::default());
    assert_eq!(outcome.exit, Exit::Ok);
    assert!(outcome.text().contains("measured: git: nothing / f00"), "{}", outcome.text());
}

#[test]
fn other_scenarios_are_not_compared() {
    let base = session(1, USUAL);
    let changed = |change: &dyn Fn(&mut Session)| {
        let mut new = session(3, USUAL);
        change(&mut new);
        compare(&base, &new, &Options::default())
    };
    assert_eq!(changed(&|_| ()).exit, Exit::Ok);
    for (change, said) in [
        (
            (&|new: &mut Session| new.cells[0].name = "4 SET".to_owned()) as &dyn Fn(&mut Session),
            "no cell in common",
        ),
        (&|new| new.cells[0].timing = "9 ms".to_owned(), "differ in length"),
        (&|new| new.transport = "plain".to_owned(), "differ in transport"),
        (&|new| new.subject = "storage".to_owned(), "differ in subject"),
        (&|new| drop(new.cells[0].sides.remove(1)), "ours is not in NEW"),
    ] {
        let outcome = changed(change);
        assert_eq!(outcome.exit, Exit::NotComparable, "{said}");
        assert!(outcome.text().contains(said), "{said}: {}", outcome.text());
    }
    let unknown = Options { budgets: vec!["speed=5".parse().expect("one")], force: false };
    let outcome = compare(&base, &session(3, USUAL), &unknown);
    assert_eq!(outcome.exit, Exit::NotComparable);
    assert!(outcome.text().contains("a figure called speed"));
    // More cells in NEW are no obstacle.
    let more = changed(&|new| {
        let mut cell = new.cells[0].clone();
        cell.name = "new".to_owned();
        new.cells.push(cell);
    });
    assert_eq!(more.exit, Exit::Ok);
}

#[test]
fn a_server_that_no_longer_runs_is_a_regression_and_one_that_is_missing_is_none() {
    let base = session(1, USUAL);
    for (why, exit) in
        [("exit status 1", Exit::Regression), ("not present: not installed", Exit::Noisy)]
    {
        let mut new = session(3, USUAL);
        new.cells[0].sides[1].failed = Some(why.to_owned());
        new.cells[0].sides[1].rounds.clear();
        let outcome = compare(&base, &new, &Options::default());
        assert_eq!(outcome.exit, exit, "{why}: {}", outcome.text());
    }
}

#[test]
fn budgets_are_read_or_refused_in_words() {
    let budget: Budget = "p99_ns=12.5%".parse().expect("one");
    assert_eq!((budget.figure.as_str(), budget.percent, budget.asked), ("p99_ns", 12.5, true));
    for text in ["p99_ns", "=5", "rate=-1", "rate=x", "rate=10001"] {
        let error = text.parse::<Budget>().expect_err(text).to_string();
        assert!(error.contains("FIGURE=PERCENT"), "{error}");
    }
}

#[test]
fn reports_without_rounds_are_refused_by_name() {
    for schema in ["bench-runtimes/1", "bench-summary/1", "bench-files/1"] {
        let error =
            Session::parse(&format!("{{\"schema\": \"{schema}\"}}")).expect_err(schema).to_string();
        assert!(error.contains(schema), "{error}");
    }
    assert!(Session::parse("{}").is_err() && Session::parse("no").is_err());
}
