//! The scripts and functions of a server, known to all its shards.
//!
//! Sources only: each shard compiles what it runs, once. Scripts and functions change rarely, so one lock guards them;
//! a shard takes it when it meets a script it has not compiled, or when the counter of changes says that what it knows
//! is old. Invariants: scripts that were not loaded with SCRIPT LOAD are bounded in number and size, the oldest go;
//! functions have names of their own across libraries. Next: `engine.rs` compiles, `function.rs` loads.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering::Acquire, Ordering::Release},
};

use view::HashMap;

use super::running::Board;

/// Most scripts that EVAL leaves behind.
const EVAL_MAX: usize = 4096;
/// And their size.
const EVAL_MAX_BYTES: usize = 64 << 20;
/// Most that SCRIPT LOAD keeps, in bytes.
const LOADED_MAX_BYTES: usize = 1 << 30;

/// A script's name.
pub(crate) type Sha = [u8; 40];

/// Shared by the shards of a server; clones are the same library.
#[derive(Clone, Debug, Default)]
pub struct Library(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    scripts: Mutex<Scripts>,
    /// How often all scripts were removed.
    flushes: AtomicU64,
    functions: Mutex<Vec<Arc<Functions>>>,
    /// How often the functions changed.
    changes: AtomicU64,
    board: Board,
}

#[derive(Debug, Default)]
struct Scripts {
    bodies: HashMap<Sha, Body>,
    /// Those of EVAL, oldest first.
    order: std::collections::VecDeque<Sha>,
    eval_bytes: usize,
    loaded_bytes: usize,
}

#[derive(Debug)]
struct Body {
    text: Arc<[u8]>,
    loaded: bool,
}

/// A library of functions.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) name: String,
    /// The whole code, with its first line.
    pub(crate) code: Arc<[u8]>,
    pub(crate) functions: Vec<Function>,
}

/// A function of a library.
#[derive(Clone, Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) description: Option<Vec<u8>>,
    pub(crate) flags: u8,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds the lock.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    /// What the shards know of each other's running scripts.
    pub(crate) fn board(&self) -> &Board {
        &self.0.board
    }

    /// Changes when all scripts go.
    pub(crate) fn flushes(&self) -> u64 {
        self.0.flushes.load(Acquire)
    }

    /// A script's source.
    pub(crate) fn script(&self, sha: &Sha) -> Option<Arc<[u8]>> {
        lock(&self.0.scripts).bodies.get(sha).map(|body| Arc::clone(&body.text))
    }

    /// Keeps a script that compiles. False: there is no room for more loaded ones.
    pub(crate) fn add_script(&self, sha: Sha, text: &Arc<[u8]>, loaded: bool) -> bool {
        let mut guard = lock(&self.0.scripts);
        let scripts = &mut *guard;
        let len = text.len();
        if loaded && scripts.loaded_bytes + len > LOADED_MAX_BYTES {
            return false;
        }
        if let Some(body) = scripts.bodies.get_mut(&sha) {
            if loaded && !body.loaded {
                body.loaded = true;
                scripts.order.retain(|other| *other != sha);
                scripts.eval_bytes -= len;
                scripts.loaded_bytes += len;
            }
            return true;
        }
        if loaded {
            scripts.loaded_bytes += len;
        } else {
            while scripts.order.len() >= EVAL_MAX || scripts.eval_bytes + len > EVAL_MAX_BYTES {
                let Some(oldest) = scripts.order.pop_front() else { break };
                if let Some(body) = scripts.bodies.remove(&oldest) {
                    scripts.eval_bytes -= body.text.len();
                }
            }
            scripts.order.push_back(sha);
            scripts.eval_bytes += len;
        }
        scripts.bodies.insert(sha, Body { text: Arc::clone(text), loaded });
        true
    }

    /// How many scripts there are, and their bytes.
    pub(crate) fn script_count(&self) -> (usize, usize) {
        let scripts = lock(&self.0.scripts);
        (scripts.bodies.len(), scripts.eval_bytes + scripts.loaded_bytes)
    }

    /// Removes all scripts.
    pub(crate) fn flush_scripts(&self) {
        *lock(&self.0.scripts) = Scripts::default();
        self.0.flushes.fetch_add(1, Release);
    }

    /// Changes with the functions.
    pub(crate) fn changes(&self) -> u64 {
        self.0.changes.load(Acquire)
    }

    /// All libraries, and the counter of changes they are of.
    pub(crate) fn functions(&self) -> (Vec<Arc<Functions>>, u64) {
        let functions = lock(&self.0.functions);
        (functions.clone(), self.0.changes.load(Acquire))
    }

    /// The counter of changes is at least so high: a log counts on.
    pub(crate) fn has_changed(&self, times: u64) {
        let _functions = lock(&self.0.functions);
        self.0.changes.fetch_max(times, Release);
    }

    /// Changes the libraries, unless `change` fails.
    pub(crate) fn change_functions<T>(
        &self,
        change: impl FnOnce(&mut Vec<Arc<Functions>>) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut functions = lock(&self.0.functions);
        let mut changed = functions.clone();
        let result = change(&mut changed)?;
        *functions = changed;
        self.0.changes.fetch_add(1, Release);
        Ok(result)
    }
}

