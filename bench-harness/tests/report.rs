//! Reports of real runs in all their forms: JSON against its schema, CSV, histogram logs read by others' readers, and
//! the page in a browser.
//!
//! The runs compare our sessions on monoio, which need nothing installed. A reader or browser that is not there is
//! said to be skipped.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::process::Command;

use bench_harness::report::json::{self, Saved};
use bench_harness::report::{Report, hdr};
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::Value;
use testing::live::{Clients, skip};

const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/bench-2.json");
const CLIENTS: Clients = Clients {
    scripts: concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients"),
    scratch: env!("CARGO_TARGET_TMPDIR"),
};

/// What a run wrote; gone with it.
struct Run {
    dir: PathBuf,
}

impl Run {
    fn new(name: &str, args: &[&str]) -> Self {
        let dir = format!("report-{name}-{}", std::process::id());
        let run = Self { dir: Path::new(env!("CARGO_TARGET_TMPDIR")).join(dir) };
        let out = run.dir.to_str().expect("a path in UTF-8");
        bench(&[args, &["--out", out]].concat());
        run
    }

    /// Rounds of two closed loops and an open one.
    fn of_the_cache(name: &str, port: &str) -> Self {
        let common = [
            "cache",
            "--row",
            "3,3c",
            "--only",
            "GET 64 B, ",
            "--ours",
            "monoio",
            "--baseline",
            "echo-monoio",
        ];
        let short = ["--pairs", "2", "--seconds", "0.05", "--host-network", "--port", port];
        Self::new(name, &[&common[..], &short[..]].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn report(&self) -> Report {
        match json::read(&self.path("report.json")).expect("a report") {
            Saved::Requests(report) => report,
            Saved::Figures(_) => panic!("another kind of report"),
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn bench(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().expect("bench runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn check_schema(json: &str) -> Result<(), String> {
    let schema = fs::read_to_string(SCHEMA).expect("the schema");
    let schema: Value = serde_json::from_str(&schema).expect("JSON");
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("urn:bench:schema:2", schema).expect("a resource");
    let index = compiler.compile("urn:bench:schema:2", &mut schemas).expect("a JSON Schema");
    let value: Value = serde_json::from_str(json).expect("JSON");
    schemas.validate(&value, index).map_err(|error| format!("{error}"))
}

#[test]
fn a_run_of_the_cache_has_all_its_forms() {
    let run = Run::of_the_cache("forms", "24000");
    let json = run.text("report.json");
    check_schema(&json).expect("as the schema says");
    let again = json::parse(&json).expect("a report").json().expect("JSON");
    assert!(again == json, "read and written, it is equal");
    let report = run.report();
    assert_eq!(report.cells.len(), 5, "three closed loops and two open ones");
    for side in report.cells.iter().flat_map(|cell| &cell.sides) {
        assert_eq!((side.failed.as_deref(), side.samples.len()), (None, 2), "{}", side.label);
        for trial in side.samples.iter().filter_map(|sample| sample.trial.as_ref()) {
            let histogram = hdr::decode(&trial.latency_hdr).expect("a histogram");
            assert_eq!(histogram.value_at_quantile(0.99), trial.latency.p99_ns);
        }
    }
    check_fingerprint(&json, &run.text("report.html"), false);
    assert!(report.cells.iter().all(|cell| cell.noise.dropped_trials == 3 * cell.repeated));
    check_csv(&run.text("samples.csv"), &report);
    check_log(&run, &report);
    // What is made of the file is what the run itself wrote.
    let page = run.path("again.html");
    let (file, page_text) = (run.path("report.json"), page.to_str().expect("UTF-8"));
    let file = file.to_str().expect("UTF-8");
    assert_eq!(bench(&["report", file, "--html", page_text]), "");
    assert!(run.text("again.html") == run.text("report.html"), "the page is made again");
    assert!(bench(&["report", file]).contains("server CPU ns/op"), "a table by default");
}

/// Of which machine it is, in the JSON and on the page.
fn check_fingerprint(json: &str, page: &str, on_disk: bool) {
    let report: Value = serde_json::from_str(json).expect("JSON");
    let print = &report["machine"]["fingerprint"];
    let id = print["id"].as_str().expect("a fingerprint");
    assert!(print["start"].is_object() && print["end"].is_object(), "{print}");
    assert_eq!(print["identity"]["data"].is_string(), on_disk, "{print}");
    for part in ["kernel", "cpu_model", "clocksource", "topology"] {
        let said = print["identity"][part].as_str().expect(part);
        assert!(!said.is_empty() && page.contains(said), "{part}: {said}");
    }
    assert!(page.contains(&format!("fingerprint {id}: ")), "{id} is not on the page");
    assert!(page.contains("the hypervisor took "), "what happened meanwhile is not on the page");
}

fn check_csv(text: &str, report: &Report) {
    let samples: usize =
        report.cells.iter().flat_map(|cell| &cell.sides).map(|side| side.samples.len()).sum();
    let lines: Vec<&str> = text.split_terminator("\r\n").collect();
    assert_eq!(lines.len(), samples + 1, "{text}");
    assert!(lines[0].starts_with("row,cell,side,version,round,server CPU ns/op,"), "{}", lines[0]);
    assert!(
        lines[1].starts_with("3,\"GET 64 B, 50 connections, pipeline 1\",monoio,"),
        "{}",
        lines[1]
    );
    let commas = |line: &str| {
        let outside = line.split('"').step_by(2);
        outside.map(|part| part.matches(',').count()).sum::<usize>()
    };
    let widths: BTreeSet<usize> = lines.iter().map(|line| commas(line)).collect();
    assert_eq!(widths.len(), 1, "rows differ in length");
}

/// The log as two readers of others see it: the crate's, and that of the port for Python.
fn check_log(run: &Run, report: &Report) {
    let log = run.text("latency.hlog");
    let mut intervals = Vec::new();
    let mut started = None;
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        match entry.expect("an entry") {
            LogEntry::StartTime(at) => started = Some(at.as_secs()),
            LogEntry::BaseTime(_) => panic!("stamps are relative to the start"),
            LogEntry::Interval(interval) => {
                let histogram = hdr::decode(interval.encoded_histogram()).expect("a histogram");
                let tag = interval.tag().expect("a tag").as_str().to_owned();
                let at_ms = interval.start_timestamp().as_millis();
                intervals.push((tag, at_ms, histogram));
            }
        }
    }
    assert_eq!(started, Some(report.machine.unix_s));
    let samples = report.cells.iter().flat_map(|cell| &cell.sides).map(|side| side.samples.len());
    assert_eq!(intervals.len(), samples.sum::<usize>());
    assert!(intervals.is_sorted_by_key(|(_, at_ms, _)| *at_ms), "in the order of time");
    assert!(intervals.iter().any(|(tag, ..)| tag == "3/GET-64-B-50-connections-pipeline-1/monoio"));
    let name = "hdrhistogram of PyPI";
    let path = run.path("latency.hlog").to_str().expect("UTF-8").to_owned();
    let live = CLIENTS.python("hdrhistogram", "hlog.py");
    let Some(said) = CLIENTS.run(name, live, &[path], String::new) else { return };
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("interval ")).collect();
    assert_eq!(lines.len(), intervals.len(), "{said}");
    for (line, (tag, at_ms, histogram)) in lines.iter().zip(&intervals) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |index: usize| fields[index].parse::<u64>().expect("a number");
        assert_eq!(fields[1], tag);
        assert_eq!(
            u128::from(number(2)),
            u128::from(report.machine.unix_s) * 1000 + at_ms,
            "{line}"
        );
        assert_eq!(number(4), histogram.len(), "{line}");
        // The port rounds the rank of a percentile otherwise.
        for (field, low, high) in [(5, 0.495, 0.505), (6, 0.985, 0.995)] {
            let around = histogram.value_at_quantile(low)..=histogram.value_at_quantile(high);
            assert!(around.contains(&number(field)), "{line}: {around:?}");
        }
        assert!(number(7).abs_diff(histogram.max()) <= histogram.max() / 500, "{line}");
    }
}

#[test]
fn a_run_of_storage_is_a_report_too() {
    let run = Run::new(
        "storage",
        &["storage", "--row", "cross", "--pairs", "1", "--seconds", "0.1", "--port", "26100"],
    );
    let json = run.text("report.json");
    check_schema(&json).expect("as the schema says");
    let again = json::parse(&json).expect("a report").json().expect("JSON");
    assert!(again == json, "read and written, it is equal");
    let page = run.text("report.html");
    check_page(&page);
    check_fingerprint(&json, &page, true);
    assert!(page.contains("Benchmark of the storage") && page.contains("Row 4e"), "{page}");
    let csv = run.text("samples.csv");
    assert!(csv.starts_with("cell,side,round,"), "{csv}");
    assert!(run.text("summary.json").contains("bench-summary/1"));
}

#[test]
fn the_schema_refuses_what_is_no_report() {
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::json!({
            "schema": "bench/2", "kind": "figures", "bench_version": "0.1.0", "command": "bench storage",
            "subject": "storage", "cells": [], "skipped": [],
            "machine": {"cpu": "a", "cpus": 1, "memory_bytes": 1, "kernel": "6", "congestion": "reno",
                "own_network": false, "fifo": false, "load": "0", "unix_s": 0},
        });
        change(&mut value);
        check_schema(&value.to_string())
    };
    wrong(&|_| ()).expect("the least there can be");
    wrong(&|value| value["new"] = Value::from(1)).expect("what is new is passed over");
    wrong(&|value| value["schema"] = Value::from("bench/3")).expect_err("another version");
    wrong(&|value| value["machine"]["cpus"] = Value::from(0)).expect_err("no CPU");
    wrong(&|value| value["kind"] = Value::from("requests")).expect_err("no transport");
    let refused = json::parse(r#"{"schema": "bench-cache/1"}"#).expect_err("too old").to_string();
    assert!(refused.contains("bench-cache/1") && refused.contains("bench/2"), "{refused}");
}

/// A page loads nothing, runs nothing, and is well formed as far as can be seen here.
fn check_page(page: &str) {
    for attribute in ["src=", "href=", "<script", "<link", "@import", "url(", "onload="] {
        assert!(!page.contains(attribute), "{attribute} in the page");
    }
    for element in ["svg", "table", "section", "ul", "dl", "tr", "td"] {
        let count = |what: &str| page.matches(what).count();
        let begun = count(&format!("<{element}>")) + count(&format!("<{element} "));
        assert_eq!(begun, count(&format!("</{element}>")), "{element}");
    }
    assert!(!page.contains("NaN") && !page.contains("inf\""), "a coordinate that is no number");
}

fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        skip("the page in a browser", "chromium is not installed");
    }
    found
}

/// Runs the browser on `page`; its standard output.
fn browse(browser: &str, run: &Run, args: &[&str]) -> String {
    let profile = run.path("profile");
    let output = Command::new("timeout")
        .args(["120", browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"])
        .args(["--no-first-run", "--disable-background-networking", "--window-size=1200,1600"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(args)
        .arg(format!("file://{}", run.path("report.html").display()))
        .output()
        .expect("timeout (coreutils) runs");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{browser} {args:?}: {}\n{error}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Its size, its first pixel, and how many colours it has.
fn picture(path: &Path) -> ((u32, u32), [u8; 3], usize) {
    let file = BufReader::new(File::open(path).expect("a screenshot"));
    let mut decoder = png::Decoder::new(file);
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let info = reader.next_frame(&mut pixels).expect("a picture");
    let each = info.color_type.samples();
    let colours: BTreeSet<[u8; 3]> =
        pixels[..info.buffer_size()].chunks_exact(each).map(|p| [p[0], p[1], p[2]]).collect();
    ((info.width, info.height), [pixels[0], pixels[1], pixels[2]], colours.len())
}

#[test]
fn the_page_opens_in_a_browser() {
    let run = Run::of_the_cache("page", "25000");
    check_page(&run.text("report.html"));
    let Some(browser) = chromium() else { return };
    for (scheme, background) in [("1", [0xff, 0xff, 0xff]), ("0", [0x14, 0x17, 0x1b])] {
        let path = run.path(&format!("scheme-{scheme}.png"));
        let screenshot = format!("--screenshot={}", path.display());
        let preferred = format!("--blink-settings=preferredColorScheme={scheme}");
        browse(browser, &run, &[&screenshot, &preferred]);
        let (size, first, colours) = picture(&path);
        assert_eq!((size, first), ((1200, 1600), background), "scheme {scheme}");
        assert!(colours > 100, "{colours} colours");
    }
    let dom = browse(browser, &run, &["--dump-dom"]);
    for title in [
        "Benchmark of the cache",
        "Where and with what",
        "Ratios",
        "Claims",
        "Row 3c · GET 64 B, 50 connections, Poisson 20000/s",
        "latency by percentile",
        "schedule lag p99",
        "How to read this",
        "bench cache --row 3,3c --only 'GET 64 B, '",
    ] {
        assert!(dom.contains(title), "{title} is not in the page");
    }
    // Nothing that the browser had to repair.
    check_page(&dom);
}
