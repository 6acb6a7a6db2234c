//! Recordings of redis-server 7.0.15, replayed.
//!
//! A line is a command without its key, the next one, indented, what the server answered; `#` sets
//! `stream-node-max-entries` and begins a new stream.

use super::{command::Server, *};

/// Replays a recording; how many commands.
pub(super) fn replay(recording: &str) -> usize {
    let mut server = Server::new(Limits::default());
    let (mut count, mut session) = (0, Vec::new());
    let mut lines = recording.lines();
    while let Some(line) = lines.next() {
        if let Some(entries) = line.strip_prefix("# ") {
            let node_max_entries = entries.parse().unwrap();
            server = Server::new(Limits { node_max_entries, ..Limits::default() });
            session.clear();
            continue;
        }
        let args: Vec<&str> = line.split(' ').collect();
        session.push(line);
        let want = lines.next().and_then(|line| line.strip_prefix("  ")).unwrap();
        let got = server.run(&args);
        assert_eq!(got, want, "{line}, after\n{}", session.join("\n"));
        server.stream.check();
        count += 1;
    }
    count
}

#[test]
fn tricky_cases_are_as_recorded() {
    assert!(replay(include_str!("recorded.txt")) > 150);
}

#[test]
fn random_commands_are_as_recorded() {
    assert!(replay(include_str!("recorded_random.txt")) > 600);
}
