//! Maps of the probes, read whole. Invariant: as many entries at most as the map holds, also while it changes.

use std::collections::BTreeSet;

use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object};
use zerocopy::FromBytes;

use super::abi::Sum;
use crate::error::{During as _, Result};
use crate::programs;

/// The sum over processors of an array's entry.
pub(super) fn sum<T: Sum>(object: &Object, name: &str, index: u32) -> Result<T> {
    let map = programs::map(object, name)?;
    let all: Vec<T> = programs::read_per_cpu(&map, index)?;
    Ok(all.into_iter().fold(T::default(), T::and))
}

/// The sums of an array's entries that are not zero, by their index.
pub(super) fn counters(object: &Object, name: &str) -> Result<Vec<(u32, u64)>> {
    let map = programs::map(object, name)?;
    let mut counters = Vec::new();
    for index in 0..map.max_entries() {
        let all: Vec<u64> = programs::read_per_cpu(&map, index)?;
        let sum = all.into_iter().fold(0, u64::and);
        if sum != 0 {
            counters.push((index, sum));
        }
    }
    Ok(counters)
}

/// The keys of a hash map, once each: when the key is removed that the walk is at, the kernel begins anew.
fn keys(map: &MapHandle) -> BTreeSet<Vec<u8>> {
    map.keys().take(map.max_entries() as usize).collect()
}

/// The entries of a hash map that has a value for each processor, which are added.
pub(super) fn sums<K: FromBytes, T: Sum>(object: &Object, name: &str) -> Result<Vec<(K, T)>> {
    let map = programs::map(object, name)?;
    let mut entries = Vec::new();
    for bytes in keys(&map) {
        let Ok(key) = K::read_from_bytes(&bytes) else { continue };
        // It may be gone by now.
        let all = map
            .lookup_percpu(&bytes, MapFlags::ANY)
            .during(|| format!("read map {name}"))?
            .unwrap_or_default();
        let values = all.iter().filter_map(|bytes| Some(T::read_from_prefix(bytes).ok()?.0));
        entries.push((key, values.fold(T::default(), T::and)));
    }
    Ok(entries)
}

/// The entries of an array.
pub(super) fn values<T: FromBytes>(object: &Object, name: &str) -> Result<Vec<T>> {
    let map = programs::map(object, name)?;
    (0..map.max_entries()).map(|index| programs::read(&map, index)).collect()
}

/// A name of the kernel, up to its first zero.
pub(super) fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned()
}
