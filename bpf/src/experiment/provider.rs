//! How an activity is done: a process, a question over HTTP, one to a Prometheus-compatible server, or a fault of ours.
//!
//! Invariants: each ends by its time or soon after it is halted, with the processes that it started; what it prints or is
//! answered is bounded. Next: `http`, `inject`, `run`.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::http::{Request, Url, form};
use super::inject::Plan;
use super::{Halt, seconds, text_of};
use crate::error::{During as _, Error, Result};
use crate::netns;

/// How long an answer is waited for, when nothing is said.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long a process may last, when nothing is said, and at most.
const PROCESS_MAX: Duration = Duration::from_secs(3600);
/// Most bytes that are kept of what a process prints, each way.
const OUTPUT_MAX: u64 = 1 << 20;
/// How long what a process printed is waited for once it ended: others may hold its pipes.
const DRAIN: Duration = Duration::from_millis(500);
/// Most times that a request is repeated.
const RETRIES_MAX: u64 = 10;

/// How an activity is done, with all variables in place.
#[derive(Clone, Debug)]
pub struct Provider {
    what: What,
    /// The network namespace that it is done in, if it is another. Ours; the Chaos Toolkit has none.
    netns: Option<String>,
}

#[derive(Clone, Debug)]
enum What {
    Process(Process),
    Http(Http),
    Promql(Http),
    Fault(Plan),
}

#[derive(Clone, Debug)]
struct Process {
    path: String,
    arguments: Arguments,
    timeout: Option<Duration>,
    env: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
enum Arguments {
    Words(Vec<String>),
    /// For a shell.
    Line(String),
}

#[derive(Clone, Debug)]
struct Http {
    request: Request,
    has_timeout: bool,
    expected: Vec<u64>,
    retries: u64,
}

/// What a provider is told of the run that it is part of.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    /// Ends it.
    pub halt: Halt<'a>,
    /// For those that say nothing of it.
    pub timeout: Option<Duration>,
    /// Our own executable is `chaos`, and watches over faults.
    pub watches: bool,
    /// Tells a line of progress.
    pub tell: &'a (dyn Fn(&str) + Sync),
}

/// What did not go well, and what there is of the output.
#[derive(Debug)]
pub struct Failure {
    /// Why.
    pub error: Error,
    /// Up to then.
    pub output: Value,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, output: Value::Null }
    }
}

fn object<'v>(provider: &'v Value, name: &str) -> Result<Option<&'v Map<String, Value>>> {
    match provider.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Object(map)) => Ok(Some(map)),
        Some(_) => Err(Error::usage(format!("{name}: an object is wanted"))),
    }
}

fn pairs(map: Option<&Map<String, Value>>) -> Vec<(String, String)> {
    map.into_iter().flatten().map(|(name, value)| (name.clone(), text_of(value))).collect()
}

fn text<'v>(provider: &'v Value, of: &str, name: &str) -> Result<&'v str> {
    let text = provider.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    text.ok_or_else(|| Error::usage(format!("{of}: a {name} is wanted")))
}

fn timeout(provider: &Value, index: usize) -> Result<Option<Duration>> {
    let value = match provider.get("timeout") {
        Some(Value::Array(both)) => both.get(index),
        value => value,
    };
    value.filter(|value| !value.is_null()).map(|value| seconds(value, "timeout")).transpose()
}

impl Provider {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or cannot be had here.
    pub fn read(provider: &Value) -> Result<Self> {
        let what = match provider.get("type").and_then(Value::as_str) {
            Some("process") => What::Process(process(provider)?),
            Some("http") => What::Http(http(provider)?),
            Some("promql") => What::Promql(promql(provider)?),
            Some("fault") => What::Fault(Plan::read(provider)?),
            Some("python") => return Err(Error::unsupported("there is no Python here")),
            other => return Err(Error::usage(format!("provider of type {other:?}"))),
        };
        // A fault is moved by its keeper.
        let netns = provider
            .get("netns")
            .and_then(Value::as_str)
            .filter(|_| !matches!(what, What::Fault(_)));
        Ok(Self { what, netns: netns.map(str::to_owned) })
    }

    /// Checks what depends on this host: that programs are there, and that there are such faults.
    ///
    /// # Errors
    /// It cannot be done.
    pub fn check(&self) -> Result<()> {
        super::check_netns(self.netns.as_deref())?;
        match &self.what {
            What::Process(process) => process.find().map(|_| ()),
            What::Fault(plan) => plan.check(),
            What::Http(_) | What::Promql(_) => Ok(()),
        }
    }

    /// Does it; what came out.
    ///
    /// # Errors
    /// It could not be done.
    pub fn run(&self, setting: Setting<'_>) -> Result<Value, Failure> {
        if let What::Fault(plan) = &self.what {
            return plan.run(setting);
        }
        let work = || match &self.what {
            What::Process(process) => process.run(setting),
            What::Http(http) => http.run(setting),
            What::Promql(http) => http.sample(setting),
            What::Fault(_) => Err(Error::failed("a fault is injected elsewhere").into()),
        };
        netns::within(self.netns.as_deref(), work)?
    }
}

