//! `shardd doctor`: what the kernel offers, as a table, and what of the host's settings costs speed.

use std::process::ExitCode;

use engine::driver::probe;

/// Prints the table; fails when something required is missing.
pub(crate) fn run() -> ExitCode {
    let features = probe::features();
    let width = features.iter().map(|feature| feature.name.len()).max().unwrap_or(0);
    println!("{:width$}  since  here      used for", "feature");
    let mut missing = 0;
    for feature in &features {
        let here = match (feature.present, feature.required) {
            (true, _) => "yes",
            (false, false) => "no",
            (false, true) => {
                missing += 1;
                "MISSING"
            }
        };
        let (name, since, purpose) = (feature.name, feature.since, feature.purpose);
        println!("{name:width$}  {since:5}  {here:8}  {purpose}");
    }
    if let Ok(text) = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
        println!("kernel.io_uring_disabled is {}", text.trim());
    }
    for note in tuning::startup_notes() {
        println!("host: {note}");
    }
    if missing == 0 {
        println!("this machine can run the engine");
        return ExitCode::SUCCESS;
    }
    println!(
        "{missing} required features are missing: Linux 6.1 or later is needed, with io_uring"
    );
    println!("allowed (kernel.io_uring_disabled=0, and a container's seccomp profile that permits");
    println!("io_uring_setup, io_uring_enter and io_uring_register)");
    ExitCode::FAILURE
}
