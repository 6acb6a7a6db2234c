//! What `revert` leaves alone, what went by itself, and what is not called applied.

#![forbid(unsafe_code)]

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use common::{Host, result, tune};

const SWAPPINESS: &str = "/proc/sys/vm/swappiness";

fn applied() -> Host {
    let host = Host::unpack("numa");
    let (code, text) =
        host.run(&["apply", "vm.swappiness", "vm.stat_interval", "--profile", "latency"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(read(&host, SWAPPINESS), "10\n");
    host
}

fn read(host: &Host, path: &str) -> String {
    fs::read_to_string(host.file(path)).expect("it is there")
}

#[test]
fn what_somebody_else_has_changed_is_left_alone() {
    let host = applied();
    fs::write(host.file(SWAPPINESS), "33\n").expect("room");
    let (code, text) = host.run(&["revert"]);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("conflict") && text.contains("1 restored, 1 conflict"), "{text}");
    assert_eq!(read(&host, SWAPPINESS), "33\n");
    assert_eq!(read(&host, "/proc/sys/vm/stat_interval"), "1\n");
    let (code, text) = host.run(&["revert"]);
    assert_eq!(code, 3, "it stays in the journal: {text}");
    assert_eq!(host.run(&["revert", "--forget"]).0, 0);
    assert_eq!(read(&host, SWAPPINESS), "33\n");
    assert!(!host.journal().exists());
}

#[test]
fn after_a_restart_nothing_is_written() {
    let host = applied();
    fs::write(host.file("/proc/sys/kernel/random/boot_id"), "another\n").expect("room");
    // What the machine has after its start may happen to be what was written.
    let (code, text) = host.run(&["revert"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("2 gone by itself") && text.contains("started anew"), "{text}");
    assert_eq!(read(&host, SWAPPINESS), "10\n");
    assert!(!host.journal().exists());
}

#[test]
fn a_device_that_is_gone_takes_its_values_with_it() {
    let host = Host::unpack("nvme");
    assert_eq!(host.run(&["apply", "block.scheduler", "--profile", "io"]).0, 0);
    fs::remove_dir_all(host.file("/sys/block/nvme2n1")).expect("it is there");
    let (code, text) = host.run(&["revert"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 gone by itself"), "{text}");
    assert!(read(&host, "/sys/block/nvme0n1/queue/scheduler").contains("[mq-deadline]"));
}

#[test]
fn another_network_namespace_is_not_written() {
    let host = Host::unpack("numa");
    let link = host.file("/proc/thread-self/ns/net");
    fs::create_dir_all(link.parent().expect("a directory")).expect("room");
    symlink("net:[1]", &link).expect("room");
    let setting = "/proc/sys/net/core/somaxconn";
    assert_eq!(host.run(&["apply", "net.core.somaxconn", "--profile", "latency"]).0, 0);
    fs::remove_file(&link).expect("it is there");
    symlink("net:[2]", &link).expect("room");
    // As long as a process is in it, its values are not forgotten.
    let other = host.file("/proc/77/ns/net");
    fs::create_dir_all(other.parent().expect("a directory")).expect("room");
    symlink("net:[1]", &other).expect("room");
    for args in [&["revert"][..], &["revert", "--forget"]] {
        let (code, text) = host.run(args);
        assert_eq!(code, 3, "{text}");
        assert!(text.contains("of the network namespace net:[1]: run it there"), "{text}");
        assert_eq!(read(&host, setting), "4096\n");
    }
    fs::remove_file(&other).expect("it is there");
    let (code, text) = host.run(&["revert"]);
    assert_eq!(code, 3, "{text}");
    assert!(
        text.contains("deserted") && text.contains("which no process and no name has"),
        "{text}"
    );
    fs::remove_file(&link).expect("it is there");
    symlink("net:[1]", &link).expect("room");
    assert_eq!(host.run(&["revert"]).0, 0);
    assert_eq!(read(&host, setting), "128\n");
}

#[test]
fn what_does_not_read_back_is_not_called_written() {
    let host = Host::unpack("numa");
    let setting = host.file(SWAPPINESS);
    fs::remove_file(&setting).expect("it is there");
    // Takes every value, and has none.
    symlink("/dev/null", &setting).expect("room");
    let null = host.file("/dev/null");
    fs::write(&null, "").expect("room");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    fs::remove_file(&null).expect("it is there");
    let device = rustix::fs::makedev(1, 3);
    let made = rustix::fs::mknodat(
        rustix::fs::CWD,
        &null,
        rustix::fs::FileType::CharacterDevice,
        mode,
        device,
    );
    if let Err(error) = made {
        println!("skipped: mknod of a device that swallows writes: {error}");
        return;
    }
    let (code, text) = host.run(&["apply", "vm.swappiness", "--profile", "latency"]);
    assert_eq!(code, 4, "{text}");
    assert!(text.contains("it still reads"), "{text}");
    assert!(!host.journal().exists(), "nothing is left to be taken back");
}

#[test]
fn the_journal_of_a_recorded_host_is_on_it() {
    let host = Host::unpack("numa");
    for (command, is_there) in [("apply", true), ("revert", false)] {
        let mut command = tune(&[command]);
        let (code, text) =
            result(&command.arg("--root").arg(host.root()).output().expect("it starts"));
        assert_eq!(code, 0, "{text}");
        assert_eq!(host.file("/var/lib/tune/journal.json").exists(), is_there);
    }
}

#[test]
fn a_journal_that_is_none_stops_everything() {
    let host = Host::unpack("numa");
    fs::write(host.journal(), "{").expect("room");
    for command in ["apply", "revert"] {
        let (code, text) = host.run(&[command]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("read the journal") && text.contains("move it away"), "{text}");
    }
    assert_eq!(read(&host, SWAPPINESS), "60\n");
}

#[test]
fn without_a_place_for_the_journal_nothing_is_written() {
    let host = Host::unpack("numa");
    let blocked = host.file("/etc/blocked");
    fs::create_dir_all(blocked.parent().expect("a directory")).expect("room");
    fs::write(&blocked, "a file").expect("room");
    let journal = blocked.join("journal.json");
    let mut command = tune(&["apply", "--profile", "latency", "--journal"]);
    command.arg(journal).arg("--root").arg(host.root());
    let (code, text) = result(&command.output().expect("it starts"));
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("make the directory"), "{text}");
    assert_eq!(read(&host, SWAPPINESS), "60\n");
}

#[test]
fn values_of_a_namespace_that_nobody_is_in_can_be_forgotten() {
    let host = Host::unpack("numa");
    let link = host.file("/proc/thread-self/ns/net");
    fs::create_dir_all(link.parent().expect("a directory")).expect("room");
    symlink("net:[1]", &link).expect("room");
    assert_eq!(host.run(&["apply", "net.core.somaxconn", "--profile", "latency"]).0, 0);
    fs::remove_file(&link).expect("it is there");
    symlink("net:[2]", &link).expect("room");
    let (code, text) = host.run(&["revert", "--forget"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("1 deserted"), "{text}");
    assert_eq!(read(&host, "/proc/sys/net/core/somaxconn"), "4096\n");
    assert!(!host.journal().exists());
}

#[test]
fn whatever_a_journal_says_only_settings_of_the_table_are_written() {
    let host = applied();
    let text = fs::read_to_string(host.journal()).expect("a journal");
    for (path, place) in
        [("/etc/passwd", "/etc/passwd"), ("/proc/sys/vm/../../../etc/passwd", "/etc/passwd")]
    {
        let passwd = host.file(place);
        fs::create_dir_all(passwd.parent().expect("a directory")).expect("room");
        // As tune would have left it, by what the journal says.
        fs::write(&passwd, "10\n").expect("room");
        fs::write(host.journal(), text.replace(SWAPPINESS, path)).expect("ours");
        let (code, text) = host.run(&["revert"]);
        assert_eq!(code, 3, "{text}");
        assert!(text.contains("1 unknown"), "{text}");
        assert_eq!(fs::read_to_string(&passwd).expect("it is there"), "10\n");
        assert_eq!(host.run(&["revert", "--forget"]).0, 0);
        assert!(!host.journal().exists());
        assert_eq!(fs::read_to_string(&passwd).expect("it is there"), "10\n");
    }
}

#[test]
fn a_journal_that_others_may_write_stops_everything() {
    let host = applied();
    fs::set_permissions(host.journal(), PermissionsExt::from_mode(0o666)).expect("ours");
    for command in ["apply", "revert"] {
        let (code, text) = host.run(&[command]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains("others may write it (mode 666)"), "{text}");
    }
    assert_eq!(read(&host, SWAPPINESS), "10\n");
    fs::set_permissions(host.journal(), PermissionsExt::from_mode(0o600)).expect("ours");
    assert_eq!(host.run(&["revert"]).0, 0);
    assert_eq!(read(&host, SWAPPINESS), "60\n");
}

#[test]
fn a_knob_that_is_named_twice_is_written_once() {
    let host = Host::unpack("numa");
    let (code, text) =
        host.run(&["apply", "vm.swappiness", "vm.swappiness", "--profile", "latency"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.ends_with("\n1 written\n"), "{text}");
}