fn process(provider: &Value) -> Result<Process> {
    let arguments = match provider.get("arguments") {
        None | Some(Value::Null) => Arguments::Words(Vec::new()),
        Some(Value::String(line)) => Arguments::Line(line.clone()),
        Some(Value::Array(words)) => Arguments::Words(words.iter().map(text_of).collect()),
        Some(Value::Object(map)) => {
            let words = map.iter().flat_map(|(name, value)| {
                [name.clone(), if value.is_null() { String::new() } else { text_of(value) }]
            });
            Arguments::Words(words.collect())
        }
        Some(_) => return Err(Error::usage("process: arguments are a list, an object or a text")),
    };
    Ok(Process {
        path: text(provider, "process", "path")?.to_owned(),
        arguments,
        timeout: timeout(provider, 0)?,
        env: pairs(object(provider, "env")?).into_iter().collect(),
    })
}

impl Process {
    /// Where its program is: as the shell finds it.
    fn find(&self) -> Result<PathBuf> {
        let home = || std::env::var("HOME").unwrap_or_default();
        let path = self
            .path
            .strip_prefix("~/")
            .map_or_else(|| self.path.clone(), |rest| format!("{}/{rest}", home()));
        let is_program = |path: &PathBuf| {
            path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
        };
        let places = if path.contains('/') {
            String::new()
        } else {
            std::env::var("PATH").unwrap_or_default()
        };
        let mut all = places.split(':').map(|place| PathBuf::from(place).join(&path));
        all.find(is_program).ok_or_else(|| {
            Error::usage(format!("process: path {:?}: there is no such program", self.path))
        })
    }

    fn command(&self) -> Result<Command> {
        let path = self.find()?;
        let mut command = match &self.arguments {
            Arguments::Words(words) => {
                let mut command = Command::new(path);
                command.args(words.iter().filter(|word| !word.is_empty()));
                command
            }
            Arguments::Line(line) => {
                let mut command = Command::new("/bin/sh");
                command.arg("-c").arg(format!("{} {line}", path.display()));
                command
            }
        };
        command.envs(&self.env).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A group of its own, so that all of it can be ended.
        command.process_group(0);
        Ok(command)
    }

    fn run(&self, setting: Setting<'_>) -> Result<Value, Failure> {
        let doing = || format!("process: run {:?}", self.path);
        let mut child = self.command()?.spawn().during(doing)?;
        let stdout = Pipe::drain(child.stdout.take());
        let stderr = Pipe::drain(child.stderr.take());
        let timeout = self.timeout.or(setting.timeout).unwrap_or(PROCESS_MAX).min(PROCESS_MAX);
        let begin = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().during(doing)? {
                break Ok(status);
            }
            if setting.halt.is_set() {
                break Err("ended");
            }
            if begin.elapsed() >= timeout {
                break Err("it took too long");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        if ended.is_err() {
            end(&mut child);
        }
        let output = |status: Option<i32>| json!({ "status": status, "stdout": stdout.text(), "stderr": stderr.text() });
        match ended {
            // As Python has it, a signal is a negative code.
            Ok(status) => {
                Ok(output(status.code().or_else(|| status.signal().map(|signal| -signal))))
            }
            Err(why) => Err(Failure {
                error: Error::failed(format!("{}: {why}", doing())),
                output: output(None),
            }),
        }
    }
}

/// Ends a process and those that it started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(group) = group {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

/// What comes from a pipe, read on a thread so that nobody waits for room in it.
struct Pipe {
    kept: Arc<Mutex<(Vec<u8>, bool)>>,
}

impl Pipe {
    fn drain(from: Option<impl Read + Send + 'static>) -> Self {
        let kept = Arc::new(Mutex::new((Vec::new(), from.is_none())));
        if let Some(mut from) = from {
            let kept = Arc::clone(&kept);
            std::thread::spawn(move || {
                let mut chunk = [0; 4096];
                loop {
                    let len = match from.read(&mut chunk) {
                        Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                        read => read.unwrap_or(0),
                    };
                    let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    if len == 0 {
                        kept.1 = true;
                        return;
                    }
                    let room = (OUTPUT_MAX as usize).saturating_sub(kept.0.len());
                    kept.0.extend_from_slice(chunk.get(..len.min(room)).unwrap_or_default());
                }
            });
        }
        Self { kept }
    }

