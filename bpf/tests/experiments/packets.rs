//! Packets of an experiment: measured before, during and after its method, or said why not.
//!
//! Others use this machine too: what is asserted is a lower bound. Next: `src/experiment/packets.rs`.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

use super::server::Server;
use super::{CHAOS, Place, about, errors, process};

/// What the server's traffic is, in the journal and in its reports.
#[test]
fn packets_are_measured_before_during_and_after() {
    if let Some(why) = bpf::doctor::why_not() {
        println!("skipped: {why}");
        return;
    }
    let server = Server::start();
    let place = Place::new();
    let ask = json!({ "type": "probe", "name": "ask", "provider": { "type": "http", "url": format!("{}/ok", server.base) } });
    let experiment = about(&server, Value::from(vec![ask; 20]));
    let journal = place.run(&experiment, 0, &["--baseline", "500ms"]);
    let packets = &journal["packets"];
    let number = |when: &str, name: &str| {
        packets[when]["tcp"][name].as_f64().unwrap_or_else(|| panic!("{when} {name}: {packets}"))
    };
    // One look at the hypothesis before, 20 requests during, one look after: others on this machine add to them.
    for (when, least) in [("before", 1.0), ("during", 20.0), ("after", 1.0)] {
        for name in ["opened", "accepted", "closed"] {
            assert!(number(when, name) >= least, "{when} {name}: {packets}");
        }
        let rtt = &packets[when]["tcp"]["rtt_us"];
        assert!(rtt["count"].as_u64() > Some(0) && rtt["p50"].as_u64() > Some(0), "{when}: {rtt}");
    }
    assert!(packets["before"]["seconds"].as_f64() >= Some(0.5), "{packets}");
    let output = place.chaos(&["report", "journal.json", "--html", "r.html", "--markdown", "r.md"]);
    assert!(output.status.success(), "{}", errors(&output));
    let read = |name: &str| fs::read_to_string(place.0.join(name)).expect("it is written");
    let markdown = read("r.md");
    assert!(markdown.contains("| metric | before | during | after |"), "{markdown}");
    assert!(markdown.contains("| tcp.opened | "), "{markdown}");
    let html = read("r.html");
    assert!(html.contains("<h3>tcp.rtt_us</h3>") && html.contains("during: "), "{html}");

    let journal = place.run(&experiment, 0, &["--no-metrics"]);
    assert!(journal["packets"].is_null(), "{}", journal["packets"]);
}

#[test]
fn an_experiment_runs_where_packets_cannot_be_measured() {
    let server = Server::start();
    let place = Place::new();
    let path = place.write(&about(&server, json!([process("touch", "touch done")])));
    // Without these rights the kernel refuses the programs, whoever runs it.
    let output = Command::new("setpriv")
        .args(["--bounding-set=-bpf,-perfmon,-sys_admin,-net_admin", CHAOS, "run", &path])
        .current_dir(&place.0)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return println!("skipped: setpriv: {error}"),
    };
    if errors(&output).starts_with("setpriv:") {
        return println!("skipped: {}", errors(&output));
    }
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(place.0.join("done").exists());
    assert!(errors(&output).contains("packets are not measured"), "{}", errors(&output));
    let packets = &place.journal()["packets"];
    assert!(packets["why_not"].as_str().is_some_and(|why| why.len() > 20), "{packets}");
    assert!(packets["during"].is_null(), "{packets}");
    let report = place.chaos(&["report", "journal.json"]);
    assert!(String::from_utf8_lossy(&report.stdout).contains("Not measured: "), "{report:?}");
}
