//! Every server of the registry that is installed here starts, answers in what it is said to speak, and
//! leaves nothing; and scenarios run on those of others, as a user runs them.

use std::path::PathBuf;
use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bench")).args(args).output().expect("bench starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn every_server_that_is_here_works_and_the_others_say_how_to_get_them() {
    let output = bench(&["peers", "check", "--json"]);
    let tried: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list");
    assert!(tried.len() >= 20, "{}", tried.len());
    for one in &tried {
        assert_eq!(one["failed"], Value::Null, "{one}");
        if let Some(why) = one["missing"].as_str() {
            println!("skipped: {}: {why}", one["name"]);
            assert!(why.contains('('), "how to get it: {why}");
            continue;
        }
        assert!(one["version"].as_str().is_some_and(|version| !version.is_empty()), "{one}");
        assert!(one["answers"].as_array().is_some_and(|answers| !answers.is_empty()), "{one}");
    }
    // Of these nothing has to be installed.
    let works =
        |name: &str| tried.iter().any(|one| one["name"] == name && one["missing"] == Value::Null);
    for name in ["monoio", "monoio-defer", "glommio", "tokio", "engine", "echo-engine"] {
        assert!(works(name), "{name}");
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// A folder that goes with the test.
struct Dir(PathBuf);

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_scenario_runs_on_servers_of_the_users_own_registry() {
    let dir = Dir(std::env::temp_dir().join(format!("bench-scenario-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0).expect("a folder");
    let file = |name: &str, text: &str| {
        let path = dir.0.join(name);
        std::fs::write(&path, text).expect("a file");
        path.to_string_lossy().into_owned()
    };
    let program = env!("CARGO_BIN_EXE_bench");
    let peers = file(
        "peers.toml",
        &format!(
            "[[peer]]\nname = 'prompt'\nabout = 'answers at once'\nprotocols = ['resp']\nready = 'tcp'\n\
             program = {{ path = '{program}' }}\nversion = {{ args = ['--version'] }}\n\
             args = ['host', 'monoio', '--addr', '127.0.0.1:{{port}}', '--session', 'echo']\n"
        ),
    );
    let scenario = file(
        "mine.toml",
        "about = 'two servers'\nsides = ['prompt', 'engine']\npairs = 2\nseconds = 0.1\n\
         [load]\nconnections = 5\n[[case]]\nname = 'closed'\npipeline = 4\n\
         [[case]]\nname = 'open'\nrate = 2000.0\n",
    );
    let out = dir.0.join("out").to_string_lossy().into_owned();
    let explained = bench(&["explain", &scenario, "--peers", &peers]);
    let said = text(&explained.stdout);
    assert!(
        said.contains("open loop, 2000 a second, Poisson") && said.contains("answers at once"),
        "{said}"
    );
    let ran = bench(&[
        "run",
        &scenario,
        "--peers",
        &peers,
        "--port",
        "27100",
        "--host-network",
        "--out",
        &out,
    ]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let report = std::fs::read_to_string(format!("{out}/report.json")).expect("it was written");
    let report: Value = serde_json::from_str(&report).expect("JSON");
    let cells = report["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 2);
    for cell in cells {
        let sides = cell["sides"].as_array().expect("sides");
        let names: Vec<&str> = sides.iter().filter_map(|side| side["label"].as_str()).collect();
        assert_eq!(names, ["prompt", "engine", "prompt again"]);
        assert!(sides.iter().all(|side| side["failed"] == Value::Null), "{cell}");
        assert!(cell["verdicts"][0]["ratio"]["ratio"].as_f64().is_some_and(|ratio| ratio > 0.0));
    }
    for name in ["report.html", "samples.csv", "latency.hlog", "summary.json"] {
        assert!(dir.0.join("out").join(name).is_file(), "{name}");
    }
    let wrong = bench(&["run", "no-such-scenario"]);
    assert!(!wrong.status.success() && text(&wrong.stderr).contains("http-connections"));
}
