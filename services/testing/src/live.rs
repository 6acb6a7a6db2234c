//! Other people's clients, unmodified: where they are installed, and how their scripts are run.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

const SCRIPT_TIMEOUT: Duration = Duration::from_secs(120);

/// Scripts of a crate, and where its clients are.
#[derive(Clone, Copy, Debug)]
pub struct Clients {
    /// The folder of the scripts; `install.sh` in it installs the clients below `<target>/clients`.
    pub scripts: &'static str,
    /// The test binary's scratch directory, CARGO_TARGET_TMPDIR.
    pub scratch: &'static str,
}

/// One client: how it is started, and what must exist for that.
#[derive(Debug)]
pub struct Live {
    command: Command,
    program: &'static str,
    needs: Option<PathBuf>,
    timeout: Duration,
}

impl Clients {
    /// Where the clients are. They are installed first unless `LIVE_CLIENTS_INSTALL=0`; what is there is
    /// left alone.
    ///
    /// # Panics
    /// When the scratch directory has no parent.
    #[must_use]
    pub fn installed(&self) -> PathBuf {
        static INSTALL: OnceLock<PathBuf> = OnceLock::new();
        let install = || {
            let target = Path::new(self.scratch).parent().expect("target/tmp has a parent");
            if std::env::var("LIVE_CLIENTS_INSTALL").as_deref() != Ok("0") {
                let script = Path::new(self.scripts).join("install.sh");
                let status = Command::new("bash").arg(script).arg(target).status();
                if !status.is_ok_and(|status| status.success()) {
                    println!("install.sh: not every client could be installed");
                }
            }
            target.join("clients")
        };
        INSTALL.get_or_init(install).clone()
    }

    /// A script for the Python of the client installed in `directory`.
    #[must_use]
    pub fn python(&self, directory: &str, script: &str) -> Live {
        let binary = self.installed().join(directory).join("bin/python");
        let mut command = Command::new(&binary);
        command.args(["-W", "ignore"]).arg(Path::new(self.scripts).join(script));
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        Live { command, program: "python3", needs: Some(binary), timeout: SCRIPT_TIMEOUT }
    }

    /// A script for node with the client installed in `directory`.
    #[must_use]
    pub fn node(&self, directory: &str, package: &str, script: &str) -> Live {
        let modules = self.installed().join(directory).join("node_modules");
        let mut command = Command::new("node");
        command.arg(Path::new(self.scripts).join(script)).env("NODE_PATH", &modules);
        let needs = Some(modules.join(package));
        Live { command, program: "node", needs, timeout: SCRIPT_TIMEOUT }
    }

    /// A program that `install.sh` builds, below `directory`.
    #[must_use]
    pub fn program(&self, directory: &str, path: &str) -> Live {
        let binary = self.installed().join(directory).join(path);
        let command = Command::new(&binary);
        Live { command, program: "cargo", needs: Some(binary), timeout: SCRIPT_TIMEOUT }
    }

    /// A script for the shell that calls `program`.
    #[must_use]
    pub fn shell(&self, program: &'static str, script: &str) -> Live {
        let mut command = Command::new("bash");
        command.arg(Path::new(self.scripts).join(script));
        Live { command, program, needs: None, timeout: SCRIPT_TIMEOUT }
    }

    /// Runs a client's script with `arguments` until it says `: ok`; `None` when the client is not there. What
    /// it wrote otherwise.
    ///
    /// # Panics
    /// When the script fails, hangs, or ends without its last line; `log` tells the server's side.
    pub fn run(
        &self,
        name: &str,
        live: Live,
        arguments: &[String],
        log: impl Fn() -> String,
    ) -> Option<String> {
        let Live { mut command, needs, timeout, .. } = live;
        if let Some(missing) = needs.filter(|path| !path.exists()) {
            skip(name, &format!("{} is missing", missing.display()));
            return None;
        }
        command.args(arguments);
        let output = Path::new(self.scratch).join(format!(
            "{}-{}",
            name.replace([' ', ','], "-"),
            std::process::id()
        ));
        let file = File::create(&output).expect("an output file");
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        let status = loop {
            if let Some(status) = child.try_wait().expect("the child is ours") {
                break Some(status);
            }
            if started.elapsed() > timeout {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            thread::sleep(Duration::from_millis(10));
        };
        let text = fs::read_to_string(&output).unwrap_or_default();
        let _ = fs::remove_file(&output);
        println!("{name}, {:.1} s: {}", started.elapsed().as_secs_f32(), text.trim_end());
        let Some(status) = status else {
            panic!("{name} did not end in {timeout:?}: {text}\nserver: {}", log());
        };
        assert!(status.success(), "{name}: {status}\n{text}\nserver: {}", log());
        assert!(text.contains(": ok"), "{name} ended without its last line:\n{text}");
        Some(text)
    }
}

impl Live {
    /// The same with as much time as this, for what takes longer than a script does.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Whether the program it needs is there; says so when not.
    #[must_use]
    pub fn is_there(&self, name: &str) -> bool {
        // kcat knows no --version, but it can be started.
        let found = Command::new(self.program)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok();
        if !found {
            skip(name, &format!("{} is not installed", self.program));
        }
        found
    }
}

/// Says that a client is left out.
///
/// # Panics
/// When it is required.
pub fn skip(name: &str, reason: &str) {
    println!("skipped: {name}: {reason}");
    assert!(
        std::env::var("LIVE_CLIENTS_REQUIRED").as_deref() != Ok("1"),
        "{name} is required: {reason}"
    );
}