    fn text(&self) -> String {
        let begin = Instant::now();
        loop {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.1 || begin.elapsed() > DRAIN {
                return String::from_utf8_lossy(&kept.0).into_owned();
            }
            drop(kept);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn http(provider: &Value) -> Result<Http> {
    let mut url: Url = text(provider, "http", "url")?.parse()?;
    let method = provider
        .get("method")
        .map_or_else(|| "GET".to_owned(), |method| text_of(method).to_ascii_uppercase());
    let mut headers = pairs(object(provider, "headers")?);
    let has_type = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let is_json = has_type.is_some_and(|(_, ty)| ty == "application/json");
    let has_type = has_type.is_some();
    let arguments = provider.get("arguments").filter(|arguments| !arguments.is_null());
    let mut body = Vec::new();
    match arguments {
        None => {}
        Some(Value::Object(map)) if method == "GET" => {
            url = url.with_query(&form(&pairs(Some(map))))
        }
        Some(Value::String(query)) if method == "GET" => url = url.with_query(query),
        Some(_) if method == "GET" => {
            return Err(Error::usage("http: arguments of a GET are an object or a text"));
        }
        Some(value) if is_json => body = value.to_string().into_bytes(),
        Some(Value::Object(map)) => {
            body = form(&pairs(Some(map))).into_bytes();
            if !has_type {
                headers.push((
                    "Content-Type".to_owned(),
                    "application/x-www-form-urlencoded".to_owned(),
                ));
            }
        }
        Some(value) => body = text_of(value).into_bytes(),
    }
    let expected = match provider.get("expected_status") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_u64).collect(),
        Some(one) => vec![
            one.as_u64()
                .ok_or_else(|| Error::usage("http: expected_status is a number or a list"))?,
        ],
    };
    let (first, second) = (timeout(provider, 0)?, timeout(provider, 1)?);
    let request = Request {
        method,
        url,
        headers,
        body,
        connect_timeout: first.unwrap_or(TIMEOUT),
        timeout: second.or(first).unwrap_or(TIMEOUT),
    };
    request.check()?;
    let retries = provider.get("max_retries").and_then(Value::as_u64).unwrap_or(0).min(RETRIES_MAX);
    Ok(Http { request, has_timeout: first.is_some(), expected, retries })
}

fn promql(provider: &Value) -> Result<Http> {
    let url: Url = text(provider, "promql", "url")?.parse()?;
    let query = form(&[("query".to_owned(), text(provider, "promql", "query")?.to_owned())]);
    let request = Request {
        method: "GET".to_owned(),
        url: url.below("/api/v1/query").with_query(&query),
        headers: pairs(object(provider, "headers")?),
        body: Vec::new(),
        connect_timeout: timeout(provider, 0)?.unwrap_or(TIMEOUT),
        timeout: timeout(provider, 0)?.unwrap_or(TIMEOUT),
    };
    request.check()?;
    Ok(Http {
        request,
        has_timeout: provider.get("timeout").is_some(),
        expected: Vec::new(),
        retries: 0,
    })
}

impl Http {
    fn send(&self, setting: Setting<'_>) -> Result<super::http::Response> {
        let mut request = self.request.clone();
        if let Some(timeout) = setting.timeout.filter(|_| !self.has_timeout) {
            (request.connect_timeout, request.timeout) = (timeout, timeout);
        }
        let mut sent = request.send(setting.halt);
        for _ in 0..self.retries {
            if sent.is_ok() || setting.halt.is_set() {
                break;
            }
            sent = request.send(setting.halt);
        }
        sent
    }

    fn run(&self, setting: Setting<'_>) -> Result<Value, Failure> {
        let response = self.send(setting)?;
        let text = String::from_utf8_lossy(&response.body).into_owned();
        let is_json = response.header("content-type") == Some("application/json");
        let body = if is_json {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        } else {
            Value::String(text)
        };
        let headers: Map<String, Value> = response
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), Value::from(value.as_str())))
            .collect();
        let output = json!({ "status": response.status, "headers": headers, "body": body });
        if self.expected.is_empty() || self.expected.contains(&u64::from(response.status)) {
            return Ok(output);
        }
        let error = Error::failed(format!(
            "http: status {}, where one of {:?} is expected",
            response.status, self.expected
        ));
        Err(Failure { error, output })
    }

    /// The first sample of an instant query.
    fn sample(&self, setting: Setting<'_>) -> Result<Value, Failure> {
        let response = self.send(setting)?;
        let text = String::from_utf8_lossy(&response.body);
        let answer: Value = serde_json::from_str(&text).map_err(|error| {
            Error::failed(format!("promql: status {}, and no JSON: {error}", response.status))
        })?;
        if answer.get("status").and_then(Value::as_str) != Some("success") {
            let why = answer
                .get("error")
                .map(text_of)
                .unwrap_or_else(|| format!("status {}", response.status));
            return Err(Error::failed(format!("promql: {why}")).into());
        }
        let data = answer.get("data").unwrap_or(&Value::Null);
        let result = data.get("result").unwrap_or(&Value::Null);
        let sample = match data.get("resultType").and_then(Value::as_str) {
            Some("scalar" | "string") => Some(result),
            Some("matrix") => {
                return Err(Error::failed("promql: a range of samples, where one is wanted").into());
            }
            _ => result.get(0).and_then(|first| first.get("value")),
        };
        let value = sample.and_then(|sample| sample.get(1)).map(text_of);
        let value = value.ok_or_else(|| Error::failed("promql: the query finds no sample"))?;
        // What JSON has no number for stays text.
        let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
        Ok(number.map_or(Value::String(value), Value::from))
    }
}