/// Adds a library, in place of one of its name with `replace`.
pub(crate) fn link(
    all: &mut Vec<Arc<Functions>>,
    new: Arc<Functions>,
    replace: bool,
) -> Result<(), String> {
    let old = all.iter().position(|library| library.name == new.name);
    if old.is_some() && !replace {
        return Err(format!("Library '{}' already exists", new.name));
    }
    if let Some(old) = old {
        all.remove(old);
    }
    for function in &new.functions {
        let is_taken = |library: &Arc<Functions>| {
            library.functions.iter().any(|other| other.name.eq_ignore_ascii_case(&function.name))
        };
        if all.iter().any(is_taken) {
            return Err(format!("Function {} already exists", function.name));
        }
    }
    all.push(new);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sha(number: usize) -> Sha {
        super::super::sha1::hex(number.to_string().as_bytes())
    }

    #[test]
    fn scripts_of_eval_are_bounded_and_loaded_ones_stay() {
        let library = Library::default();
        let text: Arc<[u8]> = b"return 1".as_slice().into();
        assert!(library.add_script(sha(0), &text, true));
        for number in 1..=EVAL_MAX + 10 {
            assert!(library.add_script(sha(number), &text, false));
        }
        assert!(library.script(&sha(0)).is_some() && library.script(&sha(10)).is_none());
        assert!(library.script(&sha(11)).is_some());
        assert_eq!(library.script_count().0, EVAL_MAX + 1);
        assert!(library.add_script(sha(11), &text, true));
        assert!(library.add_script(sha(0), &text, false));
        assert_eq!(library.flushes(), 0);
        library.flush_scripts();
        assert_eq!((library.script_count(), library.flushes()), ((0, 0), 1));
    }

    #[test]
    fn functions_of_two_libraries_have_different_names() {
        let library = |name: &str, functions: &[&str]| {
            let function =
                |name: &&str| Function { name: (*name).into(), description: None, flags: 0 };
            let functions = functions.iter().map(function).collect();
            Arc::new(Functions { name: name.into(), code: b"".as_slice().into(), functions })
        };
        let mut all = Vec::new();
        assert_eq!(link(&mut all, library("a", &["f", "g"]), false), Ok(()));
        let twice = link(&mut all, library("a", &["h"]), false);
        assert_eq!(twice, Err("Library 'a' already exists".into()));
        let taken = link(&mut all, library("b", &["g"]), false);
        assert_eq!(taken, Err("Function g already exists".into()));
        assert_eq!(link(&mut all, library("a", &["g"]), true), Ok(()));
        assert_eq!(all.len(), 1);
    }
}
