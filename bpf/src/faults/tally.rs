//! Counts of faults that no program counts, kept where `chaos status` reads those of programs; and threads that act again
//! and again until they are dropped.
//!
//! Invariants: a count is published when it changes; without a map (no rights for one) the fault acts all the same.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, MapType, num_possible_cpus};
use zerocopy::IntoBytes as _;

use crate::abi::Counts;
use crate::programs;

/// Counts of one fault.
pub(crate) struct Tally {
    counts: Mutex<Counts>,
    map: Option<MapHandle>,
}

fn map() -> Option<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as libbpf_sys::size_t,
        ..Default::default()
    };
    let size = u32::try_from(size_of::<Counts>()).ok()?;
    MapHandle::create(MapType::PercpuArray, Some("counts"), 4, size, 1, &options).ok()
}

impl Tally {
    /// Nothing yet.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { counts: Mutex::default(), map: map() })
    }

    /// So far.
    pub(crate) fn get(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds.
    pub(crate) fn add(&self, more: Counts) {
        self.change(|counts| counts.and(more));
    }

    /// Sets them to what somebody else has counted.
    pub(crate) fn set(&self, all: Counts) {
        self.change(|_| all);
    }

    fn change(&self, change: impl FnOnce(Counts) -> Counts) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts = change(*counts);
        let Some((map, cpus)) = self.map.as_ref().zip(num_possible_cpus().ok()) else { return };
        // All of it is the first processor's.
        let mut values = vec![Counts::default().as_bytes().to_vec(); cpus];
        if let Some(first) = values.first_mut() {
            first.copy_from_slice(counts.as_bytes());
        }
        // Who asks sees an older count without it.
        let _ = map.update_percpu(0_u32.as_bytes(), &values, MapFlags::ANY);
    }

    /// Adds to what was acted on.
    pub(crate) fn affected(&self, count: u64) {
        self.add(Counts { affected: count, ..Counts::default() });
    }

    /// The kernel's number of its map.
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.map.iter().filter_map(|map| programs::map_id(map).ok()).collect()
    }
}

/// A thread that acts again and again. Dropping it waits for its last act.
pub(crate) struct Ticker {
    alive: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Calls `act`, which says how long to wait for the next time.
    pub(crate) fn start(mut act: impl FnMut() -> Duration + Send + 'static) -> Self {
        let (alive, gone) = channel();
        let thread =
            std::thread::spawn(
                move || {
                    while gone.recv_timeout(act()) == Err(RecvTimeoutError::Timeout) {}
                },
            );
        Self { alive: Some(alive), thread: Some(thread) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        drop(self.alive.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
